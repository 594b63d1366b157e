# SPDX-License-Identifier: Apache-2.0
"""Crops for super-resolution: windows of photographs, and batches that follow from their seed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from musiq_hf.pictures import make_picture
from musiq_hf.training import SuperResolutionSettings
from musiq_hf.training.super_resolution.material import cut_windows, draw_batch, shrink_photograph
from musiq_hf.training.super_resolution.settings import RECIPES

SMALL = replace(RECIPES["small"], batch_size=4, num_positions=30)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for seed, size in enumerate([(300, 280), (200, 190), (640, 200)]):
        make_picture(seed=seed, width=size[0], height=size[1]).save(folder / f"{seed}.png")
    return sorted(folder.iterdir())


def make(folder, **given):
    return SuperResolutionSettings(pictures=folder, output_dir=folder / "out", **given)


def test_photographs_are_shrunk_and_those_below_a_crop_left_out(photographs, tmp_path):
    assert shrink_photograph(photographs[0], 2).size == (150, 140)
    windows = cut_windows(photographs, make(tmp_path))
    assert [window.shape for window in windows] == [(140, 150, 3), (100, 256, 3)]
    whole = np.asarray(shrink_photograph(photographs[2], 2))
    places = [left for left in range(65) if (whole[:, left : left + 256] == windows[1]).all()]
    assert len(places) == 1
    with pytest.raises(ValueError, match="must have at least 576 x 576 pixels, and none of 3 has"):
        cut_windows(photographs, make(tmp_path, shrinking=6.0))


def test_sources_are_shrunk_targets_and_labels_lie_at_their_positions():
    row, column = np.mgrid[:100, :100]
    window = np.stack((row, column, row + column), axis=-1).astype(np.uint8)
    batch = draw_batch([window], SMALL, max_scale=4, seed=(0, 0, 3))
    height, width = batch["target_size"]
    assert 24 < height == width <= 96
    assert batch["pixel_values"].shape == (4, 3, 24, 24) and batch["positions"].shape == (4, 30, 2)
    assert batch["labels"].shape == (4, 3, 30) and batch["pixel_values"].dtype == torch.float32
    scale = height / 24
    near = ((batch["positions"] + 0.5) / scale).floor().long().clamp(max=23)
    for crop in range(4):  # levels change by at most 2 a pixel
        source = batch["pixel_values"][crop][:, near[crop, :, 0], near[crop, :, 1]]
        assert (source - batch["labels"][crop]).abs().max() < (2 * scale + 2) / 127.5
    assert all(len(set(map(tuple, own.tolist()))) == 30 for own in batch["positions"])


def test_values_are_those_of_the_image_processor_and_a_batch_at_scale_one_is_its_target():
    window = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    batch = draw_batch([window], SMALL, max_scale=1, seed=(0, 0, 0))
    levels = ((batch["pixel_values"] + 1) * 127.5).numpy()
    assert batch["target_size"] == (24, 24) and np.abs(levels - levels.round()).max() < 1e-4
    rows, columns = batch["positions"][0].T
    assert torch.equal(batch["pixel_values"][0][:, rows, columns], batch["labels"][0])
    assert set(levels.round().astype(np.uint8)[0].reshape(3, -1).T.tobytes()) <= set(window.tobytes())


def test_crops_are_mirrored_and_turned_in_all_eight_ways():
    tile = np.zeros((24, 24, 3), np.uint8)
    tile[0, 1], tile[0, 2] = 100, 200
    batches = [draw_batch([tile], SMALL, max_scale=1, seed=(seed,)) for seed in range(20)]
    crops = torch.cat([batch["pixel_values"] for batch in batches])
    assert len(torch.unique(crops, dim=0)) == 8


def test_a_batch_follows_from_its_seed_and_scales_are_uniform():
    windows = [np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)]
    first, again, other = (draw_batch(windows, SMALL, max_scale=4, seed=(0, 0, step)) for step in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in ("pixel_values", "positions", "labels"))
    assert first["pixel_values"].shape == other["pixel_values"].shape
    assert not torch.equal(first["pixel_values"], other["pixel_values"])
    tiny = replace(SMALL, batch_size=1, num_positions=1)
    sizes = [draw_batch(windows, tiny, max_scale=4, seed=(step,))["target_size"][0] for step in range(300)]
    assert min(sizes) < 27 and max(sizes) > 93 and 55 < np.mean(sizes) < 65


def test_a_photograph_of_another_mode_becomes_rgb(tmp_path):
    Image.new("LA", (200, 200), (90, 255)).save(tmp_path / "gray.png")
    assert np.asarray(shrink_photograph(tmp_path / "gray.png", 1))[0, 0].tolist() == [90, 90, 90]
