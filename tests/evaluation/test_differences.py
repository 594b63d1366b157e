# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from PIL import Image

from musiq_hf.evaluation import EvaluationSettings, evaluate_checkpoints
from musiq_hf.metrics import bootstrap_differences
from musiq_hf.models.musiq import MusiqImageProcessor
from musiq_hf.scoring import load_quality, score_pictures

MOS = [10, 20, 30, 45, 50, 65, 70, 80, 15, 95, 40]


@pytest.fixture
def compare(tmp_path, tiny_model):
    """Result of the checkpoints `a` and `b` for some tables, and their scores."""
    pictures = []
    for seed, name in enumerate("ab"):
        model = tiny_model(seed=seed)
        model.save_pretrained(tmp_path / name)
        MusiqImageProcessor.from_config(model.config).save_pretrained(tmp_path / name)
    for index in range(len(MOS)):
        pixels = np.random.default_rng(index).integers(0, 256, (20 + index, 40 - index, 3), dtype=np.uint8)
        pictures.append(tmp_path / f"{index}.png")
        Image.fromarray(pixels).save(pictures[-1])

    def run(models, **tables):
        data, paths = [], [str(tmp_path / name) for name in models]
        for name, labels in tables.items():
            lines = [f"{index}.png,{label}" for index, label in enumerate(labels)]
            data.append(str(tmp_path / f"{name}.csv"))
            (tmp_path / f"{name}.csv").write_text("\n".join(["image,mos", *lines]) + "\n")
        settings = EvaluationSettings(models=paths, data=data, num_resamples=40, ensemble=len(models) > 1)
        scorers = [load_quality(path) for path in paths]
        scores = [
            [row.score for row in score_pictures(pictures, model=model, processor=processor)]
            for model, processor in scorers
        ]
        return evaluate_checkpoints(settings), scores

    return run


def test_checkpoints_are_compared_on_the_same_pictures(compare):
    report, scores = compare("ab", up=MOS, down=MOS[::-1])
    scores.append(np.mean(scores, axis=0))
    titles = ["a", "b", "mean of 2 checkpoints"]
    pairs = [(0, 1), (0, 2), (1, 2)]
    named = [(one.data, one.first, one.second) for one in report.differences]
    assert named == [(data, titles[i], titles[j]) for data in ("up.csv", "down.csv") for i, j in pairs]
    for place, labels in enumerate((MOS, MOS[::-1])):
        srcc = [one.overall.srcc for one in report.results[place::2]]
        expected = bootstrap_differences(scores, labels, num_resamples=40)
        for pair, found in zip(pairs, report.differences[3 * place :], strict=False):
            assert found.difference == pytest.approx(srcc[pair[1]] - srcc[pair[0]])
            assert found.interval == pytest.approx(expected[pair])


def test_one_checkpoint_and_few_pictures_have_no_differences(compare):
    assert compare("a", up=MOS)[0].differences is None
    assert compare("ab", few=MOS[:9])[0].differences is None
