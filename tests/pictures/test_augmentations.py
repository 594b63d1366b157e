# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from musiq_hf.pictures.augmentations import (
    MAX_SHIFT,
    MAX_SIZE_CHANGE,
    OPERATIONS,
    _cut_shifted,
    crop_at_random,
    draw_crop_size,
    draw_others,
    make_mosaic,
    make_view_pair,
    rand_augment,
    resize_mildly,
)
from musiq_hf.pictures.synthetic import make_picture

WITHOUT_STRENGTH = {"identity", "auto_contrast", "equalize"}
SIGNED = {name for name in OPERATIONS if name.startswith(("rotate", "shear", "translate"))} | {
    "brightness",
    "color",
    "contrast",
    "sharpness",
}


@pytest.fixture
def picture() -> Image.Image:
    """Slopes with a little noise, so that more of a fault is more of a change."""
    rows, columns = np.mgrid[0:24, 0:40]
    values = np.stack([40 + 5 * rows, 30 + 4 * columns, 60 + 2 * rows + 2 * columns], axis=-1)
    return Image.fromarray((values + np.random.default_rng(3).integers(0, 12, values.shape)).astype(np.uint8))


@pytest.mark.parametrize("sizes", [[(600, 400)], [(600, 400), (300, 500)], [(1, 700)], [(1, 1), (9, 3)]])
@pytest.mark.parametrize("seed", range(20))
def test_crop_size_fits_into_every_picture(sizes, seed):
    torch.manual_seed(seed)
    width, height = draw_crop_size(sizes, min_area=0.08)
    assert 1 <= width <= min(size[0] for size in sizes)
    assert 1 <= height <= min(size[1] for size in sizes)


def test_crops_vary_in_size_and_keep_near_the_aspect_of_the_picture():
    torch.manual_seed(0)
    sizes = np.array([draw_crop_size([(600, 400)], min_area=0.08) for _ in range(400)])
    areas, changes = sizes.prod(axis=1) / 240_000, sizes[:, 0] / sizes[:, 1] / 1.5
    assert areas.min() > 0.075 and areas.min() < 0.15 and areas.max() > 0.9
    assert changes.min() > 0.74 and changes.max() < 1.35
    assert changes.min() < 0.8 and changes.max() > 1.25
    assert len(set(map(tuple, sizes.tolist()))) > 300


def test_the_smallest_area_can_be_set():
    torch.manual_seed(0)
    areas = [np.prod(draw_crop_size([(600, 400)], min_area=0.5)) / 240_000 for _ in range(200)]
    assert 0.4 < min(areas) < 0.55  # a side that is too long is cut, so a little below is possible


def test_crops_are_windows_at_random_places():
    rows, columns = np.mgrid[0:30, 0:50].astype(np.uint8)
    image = Image.fromarray(np.stack([rows, columns, rows], axis=-1))
    torch.manual_seed(0)
    corners = set()
    for _ in range(60):
        crop = np.asarray(crop_at_random(image, (45, 28)))
        assert crop.shape == (28, 45, 3)
        top, left, _ = crop[0, 0]
        np.testing.assert_array_equal(crop, np.asarray(image)[top : top + 28, left : left + 45])
        corners.add((int(top), int(left)))
    assert {corner[0] for corner in corners} == {0, 1, 2}
    assert {corner[1] for corner in corners} == {0, 1, 2, 3, 4, 5}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_keep_size_and_colour_mode(name, picture):
    for strength in (-1.0, -0.5, 0.0, 0.5, 1.0):
        for image in (picture, Image.new("RGB", (1, 1), (7, 8, 9))):
            result = OPERATIONS[name](image, strength)
            assert (result.size, result.mode) == (image.size, "RGB")


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - WITHOUT_STRENGTH))
def test_strength_zero_changes_nothing_and_more_changes_more(name, picture):
    start = np.asarray(picture, dtype=float)
    changes = [np.abs(np.asarray(OPERATIONS[name](picture, strength)) - start).mean() for strength in (0, 0.25, 1)]
    assert changes[0] == 0
    assert changes[2] > changes[1] > 0


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_directions_differ_where_there_are_two(name, picture):
    forward, backward = (OPERATIONS[name](picture, strength).tobytes() for strength in (0.5, -0.5))
    assert (forward != backward) == (name in SIGNED)


def test_translation_is_a_part_of_the_side_and_bares_mid_gray():
    picture = Image.new("RGB", (40, 20), (10, 20, 30))
    columns = (np.asarray(OPERATIONS["translate_x"](picture, 1.0)) == 128).all(axis=(0, 2))
    assert columns.tolist() == [False] * 22 + [True] * 18
    rows = (np.asarray(OPERATIONS["translate_y"](picture, -1.0)) == 128).all(axis=(1, 2))
    assert rows.tolist() == [True] * 9 + [False] * 11


def test_full_strength_inverts_and_leaves_four_bits(picture):
    assert OPERATIONS["solarize"](picture, 1.0).tobytes() == ImageOps.invert(picture).tobytes()
    assert set(np.unique(np.asarray(OPERATIONS["posterize"](picture, 1.0))) % 16) == {0}


def test_rand_augment_draws_operations_directions_and_the_given_strength(picture, monkeypatch):
    drawn = []

    def spy(name):
        return lambda image, strength: drawn.append((name, strength)) or image

    monkeypatch.setattr("musiq_hf.pictures.augmentations.OPERATIONS", {name: spy(name) for name in OPERATIONS})
    torch.manual_seed(0)
    for _ in range(150):
        rand_augment(picture, num_operations=2, magnitude=15)
    assert len(drawn) == 300
    assert set(drawn) == {(name, strength) for name in OPERATIONS for strength in (-0.5, 0.5)}


def test_rand_augment_repeats_itself_from_a_seed(picture):
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        results.append(rand_augment(picture, num_operations=4, magnitude=30).tobytes())
    assert results[0] == results[1] != results[2]


def test_no_operation_leaves_the_picture(picture):
    assert rand_augment(picture, num_operations=0, magnitude=30) is picture


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_operations": -1, "magnitude": 15}, "`num_operations` must be at least 0 .*got -1"),
        ({"num_operations": 2, "magnitude": 31}, r"`magnitude` must lie in \[0, 30\], got 31"),
        ({"num_operations": 2, "magnitude": float("nan")}, "`magnitude` must lie in .* got nan"),
    ],
)
def test_wrong_settings_are_refused(settings, message, picture):
    with pytest.raises(ValueError, match=message):
        rand_augment(picture, **settings)


def test_two_views_differ_a_little_and_never_in_nothing():
    picture = make_picture(seed=3, width=120, height=90)
    torch.manual_seed(0)
    kinds, orders, different = set(), set(), 0
    for _ in range(60):
        first, second = make_view_pair(picture)
        different += first.tobytes() != second.tobytes()
        for view in (first, second):
            for side, whole in zip(view.size, picture.size, strict=True):
                assert (whole - MAX_SHIFT) / MAX_SIZE_CHANGE - 1 <= side <= whole * MAX_SIZE_CHANGE + 1
        kinds.add((first.size == second.size, first.size == picture.size))
        orders.add(first.tobytes() == picture.tobytes())
    assert len(kinds) == 4 and len(orders) == 2
    assert different >= 58  # all but shifts by nothing


def test_a_shift_is_the_only_change_if_nothing_else_is_drawn():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    for seed in range(8):
        torch.manual_seed(seed)
        first, second = (np.asarray(view) for view in _cut_shifted(Image.fromarray(pixels)))
        assert first.shape == second.shape
        down, across = (whole - side for whole, side in zip(pixels.shape[:2], first.shape[:2], strict=True))
        assert 0 <= down <= MAX_SHIFT and 0 <= across <= MAX_SHIFT
        windows = [
            pixels[top : top + first.shape[0], left : left + first.shape[1]]
            for top, left in ((0, 0), (down, across), (0, across), (down, 0))
        ]
        assert any((first == window).all() for window in windows)
        assert any((second == window).all() for window in windows)


@pytest.mark.parametrize("size", [(1, 1), (2, 40)])
def test_tiny_pictures_have_views(size):
    for seed in range(10):
        torch.manual_seed(seed)
        assert all(min(view.size) >= 1 for view in make_view_pair(Image.new("RGB", size)))


def test_views_repeat_with_torchs_seed():
    picture, made = make_picture(seed=1, width=60, height=50), []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        made.append([view.tobytes() for _ in range(5) for view in make_view_pair(picture)])
    assert made[0] == made[1] != made[2]


def test_mild_sizes_stay_within_their_limits():
    for size, lowest, highest in (((512, 512), 365, 717), ((300, 280), 256, 420), ((2000, 1500), 1071, 2048)):
        torch.manual_seed(0)
        sides = [resize_mildly(Image.new("RGB", size)).size for _ in range(40)]
        assert min(map(min, sides)) >= lowest and max(map(max, sides)) <= highest
        assert len(set(sides)) > 20
    assert resize_mildly(Image.new("RGB", (100, 60))).width >= 100
    assert resize_mildly(Image.new("RGB", (3000, 1000))).width <= 3000


def test_a_mosaic_holds_windows_of_all_its_pictures():
    pictures = [Image.new("RGB", (40 + 5 * level, 60 - 5 * level), (level,) * 3) for level in range(4)]
    mosaic = np.asarray(make_mosaic(pictures))
    assert mosaic.shape == (90, 80, 3)
    for level in range(4):
        window = mosaic[level // 2 * 45 :, level % 2 * 40 :][:45, :40]
        assert (window == level).all()
    assert make_mosaic([Image.new("RGB", (900, 700))] * 16).size == (2048, 2048)
    assert make_mosaic([Image.new("RGB", (512, 400))] * 9).size == (1536, 1200)


def test_mosaics_have_4_9_or_16_pictures_of_the_batch():
    torch.manual_seed(0)
    drawn = [draw_others(5) for _ in range(300)]
    assert {len(others) for others in drawn} == {0, 3, 8, 15}
    assert 100 < sum(not others for others in drawn) < 200
    assert all(0 <= index < 5 for others in drawn for index in others)
