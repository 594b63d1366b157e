# SPDX-License-Identifier: Apache-2.0
import golden_loda
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from musiq_hf.metrics.correlation import (
    MEAN_OF_GROUPS,
    METRICS,
    fit_logistic,
    grouped_metrics,
    logistic_curve,
    logistic_plcc,
    quality_metrics,
)


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
    assert tuple(metrics) == METRICS == ("srcc", "plcc", "plcc_logistic", "krcc", "rmse")
    assert metrics["srcc"] == pytest.approx(stats.spearmanr(predictions, targets)[0])
    assert metrics["krcc"] == pytest.approx(stats.kendalltau(predictions, targets)[0])
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
        "plcc_logistic": pytest.approx(1, abs=1e-4),
        "krcc": pytest.approx(1),
        "rmse": 0.0,
    }
    reverse = quality_metrics(-targets, targets)
    assert [reverse[name] for name in ("srcc", "plcc", "krcc")] == [pytest.approx(-1)] * 3
    assert reverse["plcc_logistic"] == pytest.approx(1, abs=1e-4)  # the curve may fall


def test_ties_share_their_mean_rank_and_count_for_neither_side():
    metrics = quality_metrics([1, 1, 2, 3], [1, 2, 2, 3])
    assert metrics["srcc"] == pytest.approx(np.corrcoef([1.5, 1.5, 3, 4], [1, 2.5, 2.5, 4])[0, 1])
    assert metrics["krcc"] == pytest.approx(4 / 5)  # 4 pairs agree, each side ties one pair of 6


@pytest.mark.parametrize(("predictions", "targets"), [([4, 4, 4], [1, 2, 3]), ([1, 2, 3], [4, 4, 4])])
def test_a_constant_side_ranks_nothing(predictions, targets):
    metrics = quality_metrics(predictions, targets)
    assert [metrics[name] for name in ("srcc", "plcc", "plcc_logistic", "krcc")] == [0.0] * 4
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


def test_logistic_curve_is_equation_8():
    curve = logistic_curve([2.0, 5.0, 1e6, -1e6], (90.0, 10.0, 2.0, -1.5))
    expected = [50.0, 80 / (1 + np.exp(-2.0)) + 10, 90.0, 10.0]
    np.testing.assert_allclose(curve, expected, rtol=1e-12)


@pytest.mark.parametrize("parameters", [(90.0, 10.0, 0.4, 0.2), (5.0, 1.0, -1.0, 2.0), (10.0, 90.0, 0.0, 0.5)])
@pytest.mark.parametrize("unit", [1.0, 1e4])
def test_logistic_fit_finds_the_curve_that_made_the_scores(parameters, unit):
    predictions = np.random.default_rng(1).normal(size=60) * unit
    upper, lower, centre, width = parameters
    truth = (upper, lower, centre * unit, width * unit)
    targets = logistic_curve(predictions, truth)
    np.testing.assert_allclose(fit_logistic(predictions, targets), truth, rtol=1e-4, atol=1e-6)
    assert logistic_plcc(predictions, targets) == pytest.approx(1)
    assert abs(quality_metrics(predictions, targets)["plcc"]) < 0.999


def test_logistic_fit_is_as_close_as_that_of_scipy_from_the_true_parameters():
    generator, truth = np.random.default_rng(2), (80.0, 20.0, 0.5, 0.3)
    predictions = generator.normal(size=200)
    targets = logistic_curve(predictions, truth) + generator.normal(0, 8, 200)
    best, _ = optimize.curve_fit(lambda x, *beta: logistic_curve(x, beta), predictions, targets, p0=truth)
    np.testing.assert_allclose(fit_logistic(predictions, targets), best, rtol=1e-3)


@given(st.integers(5, 40), st.integers(0, 100))
def test_logistic_plcc_is_finite_and_not_below_the_raw_one(count, seed):
    generator = np.random.default_rng(seed)
    predictions, targets = generator.normal(size=count).round(1), generator.normal(size=count).round(1)
    metrics = quality_metrics(predictions, targets)
    assert abs(metrics["plcc"]) - 2e-3 <= metrics["plcc_logistic"] <= 1 + 1e-9


def test_logistic_plcc_falls_back_to_the_raw_one_where_any_curve_fits(monkeypatch):
    predictions, targets = [1.0, 2.0, 4.0, 8.0], [1.0, 3.0, 2.0, 4.0]
    assert fit_logistic(predictions, targets) is None
    assert logistic_plcc(predictions, targets) == quality_metrics(predictions, targets)["plcc"]
    predictions, targets = scores(20, 0)
    monkeypatch.setattr(optimize, "leastsq", lambda *args, **kwargs: (np.full(4, np.nan), None, {}, "", 5))
    assert fit_logistic(predictions, targets) is None
    assert logistic_plcc(predictions, targets) == quality_metrics(predictions, targets)["plcc"]


@pytest.mark.parametrize("case", ["cosine", "cosine_few", "falling", "in_points", "linear"])
def test_the_logistic_is_that_of_the_published_code_of_loda(case):
    golden = {name.removeprefix(f"{case}/"): value for name, value in golden_loda.arrays("logistic").items()}
    predictions, mos = golden["predictions"].astype(float), golden["mos"].astype(float)
    assert logistic_plcc(predictions, mos) == pytest.approx(float(golden["plcc_logistic"]), abs=5e-4)
    residual = np.square(logistic_curve(predictions, fit_logistic(predictions, mos)) - mos).sum()
    assert residual <= 1.002 * float(golden["rss"])  # the optimum is flat, so a better one may have other parameters
    found = quality_metrics(predictions, mos)
    for name in ("srcc", "plcc", "krcc"):
        assert found[name] == pytest.approx(float(golden[name]), abs=1e-6)
