# SPDX-License-Identifier: Apache-2.0
"""The quality map equals the model run anew on the picture without the patches of each region."""

import numpy as np
import pytest
import torch

from musiq_hf import MusiqImageProcessor
from musiq_hf.explain.figures import QualityMap
from musiq_hf.explain.musiq.quality_map import make_inputs, patch_layouts, quality_map
from musiq_hf.models.musiq.patching_musiq import extract_patches, patch_grids
from musiq_hf.scoring.engine import read_pixels

HEIGHT, WIDTH = 45, 70


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def centers_by_drawing(processor, layout):
    """Centre of each patch in fractions of the picture, read off a picture of coordinates and what padding adds.

    Independent of the layout's offsets: the processor's own function cuts the coordinates.
    """
    rows = torch.arange(layout.height)[:, None].expand(-1, layout.width).float() + 1.5
    cols = torch.arange(layout.width)[None].expand(layout.height, -1).float() + 1.5
    patches = extract_patches(torch.stack((rows, cols, torch.ones_like(rows)), dim=-1), processor.patch_size)
    patches = patches.view(-1, processor.patch_size, processor.patch_size, 3)
    centers = []
    for patch in patches:
        real = patch[..., 2].nonzero()
        at = real[0]  # one real pixel: where it lies in the patch, and which one it is
        found = patch[at[0], at[1], :2] - 1  # its centre on the picture, in pixels
        middle = found + processor.patch_size / 2 - (at + 0.5)
        centers.append((middle / torch.tensor([layout.height, layout.width])).tolist())
    return np.array(centers)


def brute_force(model, processor, picture, rows, cols):
    """The map by the plain road: cut the tokens out of the processor's output and run the whole model."""
    inputs = processor(picture, return_tensors="pt")
    cells = []
    for layout in patch_layouts(HEIGHT, WIDTH, processor):
        cell = np.floor(centers_by_drawing(processor, layout) * (rows, cols)).clip(0, (rows - 1, cols - 1))
        cells.append((cell[:, 0] * cols + cell[:, 1])[: layout.count])
    cells = torch.from_numpy(np.concatenate(cells))
    assert len(cells) == inputs["pixel_values"].shape[1]
    with torch.no_grad():
        whole = model(**inputs).scores.item()
        parts = [
            model(**{name: values[:, cells != cell] for name, values in inputs.items()}).scores.item() - whole
            for cell in range(rows * cols)
        ]
    return whole, np.array(parts).reshape(rows, cols)


@pytest.mark.parametrize(
    "overrides, grid",
    [
        ({}, (3, 4)),
        ({"max_native_patches": 20}, (4, 5)),
        ({"max_native_side": 30}, (3, 4)),
        ({"spatial_embedding": "fixed", "max_native_patches": 30, "longer_side_lengths": (20,)}, (2, 2)),
        ({"longer_side_lengths": (), "patch_encoder": "linear"}, (6, 9)),
        ({"num_labels": 10, "use_native_resolution": False}, (3, 3)),
        ({"pooling": "cls+covariance", "covariance_size": 6}, (3, 4)),
    ],
    ids=["three scales", "cut", "bounded", "fixed", "native alone", "distribution", "covariance"],
)
def test_the_map_is_the_brute_force_one(tiny_model, picture, overrides, grid):
    model = tiny_model(**overrides)
    processor = MusiqImageProcessor.from_config(model.config)
    result = quality_map(model, processor, picture, rows=grid[0], cols=grid[1], max_tokens=200)
    score, deltas = brute_force(model, processor, picture, *grid)
    assert result.score == pytest.approx(score, abs=1e-5)
    np.testing.assert_allclose(result.deltas, deltas, atol=1e-5)
    assert np.ptp(result.deltas) > 1e-3
    assert (result.height, result.width) == (HEIGHT, WIDTH)


def test_eager_attention_and_other_batches_give_the_same_map(tiny_model, picture):
    model = tiny_model()
    processor = MusiqImageProcessor.from_config(model.config)
    expected = quality_map(model, processor, picture)
    np.testing.assert_allclose(quality_map(model, processor, picture, max_tokens=1).deltas, expected.deltas, atol=1e-5)
    model.set_attn_implementation("eager")
    np.testing.assert_allclose(quality_map(model, processor, picture).deltas, expected.deltas, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (45, 70), (33, 9), (17, 64), (41, 40)])
def test_each_cell_of_the_default_grid_holds_one_patch_of_the_smallest_scale(tiny_config, size):
    processor = MusiqImageProcessor.from_config(tiny_config())
    smallest = patch_layouts(*size, processor)[0]
    assert smallest.cells(smallest.rows, smallest.cols).tolist() == list(range(smallest.count))


def test_layouts_are_the_sequence_of_the_processor(tiny_config, picture):
    processor = MusiqImageProcessor.from_config(tiny_config(max_native_patches=20))
    layouts = patch_layouts(HEIGHT, WIDTH, processor)
    grids = patch_grids(
        HEIGHT, WIDTH, patch_size=8, longer_side_lengths=(16, 24), use_native_resolution=True, resize_mode="arp"
    )
    assert [(layout.rows, layout.cols) for layout in layouts] == grids
    assert [layout.is_native for layout in layouts] == [False, False, True]
    scales = processor(picture)["scale_position_ids"][0]
    assert [layout.count for layout in layouts] == scales.bincount().tolist()


def test_a_cell_without_patches_moves_nothing(tiny_model, picture):
    model = tiny_model()
    result = quality_map(model, MusiqImageProcessor.from_config(model.config), picture, rows=20, cols=2)
    assert isinstance(result, QualityMap)
    assert (result.num_patches == 0).any() and (result.num_patches > 0).any()
    assert (result.deltas[result.num_patches == 0] == 0).all()
    assert (result.deltas[result.num_patches > 0] != 0).all()
    assert result.num_patches.sum() == sum(
        layout.count for layout in patch_layouts(HEIGHT, WIDTH, MusiqImageProcessor.from_config(model.config))
    )


def test_pixels_are_read_as_the_processor_reads_them(tiny_config, picture):
    processor = MusiqImageProcessor.from_config(tiny_config())
    for image in (picture, torch.from_numpy(picture).permute(2, 0, 1), picture / np.float32(255)):
        inputs = make_inputs(read_pixels(image, processor), processor)
        expected = processor(image)
        assert inputs.keys() == expected.keys()
        assert all(torch.equal(inputs[name], expected[name]) for name in inputs)


def test_mistakes_are_one_sentence(tiny_model, tiny_config, picture):
    model = tiny_model()
    processor = MusiqImageProcessor.from_config(model.config)
    for name in ("rows", "cols", "max_tokens"):
        with pytest.raises(ValueError, match=f"`{name}` must be at least 1, got 0"):
            quality_map(model, processor, picture, **{name: 0})
    with pytest.raises(ValueError, match="one of the 1 x 1 holds all patches of this 70x45 picture. Take a finer"):
        quality_map(model, processor, picture, rows=1, cols=1)
    with pytest.raises(ValueError, match="must agree on `longer_side_lengths`"):
        quality_map(model, MusiqImageProcessor.from_config(tiny_config(longer_side_lengths=(16,))), picture)
    with pytest.raises(FileNotFoundError, match="nowhere.png: no such file"):
        quality_map(model, processor, "nowhere.png")
    model.train()
    with pytest.raises(ValueError, match="must be in evaluation mode"):
        quality_map(model, processor, picture)
