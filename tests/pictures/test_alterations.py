# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from PIL import Image

from musiq_hf.pictures.alterations import ALTERATIONS, add_border, add_watermark, rotate, shuffle_blocks
from musiq_hf.pictures.synthetic import make_picture

GRAY = Image.new("RGB", (96, 64), (90, 90, 90))


def changed(copy: Image.Image, original: Image.Image) -> float:
    """Part of the pixels that differ."""
    return float((np.asarray(copy) != np.asarray(original)).any(axis=2).mean())


@pytest.mark.parametrize("kind", ALTERATIONS)
@pytest.mark.parametrize("seed", range(4))
def test_alterations_grow_repeat_and_keep_the_size(kind, seed):
    picture = make_picture(seed=5, width=256, height=224)
    copies = [ALTERATIONS[kind](picture, strength, seed) for strength in (0.1, 0.5, 1.0)]
    errors = [np.abs(np.asarray(copy, dtype=float) - np.asarray(picture, dtype=float)).mean() for copy in copies]
    assert all((copy.size, copy.mode) == (picture.size, "RGB") for copy in copies)
    assert 0 < errors[0] < errors[1] < errors[2]
    assert ALTERATIONS[kind](picture, 0.5, seed).tobytes() == copies[1].tobytes()


@pytest.mark.parametrize("kind", ALTERATIONS)
def test_tiny_pictures_are_no_mistake(kind):
    for strength in (0.01, 1.0):
        assert ALTERATIONS[kind](Image.new("RGB", (2, 1)), strength, 3).size == (2, 1)


def test_a_border_has_its_width_and_colour():
    pixels = np.asarray(add_border(GRAY, 5))
    assert (pixels[:5] == 0).all() and (pixels[-5:] == 0).all() and (pixels[:, :5] == 0).all()
    assert (pixels[5:-5, 5:-5] == 90).all()
    bars = np.asarray(add_border(GRAY, 5, color=(255, 255, 255), has_sides=False))
    assert (bars[:5] == 255).all() and (bars[5:-5] == 90).all()
    assert (np.asarray(add_border(GRAY, 60)) == 0).all()


def test_a_rotation_leaves_corners_of_the_colour():
    pixels = np.asarray(rotate(GRAY, 10))
    assert (pixels[0, 0] == 0).all() and (pixels[32, 48] == 90).all()


def test_shuffled_blocks_are_the_same_blocks_in_other_places():
    picture = make_picture(seed=2, width=100, height=70)
    copy = shuffle_blocks(picture, 32, seed=1)
    before, after = (
        sorted(
            np.asarray(image)[top : top + 32, left : left + 32].tobytes() for top in (0, 32) for left in (0, 32, 64)
        )
        for image in (picture, copy)
    )
    assert before == after
    assert (np.asarray(copy)[64:] == np.asarray(picture)[64:]).all()
    assert changed(copy.crop((0, 0, 96, 64)), picture.crop((0, 0, 96, 64))) > 0.95  # every block moves
    assert changed(shuffle_blocks(picture, 32, part=0.01, seed=1), picture) < 0.4  # two of six
    assert shuffle_blocks(picture, 80, seed=1).tobytes() == picture.tobytes()


def test_a_watermark_covers_letters_alone():
    marked = add_watermark(GRAY, "Sample", height=0.3, opacity=1.0)
    assert 0.02 < changed(marked, GRAY) < 0.3
    assert np.asarray(marked).max() == 255
    faint = add_watermark(GRAY, "Sample", height=0.3, opacity=0.5)
    assert np.asarray(faint).max() == pytest.approx(90 + 165 / 2, abs=2)
    assert changed(add_watermark(GRAY, "Sample", height=0.3, opacity=1.0, angle=30), marked) > 0.02
