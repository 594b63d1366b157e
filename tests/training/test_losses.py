# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musiq_hf.training.losses import consistency_loss, pairwise_rank_loss, plcc_loss, range_loss, rank_loss


@given(st.integers(0, 50))
def test_plcc_loss_is_half_of_one_minus_the_correlation(seed):
    values = np.random.default_rng(seed).normal(size=(2, 9))
    loss = plcc_loss(torch.tensor(values[0]), torch.tensor(values[1]))
    assert loss.item() == pytest.approx((1 - np.corrcoef(values)[0, 1]) / 2, abs=1e-9)
    moved = plcc_loss(torch.tensor(5 * values[0] - 3), torch.tensor(values[1]))
    assert moved.item() == pytest.approx(loss.item(), abs=1e-9)


def test_plcc_loss_of_constant_predictions_has_no_gradient():
    predictions = torch.full((4,), 2.0, requires_grad=True)
    loss = plcc_loss(predictions, torch.arange(4.0))
    loss.backward()
    assert loss.item() == pytest.approx(0.5)
    assert predictions.grad.abs().max() < 1e-3


def test_rank_losses_count_only_pairs_that_differ():
    assert rank_loss(torch.zeros(3), torch.zeros(3)).item() == pytest.approx(np.log(2))
    assert rank_loss(torch.tensor([2.0]), torch.tensor([1.0])).item() == pytest.approx(np.log1p(np.exp(-1.0)))
    predictions, targets = torch.tensor([3.0, 1.0, 0.0]), torch.tensor([5.0, 5.0, 1.0])
    expected = np.mean([np.log1p(np.exp(-3.0)), np.log1p(np.exp(-1.0))])
    assert pairwise_rank_loss(predictions, targets).item() == pytest.approx(expected)
    equal = torch.ones(3, requires_grad=True)
    pairwise_rank_loss(equal, torch.ones(3)).backward()
    assert equal.grad.tolist() == [0, 0, 0]


def test_consistency_loss_is_the_mean_difference():
    assert consistency_loss(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0])).item() == 2
    assert consistency_loss(torch.ones(3), torch.ones(3)).item() == 0


def test_range_loss_is_the_mean_distance_to_the_range():
    assert range_loss(torch.tensor([-2.0, 0.0, 3.0, 5.0]), 0.0, 4.0).item() == (2 + 1) / 4
    outside = torch.tensor([-9.0, 2.0, 9.0], requires_grad=True)
    range_loss(outside, 0.0, 4.0).backward()
    assert outside.grad.tolist() == pytest.approx([-1 / 3, 0, 1 / 3])
