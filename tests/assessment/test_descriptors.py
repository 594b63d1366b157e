# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from golden_assessment import DIRECTORY, REFERENCE
from PIL import Image

from musiq_hf.assessment import colourfulness, describe, spatial_information


@pytest.mark.parametrize("name", REFERENCE["descriptors"])
def test_descriptors_are_those_of_siti_tools_and_quat(name):
    path, expected = DIRECTORY / name, REFERENCE["descriptors"][name]
    assert spatial_information(path) == pytest.approx(expected["si"], rel=0, abs=1e-5)
    assert spatial_information(path, legacy=True) == pytest.approx(expected["si_legacy"], rel=0, abs=1e-5)
    assert colourfulness(path) == pytest.approx(expected["cf"], rel=0, abs=1e-6)


def test_a_description_holds_all():
    path = DIRECTORY / "still1.png"
    with Image.open(path) as picture:
        size, pixels = picture.size, np.array(picture)
    for legacy in (False, True):
        expected = (*size, spatial_information(path, legacy=legacy), colourfulness(path))
        assert describe(path, legacy=legacy) == describe(pixels, legacy=legacy) == expected


def test_flat_pictures_have_no_detail():
    assert describe(np.full((3, 4), 90, np.uint8)) == (4, 3, pytest.approx(0, abs=1e-9), 0)
    red = np.zeros((3, 4, 3), np.uint8)
    red[..., 0] = 200
    assert colourfulness(red) == pytest.approx(0.3 * np.hypot(200, 100))


def test_mistakes_are_refused():
    with pytest.raises(ValueError, match="needs 3 pixels on each side, got 9x2"):
        describe(np.zeros((2, 9), np.uint8))
    with pytest.raises(ValueError, match="clip.mkv is a video"):
        describe("clip.mkv")
