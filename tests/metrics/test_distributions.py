# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from musiq_hf.metrics.distributions import distribution_metrics, opinion_scores
from musiq_hf.models.musiq.modeling_musiq import emd_loss


def test_distributions_are_compared_by_their_cumulated_difference():
    wanted = np.zeros((2, 10))
    wanted[:, 3] = 210  # counts
    predicted = np.zeros((2, 10))
    predicted[0, 3] = predicted[1, 5] = 1.0  # equal; two score values too high, on the other side of 5
    metrics = distribution_metrics(predicted, wanted)
    assert metrics == {"emd": pytest.approx(np.sqrt(2 / 10) / 2), "accuracy_at_5": 0.5, "mse": pytest.approx(4 / 2)}
    assert distribution_metrics(predicted, wanted, exponent=1)["emd"] == pytest.approx(2 / 10 / 2)
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


def test_opinion_scores_are_given_or_expectations():
    np.testing.assert_array_equal(opinion_scores([3, 4.5]), [3, 4.5])
    np.testing.assert_allclose(opinion_scores([[0, 0, 2], [1, 1, 2], [5, 0, 0]]), [3, 2.25, 1])
