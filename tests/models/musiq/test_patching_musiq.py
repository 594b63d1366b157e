# SPDX-License-Identifier: Apache-2.0
import golden
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musiq_hf import MusiqImageProcessor
from musiq_hf.models.musiq.patching_musiq import (
    arp_size,
    extract_patches,
    gaussian_resize,
    gaussian_taps,
    hash_positions,
    num_patches,
    patch_grids,
    scaled_sizes,
    shrink,
    sinusoid_table,
    write_chosen_patches,
    write_patches,
)

sides = st.integers(1, 5000)
counts = st.integers(1, 400)
lengths = st.integers(1, 300)
few = st.integers(1, 24)
PUBLISHED = {"longer_side_lengths": (224, 384), "use_native_resolution": True}


@given(sides, sides, st.integers(1, 1024))
def test_longer_side_becomes_the_wanted_length_and_the_ratio_stays(height, width, length):
    rows, cols = arp_size(height, width, length)
    assert max(rows, cols) == length
    assert (rows >= cols) if height > width else (cols >= rows)
    exact = min(height, width) * length / max(height, width)
    assert abs(min(rows, cols) - exact) <= 0.5 + 1e-3


@given(sides, sides, st.integers(1, 1024))
def test_size_of_a_turned_picture_is_the_turned_size(height, width, length):
    assert arp_size(width, height, length) == arp_size(height, width, length)[::-1]


@pytest.mark.parametrize(
    ("height", "width", "length", "shorter"),
    [(27, 192, 224, 31), (39, 832, 224, 11), (23, 1472, 224, 3), (95, 1280, 384, 29)],
)
def test_sizes_round_in_float32(height, width, length, shorter):
    assert arp_size(height, width, length) == (shorter, length)
    assert round(height * (length / width)) != shorter  # float64


@given(counts, counts, st.integers(1, 64))
def test_patches_cover_the_picture_and_no_row_is_spare(height, width, patch_size):
    rows, cols = num_patches(height, width, patch_size)
    assert (rows - 1) * patch_size < height <= rows * patch_size
    assert (cols - 1) * patch_size < width <= cols * patch_size


def test_scales_come_shortest_first_and_native_last():
    sizes = scaled_sizes(100, 50, resize_mode="arp", **PUBLISHED)
    assert sizes == [(224, 112), (384, 192), (100, 50)]


def test_square_mode_drops_the_ratio_and_accepts_any():
    assert scaled_sizes(5, 3000, resize_mode="square", **PUBLISHED) == [(224, 224), (384, 384), (5, 3000)]


def test_ratio_that_leaves_no_row_raises_and_names_the_length():
    with pytest.raises(ValueError, match="too extreme: resized to a longer side of 224 pixels.*rounds to 0 pixels"):
        scaled_sizes(5, 3000, resize_mode="arp", **PUBLISHED)


def test_native_picture_alone_accepts_any_ratio():
    sizes = scaled_sizes(1, 9000, longer_side_lengths=(), use_native_resolution=True, resize_mode="arp")
    assert sizes == [(1, 9000)]


def test_a_large_native_picture_is_shrunk_to_its_bound_and_others_are_left_alone():
    options = PUBLISHED | {"resize_mode": "arp", "max_native_side": 400}
    assert scaled_sizes(1000, 800, **options) == [(224, 179), (384, 307), (400, 320)]
    assert scaled_sizes(400, 100, **options)[-1] == (400, 100)
    alone = options | {"longer_side_lengths": ()}
    assert scaled_sizes(1, 9000, **alone) == [(1, 400)]


def test_shrinking_averages_what_the_gaussian_of_the_paper_skips():
    stripes = torch.zeros(64, 64, 3, dtype=torch.uint8)
    stripes[:, ::4] = 200
    shrunk = shrink(stripes, 8, 8)
    assert shrunk.dtype == torch.float32
    torch.testing.assert_close(shrunk[:, 2:-2], torch.full((8, 4, 3), 50.0), atol=1e-3, rtol=0)
    scaled = shrink(stripes.float().div(127.5).sub(1), 8, 8)
    torch.testing.assert_close(scaled, shrunk.div(127.5).sub(1), atol=1e-5, rtol=0)
    edges = torch.zeros(64, 64, 3, dtype=torch.uint8)
    edges[:, 32:] = 255
    assert 0 <= shrink(edges, 24, 24).min() and shrink(edges, 24, 24).max() <= 255
    assert gaussian_resize(stripes, 8, 8).min() > 90  # it reads few of the lines, twice as white


@given(st.integers(1, 900), st.integers(1, 900))
def test_grids_count_the_patches_of_the_processor(height, width):
    lengths = (16, 24)
    if min(arp_size(height, width, 16)) == 0:
        return
    grids = patch_grids(height, width, patch_size=32, longer_side_lengths=lengths, use_native_resolution=True)
    processor = MusiqImageProcessor(longer_side_lengths=list(lengths))
    features = processor(np.zeros((height, width, 3), np.uint8))
    counted = torch.bincount(features["scale_position_ids"][0], minlength=3).tolist()
    assert counted == [rows * cols for rows, cols in grids]


@given(counts, counts, st.integers(1, 40))
def test_hashed_positions_are_in_range_and_monotone(rows, cols, grid_size):
    positions = hash_positions(rows, cols, grid_size)
    assert positions.shape == (rows * cols,)
    assert positions.dtype == torch.int64
    cells = positions.view(rows, cols)
    row_cells, col_cells = cells // grid_size, cells % grid_size
    assert 0 <= int(positions.min()) and int(positions.max()) < grid_size**2
    assert int(cells[0, 0]) == 0
    assert (row_cells == row_cells[:, :1]).all() and (col_cells == col_cells[:1]).all()
    assert (row_cells.diff(dim=0) >= 0).all() and (col_cells.diff(dim=1) >= 0).all()
    if rows >= grid_size:  # no cell of a side is left empty
        assert len(row_cells.unique()) == grid_size


@given(st.integers(1, 204), st.sampled_from([5, 10, 14]))
def test_hashed_positions_of_common_counts_are_the_floor_of_eq_2(count, grid_size):
    expected = torch.arange(count) * grid_size // count
    assert (hash_positions(1, count, grid_size) == expected).all()


def test_hashed_positions_of_205_patches_are_those_of_float32():
    positions = hash_positions(1, 205, 10)
    assert not torch.equal(positions, torch.arange(205) * 10 // 205)
    assert torch.equal(positions, torch.from_numpy(golden.arrays("hash")["g10_1d"][205, :205]).long())


@pytest.mark.parametrize("sizes", [(0, 3, 10), (3, 0, 10), (3, 3, 0)])
def test_hashing_nothing_raises(sizes):
    with pytest.raises(ValueError, match="Sizes must be at least 1, got"):
        hash_positions(*sizes)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 17))
def test_patches_put_together_are_the_centred_picture(height, width, patch_size):
    image = torch.rand(height, width, 3, generator=torch.Generator().manual_seed(height * 41 + width)) + 0.5
    patches = extract_patches(image, patch_size)
    rows, cols = num_patches(height, width, patch_size)
    assert patches.shape == (rows * cols, patch_size * patch_size * 3)
    canvas = patches.view(rows, cols, patch_size, patch_size, 3).transpose(1, 2)
    canvas = canvas.reshape(rows * patch_size, cols * patch_size, 3)
    top, left = (rows * patch_size - height) // 2, (cols * patch_size - width) // 2
    assert torch.equal(canvas[top : top + height, left : left + width], image)
    assert canvas.count_nonzero() == image.numel()  # the rest is mid gray, 0


def test_odd_pixel_of_padding_goes_to_the_bottom_and_the_right():
    canvas = extract_patches(torch.ones(1, 1, 3), 4).view(4, 4, 3)[..., 0]
    assert canvas.nonzero().tolist() == [[1, 1]]


def test_patch_values_are_in_row_column_channel_order():
    image = torch.arange(2 * 4 * 3.0).view(2, 4, 3)
    patches = extract_patches(image, 2)
    assert patches[1].tolist() == torch.cat((image[0, 2:], image[1, 2:])).flatten().tolist()


@given(height=st.integers(1, 20), width=st.integers(1, 20), patch_size=st.integers(1, 9))
def test_patches_of_bytes_are_those_of_the_scaled_picture(height, width, patch_size):
    image = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
    expected = extract_patches(-1 + image.float() / 255 * 2, patch_size)
    patches = torch.full_like(expected, torch.nan)
    write_patches(image, patch_size, patches)
    assert torch.equal(patches, expected)


@given(height=st.integers(1, 20), width=st.integers(1, 20), patch_size=st.integers(1, 9), data=st.data())
def test_chosen_patches_are_those_of_the_whole_picture(height, width, patch_size, data):
    image = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
    whole = torch.empty(-(-height // patch_size) * -(-width // patch_size), patch_size * patch_size * 3)
    write_patches(image, patch_size, whole)
    chosen = data.draw(st.lists(st.integers(0, len(whole) - 1), unique=True).map(sorted))
    patches = torch.full((len(chosen), whole.shape[1]), torch.nan)
    write_chosen_patches(image, patch_size, torch.tensor(chosen, dtype=torch.int64), patches)
    assert torch.equal(patches, whole[chosen])


def test_sinusoid_table_alternates_sines_and_cosines():
    table = sinusoid_table(7, 6).double().numpy()
    for position in range(7):
        for column in range(6):
            angle = position / 10000 ** (2 * (column // 2) / 6)
            expected = np.sin(angle) if column % 2 == 0 else np.cos(angle)
            assert table[position, column] == pytest.approx(expected, abs=1e-6)


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
