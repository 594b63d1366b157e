# SPDX-License-Identifier: Apache-2.0
"""The command `musiq native`, from the words to the rows and the page, with a tiny detector of random weights."""

import re

import numpy as np
import pytest
from clips import write_clip
from detectors import save_detector
from PIL import Image

from musiq_hf.cli import main
from musiq_hf.common.tables import read_table
from musiq_hf.upscaling import detection_table, page

COLUMNS = "key width height verdict probability method method_probability scale source_width source_height patches"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a detector that finds everything upscaled, a picture, a flat one, a damaged one and a clip."""
    folder = tmp_path_factory.mktemp("native")
    save_detector(folder / "sudds-test", native=-9)
    levels = np.random.default_rng(0).integers(0, 256, (80, 96, 3), dtype=np.uint8)
    files = folder / "files"
    files.mkdir()
    Image.fromarray(levels).resize((192, 160), Image.Resampling.BICUBIC).save(files / "a.png")
    (files / "bad.jpg").write_bytes(b"no picture")
    write_clip(files / "clip.avi", levels.transpose(2, 0, 1).copy(), codec="ffvhuff")
    Image.new("RGB", (100, 80), "navy").save(files / "flat.png")
    return folder


@pytest.fixture
def native(made, tmp_path, monkeypatch, capsys):
    """(exit code, output, errors) of the command, beside whose outputs the files lie."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "files").symlink_to(made / "files")

    def run(*words, model=made / "sudds-test"):
        code = main(["native", *map(str, words), "-m", str(model)])
        return code, *capsys.readouterr()

    return run


def read(path):
    rows = read_table(path)
    next(rows)
    return [{name: None if value in ("", None) else str(value) for name, value in row.items()} for row in rows]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_folder_is_a_table(native, suffix):
    code, printed, errors = native("files", "-o", f"out/verdicts.{suffix}", "--frames", "2")
    assert (code, printed) == (1, "")
    assert errors.splitlines()[-2].endswith("4 files, 1 of them with an error instead of a verdict (column `error`).")
    assert errors.splitlines()[-1].startswith("the first: files/bad.jpg")
    picture, bad, clip, flat = read(f"out/verdicts.{suffix}")
    assert " ".join(picture).startswith(
        f"{COLUMNS} frames native_share upscaled_share unsure_share model signature error"
    )
    assert (picture["verdict"], picture["width"], picture["height"], picture["scale"]) == (
        "upscaled",
        "192",
        "160",
        "2.0",
    )
    assert (picture["source_width"], picture["source_height"], picture["patches"]) == ("96", "80", "3")
    assert float(picture["method_probability"]) < float(picture["probability"]) <= 1 and picture["method"] != "native"
    assert picture["model"].endswith("sudds-test") and picture["error"] is None
    assert picture["signature"].startswith("sudds-test|weights:") and picture["signature"].endswith("|frames:2")
    assert bad["error"].startswith("files/bad.jpg") and bad["verdict"] is None and bad["patches"] is None
    assert (clip["key"], clip["frames"], clip["patches"], clip["upscaled_share"]) == (
        "files/clip.avi",
        "2",
        "6",
        "1.0",
    )
    assert [flat[name] for name in ("verdict", "probability", "method", "patches")] == ["unsure", "0.5", None, "0"]


def test_a_killed_run_continues(native, monkeypatch):
    whole = native("files", "-o", "whole.csv")[0]
    judge, judged = detection_table.detect_upscaling, []

    def fail(source, *args, **kwargs):
        judged.append(source.name)
        if len(judged) == 3:
            raise RuntimeError("killed")
        return judge(source, *args, **kwargs)

    monkeypatch.setattr(detection_table, "NUM_WORKERS", 1)
    monkeypatch.setattr(detection_table, "detect_upscaling", fail)
    with pytest.raises(RuntimeError, match="killed"):
        native("files", "-o", "parts.csv")
    first = set(judged[:2])
    judged[:] = ["later"] * 3
    assert native("files", "-o", "parts.csv")[0] == whole == 1
    assert not first & set(judged[3:]) and len(judged) == 5
    assert open("parts.csv").read() == open("whole.csv").read()
    code, _, errors = native("files", "-o", "parts.csv")
    assert code == 0 and "nothing to do" in errors and len(judged) == 5
    code, _, errors = native("files", "-o", "parts.csv", "--frames", "2")
    assert code == 2 and "with other settings (signature: frames:8, now frames:2)" in errors
    code, _, errors = native("files", "-o", "parts.csv", model="musiq-tiny-biq2021")
    assert code == 2 and "does not detect upscaling" in errors


def test_rows_on_the_terminal(native):
    code, printed, errors = native("files/a.png", "files/clip.avi")
    lines = [line.split() for line in printed.splitlines()]
    assert (code, errors, len(lines)) == (0, "", 3)
    assert lines[0] == ["width", "height", "verdict", "probability", "method", "scale", "frames", "key"]
    assert lines[1][:4] == ["192", "160", "upscaled", "1.00"] and lines[1][-3:] == ["2.00", "1", "files/a.png"]
    assert lines[2][-2:] == ["3", "files/clip.avi"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.png"], "nothing.png: no such file or folder"),
        (["files", "-o", "verdicts.txt"], "tables are written as .csv, .jsonl, .parquet files"),
        (["files", "--frames", "0"], "--frames"),
        (["files", "--report", "page.pdf"], "page.pdf: a report is a page of HTML. Give a name that ends in .html."),
    ],
)
def test_mistakes_are_told(native, tmp_path, words, message):
    try:
        code, printed, errors = native(*words)
    except SystemExit as stop:
        assert stop.code == 2 and words[1] == "--frames"
        return
    assert (code, printed) == (2, "") and message in errors
    assert [path.name for path in tmp_path.iterdir()] == ["files"]


def test_the_page_shows_pictures_by_probability(native, monkeypatch):
    monkeypatch.setattr(page, "MAX_PICTURES", 2)
    code, _, errors = native("files", "-o", "verdicts.csv", "--report", "pages/verdicts.html")
    assert code == 1 and errors.splitlines()[-1] == "pages/verdicts.html: report"
    text = open("pages/verdicts.html").read()
    assert "4 pictures and clips: 2 upscaled, 1 unsure, 0 native, 1 with an error instead of a verdict." in text
    assert "Of the 3 with a verdict, 2 are shown, at most 2 on a page" in text
    assert sorted(re.findall("<h2>(.*)</h2>", text)) == ["files/a.png", "files/clip.avi"]
    assert len(re.findall('src="data:image/png;base64,', text)) == 6 and "http" not in text
    assert "Upscaled (probability 1.00), about 2.0x from 96x80, " in text
    assert "Patches: 3 upscaled." in text and "The marked peaks tell a source of 96 x 80 pixels." in text
    assert "Of 3 key frames alone: 3 upscaled." in text


def test_the_page_of_a_flat_picture_has_no_figures(native):
    assert native("files/flat.png", "--report", "flat.html")[0] == 0
    text = open("flat.html").read()
    assert (
        "Unsure: the picture is flat, so there is nothing to judge." in text and "All with a verdict are shown" in text
    )
    assert len(re.findall("<figure>", text)) == 1
