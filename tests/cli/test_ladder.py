# SPDX-License-Identifier: Apache-2.0
"""The command `musiq ladder`, from the words to the summary."""

import csv
import re

import pytest
from PIL import Image

from musiq_hf import MusiqImageProcessor
from musiq_hf.cli import main
from musiq_hf.pictures import make_picture


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, alone):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for seed in range(2):
        make_picture(seed=seed, width=64, height=48).save(f"photos/{seed}.png")
    return tmp_path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    model = tiny_model()
    model.save_pretrained(folder)
    MusiqImageProcessor.from_config(model.config).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def ladder(capsys, checkpoint):
    """(exit code, output, errors) of the command."""

    def run(*words):
        try:
            code = main(["ladder", *words, "-m", checkpoint, "--device", "cpu"])
        except SystemExit as refusal:  # of argparse
            code = refusal.code
        return code, *capsys.readouterr()

    return run


def test_the_summary_follows_the_table(ladder, folder):
    words = ["photos", "-o", "out/ladder.csv", "--codecs", "jpeg,webp", "--qualities", "10,30,50,70,90"]
    code, printed, errors = ladder(*words, "--max_drop", "0.5")
    assert (code, errors) == (0, "out/ladder.csv: 2 pictures.\n")
    with open("out/ladder.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20 and [row["quality"] for row in rows[:5]] == ["10", "30", "50", "70", "90"]
    lines = printed.splitlines()
    assert lines[1] == "smallest files whose score drops by 0.5 points at most"
    smallest = min((row for row in rows[:5] if float(row["score_drop"]) <= 0.5), key=lambda row: int(row["bytes"]))
    assert lines[3].split()[0::2] == [smallest["bytes"], smallest["quality"], "jpeg"]
    assert [line.split("  ")[-1] for line in lines[3:7]] == ["photos/0.png"] * 2 + ["photos/1.png"] * 2
    assert re.fullmatch(r" *[+-]\d+\.\d\d %  webp against jpeg, PSNR \(2 pictures\)", lines[9])
    assert lines[12].startswith("largest fall of the score") and len(lines) == 15
    again = ladder(*words, "--figure", "figures/ladder.png")
    assert again[0] == 0 and again[1].splitlines() == lines[7:]
    with Image.open("figures/ladder.png") as image:
        assert image.format == "PNG"
    assert again[2].endswith("with the same pictures and settings: nothing to do.\n")


def test_one_picture_and_one_codec_on_the_terminal(ladder, folder):
    code, printed, errors = ladder("photos/0.png", "--codecs", "webp", "--qualities", "50", "--max_drop", "0")
    lines = printed.splitlines()
    assert (code, errors) == (0, "")
    assert lines[0].split() == "codec quality bytes bits_per_pixel psnr_y ssim_y score score_drop key".split()
    assert lines[1].split()[:2] == ["webp", "50"] and lines[1].endswith("photos/0.png")
    assert "BD-rate" not in printed and "falls" not in printed  # of one file it cannot be said
    (folder / "bad.png").write_text("nothing")
    code, printed, errors = ladder("bad.png", "--codecs", "webp", "--figure", "ladder.png")
    assert code == 1 and "error: bad.png: not a picture" in printed
    assert errors.splitlines() == [
        "1 picture, 1 of them with an error instead of numbers",
        "ladder.png: not drawn, since no picture has numbers in all of its rows.",
    ]
    assert not (folder / "ladder.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "nothing: no such file or folder"),
        (["photos", "--codecs", "jpeg,gif"], "Codecs must be of jpeg, webp, avif, got 'gif'"),
        (["photos", "--qualities", "10,x"], "must be whole numbers with commas, as 10,50,90, got 10,x"),
        (["photos", "--qualities", "10,200"], "Qualities must be whole numbers from 1 to 100, got 200"),
        (["photos", "--max_drop", "-1"], "The largest drop must be 0 points or more, got -1"),
        (["photos", "--figure", "ladder.pdf"], "ladder.pdf: a .png file is written"),
        (
            ["photos/0.png", "--figure", "photos/0.png", "--overwrite"],
            "photos/0.png is named twice",
        ),
        (["photos", "-o", "ladder.txt"], "ladder.txt: tables are written as .csv"),
    ],
)
def test_mistakes_are_one_sentence(ladder, words, message):
    code, printed, errors = ladder(*words)
    assert not printed and code == 2 and message in errors
