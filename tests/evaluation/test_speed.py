# SPDX-License-Identifier: Apache-2.0
"""Speed of `musiq score`: what is counted, never how fast it is."""

import pytest
import torch

from examples import measure_speed as script
from musiq_hf import MusiqImageProcessor
from musiq_hf.evaluation import speed
from musiq_hf.evaluation.speed import measure_speed
from musiq_hf.metrics import read_metrics, read_report, render


@pytest.fixture
def checkpoint(tiny_model, tmp_path):
    folder, model = tmp_path / "model", tiny_model()
    model.save_pretrained(folder)
    MusiqImageProcessor.from_config(model.config).save_pretrained(folder)
    return folder


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves by half a second whenever it is read."""
    moments = iter(range(10_000))
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(moments) / 2)


def test_pictures_are_counted_over_the_time_of_scoring_alone(checkpoint, clock):
    report = measure_speed(str(checkpoint), num_pictures=3, num_repeats=2, width=40, height=24)
    assert report.pictures_per_second == 2  # the clock is read before the first picture and after each
    assert (report.num_pictures, report.num_repeats, report.width, report.height) == (3, 2, 40, 24)
    assert report.num_threads == torch.get_num_threads() and report.processor
    assert read_report(report.to_json()) == report
    text = f"2.0 pictures a second: JPEG files of 40x24 pixels, {report.processor}, threads: {report.num_threads}. "
    assert render(report).startswith(text) and "Median of 2 times 3 files" in render(report)


def test_mistakes_are_said(checkpoint, tmp_path):
    with pytest.raises(ValueError, match="`num_pictures` must be at least 1, got 0"):
        measure_speed(str(checkpoint), num_pictures=0)
    with pytest.raises(ValueError, match="`num_repeats` must be at least 1, got 0"):
        measure_speed(str(checkpoint), num_repeats=0)
    with pytest.raises(ValueError, match="neither a directory with a config.json nor an id on the Hub"):
        measure_speed(str(tmp_path), num_pictures=1, width=8, height=8)


def test_pictures_that_cannot_be_scored_are_no_speed(checkpoint):
    with pytest.raises(ValueError, match="1 of the pictures could not be scored"):
        measure_speed(str(checkpoint), num_pictures=1, width=4000, height=1)  # a side of its resized copy is 0


def test_the_command_fills_the_card(checkpoint, clock, monkeypatch, capsys):
    monkeypatch.setattr(
        "sys.argv", ["measure_speed.py", "--model", str(checkpoint), "--num_pictures", "1", "--update_card"]
    )
    assert script.main() == 0
    printed = capsys.readouterr().out.strip()
    report = read_metrics(checkpoint).reports[script.CARD_TITLE]
    assert printed == render(report) and printed in (checkpoint / "README.md").read_text()


def test_the_command_refuses_cards_that_it_cannot_update(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["measure_speed.py", "--model", "some/id", "--update_card"])
    assert script.main() == 2
    assert "The card of some/id cannot be updated" in capsys.readouterr().err
