# SPDX-License-Identifier: Apache-2.0
"""The loss of LoDa against the published code."""

import golden_loda as golden
import numpy as np
import pytest
import torch

from musiq_hf.models.loda import loda_loss

ARRAYS = golden.arrays("loss")
CASES = sorted({name.split("/")[0] for name in ARRAYS})


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_are_those_of_the_published_code(case):
    values = torch.from_numpy(ARRAYS[f"{case}/predictions"]).requires_grad_()
    loss = loda_loss(values, torch.from_numpy(ARRAYS[f"{case}/targets"]))
    assert loss.item() == pytest.approx(float(ARRAYS[f"{case}/loss"]), abs=golden.SCORE_TOLERANCE)
    (gradient,) = torch.autograd.grad(loss, values)
    expected = ARRAYS[f"{case}/gradient"]
    if case == "equal_predictions":  # the published code divides by 1e-8, and has 6e6 here
        assert np.abs(expected).max() > 1e5
        expected = np.zeros_like(expected)
    largest = max(np.abs(expected).max(), 1e-3)  # a gradient that vanishes is rounding alone
    np.testing.assert_allclose(gradient.numpy(), expected, atol=golden.GRADIENT_TOLERANCE * largest, rtol=0)


def test_loss_is_a_function_of_the_correlation_alone():
    generator = np.random.default_rng(0)
    for _ in range(5):
        x, y = generator.normal(size=(2, 30))
        rho = np.corrcoef(x, y)[0, 1]
        loss = loda_loss(torch.from_numpy(7 * x - 3), torch.from_numpy(0.1 * y + 5)).item()
        assert loss == pytest.approx((1 - rho) / 4 + (1 - rho**2) / 8, abs=1e-7)


def test_values_that_differ_by_nothing_that_counts_have_no_gradient():
    values = torch.tensor([0.0, 1e-30, 0.0], requires_grad=True)
    loss = loda_loss(values, torch.tensor([1.0, 2.0, 3.0]))
    loss.backward()
    assert loss.item() == pytest.approx(0.25) and torch.equal(values.grad, torch.zeros(3))


@pytest.mark.parametrize("shapes", [((3,), (3, 1)), ((3, 1), (3, 1)), ((3,), (4,)), ((0,), (0,)), ((), ())])
def test_shapes_must_agree(shapes):
    first, second = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match="one shape"):
        loda_loss(first, second)
