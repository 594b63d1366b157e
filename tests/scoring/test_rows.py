# SPDX-License-Identifier: Apache-2.0
"""Several checkpoints that score what is decoded once, their ensemble, and how files become pixels."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from musiq_hf import DEFAULT_CHECKPOINT, TINY_CHECKPOINT, MusiqImageProcessor
from musiq_hf.cli import main
from musiq_hf.pictures import opening
from musiq_hf.pictures.lazy import LazyPicture
from musiq_hf.scoring.engine import PictureScore, score_pictures, score_with_several
from musiq_hf.scoring.job import _count_cores
from musiq_hf.scoring.rows import (
    ScoreRow,
    Scorers,
    _choose_workers,
    average_positions,
    make_row,
    name_checkpoint,
    place_row,
)


@pytest.fixture
def checkpoints(tmp_path, monkeypatch, alone, tiny_model):
    """Checkpoints a and b of different sizes of patches and ranges, wide without a range, and five pictures."""
    monkeypatch.chdir(tmp_path)
    for name, options in (
        ("a", {"score_range": (-10, 10)}),
        ("b", {"score_range": (30, 50), "seed": 1, "longer_side_lengths": (16,), "num_labels": 1}),
        ("wide", {"seed": 2}),
    ):
        model = tiny_model(**options)
        model.save_pretrained(name)
        MusiqImageProcessor.from_config(model.config).save_pretrained(name)
    Path("photos").mkdir()
    for i in range(5):
        pixels = np.random.default_rng(i).integers(0, 256, (20 + 9 * i, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{i}.png")
    return tmp_path


def run(*words):
    return main(["score", *words, "--device", "cpu"])


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("max_tokens", ["1", "150", "9000"])
def test_rows_are_those_of_each_alone_and_pictures_are_decoded_once(checkpoints, monkeypatch, max_tokens):
    Path("photos/3.png").write_bytes(b"no picture")
    opened = []
    plain = LazyPicture.open
    monkeypatch.setattr(
        LazyPicture, "open", lambda self, *how, **check: opened.append(1) or plain(self, *how, **check)
    )
    options = ("photos", "--max_tokens", max_tokens)
    assert run(*options, "-o", "both.csv", "-m", "a", "-m", "b") == 1
    assert len(opened) == 5
    assert run(*options, "-o", "a.csv", "-m", "a") == run(*options, "-o", "b.csv", "-m", "b") == 1
    assert read("both.csv") == [row for pair in zip(read("a.csv"), read("b.csv"), strict=True) for row in pair]


def test_embedded_checkpoints_have_short_names_in_tables():
    assert name_checkpoint(str(DEFAULT_CHECKPOINT)) == "musiq-lite-biq2021"
    assert name_checkpoint(str(TINY_CHECKPOINT)) == "musiq-tiny-biq2021"
    assert name_checkpoint("runs/mine") == "runs/mine"


def test_an_ensemble_is_the_weighted_mean_of_the_places_in_the_ranges(checkpoints):
    Path("photos/3.png").write_bytes(b"no picture")
    assert run("photos", "-o", "s.csv", "-m", "a", "-m", "b", "--weights", "3,1") == 1
    rows = read("s.csv")
    assert [row["model"] for row in rows] == ["a", "b"] * 5
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        assert first["key"] == second["key"] and first["ensemble"] == second["ensemble"]
        if first["error"]:
            assert first["key"] == "photos/3.png" and first["ensemble"] == ""
        else:
            places = [(float(row["score"]) - low) / 20 for row, low in ((first, -10), (second, 30))]
            expected = 0.75 * places[0] + 0.25 * places[1]
            assert places[1] < 0 and second["score_0_1"] == "0.0"
            assert float(first["ensemble"]) == pytest.approx(expected, abs=1e-12)


def test_weights_are_relative_and_one_missing_place_leaves_no_mean():
    rows, ranges = [ScoreRow("a", score=20), ScoreRow("a", score=6.5)], [(0, 100), (1, 6)]
    assert average_positions(rows, ranges, (1, 1)) == average_positions(rows, ranges, (5, 5)) == pytest.approx(0.65)
    assert average_positions(rows, ranges, (0, 2)) == pytest.approx(1.1)  # not clipped
    assert average_positions([rows[0], ScoreRow("a", error="too large")], ranges, (1, 1)) is None


def test_the_table_of_the_terminal_names_the_checkpoints(checkpoints, capsys):
    assert run("photos/0.png", "-m", "a", "-m", "b", "--weights", "1,1") == 0
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert lines[0].split("size")[1].strip() == "checkpoint, key" and len(lines) == 4
    for line, end in zip(lines[1:], ("a, photos/0.png", "b, photos/0.png", "ensemble, photos/0.png"), strict=True):
        assert line.endswith(f"  {end}")
    assert output.err.count("made with ") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["-m", "a", "-m", "b", "--weights", "1"],
            "--weights needs several checkpoints (-m) and a weight for each, got 2 and 1",
        ),
        (["--weights", "1,2"], "--weights needs several checkpoints (-m) and a weight for each, got 1 and 2"),
        (["--weights", "1"], "--weights needs several checkpoints (-m) and a weight for each, got 1 and 1"),
        (
            ["-m", "a", "-m", "wide", "--weights", "1,2"],
            "wide does not say the range of its scores, which an ensemble",
        ),
        (["-m", "a", "-m", "a"], "-m a is given 2 times. Give each checkpoint once"),
        (["-m", "a", "-m", "missing"], "missing: no such directory, and ids on the Hub have an owner (owner/missing)"),
    ],
)
def test_mistakes_are_one_sentence(checkpoints, words, message, capsys):
    assert run("photos", "-o", "s.csv", *words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not Path("s.csv.part").exists()


@pytest.mark.parametrize("text", ["0,0", "-1,2", "nan,1", "inf,1", "1,x", ""])
def test_weights_that_are_none_are_refused(text, capsys):
    with pytest.raises(SystemExit):
        run("photos", f"--weights={text}")
    assert "argument --weights: must be numbers from 0 on, not all 0, as 0.7,0.3, got" in capsys.readouterr().err


def test_processors_that_read_pictures_differently_are_refused(tiny_model):
    model = tiny_model()
    processor = MusiqImageProcessor.from_config(model.config)
    strict = MusiqImageProcessor.from_config(model.config, do_convert_rgb=False)
    with pytest.raises(ValueError, match="processors agree in `do_convert_rgb`"):
        score_with_several([], [(model, processor), (model, strict)])


def test_the_preset_reaches_pixels_and_signature(checkpoints, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open("photos/0.png").save("turned.png", exif=exif)
    assert run("turned.png", "-o", "s.csv", "-m", "a") == 0
    assert run("turned.png", "-o", "google.csv", "-m", "a", "--preset", "google") == 0
    assert run("photos/0.png", "-o", "plain.csv", "-m", "a") == 0
    (ours,), (google,), (plain,) = read("s.csv"), read("google.csv"), read("plain.csv")
    assert (ours["width"], google["width"]) == ("20", "30")
    assert google["score"] == plain["score"] != ours["score"]
    assert "|preset:google|" in google["signature"] and "|preset:default|" in ours["signature"]


def test_the_decoder_that_is_missing_is_named(checkpoints, monkeypatch, capsys):
    monkeypatch.setattr(opening, "_import_fast_decoder", lambda: None)
    assert run("photos/0.png", "-m", "a", "--preset", "google") == 0
    assert 'Install it with: pip install "musiq_hf[google]"' in capsys.readouterr().err


def test_processes_decode_if_they_are_asked_for_or_an_accelerator_must_be_fed(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    assert _choose_workers(None, cpu, 12) == {"num_workers": 2, "in_processes": False}
    assert _choose_workers(3, cpu, 1) == {"num_workers": 3, "in_processes": True}
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(12)), raising=False)
    assert _choose_workers(None, gpu, _count_cores()) == {"num_workers": 8, "in_processes": True}
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert _choose_workers(None, gpu, _count_cores()) == {"num_workers": 3, "in_processes": True}


def test_processes_give_the_same_table(checkpoints):
    for output, words in (("threads.csv", []), ("processes.csv", ["--num_workers", "1"])):
        assert run("photos", "-o", output, "-m", "a", *words) == 0
    assert Path("threads.csv").read_bytes() == Path("processes.csv").read_bytes()


def test_scores_that_are_no_numbers_are_errors():
    row = make_row(PictureScore("a", 2, 3, float("nan")))
    assert (row.score, row.score_0_1, row.error) == (None, None, "a: the score is nan.")
    assert place_row(ScoreRow("a", 2, 3, 120.0), (0, 100)).score_0_1 == 1
    assert place_row(ScoreRow("a", 2, 3, 25.0), (20, 40)).score_0_1 == 0.25


def test_scorers_can_be_used_without_the_command(checkpoints):
    both = Scorers(["a", "b"], device=torch.device("cpu"))
    ((first, second),) = both.score(iter([("mine", Image.open("photos/0.png"))]))
    assert (first.key, second.key, first.ensemble) == ("mine", "mine", None)
    assert both.terms.names == ["a", "b"] and both.terms.signatures[0].startswith("a|weights:")


@pytest.mark.parametrize("words", [[], ["-o", "s.csv"]])
def test_scores_that_leave_the_range_are_noted(tiny_model, checkpoints, words, capsys):
    model = tiny_model(score_range=(-10, 10))
    processor = MusiqImageProcessor.from_config(model.config)
    found = score_pictures(sorted(Path("photos").iterdir()), model=model, processor=processor)
    scores = sorted(row.score for row in found)
    low, high = scores[0] - 1, scores[2] + 1e-3
    model.config.score_range = (low, high)
    model.save_pretrained("narrow")
    processor.save_pretrained("narrow")
    assert run("photos", "-m", "a", "-m", "narrow", *words) == 0
    said = capsys.readouterr().err
    note = (
        f"narrow: 2 of 5 scores lie outside of its range, that of the opinion scores, {low:g} to {high:g}. They are "
    )
    assert note + "not clipped; score_0_1 is.\n" in said and said.count("outside") == 1
