# SPDX-License-Identifier: Apache-2.0
"""Errors of thresholds: how often people rated a picture on the other side, stored with a calibration."""

import json

import numpy as np
import pytest

from musiq_hf import MusiqImageProcessor
from musiq_hf.hub.model_card import CheckpointCard
from musiq_hf.scoring import load_calibration, load_quality, write_calibration


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_model):
    """A tiny checkpoint on disk."""
    folder, model = tmp_path_factory.mktemp("checkpoint") / "musiq-test", tiny_model()
    model.save_pretrained(folder)
    MusiqImageProcessor.from_config(model.config).save_pretrained(folder)
    return str(folder)


def test_the_file_holds_how_often_people_rated_the_other_way(checkpoint, tmp_path):
    model, processor = load_quality(checkpoint)
    MusiqImageProcessor.from_config(model.config).save_pretrained(tmp_path)
    generator = np.random.default_rng(0)
    scores = generator.permutation(101).astype(float)
    opinions = np.clip(scores + generator.normal(0, 20, 101), 0, 100)
    known = write_calibration(
        tmp_path, scores, model=model, processor=processor, data="noisy", opinions=opinions.tolist()
    )
    assert load_calibration(str(tmp_path), model, processor) == known
    for threshold in (1.0, 50.0, 99.0):
        below, above = known.find_opposed(threshold)
        passes = scores >= threshold
        assert below == pytest.approx(np.mean(opinions[passes] < threshold), abs=1e-5)
        assert above == pytest.approx(np.mean(opinions[~passes] >= threshold), abs=1e-5)
    assert known.find_opposed(0)[1] == 0  # no picture scores less
    assert known.find_opposed(-0.1) is None and known.find_opposed(100.1) is None
    assert known.find_opposed(50.5) == tuple(
        pytest.approx(np.mean(pair)) for pair in zip(known.find_opposed(50), known.find_opposed(51), strict=True)
    )
    assert known.find_score(5) == 5 and known.find_score(7.5) == 7.5
    card = CheckpointCard(
        name="mine", config=model.config, source="None.", training_data="None.", recipe="None.", calibration=known
    )
    card.save(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "how often people are of another opinion than a threshold" in text
    assert f"| {100 * known.find_opposed(95)[0]:.0f} % |\n| below it, rated above | " in text


def test_opinion_scores_of_another_unit_are_left_out_with_a_warning(checkpoint, tmp_path, caplog):
    model, processor = load_quality(str(checkpoint))
    opinions = np.linspace(0, 1, 101)
    known = write_calibration(
        tmp_path, np.arange(101.0), model=model, processor=processor, data="odd", opinions=opinions
    )
    assert known.find_opposed(50) is None and "another unit" in caplog.text
    assert "rated_below" not in json.loads((tmp_path / "calibration.json").read_text())
