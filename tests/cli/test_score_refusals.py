# SPDX-License-Identifier: Apache-2.0
"""What `musiq score` leaves out or refuses, and how it says so."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from musiq_hf.cli import main

SIZES = [(30, 41), (64, 17), (50, 50), (8, 9)]


@pytest.fixture
def photos(tmp_path, monkeypatch, alone):
    """A folder of pictures in the working directory, where the command is not one of several processes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for i, size in enumerate(SIZES):
        pixels = np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")


def run(*words):
    return main(["score", *words, "--device", "cpu"])


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_what_is_left_out_is_said_and_a_named_file_is_a_row(photos, capsys):
    for name in ("photos/a.txt", "photos/b.txt", "photos/c.xmp", "photos/.hidden.txt", "notes.txt"):
        Path(name).write_text("none")
    assert run("photos", "notes.txt", "-o", "scores.csv") == 1
    assert "3 files were left out (endings that pictures do not have): 2 .txt, 1 .xmp\n" in capsys.readouterr().err
    rows = read_csv("scores.csv")
    assert len(rows) == len(SIZES) + 1 and rows[-1]["error"].startswith(
        "notes.txt: not a picture that Pillow can read"
    )


def test_a_file_that_is_used_as_a_folder_is_one_sentence_before_anything_is_scored(photos, capsys):
    assert run("photos", "-o", "photos/0.png/scores.csv", "-m", "no such checkpoint") == 2
    assert capsys.readouterr().err == (
        "musiq score: photos/0.png/scores.csv: photos/0.png is no folder, so no file can be written in it. Choose "
        "another folder.\n"
    )


@pytest.mark.parametrize("words", [["s4://b/x.png"], ["photos", "-o", "s4://b/scores.csv"]])
def test_an_unknown_store_is_one_sentence_before_anything_is_loaded(photos, capsys, words):
    assert run(*words, "-m", "no such checkpoint") == 2
    address = words[-1]
    assert capsys.readouterr().err == (
        f"musiq score: {address}: fsspec knows no s4://. Check how the address begins.\n"
    )


def test_the_limit_in_megapixels_changes_rows_of_errors_alone(photos, capsys):
    assert run("photos", "-o", "all.csv", "--max_megapixels", "inf") == 0
    assert run("photos", "-o", "some.csv", "--max_megapixels", "0.002") == 1
    everything, some = read_csv("all.csv"), read_csv("some.csv")
    for whole, row in zip(everything, some, strict=True):
        if int(whole["width"]) * int(whole["height"]) > 2000:
            assert "megapixels, and the limit is 0.002. Shrink it first (--shorter_side)" in row["error"]
        else:
            assert row == whole
    with pytest.raises(SystemExit):
        run("photos", "-o", "none.csv", "--max_megapixels", "0")
    assert "argument --max_megapixels: must be above 0, or inf for no limit, got 0" in capsys.readouterr().err
