# SPDX-License-Identifier: Apache-2.0
"""Whitening, the norm that whitens and W-MSE against published code, exact computations and their definitions."""

import golden_training_methods as golden
import pytest
import torch
from torch.nn import functional as F

from musiq_hf.training.self_supervised.whitening import DecorrelatedNorm, w_mse_loss, whiten

W_MSE = golden.read("w_mse")


def noise(*shape, seed=0):
    """Features that depend on each other, with another scale and mean in each channel."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(shape[-1], shape[-1], generator=generator, dtype=torch.float64)
    return torch.randn(*shape, generator=generator, dtype=torch.float64) @ mixing + 3


# -- whiten


@pytest.mark.parametrize("case", W_MSE)
@pytest.mark.parametrize(("method", "field", "limit"), [("cholesky", "whitened", 5e-4), ("zca", "whitened_zca", 5e-3)])
def test_whitened_rows_are_those_of_the_published_code(method, field, limit, case):
    for dtype, largest in ((torch.float32, limit), (torch.float64, 1e-6)):
        arrays = golden.read("w_mse", dtype)[case]
        rows = arrays["embeddings"][0, : arrays["sub_batch"]]
        found = whiten(rows, method=method, eps=float(arrays["eps"]))
        assert found.dtype == dtype and golden.errors(found, arrays[field]) < largest


@pytest.mark.parametrize("method", ["cholesky", "zca"])
def test_covariance_of_whitened_rows_is_the_identity(method):
    found = whiten(noise(2, 3, 40, 6), method=method)
    torch.testing.assert_close(found.mean(dim=-2), torch.zeros(2, 3, 6, dtype=torch.float64))
    covariance = found.mT @ found / 39
    torch.testing.assert_close(covariance, torch.eye(6, dtype=torch.float64).expand_as(covariance))


@pytest.mark.parametrize("method", ["cholesky", "zca"])
def test_gradients_of_whitening_are_derivatives(method):
    rows = noise(2, 9, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: whiten(x, method=method, eps=0.1), (rows,))


def test_a_share_of_the_identity_whitens_few_rows_and_equal_ones():
    found = whiten(noise(4, 6), eps=0.5)
    assert found.isfinite().all() and found.abs().max() > 0.1
    assert not whiten(torch.ones(4, 6), eps=0.5).any()


def test_whitening_of_half_precision_is_computed_in_float32():
    rows = noise(40, 6).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = whiten(rows)
    assert torch.equal(found, whiten(rows.float()).bfloat16())


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (torch.zeros(4), {}, r"have shape \(\.\.\., n, e\), got shape \(4,\)"),
        (torch.zeros(4, 2).long(), {}, "must be floating"),
        (torch.zeros(4, 2), {"method": "pca"}, "`method` must be 'cholesky' or 'zca', got 'pca'"),
        (torch.zeros(4, 2), {"eps": -0.1}, "`eps` must be from 0 to 1, got -0.1"),
        (torch.zeros(4, 4), {}, "Whitening 4 features needs more than 4 rows, got 4.*`eps` above 0"),
        (torch.zeros(9, 4), {}, "depend on each other.*Give `eps` above 0"),
    ],
)
def test_mistakes_with_rows_are_one_sentence(rows, options, message):
    with pytest.raises(ValueError, match=message):
        whiten(rows, **options)


# -- DecorrelatedNorm


def load_norm(arrays, method, dtype):
    norm = DecorrelatedNorm(16, groups=2, method=method).to(dtype)
    norm.load_state_dict(norm.state_dict() | {"weight": arrays["scale"], "bias": arrays["shift"]})
    return norm


@pytest.mark.parametrize(("dtype", "value", "gradient"), [(torch.float32, 2e-4, 8e-3), (torch.float64, 1e-6, 8e-3)])
def test_the_norm_by_pade_is_the_published_layer(dtype, value, gradient):
    """The published gradient takes inverse and Lyapunov equation in another, equally valid order."""
    arrays = golden.read("decorrelated_norm", dtype)["c16_g2"]
    inputs = [arrays[f"input{i}"].permute(0, 2, 3, 1) for i in range(3)]
    norm = load_norm(arrays, "pade", dtype)
    leaf = inputs[0].clone().requires_grad_()
    found = [norm(leaf), norm(inputs[1]), norm.eval()(inputs[2])]
    for output, name in zip(found, ("train0", "train1", "eval2"), strict=True):
        assert golden.errors(output, arrays[name].permute(0, 2, 3, 1)) < value
    assert golden.errors(norm.running_matrix, arrays["running_matrix"]) < value
    torch.testing.assert_close(norm.running_mean, arrays["running_mean"], rtol=1e-5, atol=1e-6)
    (found[0] * arrays["weight"].permute(0, 2, 3, 1)).sum().backward()
    assert golden.errors(leaf.grad, arrays["gradient_input"].permute(0, 2, 3, 1)) < gradient
    assert golden.errors(norm.weight.grad[None], arrays["gradient_scale"][None]) < value
    assert golden.errors(norm.bias.grad[None], arrays["gradient_shift"][None]) < value


@pytest.mark.parametrize(("dtype", "value", "gradient"), [(torch.float32, 1e-5, 5e-5), (torch.float64, 1e-6, 1e-6)])
def test_the_norm_is_that_of_exact_roots(dtype, value, gradient):
    arrays = golden.read("decorrelated_norm", dtype)["c16_g2"]
    norm, leaf = load_norm(arrays, "eigh", dtype), arrays["input0"].permute(0, 2, 3, 1).clone().requires_grad_()
    found = norm(leaf)
    (found * arrays["weight"].permute(0, 2, 3, 1)).sum().backward()
    assert golden.errors(found, arrays["exact_train0"].permute(0, 2, 3, 1)) < value
    assert golden.errors(leaf.grad, arrays["exact_gradient_input"].permute(0, 2, 3, 1)) < gradient


def test_covariance_of_normalised_channels_is_the_identity_within_groups():
    found = DecorrelatedNorm(6, groups=2, eps=0.0).double()(noise(2, 40, 6))
    for group in found.reshape(-1, 2, 3).unbind(dim=1):
        torch.testing.assert_close(torch.cov(group.T, correction=0), torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("training", [True, False])
def test_padding_changes_nothing_and_comes_out_as_the_bias(training):
    features, mask = noise(2, 30, 4), torch.ones(2, 30)
    mask[1, 17:] = 0
    norms = [DecorrelatedNorm(4).double().train(training) for _ in range(2)]
    real = mask.bool()
    for norm in norms:
        torch.nn.init.constant_(norm.bias, 0.25)
        norm.running_mean += 2
    hostile = torch.where(real[..., None], features, torch.nan).requires_grad_()
    padded, alone = norms[0](hostile, mask), norms[1](features[real])
    torch.testing.assert_close(padded[real], alone)
    assert (padded[~real] == 0.25).all()
    torch.testing.assert_close(norms[0].state_dict(), norms[1].state_dict())
    (gradient,) = torch.autograd.grad(padded.square().sum(), hostile)
    assert gradient.isfinite().all() and not gradient[~real].any()


def test_running_averages_move_in_training_alone():
    norm = DecorrelatedNorm(4, momentum=1.0).double()
    features = noise(50, 4)
    in_training = norm(features)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    torch.testing.assert_close(norm.eval()(features), in_training)
    torch.testing.assert_close(norm.state_dict(), before)
    torch.testing.assert_close(before["running_mean"], features.mean(dim=0))


@pytest.mark.parametrize("training", [True, False])
def test_gradients_of_the_norm_are_derivatives(training):
    norm = DecorrelatedNorm(4, groups=2).double().train(training)
    mask = torch.tensor([1, 1, 1, 0, 1, 1, 1])
    assert torch.autograd.gradcheck(lambda x: norm(x, mask), (noise(7, 4).requires_grad_(),))


def test_the_norm_of_half_precision_is_computed_in_float32():
    norm, features = DecorrelatedNorm(4), noise(50, 4).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(norm(features), norm(features.float()).bfloat16())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DecorrelatedNorm(6, groups=4), "`groups` must divide the 6 channels, got 4"),
        (lambda: DecorrelatedNorm(6, groups=0), "got 0"),
        (lambda: DecorrelatedNorm(6)(torch.zeros(3, 5)), r"6 channels, the last axis, were expected, got \(3, 5\)"),
        (lambda: DecorrelatedNorm(6)(torch.zeros(3, 6), torch.ones(2)), r"`mask` must have shape \(3,\), got \(2,\)"),
        (lambda: DecorrelatedNorm(6, method="taylor")(torch.zeros(3, 6)), "got 'taylor'"),
    ],
)
def test_mistakes_with_the_norm_are_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# -- W-MSE


@pytest.mark.parametrize("case", W_MSE)
@pytest.mark.parametrize(
    ("dtype", "of_loss", "of_gradient"), [(torch.float32, 2e-5, 5e-3), (torch.float64, 1e-9, 3e-7)]
)
def test_w_mse_is_that_of_the_published_code(case, dtype, of_loss, of_gradient):
    arrays = golden.read("w_mse", dtype)[case]
    leaf, permutations = arrays["embeddings"].requires_grad_(), arrays["permutations"]
    options = {"sub_batch": int(arrays["sub_batch"]), "num_slicings": len(permutations), "eps": float(arrays["eps"])}
    loss = w_mse_loss(leaf, permutations=permutations, **options)
    loss.backward()
    expected = golden.read("w_mse", torch.float64)[case]["loss"].item()
    assert loss.item() == pytest.approx(expected, rel=of_loss, abs=0)
    assert golden.errors(leaf.grad.flatten(1)[None], arrays["gradient"].flatten(1)[None]) < of_gradient


def test_equal_views_have_no_loss_and_opposite_ones_the_largest():
    view = noise(32, 5)
    assert w_mse_loss(torch.stack([view] * 3), sub_batch=16).item() == pytest.approx(0, abs=1e-12)
    assert w_mse_loss(torch.stack((view, -view))).item() == pytest.approx(4)


def test_unrelated_views_have_about_2():
    assert w_mse_loss(torch.stack((noise(512, 8), noise(512, 8, seed=1)))).item() == pytest.approx(2, abs=0.1)


def test_loss_of_one_slice_is_the_mean_distance_of_whitened_directions():
    views = noise(3, 40, 5)
    directions = F.normalize(whiten(views), dim=-1)
    pairs = ((0, 1), (0, 2), (1, 2))
    expected = sum((directions[i] - directions[j]).square().sum(dim=-1).mean() for i, j in pairs) / 3
    torch.testing.assert_close(w_mse_loss(views), expected)


def test_slices_are_drawn_by_torchs_generator():
    views = noise(2, 32, 4)
    torch.manual_seed(3)
    found = [w_mse_loss(views, sub_batch=16).item() for _ in range(2)]
    torch.manual_seed(3)
    orders = torch.stack([torch.randperm(32), torch.randperm(32)])
    assert found[0] != found[1]
    assert w_mse_loss(views, sub_batch=16, permutations=orders[:1]).item() == found[0]
    both = w_mse_loss(views, sub_batch=16, num_slicings=2, permutations=orders)
    assert both.item() == pytest.approx(sum(found) / 2)


def test_gradient_of_w_mse_is_the_derivative():
    views, orders = noise(3, 12, 2).requires_grad_(), torch.randperm(12, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda x: w_mse_loss(x, sub_batch=6, permutations=orders[None]), (views,))


def test_w_mse_of_half_precision_is_computed_in_float32():
    views = noise(2, 64, 4).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = w_mse_loss(views)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, w_mse_loss(views.float()))


@pytest.mark.parametrize(
    ("views", "options", "message"),
    [
        (noise(1, 8, 2), {}, r"two views or more, got \(1, 8, 2\)"),
        (noise(8, 2), {}, r"shape \(views, n, e\)"),
        (torch.zeros(2, 8, 2).long(), {}, "must be floating"),
        (noise(2, 8, 2), {"sub_batch": 3}, "`sub_batch` must divide the 8 rows, got 3"),
        (noise(2, 8, 2), {"sub_batch": 2}, "Whitening 2 features needs more than 2 rows, got 2"),
        (noise(2, 8, 2), {"num_slicings": 0}, "`num_slicings` must be at least 1, got 0"),
        (
            noise(2, 8, 2),
            {"permutations": torch.zeros(2, 8)},
            r"`permutations` must have shape \(1, 8\), got \(2, 8\)",
        ),
    ],
)
def test_mistakes_with_views_are_one_sentence(views, options, message):
    with pytest.raises(ValueError, match=message):
        w_mse_loss(views, **options)
