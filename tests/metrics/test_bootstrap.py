# SPDX-License-Identifier: Apache-2.0
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from musiq_hf.metrics.bootstrap import bootstrap_differences, bootstrap_intervals
from musiq_hf.metrics.correlation import MEAN_OF_GROUPS


def scores(count, seed):
    generator = np.random.default_rng(seed)
    targets = generator.normal(50, 15, count)
    return targets + generator.normal(0, 10, count), targets


@given(st.integers(10, 30), st.integers(0, 100))
def test_bootstrap_counts_each_draw_as_scipy_does(count, seed):
    predictions, targets = (side.round(-1) for side in scores(count, seed))  # ties, in few pictures constant draws
    drawn = np.random.default_rng(seed).integers(0, count, (50, count))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ranked = [stats.spearmanr(predictions[rows], targets[rows])[0] for rows in drawn]
        linear = [stats.pearsonr(predictions[rows], targets[rows])[0] for rows in drawn]
    intervals = bootstrap_intervals(predictions, targets, num_resamples=50, confidence=0.8, seed=seed)
    for name, values in (("srcc", ranked), ("plcc", linear)):
        expected = np.nanquantile(values, (0.1, 0.9))
        np.testing.assert_allclose(intervals["overall"][name], expected, atol=1e-9)


def test_bootstrap_does_not_depend_on_how_it_is_cut_into_pieces(monkeypatch):
    predictions, targets = scores(50, 0)
    whole = bootstrap_intervals(predictions, targets, num_resamples=101)
    monkeypatch.setattr("musiq_hf.metrics.bootstrap._VALUES_PER_CHUNK", 500)
    pieces = bootstrap_intervals(predictions, targets, num_resamples=101)
    np.testing.assert_allclose(pieces["overall"]["srcc"], whole["overall"]["srcc"], atol=0.02)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    covered = []
    for seed in range(200):
        values = np.random.default_rng(seed).multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 100)
        low, high = bootstrap_intervals(*values.T, num_resamples=200, confidence=0.9)["overall"]["plcc"]
        covered.append(low <= 0.6 <= high)
    assert 0.82 <= np.mean(covered) <= 0.97


def test_bootstrap_draws_within_groups():
    # Each group is perfectly ranked, the opposite way: any draw within groups gives a mean near 0.
    targets = np.arange(40.0)
    predictions = np.where(targets < 20, targets, -targets)
    groups = ["up"] * 20 + ["down"] * 20
    intervals = bootstrap_intervals(predictions, targets, groups=groups, num_resamples=100)
    assert list(intervals) == ["overall", MEAN_OF_GROUPS]
    np.testing.assert_allclose(intervals[MEAN_OF_GROUPS]["srcc"], [0, 0], atol=1e-12)


def test_bootstrap_is_repeatable_and_narrower_with_more_pictures():
    few, many = (bootstrap_intervals(*scores(count, 0), seed=3) for count in (20, 500))
    assert few == bootstrap_intervals(*scores(20, 0), seed=3) != bootstrap_intervals(*scores(20, 0), seed=4)
    widths = [high - low for low, high in (few["overall"]["srcc"], many["overall"]["srcc"])]
    assert 0 < widths[1] < widths[0] / 2


def test_bootstrap_of_constant_predictions_is_zero():
    assert bootstrap_intervals([5] * 10, range(10))["overall"] == {"srcc": [0.0, 0.0], "plcc": [0.0, 0.0]}


def test_draws_that_are_constant_by_chance_do_not_count():
    # One picture differs, and a draw without it, every third, has no correlation; all others have 1.
    values = [0.0] * 9 + [1.0]
    assert bootstrap_intervals(values, values)["overall"] == {"srcc": [1.0, 1.0], "plcc": [1.0, 1.0]}
    groups = ["a"] * 10 + ["b"] * 10
    assert bootstrap_intervals(values * 2, values * 2, groups=groups)[MEAN_OF_GROUPS]["srcc"] == [1.0, 1.0]
    assert bootstrap_intervals(values, values, num_resamples=1, seed=3) == {}  # no draw has a correlation


@pytest.mark.parametrize("count", [3, 4, 9])
def test_few_pictures_have_no_interval(count):
    assert bootstrap_intervals(*scores(count, 0), groups=["a"] * count) == {}
    groups = ["a"] * count + list("bcdefgh")[: 10 - count]  # the others are alone, and have no correlation
    assert list(bootstrap_intervals(*scores(10, 0), groups=groups)) == ["overall"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_resamples": 0}, "`num_resamples` must be at least 1, got 0"),
        ({"confidence": 1.0}, "`confidence` must lie between 0 and 1, got 1.0"),
        ({"groups": ["a"]}, "Each picture needs a prediction, a target and a group, got 3, 3, 1"),
    ],
)
def test_wrong_arguments_of_the_bootstrap_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_intervals([1, 2, 3], [1, 2, 3], **arguments)


def test_differences_take_the_same_draws_of_both_sides():
    first, targets = scores(40, 0)
    second = targets + np.random.default_rng(9).normal(0, 30, 40)
    drawn = np.random.default_rng(5).integers(0, 40, (60, 40))
    ranked = [[stats.spearmanr(side[rows], targets[rows])[0] for rows in drawn] for side in (first, second)]
    found = bootstrap_differences([first, second, first], targets, num_resamples=60, confidence=0.8, seed=5)
    assert list(found) == [(0, 1), (0, 2), (1, 2)]
    np.testing.assert_allclose(found[0, 1], np.quantile(np.subtract(*ranked[::-1]), (0.1, 0.9)), atol=1e-9)
    assert found[0, 1] == pytest.approx([-end for end in found[1, 2][::-1]])
    assert found[0, 2] == (0, 0)


def test_differences_of_alike_models_are_far_narrower_than_their_own_intervals():
    first, targets = scores(100, 1)
    second = first + np.random.default_rng(2).normal(0, 2, 100)
    low, high = bootstrap_differences([first, second], targets)[0, 1]
    own = bootstrap_intervals(first, targets)["overall"]["srcc"]
    assert high - low < 0.3 * (own[1] - own[0])


def test_differences_of_few_pictures_or_one_model_are_none():
    first, targets = scores(9, 0)
    assert bootstrap_differences([first, first], targets) == {}
    assert bootstrap_differences([scores(20, 0)[0]], scores(20, 0)[1]) == {}
    with pytest.raises(ValueError, match="`confidence` must lie between 0 and 1"):
        bootstrap_differences([first, first], targets, confidence=1)
