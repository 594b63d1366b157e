# SPDX-License-Identifier: Apache-2.0
"""Folders of pictures with tables of scores, and splits that names tell."""

import json

import pandas
import pytest
from scored import NAMES, draw, names_of, write, write_parquet, write_shard

from musiq_hf.data.loading import load_scored_images


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    "odd",
    ["train station.png", "test tube.png", "dev-board.png", "a_eval_1.png", "training/a.png", "my test/a.png"],
)
def test_names_that_hold_a_word_for_a_split_lose_no_picture(tmp_path, cache, odd, suffix):
    names = ["beach.png", odd, "dog.png"]
    draw(tmp_path, names)
    rows = [{"file_name": name, "mos": index + 0.5, "group": "NA"} for index, name in enumerate(names)]
    if suffix == "jsonl":
        write(tmp_path / "metadata.jsonl", "".join(json.dumps(row) + "\n\n" for row in rows))
    elif suffix == "csv":
        pandas.DataFrame(rows).to_csv(tmp_path / "metadata.csv", index=False)
    else:
        pandas.DataFrame(rows).to_parquet(tmp_path / "metadata.parquet")
    splits = load_scored_images(str(tmp_path))
    assert list(splits) == ["train"]
    assert [cell["path"] for cell in splits["train"]["image"]] == [str(tmp_path / name) for name in names]
    assert splits["train"]["mos"][:] == [0.5, 1.5, 2.5] and splits["train"]["group"][:] == ["NA"] * 3


def test_folders_with_the_names_of_splits_are_splits(tmp_path):
    names = ["train/a.png", "validation/deep/b.png", "test/c.png", "test/d.png", "e.png"]
    draw(tmp_path, names)
    lines = [f"{name},{index}\n" for index, name in enumerate(names)]
    write(tmp_path / "metadata.csv", "file_name,mos\n" + "".join(lines))
    splits = load_scored_images(str(tmp_path))
    assert {name: names_of(rows) for name, rows in splits.items()} == {
        "train": ["a.png", "e.png"],
        "validation": ["b.png"],
        "test": ["c.png", "d.png"],
    }
    write(tmp_path / "metadata.csv", "file_name,mos\ne.png,1\n")
    write(tmp_path / "test" / "metadata.jsonl", '{"file_name": "c.png", "mos": 2}\n')
    assert load_scored_images(str(tmp_path)).num_rows == {"train": 1, "test": 1}
    write(tmp_path / "metadata.csv", "file_name,mos,split\ne.png,1,test\ntest/c.png,2,train\n")
    (tmp_path / "test" / "metadata.jsonl").unlink()
    assert {name: names_of(rows) for name, rows in load_scored_images(str(tmp_path)).items()} == {
        "train": ["c.png"],
        "test": ["e.png"],
    }


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.csv", "image,mos\na.png,1\n", r"metadata.csv: columns \['file_name'\] are missing"),
        ("metadata.csv", "file_name,mos\n../a.png,1\n", "`file_name` must lie in the folder of the table"),
        ("metadata.jsonl", '\n{"file_name": "a.png"}\n', r"jsonl, line 2: columns \['mos'\] are missing"),
        ("metadata.jsonl", '\n{"file_name": "gone.png", "mos": 1}\n', "jsonl, line 2: picture .*gone.png does not"),
        ("metadata.jsonl", '{"file_name": 7, "mos": 1}\n', "jsonl, line 1: `file_name` must be a text, got 7"),
        ("metadata.csv", "file_name,mos\n", "photos: no rows in its metadata"),
        (
            "metadata.jsonl",
            '{"file_name":"a.png","mos":1,"x":1}\n{"file_name":"a.png","mos":1,"x":"a"}',
            "of one kind",
        ),
        ("metadata.jsonl", "[1]\n", r"jsonl, line 1: a JSON object was expected, got \[1\]"),
        ("metadata.jsonl", "{\n", "jsonl, line 1: a JSON object was expected"),
        ("metadata.jsonl", "", "jsonl: no rows. Give at least one picture"),
        ("metadata.parquet", "", "metadata.parquet cannot be read as parquet"),
        ("notes.txt", "", "no metadata.csv, metadata.jsonl, metadata.parquet below it, nor parquet or tar files"),
    ],
)
def test_mistakes_in_a_folder_are_named(tmp_path, cache, name, text, message):
    draw(tmp_path / "photos", ["a.png"])
    draw(tmp_path, ["a.png"])
    write(tmp_path / "photos" / name, text)
    with pytest.raises(ValueError, match=message):
        load_scored_images(str(tmp_path / "photos"))


@pytest.mark.parametrize("odd", ["photos [2024]", "a*b", "what?", "[]", "train [1]"])
def test_folders_and_files_with_the_signs_of_patterns_are_read(folder, cache, odd):
    photos = (folder / "photos").rename(folder / odd)
    write(photos / "metadata.csv", "file_name,mos\n0.png,1\n1.png,2\n")
    assert len(load_scored_images(str(photos))["train"]) == 2
    inner = folder / "base" / odd
    (inner / "photos").mkdir(parents=True)
    draw(inner / "photos", NAMES)
    table = write_parquet(inner, "t [1].parquet", image=NAMES, mos=[1.0, 2.0, 3.0, 4.0])
    shard = write_shard(inner, "t [1].tar", [{"txt": "1"}, {"txt": "2"}])
    for streaming in (False, True):
        assert len(list(load_scored_images(table, streaming=streaming)["train"])) == 4
        assert len(list(load_scored_images(shard, streaming=streaming)["train"])) == 2
    assert len(load_scored_images(str(inner / "tables"))["train"]) == 4


def test_files_without_a_split_are_not_left_out(folder, cache):
    for name in ("photos-train-0.parquet", "photos-test-0.parquet"):
        write_parquet(folder, name, image=NAMES[:2], mos=[1.0, 2.0])
    assert load_scored_images(str(folder / "tables")).num_rows == {"train": 2, "test": 2}
    write_parquet(folder, "more.parquet", image=NAMES[:2], mos=[1.0, 2.0])
    with pytest.raises(ValueError, match="more.parquet: its name tells no split, but others below .*tables do"):
        load_scored_images(str(folder / "tables"))
    (folder / "tables" / "more.parquet").rename(folder / "tables" / "test-of-train.parquet")
    with pytest.raises(ValueError, match="test-of-train.parquet: the name tells several splits .test, train.. Rename"):
        load_scored_images(str(folder / "tables"))
