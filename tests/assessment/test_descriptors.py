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


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", REFERENCE["clips"])
def test_descriptors_of_clips_are_those_of_siti_tools_and_quat(name, legacy):
    expected, found = REFERENCE["clips"][name], describe(DIRECTORY / "clips" / name, legacy=legacy)
    assert (found.num_frames, found.bit_depth) == (expected["num_frames"], expected["bits"])
    assert (found.width, found.height, found.frame_rate) == (320, 180, 24.0)
    assert found.full_range == name.startswith("full")
    assert found.share_outside_range == pytest.approx(expected["share_outside_range"], rel=1e-9)
    for kind in ("si", "ti"):
        frames = expected[f"{kind}_legacy_frames" if legacy else f"{kind}_frames"]
        assert found.frames[kind] == pytest.approx(frames, rel=0, abs=1e-5)
        assert getattr(found, kind) == pytest.approx(np.mean(frames), rel=0, abs=1e-5)
        assert getattr(found, f"{kind}_max") == pytest.approx(max(frames), rel=0, abs=1e-5)
    assert found.frames["cf"] == pytest.approx(expected["cf_frames"], rel=0, abs=0.25)
    assert found.cf == pytest.approx(found.frames["cf"].mean())


def test_a_description_holds_all():
    path = DIRECTORY / "still1.png"
    with Image.open(path) as picture:
        size, pixels = picture.size, np.array(picture)
    for legacy in (False, True):
        for found in (describe(path, legacy=legacy), describe(pixels, legacy=legacy)):
            detail, colour = spatial_information(path, legacy=legacy), colourfulness(path)
            assert (found.width, found.height, found.num_frames, found.bit_depth) == (*size, 1, 8)
            assert (found.si, found.si_max, found.cf) == (detail, detail, colour)
            assert (found.ti, found.ti_max, found.frame_rate) == (None, None, None)


def test_flat_pictures_have_no_detail():
    flat = describe(np.full((3, 4), 90, np.uint8))
    assert (flat.width, flat.height, flat.si, flat.cf) == (4, 3, pytest.approx(0, abs=1e-9), 0)
    red = np.zeros((3, 4, 3), np.uint8)
    red[..., 0] = 200
    assert colourfulness(red) == pytest.approx(0.3 * np.hypot(200, 100))


def test_mistakes_are_refused():
    with pytest.raises(ValueError, match="needs 3 pixels on each side, got 9x2"):
        describe(np.zeros((2, 9), np.uint8))
    with pytest.raises(ValueError, match="clip.mkv is a video, and pictures are measured here"):
        spatial_information("clip.mkv")
    with pytest.raises(FileNotFoundError):
        describe("clip.mkv")
