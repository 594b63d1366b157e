# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
from golden_assessment import DIRECTORY, REFERENCE
from PIL import Image

from musiq_hf.assessment import psnr, ssim

MEASURES = {"psnr": psnr, "ssim": ssim}
STILL = DIRECTORY / "still1.png"
BLACK = np.zeros((12, 14, 3), np.uint8)


@pytest.mark.parametrize("pair", REFERENCE["pairs"])
def test_measures_are_those_of_scikit_image(pair):
    paths = [DIRECTORY / name for name in pair.split("|")]
    for name, expected in REFERENCE["pairs"][pair].items():
        measure, channels, *crop = name.split("_")
        border = int(crop[0].removeprefix("crop")) if crop else 0
        value = MEASURES[measure](*paths, channels=channels, crop_border=border)
        assert value == pytest.approx(expected, rel=0, abs=1e-6), name


def test_equal_pictures():
    assert psnr(STILL, STILL) == psnr(STILL, STILL, channels="rgb") == math.inf
    assert ssim(STILL, STILL) == pytest.approx(1, abs=1e-12)


def test_paths_pictures_and_arrays_are_the_same():
    noisy = DIRECTORY / "still1_jpeg25.jpg"
    with Image.open(STILL) as first, Image.open(noisy) as second:
        arrays = np.array(first), np.array(second)
        for measure in MEASURES.values():
            expected = measure(STILL, str(noisy))
            assert measure(first, second) == measure(*arrays) == expected


def test_gray_counts_as_three_equal_channels():
    gray = np.arange(168, dtype=np.uint8).reshape(12, 14)
    tinted = BLACK + gray[..., None]
    other = np.flipud(gray)
    assert psnr(gray, other) == psnr(tinted, other)
    assert psnr(gray, other) - psnr(gray, other, channels="rgb") == pytest.approx(20 * math.log10(255 / 219))


def test_pictures_are_opened_as_for_scoring(tmp_path):
    pixels = np.arange(12 * 14 * 3, dtype=np.uint8).reshape(12, 14, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(np.rot90(pixels)).save(tmp_path / "turned.png", exif=exif)
    assert psnr(tmp_path / "turned.png", pixels) == math.inf
    clear = np.dstack([pixels, np.zeros((12, 14), np.uint8)])
    assert psnr(Image.fromarray(clear), BLACK + np.uint8(255)) > 100  # what is transparent is white


@pytest.mark.parametrize(
    ("pair", "options", "message"),
    [
        ((BLACK, BLACK[1:]), {}, "one size, got 14x12 and 14x11. Scale the distorted one"),
        ((BLACK, BLACK), {"crop_border": 6}, "leave pixels of 14x12, got 6. Lower it"),
        ((BLACK, BLACK), {"crop_border": -1}, "must be 0 or more"),
        ((BLACK, BLACK), {"channels": "u"}, "`channels` must be 'y' or 'rgb', got 'u'"),
        ((BLACK, BLACK / 255), {}, "must be uint8, got float64. Round them to 0..255 first"),
        ((BLACK, BLACK[None]), {}, r"got \(1, 12, 14, 3\). Put its channels last"),
        ((BLACK, np.zeros((12, 14, 4), np.uint8)), {}, r"got \(12, 14, 4\)"),
        ((BLACK[:0], BLACK[:0]), {}, "the picture is empty"),
        ((BLACK, "clips/one.MP4"), {}, "clips/one.MP4 is a video, and pictures are measured here"),
    ],
)
def test_mistakes_are_refused(pair, options, message):
    for measure in MEASURES.values():
        with pytest.raises(ValueError, match=message):
            measure(*pair, **options)


def test_a_window_of_ssim_must_fit():
    with pytest.raises(ValueError, match="SSIM needs 11 pixels on each side, got 12x10"):
        ssim(BLACK, BLACK, crop_border=1)
    assert ssim(BLACK[:11, :11], BLACK[:11, :11]) == pytest.approx(1)


def test_a_missing_file_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.png"):
        psnr(tmp_path / "none.png", BLACK)


def test_files_larger_than_the_limit_of_scoring_are_refused_before_they_are_decoded(tmp_path):
    Image.new("1", (6000, 6000)).save(tmp_path / "large.png")
    with pytest.raises(ValueError, match="large.png: 6000x6000 pixels are 36 megapixels, and the limit is 35. Shrink"):
        psnr(tmp_path / "large.png", tmp_path / "large.png")
