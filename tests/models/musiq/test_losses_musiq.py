# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from musiq_hf.models.musiq.modeling_musiq import emd_loss, l1_loss

bins = st.integers(2, 12)


def distributions(num_bins, rows=3, seed=0):
    weights = torch.rand(rows, num_bins, generator=torch.Generator().manual_seed(seed)) + 0.01
    return weights / weights.sum(dim=-1, keepdim=True)


def test_l1_is_the_mean_absolute_error():
    loss = l1_loss(torch.tensor([1.0, 2.0, -3.0]), torch.tensor([2.0, 2.0, 1.0]))
    assert loss.item() == pytest.approx(5 / 3)


@pytest.mark.parametrize("shape", [(3, 1), (2,), ()])
def test_l1_refuses_to_broadcast(shape):
    with pytest.raises(ValueError, match=r"must have shape \(3,\), got .*Give one MOS per picture"):
        l1_loss(torch.zeros(3), torch.zeros(shape))


@given(bins, st.integers(0, 50), st.sampled_from([1.0, 2.0, 3.0]))
def test_emd_is_positive_symmetric_and_zero_on_itself(num_bins, seed, exponent):
    first, second = distributions(num_bins, seed=seed), distributions(num_bins, seed=seed + 1)
    distance = emd_loss(first, second, exponent=exponent)
    assert distance > 0
    torch.testing.assert_close(distance, emd_loss(second, first, exponent=exponent), atol=1e-6, rtol=0)
    assert emd_loss(first, first, exponent=exponent) < 1e-6


@given(bins, st.integers(0, 50))
def test_emd_agrees_with_eq_3_written_out(num_bins, seed):
    first, second = distributions(num_bins, seed=seed), distributions(num_bins, seed=seed + 1)
    expected = np.mean(
        [
            (sum(abs(p[: i + 1].sum() - q[: i + 1].sum()) ** 2 for i in range(num_bins)) / num_bins) ** 0.5
            for p, q in zip(first.double().numpy(), second.double().numpy(), strict=True)
        ]
    )
    assert emd_loss(first, second).item() == pytest.approx(expected, abs=1e-6)


def test_emd_with_exponent_1_is_the_wasserstein_distance_per_bin():
    first, second = distributions(10, rows=1, seed=1), distributions(10, rows=1, seed=2)
    expected = wasserstein_distance(np.arange(10), np.arange(10), first[0].numpy(), second[0].numpy()) / 10
    assert emd_loss(first, second, exponent=1.0).item() == pytest.approx(expected, abs=1e-6)


def test_emd_grows_with_the_distance_of_the_masses():
    target = torch.eye(10)[:1]
    losses = [emd_loss(torch.eye(10)[i : i + 1], target).item() for i in range(10)]
    assert losses == sorted(losses) and losses[0] == 0.0 and len(set(losses)) == 10


def test_emd_normalises_counts():
    counts = torch.tensor([[2.0, 6.0, 2.0]])
    prediction = torch.tensor([[0.5, 0.25, 0.25]])
    torch.testing.assert_close(emd_loss(prediction, counts), emd_loss(prediction, counts / 10))


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0])
def test_gradient_of_a_perfect_prediction_is_zero_not_nan(exponent):
    target = torch.tensor([[0.25, 0.5, 0.25], [0.5, 0.25, 0.25]])
    prediction = target.clone().requires_grad_()
    emd_loss(prediction, target, exponent=exponent).backward()
    assert torch.equal(prediction.grad, torch.zeros_like(target))


def test_gradient_of_emd_is_the_derivative():
    logits = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    target = distributions(6).double()
    assert torch.autograd.gradcheck(lambda values: emd_loss(values.softmax(-1), target), (logits,))


@pytest.mark.parametrize(
    "target",
    [[[0.5, 0.7, -0.2]], [[0.0, 0.0, 0.0]], [[float("nan"), 0.5, 0.5]]],
    ids=["negative", "empty", "nan"],
)
def test_target_that_is_no_distribution_raises(target):
    with pytest.raises(ValueError, match="must have entries >= 0 and a sum > 0"):
        emd_loss(torch.full((1, 3), 1 / 3), torch.tensor(target))


@pytest.mark.parametrize("shape", [(2,), (2, 4), (1, 3)])
def test_target_of_another_shape_raises(shape):
    with pytest.raises(ValueError, match=r"must have shape \(2, 3\), got .*one count or probability per score value"):
        emd_loss(torch.full((2, 3), 1 / 3), torch.ones(shape))
