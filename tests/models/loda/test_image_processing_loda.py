# SPDX-License-Identifier: Apache-2.0
"""Pixels and crops of LoDa against the published code, and crops by the formula."""

import hashlib

import golden_loda as golden
import numpy as np
import PIL
import pytest
import torch
from PIL import Image, ImageOps
from places import ROOT

from musiq_hf.models.loda import LodaImageProcessor

ARRAYS = golden.arrays("crops15")
FILES = [str(name) for name in ARRAYS["files"]]
TINY = {"shorter_side": 96, "crop_size": 64}
# Earlier versions resize one direction first whatever the size, which moves bytes by one level.
as_golden = pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="the golden numbers are of Pillow 13")


def open_picture(name: str) -> Image.Image:
    with Image.open(ROOT / "tests" / "fixtures" / "images" / name) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


@as_golden
@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
@pytest.mark.parametrize("file", FILES)
def test_resized_pixels_are_those_of_the_published_code(file, resample):
    processor, key = LodaImageProcessor(**TINY, resample=resample), f"{file.split('.')[0]}/{resample}"
    resized = processor.resize(np.array(open_picture(file)))
    assert resized.shape[:2] == tuple(ARRAYS[f"{key}_size"])
    assert hashlib.sha256(resized.tobytes()).digest() == ARRAYS[f"{key}_sha256"].tobytes()


@as_golden
@torch.no_grad()
def test_scores_of_the_crops_of_the_published_code_are_its_scores():
    processor, model = LodaImageProcessor(**TINY), golden.make_model("tiny")
    for file, corners, raw, mean in zip(FILES, ARRAYS["corners"], ARRAYS["raw"], ARRAYS["mean"], strict=True):
        outputs = model(**processor(open_picture(file), crop_corners=corners))
        np.testing.assert_allclose(outputs.crop_logits[0].numpy(), raw, atol=golden.SCORE_TOLERANCE)
        assert outputs.scores.item() == pytest.approx(float(mean), abs=golden.SCORE_TOLERANCE)
    values = processor(open_picture(FILES[0]), crop_corners=ARRAYS["corners"][0]).pixel_values
    np.testing.assert_allclose(values[0, 0].numpy(), ARRAYS["first_pixel_values"], atol=1e-6)


def test_crops_follow_the_formula_and_more_of_them_add_to_fewer():
    corners = LodaImageProcessor().crop_corners(384, 512)
    assert corners[:3].tolist() == [[80, 96], [40, 192], [120, 32]] and corners.shape == (15, 2)
    assert corners.dtype == torch.int64
    few = LodaImageProcessor(num_crops=5).crop_corners(384, 512)
    assert torch.equal(few, corners[:5])
    assert LodaImageProcessor(num_crops=2).crop_corners(224, 224).tolist() == [[0, 0], [0, 0]]
    many = LodaImageProcessor(num_crops=4000).crop_corners(384, 384)
    assert many.min() == 0 and many.max() == 160


def test_pictures_of_all_kinds_give_one_feature():
    processor, image = LodaImageProcessor(**TINY), open_picture(FILES[1])
    pixels = np.array(image)
    expected = processor(image).pixel_values
    assert expected.shape == (1, 15, 3, 64, 64) and expected.dtype == torch.float32
    kinds = [pixels, torch.from_numpy(pixels).permute(2, 0, 1), pixels.astype(np.float32) / 255, pixels[None], [image]]
    for kind in kinds:
        assert torch.equal(processor(kind).pixel_values, expected)
    first = LodaImageProcessor(**TINY, input_data_format="channels_first")
    assert torch.equal(first(pixels.transpose(2, 0, 1)).pixel_values, expected)
    gray = image.convert("L")
    both = processor([gray, np.array(gray)]).pixel_values
    assert torch.equal(both[0], both[1]) and torch.equal(both[0, 0, 0] * 0, both[0, 0, 1] * 0)
    assert processor(image, return_tensors="np").pixel_values.dtype == np.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shorter_side": 100}, "at least `crop_size`, got 100 and 224"),
        ({"num_crops": 0}, "`num_crops` must be at least 1"),
        ({"image_std": [1, 1, 0]}, "`image_std` must be positive"),
        ({"image_mean": [1.0, 2.0]}, "`image_mean` must be three"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LodaImageProcessor(**settings)


def test_unknown_settings_are_refused():
    with pytest.raises(TypeError, match="num_crop"):
        LodaImageProcessor(num_crop=3)
    with pytest.raises(ValueError, match="num_crop"):
        LodaImageProcessor.from_dict({"num_crop": 3})


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (Image.new("RGBA", (9, 9)), "got mode RGBA"),
        (np.zeros((2, 300, 3), np.uint8), "at most 100 times"),
        (np.zeros((0, 5, 3), np.uint8), "at most 100 times"),
        (np.zeros((5, 5, 4), np.uint8), "1 or 3 channels"),
        (np.zeros((5, 5, 3), np.int64), "int64"),
        (np.full((5, 5, 3), 1.5, np.float32), "must lie in .0, 1., got 1.5"),
        (np.full((5, 5, 3), np.nan, np.float32), "must lie in .0, 1., got nan"),
        ("photo.jpg", "got str"),
        ([], "got an empty list"),
    ],
)
def test_pictures_that_cannot_be_used_are_refused(picture, message):
    with pytest.raises(ValueError, match=message):
        LodaImageProcessor(**TINY)(picture)


def test_what_rounding_leaves_beyond_the_range_is_clipped():
    processor, pixels = LodaImageProcessor(shorter_side=40, crop_size=32), np.linspace(0, 1, 7500).reshape(50, 50, 3)
    wanted, rounded = (
        processor(picture)["pixel_values"] for picture in (pixels, np.where(pixels == 1, 1 + 5e-7, pixels))
    )
    assert np.array_equal(wanted, rounded)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got 0 to 1.00001"):
        processor(pixels * 1.00001)


def test_no_gradient_passes_through_pillow():
    with pytest.raises(ValueError, match="no gradient passes"):
        LodaImageProcessor(**TINY).cut(torch.rand(64, 64, 3, requires_grad=True))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.full((9, 9, 3), 200), "int64"),
        (torch.full((9, 9, 3), 200.0), "must lie in .0, 1., got 200"),
        (torch.zeros(3, 9, 9), "1 or 3 channels"),
        (torch.zeros(9, 9, 1), r"shape \(height, width, 3\) were expected"),
        (torch.zeros(9, 9), "1 or 3 channels"),
    ],
)
def test_pixels_that_are_cut_are_checked_too(pixels, message):
    with pytest.raises(ValueError, match=message):
        LodaImageProcessor(**TINY).cut(pixels)


@pytest.mark.parametrize("corners", [[[33, 0]], [[0, -1]], [[0.5, 0.0]], [], [[1, 2, 3]]])
def test_corners_outside_of_the_picture_are_refused(corners):
    with pytest.raises(ValueError, match="`crop_corners` must"):
        LodaImageProcessor(**TINY)(np.zeros((96, 96, 3), np.uint8), crop_corners=corners)


def test_gray_pictures_may_be_refused():
    with pytest.raises(ValueError, match="do_convert_rgb=False"):
        LodaImageProcessor(**TINY, do_convert_rgb=False)(Image.new("L", (99, 99)))


def test_pictures_of_a_batch_have_one_number_of_crops():
    features = [
        LodaImageProcessor(**TINY, num_crops=count).cut(torch.zeros(9, 9, 3, dtype=torch.uint8)) for count in (1, 2)
    ]
    processor = LodaImageProcessor(**TINY)
    with pytest.raises(ValueError, match=r"one number of crops, got \[1, 2\]"):
        processor.pad(features)
    with pytest.raises(ValueError, match="`padding` must be"):
        processor.pad(features[:1], padding="do_not_pad")
    with pytest.raises(ValueError, match="at least the 17 tokens"):
        processor.pad(features[:1], padding="max_length", max_length=5)
