# SPDX-License-Identifier: Apache-2.0
import io
import json
import tarfile

import pytest
from scored import write_shard

from musiq_hf.data.loading import load_scored_images
from musiq_hf.pictures.opening import open_picture


@pytest.mark.parametrize("streaming", [False, True])
def test_webdataset_scores_keep_decimals_that_come_late(folder, cache, streaming):
    labels = [{"json": json.dumps({"mos": mos, "group": "g"})} for mos in (50, 51, 52, 53, 54, 55, 3.5)]
    rows = list(load_scored_images(write_shard(folder, "a.tar", labels), streaming=streaming)["train"])
    assert [row["mos"] for row in rows] == [50, 51, 52, 53, 54, 55, 3.5]
    assert set(rows[0]) == {"image", "mos", "group"} and rows[0]["group"] == "g"
    assert open_picture(rows[6]["image"]).size == (22, 30)


def test_webdataset_scores_may_be_texts_or_distributions(folder, cache):
    rows = load_scored_images(write_shard(folder, "a.tar", [{"txt": "1.5"}, {"txt": "2\n"}]))["train"]
    assert rows["mos"][:] == [1.5, 2]
    labels = [{"json": json.dumps({"distribution": counts})} for counts in ([1, 3], [2, 2])]
    rows = load_scored_images(write_shard(folder, "b.tar", labels))["train"]
    assert rows["distribution"][:] == [[0.25, 0.75], [0.5, 0.5]]


@pytest.mark.parametrize("name", ["avif", "heic", "jfif", "tga", "pfm", "front.avif"])
def test_a_picture_of_a_shard_may_have_any_ending_of_pictures(folder, cache, name):
    path = folder / "a.tar"
    with tarfile.open(path, "w") as tar:
        for ending, content in ((name, (folder / "photos" / "0.png").read_bytes()), ("txt", b"1.5")):
            entry = tarfile.TarInfo(f"0.{ending}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    rows = load_scored_images(str(path))["train"]
    assert open_picture(rows[0]["image"] | {"path": None}).size == (20, 30)


def test_mistakes_in_shards_are_named(folder, cache):
    path = write_shard(folder, "a.tar", [{"txt": "1.5"}, {"txt": "good"}])
    with pytest.raises(ValueError, match=r"a.tar, split train, sample 001: `mos` must be a number, got good"):
        load_scored_images(path)
    path = write_shard(folder, "b.tar", [{"json": '{"score": 1}'}])
    with pytest.raises(ValueError, match="every sample needs a picture .* and a json file with `mos`"):
        load_scored_images(path, streaming=True)
