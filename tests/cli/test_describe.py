# SPDX-License-Identifier: Apache-2.0
"""The command `musiq describe`, from the words to the rows."""

import csv
import json
import shutil
import sys

import pytest
from golden_assessment import DIRECTORY, REFERENCE

from musiq_hf.cli import main

CONTENT = REFERENCE["descriptors"]["still1.png"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("musiq_hf.models.auto.register", lambda: None)  # models are not used
    (tmp_path / "files" / "below").mkdir(parents=True)
    shutil.copy(DIRECTORY / "still1.png", "files/below/photo.png")
    shutil.copy(DIRECTORY / "clips" / "cut_crf33.mp4", "files/clip.mp4")
    (tmp_path / "files" / "bad.mp4").write_text("nothing")
    (tmp_path / "files" / "notes.txt").write_text("nothing")
    return tmp_path


@pytest.fixture
def describe(capsys):
    """(exit code, output, errors) of the command."""

    def run(*words):
        code = main(["describe", *map(str, words)])
        return code, *capsys.readouterr()

    return run


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_of_pictures_and_videos_is_a_table(describe):
    code, printed, errors = describe("files", "-o", "out/content.csv")
    assert (code, printed) == (1, "")
    *lines, first = errors.splitlines()
    assert first.startswith("the first: files/bad.mp4 cannot be opened as a video (")
    assert lines == [
        "1 file was left out (endings that neither pictures nor videos have): 1 .txt",
        "out/content.csv: 3 files, 1 of them with an error instead of numbers (column `error`).",
    ]
    bad, photo, clip = read("out/content.csv")
    assert [row["key"] for row in (bad, photo, clip)] == ["files/bad.mp4", "files/below/photo.png", "files/clip.mp4"]
    assert bad["error"].startswith("files/bad.mp4 ") and not bad["si"]
    assert float(photo["si"]) == pytest.approx(CONTENT["si"], rel=0, abs=1e-5)
    assert (photo["width"], photo["height"], photo["frames"], photo["ti"]) == ("127", "161", "1", "")
    assert (clip["frames"], clip["frame_rate"], clip["bit_depth"], clip["full_range"]) == ("12", "24.0", "8", "False")
    assert float(clip["ti"]) > 1
    assert describe("files", "-o", "out/content.csv")[2].endswith("with the same files and settings: nothing to do.\n")


def test_the_edition_of_the_recommendation_is_named_by_the_columns(describe, folder):
    code, _, errors = describe("files/below", "-o", "content.jsonl", "--legacy")
    row = json.loads((folder / "content.jsonl").read_text())
    assert code == 0 and row["si_legacy"] == pytest.approx(CONTENT["si_legacy"], rel=0, abs=1e-5)
    assert "si" not in row and "si_legacy_max" in row and row["cf"] == pytest.approx(CONTENT["cf"], rel=0, abs=1e-6)
    code, _, errors = describe("files/below", "-o", "content.jsonl")
    assert code == 2 and "content.jsonl exists already, with other columns (si_legacy)" in errors


@pytest.mark.slow
def test_processes_describe_as_threads_do(describe, folder):
    assert (
        describe("files", "-o", "threads.csv")[0] == describe("files", "-o", "own.csv", "--num_workers", "2")[0] == 1
    )
    assert (folder / "threads.csv").read_bytes() == (folder / "own.csv").read_bytes()


def test_rows_on_the_terminal(describe):
    code, printed, errors = describe("files/c*.mp4", "files/below/photo.png")
    lines = [line.split() for line in printed.splitlines()]
    assert (code, errors) == (0, "") and lines[0] == ["width", "height", "frames", "si", "ti", "cf", "key"]
    assert lines[1][0::6] == ["320", "files/clip.mp4"] and lines[2][0] == "127" and len(lines) == 3
    code, printed, errors = describe("files/bad.mp4")
    assert code == 1 and printed.splitlines()[1].strip().startswith("error: files/bad.mp4 ")
    assert errors == "1 file, 1 of them with an error instead of numbers\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "nothing: no such file or folder"),
        (["files", "-o", "content.txt"], "content.txt: tables are written as .csv, .jsonl, .parquet files"),
        (["files", "-o", "files"], "tables are written as"),
        (["files", "-o", "s3://bucket/content.csv"], "is not written there. Write a file of this machine"),
        (["files/notes.txt/*"], "no such file or folder"),
    ],
)
def test_mistakes_are_one_sentence(describe, words, message):
    code, printed, errors = describe(*words)
    assert (code, printed) == (2, "") and message in errors and len(errors.splitlines()) == 2


def test_a_missing_decoder_is_told_before_pictures_are_measured(describe, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    code, printed, errors = describe("files/below", "files/clip.mp4", "-o", "content.csv")
    assert (code, printed) == (2, "") and errors.startswith("musiq describe: av is needed here. Install it with: pip ")
    assert not list(folder.glob("content.csv*"))
    assert describe("files/below")[0] == 0
