# SPDX-License-Identifier: Apache-2.0
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from musiq_hf.metrics.bootstrap import bootstrap_intervals
from musiq_hf.metrics.correlation import (
    MEAN_OF_GROUPS,
    METRICS,
    fit_logistic,
    grouped_metrics,
    logistic_curve,
    logistic_plcc,
    quality_metrics,
)
from musiq_hf.metrics.distributions import distribution_metrics, opinion_scores
from musiq_hf.metrics.reports import quality_report


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


@given(st.integers(3, 30), st.integers(0, 100))
def test_bootstrap_counts_each_draw_as_scipy_does(count, seed):
    predictions, targets = (side.round(-1) for side in scores(count, seed))  # ties, in few pictures constant draws
    drawn = np.random.default_rng(seed).integers(0, count, (50, count))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ranked = [stats.spearmanr(predictions[rows], targets[rows])[0] for rows in drawn]
        linear = [stats.pearsonr(predictions[rows], targets[rows])[0] for rows in drawn]
    intervals = bootstrap_intervals(predictions, targets, num_resamples=50, confidence=0.8, seed=seed)
    for name, values in (("srcc", ranked), ("plcc", linear)):
        expected = np.quantile(np.nan_to_num(values, nan=0.0), (0.1, 0.9))
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
    assert list(bootstrap_intervals([1, 2, 3], [1, 2, 4], groups=list("abc"))) == ["overall"]


def test_bootstrap_is_repeatable_and_narrower_with_more_pictures():
    few, many = (bootstrap_intervals(*scores(count, 0), seed=3) for count in (20, 500))
    assert few == bootstrap_intervals(*scores(20, 0), seed=3) != bootstrap_intervals(*scores(20, 0), seed=4)
    widths = [high - low for low, high in (few["overall"]["srcc"], many["overall"]["srcc"])]
    assert 0 < widths[1] < widths[0] / 2


def test_bootstrap_of_constant_predictions_is_zero():
    assert bootstrap_intervals([5, 5, 5], [1, 2, 3])["overall"] == {"srcc": [0.0, 0.0], "plcc": [0.0, 0.0]}


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


def test_distributions_are_compared_by_their_cumulated_difference():
    wanted = np.zeros((2, 10))
    wanted[:, 3] = 210  # counts
    predicted = np.zeros((2, 10))
    predicted[0, 3] = predicted[1, 5] = 1.0  # equal; two score values too high, on the other side of 5
    metrics = distribution_metrics(predicted, wanted)
    assert metrics == {"emd": pytest.approx(np.sqrt(2 / 10) / 2), "accuracy_at_5": 0.5, "mse": pytest.approx(4 / 2)}
    assert distribution_metrics(predicted, wanted, exponent=1)["emd"] == pytest.approx(2 / 10 / 2)
    from musiq_hf.models.musiq.losses_musiq import emd_loss

    generator = np.random.default_rng(0)
    p, q = generator.dirichlet(np.ones(10), 7), generator.integers(1, 50, (7, 10))
    expected = emd_loss(torch.from_numpy(p), torch.from_numpy(q).double()).item()
    assert distribution_metrics(p, q)["emd"] == pytest.approx(expected)


def test_a_mean_of_exactly_5_counts_as_below():
    five, four, six = (np.eye(10)[[index]] for index in (4, 3, 5))
    assert distribution_metrics(five, four)["accuracy_at_5"] == 1
    assert distribution_metrics(five, six)["accuracy_at_5"] == 0


@pytest.mark.parametrize(
    ("predicted", "wanted", "exponent", "message"),
    [
        (np.ones((2, 10)), np.ones((2, 9)), 2, "two tables of one shape"),
        (np.ones((2, 5)), np.ones((2, 5)), 2, r"needs score values beyond it, got 1\.\.5"),
        (np.ones((2, 10)), np.zeros((2, 10)), 2, "entries >= 0 and a sum > 0"),
        (np.full((1, 10), np.nan), np.ones((1, 10)), 2, "entries >= 0 and a sum > 0"),
        (np.ones((1, 10)), np.ones((1, 10)), 0, "`exponent` must be positive, got 0"),
    ],
)
def test_wrong_distributions_raise(predicted, wanted, exponent, message):
    with pytest.raises(ValueError, match=message):
        distribution_metrics(predicted, wanted, exponent=exponent)


def test_report_holds_everything_on_one_set_of_pictures():
    predictions, targets = scores(30, 0)
    groups = ["a", "b", "c"] * 10
    report = quality_report(predictions, targets, groups=groups, num_resamples=20)
    assert report == {
        "num_pictures": 30,
        "overall": quality_metrics(predictions, targets),
        "groups": grouped_metrics(predictions, targets, groups),
        "intervals": bootstrap_intervals(predictions, targets, groups=groups, num_resamples=20),
    }
    assert "groups" not in quality_report(predictions, targets, num_resamples=20)


def test_opinion_scores_are_given_or_expectations():
    np.testing.assert_array_equal(opinion_scores([3, 4.5]), [3, 4.5])
    np.testing.assert_allclose(opinion_scores([[0, 0, 2], [1, 1, 2], [5, 0, 0]]), [3, 2.25, 1])
