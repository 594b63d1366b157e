# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musiq_hf.models.musiq.resampling_musiq import gaussian_resize, gaussian_taps

lengths = st.integers(1, 300)
few = st.integers(1, 24)


def noise(height, width, seed=0):
    return torch.rand(height, width, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@given(lengths, lengths)
def test_weights_are_a_mean_over_pixels_of_the_axis(in_size, out_size):
    indices, weights = (torch.from_numpy(taps) for taps in gaussian_taps(in_size, out_size))
    assert indices.shape == weights.shape == (out_size, 4)
    assert 0 <= int(indices.min()) and int(indices.max()) < in_size
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(out_size), atol=1e-6, rtol=0)


@given(lengths, lengths)
def test_taps_agree_with_the_formula_in_float64(in_size, out_size):
    indices, weights = (torch.from_numpy(taps) for taps in gaussian_taps(in_size, out_size))
    dense = torch.zeros(out_size, in_size, dtype=torch.float64).scatter_add_(1, indices, weights.double())
    centres = (np.arange(out_size) + 0.5) * in_size / out_size
    distances = centres[:, None] - (np.arange(in_size) + 0.5)
    exact = np.where(np.abs(distances) < 1.5, np.exp(-2 * distances**2), 0.0)
    exact /= exact.sum(axis=1, keepdims=True)
    # A source pixel just at the radius may fall to either side: then it carries exp(-4.5), normalised.
    at_radius = (np.abs(np.abs(distances) - 1.5) < 1e-3).any(axis=1)
    # A centre, up to in_size, is rounded three times to float32, and no weight changes faster than by 1 per pixel.
    tolerance = 3 * 2.0**-24 * in_size + 1e-6
    np.testing.assert_allclose(dense.numpy()[~at_radius], exact[~at_radius], atol=tolerance)
    np.testing.assert_allclose(dense.numpy()[at_radius], exact[at_radius], atol=0.02)


@given(few, few, few, few, st.floats(-1, 1, width=32))
def test_flat_colour_stays_flat(height, width, new_height, new_width, value):
    resized = gaussian_resize(torch.full((height, width, 3), value), new_height, new_width)
    assert resized.shape == (new_height, new_width, 3)
    torch.testing.assert_close(resized, torch.full_like(resized, value), atol=1e-6, rtol=0)


@given(few, few, few, few)
def test_values_stay_within_those_of_the_picture(height, width, new_height, new_width):
    image = noise(height, width)
    resized = gaussian_resize(image, new_height, new_width)
    assert image.min() - 1e-6 <= resized.min() and resized.max() <= image.max() + 1e-6


@given(few, few, few, few)
def test_resize_is_linear(height, width, new_height, new_width):
    first, second = noise(height, width, 1), noise(height, width, 2)
    whole = gaussian_resize(first + 2 * second, new_height, new_width)
    parts = gaussian_resize(first, new_height, new_width) + 2 * gaussian_resize(second, new_height, new_width)
    torch.testing.assert_close(whole, parts, atol=2e-6, rtol=0)


@given(few, few, few, few)
def test_mirrored_picture_gives_the_mirrored_copy_away_from_the_radius(height, width, new_height, new_width):
    def at_radius(in_size, out_size):
        centres = (np.arange(out_size) + 0.5) * in_size / out_size
        return bool((np.abs(np.abs(centres[:, None] - np.arange(in_size) - 0.5) - 1.5) < 1e-3).any())

    if at_radius(height, new_height) or at_radius(width, new_width):
        return  # rounding decides there which side a pixel belongs to
    image = noise(height, width)
    mirrored = gaussian_resize(image.flip(1), new_height, new_width)
    torch.testing.assert_close(mirrored, gaussian_resize(image, new_height, new_width).flip(1), atol=2e-5, rtol=0)


def test_resize_to_the_same_size_still_filters():
    image = torch.zeros(9, 9, 3)
    image[4, 4] = 1.0
    resized = gaussian_resize(image, 9, 9)[..., 0]
    row = torch.tensor([np.exp(-2.0), 1.0, np.exp(-2.0)])
    row = row / row.sum()
    torch.testing.assert_close(resized[3:6, 3:6], torch.outer(row, row).float(), atol=1e-6, rtol=0)
    assert row[1].item() == pytest.approx(0.787, abs=1e-3)


def test_downsampling_aliases_as_the_released_code_does():
    stripes = torch.zeros(8, 64, 3)
    stripes[:, ::8] = 1.0  # one of 8 columns: an antialiased copy would be flat
    resized = gaussian_resize(stripes, 1, 8)
    assert resized.max() < 0.01  # every column falls between the taps


def test_leading_axes_are_a_batch():
    images = torch.stack((noise(12, 7, 1), noise(12, 7, 2)))
    resized = gaussian_resize(images, 5, 9)
    for image, copy in zip(images, resized, strict=True):
        assert torch.equal(gaussian_resize(image, 5, 9), copy)


@pytest.mark.parametrize("size", [(5, 9), (40, 3), (60, 70)])
def test_bytes_resize_as_floats_of_the_same_values(size):
    image = torch.randint(0, 256, (50, 60, 3), dtype=torch.uint8)
    assert torch.equal(gaussian_resize(image, *size), gaussian_resize(image.float(), *size))


def test_resize_is_differentiable_in_the_pixels():
    image = noise(6, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda pixels: gaussian_resize(pixels, 4, 8), (image,), atol=1e-5)


def test_gradients_flow_after_a_call_in_inference_mode_with_the_same_sizes():
    with torch.inference_mode():
        gaussian_resize(torch.rand(19, 23, 3), 7, 9)
    image = torch.rand(19, 23, 3, requires_grad=True)
    gaussian_resize(image, 7, 9).sum().backward()
    assert image.grad.abs().sum() > 0
