# SPDX-License-Identifier: Apache-2.0
import inspect

import pytest
from PIL import Image
from scored import NAMES, write, write_csv, write_parquet, write_shard

from musiq_hf.data.loading import READERS, load_data, load_pictures, load_scored_images
from musiq_hf.pictures.finding import find_pictures
from musiq_hf.pictures.opening import open_picture
from musiq_hf.training.finetuning import load_splits
from musiq_hf.training.settings import FinetuneSettings


def test_imagefolder_is_read(folder):
    (folder / "photos" / "metadata.csv").write_text("file_name,mos\n0.png,1.5\n1.png,2\n2.png,3\n3.png,4\n")
    splits = load_scored_images(str(folder / "photos"))
    assert sorted(splits["train"]["mos"][:]) == [1.5, 2.0, 3.0, 4.0]
    assert open_picture(splits["train"][0]["image"]).size[1] == 30


def test_missing_csv_is_named():
    with pytest.raises(ValueError, match="absent.csv: no such file"):
        load_scored_images("absent.csv")


def test_csv_cannot_be_streamed(folder):
    with pytest.raises(ValueError, match="parquet files, WebDataset shards and Hub data can be streamed"):
        load_scored_images(write_csv(folder, "image,mos\nphotos/0.png,1\n"), streaming=True)


@pytest.mark.parametrize("content", [b"", b"nothing" * 100, b"\0" * 300])
@pytest.mark.parametrize("name", ["a.tar", "a.parquet", "a.csv"])
def test_files_of_another_kind_are_named(tmp_path, cache, name, content):
    (tmp_path / name).write_bytes(content)
    expected = {
        "a.tar": "a.tar cannot be read as webdataset files",
        "a.parquet": "a.parquet cannot be read as parquet",
    }
    with pytest.raises(ValueError, match=expected.get(name, "a.csv: (not a CSV table|columns .* are missing)")):
        load_scored_images(str(tmp_path / name))


def test_scores_outside_of_their_range_name_file_and_row(folder, cache):
    root = str(folder / "photos")
    csv = write_csv(folder, "image,mos\n0.png,1\n1.png,5\n2.png,5.5\n")
    assert len(load_scored_images(csv, image_root=root, score_range=(1, 5.5))["train"]) == 3
    with pytest.raises(ValueError, match=r"scores.csv, line 4: `mos` must be a number in 1..5, got 5.5"):
        load_scored_images(csv, image_root=root, score_range=(1, 5))
    with pytest.raises(ValueError, match=r"scores.csv, line 2: `mos` must be a number in 2..6, got 1"):
        load_data(csv, image_root=root, score_range=(2, 6))
    parquet = write_parquet(folder, "a.parquet", image=NAMES[:2], mos=[1.0, 9.0])
    for streaming in (False, True):
        with pytest.raises(ValueError, match=r"a.parquet, split train, row 1: `mos` must be a number in 1..5, got 9"):
            list(load_scored_images(parquet, score_range=(1, 5), streaming=streaming)["train"])
    shard = write_shard(folder, "a.tar", [{"txt": "1.5"}, {"txt": "-1"}])
    with pytest.raises(ValueError, match=r"a.tar, split train, sample 001: `mos` must be a number in 0..5, got -1"):
        load_scored_images(shard, score_range=(0, 5))


@pytest.mark.parametrize("dataset", ["scores", "koniq"])
def test_ranges_that_are_none_are_refused(folder, dataset):
    with pytest.raises(ValueError, match=r"`score_range` must be \(lowest, highest\), got \(5, 1\)"):
        load_data(write_csv(folder, "image,mos\n0.png,1\n"), dataset=dataset, score_range=(5, 1))


def test_distributions_have_their_own_range(folder):
    csv = write_csv(folder, "image,c1,c2\n0.png,0,1\n")
    with pytest.raises(
        ValueError, match="`score_range` bounds `mos`, but these data have distributions. Leave it out"
    ):
        load_scored_images(csv, image_root=str(folder / "photos"), score_range=(1, 2))


def test_training_checks_the_range_of_its_settings(folder):
    csv = write_csv(folder, "image,mos\n0.png,50\n1.png,500\n")
    settings = FinetuneSettings(
        data=csv, model="scratch:musiq-tiny", output_dir="", image_root=str(folder / "photos"), score_range=(0, 100)
    )
    with pytest.raises(ValueError, match="line 3: `mos` must be a number in 0..100, got 500"):
        load_splits(settings, score_range=settings.score_range)


def test_data_sets_are_read_by_their_names(koniq):
    assert load_data(str(koniq), dataset="koniq").num_rows == {"train": 2, "validation": 1, "test": 1}
    names = "scores, ava, biq2021, biq2021_second, kadid10k, koniq, paq2piq, spaq, tid2013"
    with pytest.raises(ValueError, match=f"`dataset` must be {names}, got 'livec'"):
        load_data(str(koniq), dataset="livec")


def test_scores_of_data_sets_must_lie_in_the_range_that_is_asked_for(koniq):
    assert load_data(str(koniq), dataset="koniq", score_range=(60, 63)).num_rows["train"] == 2
    with pytest.raises(ValueError, match="split train, row 1: `mos` must be a number in 0..62, got 63"):
        load_data(str(koniq), dataset="koniq", score_range=(0, 62))


def test_own_scores_with_references_are_split_by_them(koniq):
    lines = "".join(f"{index % 4}.jpg,{index},scene{index % 4}\n" for index in range(12))
    csv = write(koniq / "own.csv", "image,mos,reference\n" + lines)
    splits = load_data(csv, image_root=str(koniq / "1024x768"), split_seed=0)
    assert splits.num_rows == {"train": 9, "test": 3}
    assert not set(splits["train"]["reference"]) & set(splits["test"]["reference"])


def test_own_scores_can_be_split_anew(koniq):
    lines = "".join(f"{index}.jpg,{index},{'train' if index else 'test'}\n" for index in range(4))
    csv = write(koniq / "own.csv", "image,mos,split\n" + lines)
    root = str(koniq / "1024x768")
    assert load_data(csv, image_root=root).num_rows == {"test": 1, "train": 3}
    anew = load_data(csv, image_root=root, split_seed=1)
    assert anew.num_rows == {"train": 3, "test": 1}
    assert sorted(anew["train"]["mos"][:] + anew["test"]["mos"][:]) == [0, 1, 2, 3]


def test_pictures_without_scores_are_those_of_a_folder(folder):
    (folder / "photos" / "below").mkdir()
    Image.new("RGB", (5, 5)).save(folder / "photos" / "below" / "A.JPG", format="JPEG")
    (folder / "photos" / "notes.txt").write_bytes(b"none")
    found = find_pictures(folder / "photos")
    rows = load_pictures(str(folder / "photos"))
    assert len(found) == 5 and [cell["path"] for cell in rows["image"]] == [str(path) for path in found]
    assert all(open_picture(cell).size for cell in rows["image"])


def test_arguments_of_other_formats_are_refused_and_those_of_a_format_are_its_own(folder):
    photos = str(folder / "photos")
    with pytest.raises(ValueError, match="`--image_root` belongs to a CSV, .* but .*photos is none. Leave it out"):
        load_scored_images(photos, image_root=photos, streaming=True)
    with pytest.raises(ValueError, match="photos: parquet files, WebDataset shards and Hub data can be streamed"):
        load_scored_images(photos, streaming=True)
    with pytest.raises(ValueError, match="`--image_root` belongs to a CSV, .* but owner/name is none"):
        load_scored_images("owner/name", image_root=photos)
    own = {
        name: set(inspect.signature(reader).parameters) - {"data", "score_range"} for name, reader in READERS.items()
    }
    assert own["table"] == {"image_root", "options"} and own["parquet"] == {"image_root", "streaming", "options"}
    assert own["webdataset"] == {"streaming"} and own["hub"] == {"streaming", "options"}
    assert own["imagefolder"] == {"options"}
