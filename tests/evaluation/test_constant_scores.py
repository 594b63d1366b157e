# SPDX-License-Identifier: Apache-2.0
"""Scores that do not differ, and so have no order to agree with."""

import numpy as np
import pytest
from PIL import Image

from musiq_hf import MusiqImageProcessor
from musiq_hf.evaluation import EvaluationSettings, evaluate_checkpoints


@pytest.fixture
def measure(tmp_path, tiny_model):
    """Measure a tiny model on six pictures in two groups, with these opinion scores."""
    model = tiny_model()
    MusiqImageProcessor.from_config(model.config).save_pretrained(tmp_path / "tiny")
    for index in range(6):
        pixels = np.random.default_rng(index).integers(0, 256, (20, 30 + index, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")

    def run(*scores, is_flat=False):
        if is_flat:
            model.head.classifier.weight.data.zero_()
        model.save_pretrained(tmp_path / "tiny")
        rows = (f"{index}.png,{score},{'ab'[index % 2]}" for index, score in enumerate(scores))
        (tmp_path / "some.csv").write_text("\n".join(["image,mos,group", *rows]) + "\n")
        settings = {"models": [str(tmp_path / "tiny")], "data": [str(tmp_path / "some.csv")], "num_resamples": 20}
        return evaluate_checkpoints(EvaluationSettings(**settings)).results

    return run


def test_opinion_scores_that_do_not_differ_are_warned_of(measure, caplog):
    (report,) = measure(7, 7, 7, 7, 7, 7)
    assert report.overall.srcc == 0 < report.overall.rmse
    said = "some.csv: the opinion scores of all pictures, group 'a', group 'b' do not differ, so every correlation"
    assert said in caplog.text


def test_a_group_of_one_opinion_score_is_warned_of(measure, caplog):
    (report,) = measure(7, 1, 7, 2, 7, 3)
    assert report.groups["a"].srcc == 0 != report.groups["b"].srcc
    assert "some.csv: the opinion scores of group 'a' do not differ" in caplog.text


def test_a_checkpoint_that_answers_one_score_is_warned_of(measure, caplog):
    (report,) = measure(1, 2, 3, 4, 5, 6, is_flat=True)
    assert report.overall.srcc == 0
    assert "tiny gives all pictures of some.csv the score " in caplog.text and "do not differ" not in caplog.text
