# SPDX-License-Identifier: Apache-2.0
"""Settings of super-resolution: lengths, recipes and refusals."""

import pytest

from musiq_hf.training import SuperResolutionSettings
from musiq_hf.training.super_resolution.settings import RECIPES


def make(tmp_path, **given):
    return SuperResolutionSettings(pictures=tmp_path, output_dir=tmp_path / "out", **given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"recipe": "large"}, "`recipe` must be 'small' or 'edsr_baseline', got 'large'"),
        ({"minutes": 0}, "`minutes` must be above 0, got 0"),
        ({"minutes": float("inf")}, "`minutes` must be above 0, got inf"),
        ({"steps": 0}, "`steps` must be at least 1, got 0"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"minutes": 1, "steps": 1}, "`minutes` and `steps` were both given"),
        ({"shrinking": 0.5}, "`shrinking` must be at least 1, got 0.5"),
        ({"shrinking": float("nan")}, "`shrinking` must be finite, got nan"),
        ({"num_photographs": 0}, "`num_photographs` must be at least 1, got 0"),
        ({"seed": -1}, "`seed` must be at least 0, got -1"),
        ({"fold_rim": True}, "`fold_rim` folds the kernels that `rim_from` refines. Give a checkpoint there"),
        ({"rim_from": "x", "architecture": {"use_cell": False}}, "`rim_from` has an architecture already"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, given, words):
    with pytest.raises(ValueError, match=words):
        make(tmp_path, **given)


def test_lengths_and_sizes_follow_from_the_recipe_unless_they_are_given(tmp_path):
    small, published = make(tmp_path), make(tmp_path, recipe="edsr_baseline")
    assert (small.length, published.length) == ((60, None), (None, 1_050_000))
    assert make(tmp_path, steps=3).length == (None, 3) and make(tmp_path, minutes=2).length == (2, None)
    assert (small.shrunk_by, published.shrunk_by, make(tmp_path, shrinking=1.5).shrunk_by) == (2, 1, 1.5)
    assert (small.crop_size, published.crop_size) == (96, 192)
    assert (small.plan.batch_size, make(tmp_path, batch_size=5).plan.batch_size) == (12, 5)
    second = make(tmp_path, rim_from="first")
    assert (second.max_scale, second.crop_size) == (8, 192)


def test_the_published_recipe_is_as_published():
    plan = RECIPES["edsr_baseline"]
    assert (plan.source_size, plan.batch_size, plan.num_positions) == (48, 32, 2304)
    assert (plan.learning_rate, plan.warmup_start) == (1e-4, 0.1)
    assert plan.warmup_fraction * plan.steps == pytest.approx(50_000)
