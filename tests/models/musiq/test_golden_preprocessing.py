# SPDX-License-Identifier: Apache-2.0
"""Every preprocessing array of the golden data against ours: positions, masks, sizes equal; patches to 2e-6."""

import hashlib

import golden
import numpy as np
import pytest
import torch
from PIL import Image

from musiq_hf import MusiqImageProcessor
from musiq_hf.models.musiq.image_loading_musiq import load_image, to_rgb_tensor
from musiq_hf.models.musiq.patching_musiq import arp_size, gaussian_resize, hash_positions, scaled_sizes

# Settings of preprocess.npz: longer sides as given, whether the picture itself follows, native slots, grid.
VARIANTS = {
    "multi": ([224, 384], True, None, 10),
    "single": ([], True, None, 10),
    "multi64": ([224, 384], True, 64, 10),
    "four": ([512, 224, 384], True, None, 10),
    "grid5": ([224, 384], True, None, 5),
    "resized_only": ([224, 384], False, None, 10),
}
EXACT = {"spatial", "scale", "mask"}
STATISTICS = {"patch_mean", "patch_std", "patch_probe"}
LEAVES = {
    "multi": EXACT | STATISTICS | {"sel_index", "sel_patches"},
    "four": EXACT | STATISTICS,
    **{name: EXACT for name in ("single", "multi64", "grid5", "resized_only")},
}
PROBE = 2 * np.random.RandomState(12345).random_sample((3072, 4)) - 1


def original_layout(name: str, variant: str) -> dict[str, np.ndarray]:
    lengths, use_native, native_slots, grid = VARIANTS[variant]
    processor = MusiqImageProcessor(
        longer_side_lengths=lengths,
        use_native_resolution=use_native,
        max_native_patches=native_slots,
        hash_grid_size=grid,
    )
    return golden.original_layout(processor(golden.pixels(name)), lengths=lengths, native_slots=native_slots)


def scaled_to_unit(name: str) -> torch.Tensor:
    """The picture in [-1, 1], as both programs resize it."""
    return -1 + to_rgb_tensor(golden.pixels(name)) * 2


@pytest.mark.parametrize("name", golden.PICTURES)
def test_picture_files_are_the_ones_of_the_index(name):
    entry = golden.FILES[name]
    assert hashlib.sha256(golden.path(name).read_bytes()).hexdigest() == entry["sha256"]
    image = load_image(golden.path(name))
    assert (image.height, image.width, image.mode) == (entry["height"], entry["width"], entry["mode"])
    for length in (224, 384):
        assert list(arp_size(entry["height"], entry["width"], length)) == entry[f"size_{length}"]


@pytest.mark.parametrize("name", sorted({key.split("/")[0] for key in golden.arrays("decoded")}))
def test_decoding_agrees_with_the_original(name):
    image = load_image(golden.path(name))
    ours = to_rgb_tensor(image).numpy()
    decoded = golden.leaves(golden.arrays("decoded"), name)
    expected = decoded.pop("uint8")
    if name.startswith("p15_jpeg"):  # the original's default is the fast inverse DCT, Pillow has the accurate one
        difference = np.abs(expected.astype(int) - np.asarray(image)).max()
        assert 0 < difference <= 18
        expected = decoded.pop("uint8_accurate_idct")
    if name.startswith("p11_rgba"):  # the golden data drop the alpha that we composite on white
        golden.check_equal(image.convert("RGB"), expected, "colours without alpha")
        alpha = np.asarray(image)[..., 3:] / np.float32(255)
        golden.check(ours, expected / np.float32(255) * alpha + (1 - alpha), 1e-6, "composited")
    else:
        golden.check_equal(ours, expected / np.float32(255), "pixels")
    assert not decoded, f"arrays without a test: {sorted(decoded)}"


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", golden.PICTURES)
def test_sequences_equal_the_original(name, variant):
    expected = golden.leaves(golden.arrays("preprocess"), f"{name}/{variant}")
    assert set(expected) == LEAVES[variant]
    ours = original_layout(name, variant)
    for leaf in EXACT:
        golden.check_equal(ours[leaf], expected[leaf], leaf)
    if "patch_mean" in expected:
        patches = ours["patches"].astype(np.float64)
        golden.check(patches.mean(axis=1), expected["patch_mean"], golden.PATCH_TOLERANCE, "patch mean")
        golden.check(patches.std(axis=1), expected["patch_std"], golden.PATCH_TOLERANCE, "patch deviation")
        # A weighted sum over 3072 values: their tolerance times the Euclidean norm of the weights, 32 each.
        tolerance = golden.PATCH_TOLERANCE * np.linalg.norm(PROBE, axis=0).min()
        golden.check(patches @ PROBE, expected["patch_probe"], tolerance, "patch probe")
    if "sel_index" in expected:
        selected = ours["patches"][expected["sel_index"]]
        golden.check(selected, expected["sel_patches"], golden.PATCH_TOLERANCE, "selected patches")


def test_every_picture_and_setting_of_the_golden_sequences_is_compared():
    keys = {tuple(key.split("/")[:2]) for key in golden.arrays("preprocess")}
    assert keys == {(name, variant) for name in golden.PICTURES for variant in VARIANTS}


@pytest.mark.parametrize("name", golden.groups(golden.arrays("patches_full")))
def test_whole_sequences_of_patches_equal_the_original(name):
    expected = golden.leaves(golden.arrays("patches_full"), name)
    assert set(expected) == {"patches", "index"}
    ours = original_layout(name, "multi")
    golden.check_equal(np.flatnonzero(ours["mask"]), expected["index"], "real patches")
    golden.check(ours["patches"][expected["index"]], expected["patches"], golden.PATCH_TOLERANCE, "patches")


PICTURE_RESIZES = sorted(key for key in golden.arrays("resize") if not key.startswith("rand"))
RANDOM_RESIZES = sorted(key for key in golden.arrays("resize") if key.startswith("rand") and "/out" in key)


@pytest.mark.parametrize("key", PICTURE_RESIZES)
def test_resized_pictures_equal_the_original(key):
    name, length = key.split("/L")
    expected = golden.arrays("resize")[key]
    image = scaled_to_unit(name)
    height, width = image.shape[:2]
    if expected.size == 0:
        with pytest.raises(ValueError, match="aspect ratio is too extreme"):
            scaled_sizes(
                height,
                width,
                longer_side_lengths=(int(length),),
                use_native_resolution=False,
                resize_mode="arp",
            )
    else:
        resized = gaussian_resize(image, *arp_size(height, width, int(length)))
        golden.check(resized, expected, golden.PATCH_TOLERANCE, key)


@pytest.mark.parametrize("key", RANDOM_RESIZES)
def test_resizes_without_a_common_ratio_equal_the_original(key):
    file = golden.arrays("resize")
    image = torch.from_numpy(file[key.split("/")[0] + "/in"])
    golden.check(gaussian_resize(image, *file[key].shape[:2]), file[key], golden.PATCH_TOLERANCE, key)


def test_every_resize_of_the_golden_data_is_compared():
    inputs = {key for key in golden.arrays("resize") if key.endswith("/in")}
    assert {key.split("/")[0] + "/in" for key in RANDOM_RESIZES} == inputs
    assert len(PICTURE_RESIZES) + len(RANDOM_RESIZES) + len(inputs) == len(golden.arrays("resize"))
    assert {key.split("/L")[0] for key in PICTURE_RESIZES} == set(golden.PICTURES)


def test_resized_sizes_equal_the_original():
    (table,) = golden.arrays("sizes").values()
    ours = [arp_size(height, width, length) for height, width, length, _, _ in table.tolist()]
    golden.check_equal(ours, table[:, 3:], "sizes")
    # What the original does with a side of 0 is to raise, and so do we.
    impossible = [row for row in table.tolist() if 0 in row[3:]]
    assert impossible
    for height, width, length, _, _ in impossible:
        with pytest.raises(ValueError, match="aspect ratio is too extreme"):
            scaled_sizes(height, width, longer_side_lengths=(length,), use_native_resolution=True, resize_mode="arp")


@pytest.mark.parametrize("grid_size", [5, 10, 14])
def test_hashed_positions_along_one_side_equal_the_original(grid_size):
    table = golden.arrays("hash")[f"g{grid_size}_1d"]
    ours = np.full_like(table, -1)
    for count in range(1, len(table)):
        ours[count, :count] = hash_positions(1, count, grid_size)
        assert (hash_positions(count, 1, grid_size) == grid_size * torch.from_numpy(ours[count, :count])).all()
    golden.check_equal(ours, table, "cells")


def test_hashed_positions_of_grids_equal_the_original():
    table = golden.arrays("hash")["g10_2d"]
    assert set(golden.arrays("hash")) == {"g5_1d", "g10_1d", "g14_1d", "g10_2d"}
    ours = np.zeros_like(table)
    filled = np.zeros(table.shape, bool)
    for rows in range(1, table.shape[0] + 1):
        for cols in range(1, table.shape[1] + 1):
            ours[rows - 1, cols - 1, : rows * cols] = hash_positions(rows, cols, 10)
            filled[rows - 1, cols - 1, : rows * cols] = True
    golden.check_equal(ours[filled], table[filled], "cells")


def test_the_picture_that_only_float32_sizes_reproduce_is_part_of_the_data():
    with Image.open(golden.path("p12_27x192")) as image:
        assert image.size == (192, 27)
    assert arp_size(27, 192, 224) == (31, 224)  # 31.5 exactly: half to even in float64 would be 32
    assert golden.arrays("resize")["p12_27x192/L224"].shape == (31, 224, 3)
