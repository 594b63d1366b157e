# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from musiq_hf.metrics import MEAN_OF_GROUPS, grouped_metrics, quality_metrics


def scores(count, seed):
    generator = np.random.default_rng(seed)
    targets = generator.normal(50, 15, count)
    return targets + generator.normal(0, 10, count), targets


@given(st.integers(3, 60), st.integers(0, 100))
def test_correlations_and_error_agree_with_scipy(count, seed):
    predictions, targets = scores(count, seed)
    predictions = predictions.round(-1)  # ties
    if np.ptp(predictions) == 0:
        return
    metrics = quality_metrics(predictions, targets)
    assert set(metrics) == {"srcc", "plcc", "rmse"}
    assert metrics["srcc"] == pytest.approx(stats.spearmanr(predictions, targets)[0])
    assert metrics["plcc"] == pytest.approx(np.corrcoef(predictions, targets)[0, 1])
    assert metrics["rmse"] == pytest.approx(np.linalg.norm(predictions - targets) / count**0.5)


@given(st.integers(0, 100))
def test_srcc_sees_only_the_order(seed):
    predictions, targets = scores(20, seed)
    metrics = quality_metrics(np.exp(predictions / 20), targets)
    plain = quality_metrics(predictions, targets)
    assert metrics["srcc"] == plain["srcc"]
    assert metrics["plcc"] != pytest.approx(plain["plcc"], abs=1e-6)


@given(st.integers(0, 100), st.floats(0.1, 10), st.floats(-50, 50))
def test_plcc_ignores_offset_and_scale(seed, scale, offset):
    predictions, targets = scores(20, seed)
    metrics = quality_metrics(scale * predictions + offset, targets)
    assert metrics["plcc"] == pytest.approx(quality_metrics(predictions, targets)["plcc"])


def test_perfect_and_reversed_predictions_are_the_extremes():
    _, targets = scores(10, 0)
    assert quality_metrics(targets, targets) == {
        "srcc": pytest.approx(1),
        "plcc": pytest.approx(1),
        "rmse": 0.0,
    }
    assert quality_metrics(-targets, targets)["srcc"] == pytest.approx(-1)


@pytest.mark.parametrize(("predictions", "targets"), [([4, 4, 4], [1, 2, 3]), ([1, 2, 3], [4, 4, 4])])
def test_a_constant_side_ranks_nothing(predictions, targets):
    metrics = quality_metrics(predictions, targets)
    assert (metrics["srcc"], metrics["plcc"]) == (0.0, 0.0)
    assert metrics["rmse"] == pytest.approx(np.sqrt(np.mean(np.square(np.subtract(predictions, targets)))))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_raise(value):
    for arguments in (([1, 2, value], [1, 2, 3]), ([1, 2, 3], [1, value, 3])):
        with pytest.raises(ValueError, match="must be finite, got NaN or infinite values"):
            quality_metrics(*arguments)


def test_fewer_than_three_pictures_raise():
    with pytest.raises(ValueError, match="at least 3 pictures, got 2"):
        quality_metrics([1, 2], [1, 2])


@pytest.mark.parametrize("targets", [[1, 2], [[1], [2], [3]]])
def test_different_shapes_raise(targets):
    with pytest.raises(ValueError, match=r"two lists of one length, got \(3,\) and"):
        quality_metrics([1, 2, 3], targets)


def test_groups_are_measured_on_their_own_and_averaged():
    # Within each group the prediction is reversed; knowing the group alone gives a high overall correlation.
    targets = np.array([1, 2, 3, 11, 12, 13], float)
    predictions = np.array([3, 2, 1, 13, 12, 11], float)
    metrics = grouped_metrics(predictions, targets, ["b", "b", "b", "a", "a", "a"])
    assert list(metrics) == ["a", "b", MEAN_OF_GROUPS]
    assert metrics["a"] == quality_metrics([13, 12, 11], [11, 12, 13])
    assert metrics[MEAN_OF_GROUPS]["srcc"] == pytest.approx(-1)
    assert quality_metrics(predictions, targets)["srcc"] > 0.5


def test_mean_weights_groups_not_pictures():
    targets = np.array([1, 2, 3, 1, 2, 3, 4, 5, 6], float)
    predictions = np.array([1, 2, 3, 6, 5, 4, 3, 2, 1], float)
    metrics = grouped_metrics(predictions, targets, ["x"] * 3 + ["y"] * 6)
    assert metrics[MEAN_OF_GROUPS]["srcc"] == pytest.approx(0)
    assert metrics[MEAN_OF_GROUPS]["rmse"] == pytest.approx((metrics["x"]["rmse"] + metrics["y"]["rmse"]) / 2)


def test_small_groups_are_left_out_and_no_group_gives_nothing():
    predictions, targets = scores(8, 0)
    metrics = grouped_metrics(predictions, targets, ["a"] * 6 + ["b"] * 2)
    assert list(metrics) == ["a", MEAN_OF_GROUPS]
    assert metrics["a"] == metrics[MEAN_OF_GROUPS]
    assert grouped_metrics(predictions, targets, list("aabbccdd")) == {}
    with pytest.raises(ValueError, match="Each picture needs a prediction, a target and a group, got 8, 8, 1"):
        grouped_metrics(predictions, targets, ["a"])
