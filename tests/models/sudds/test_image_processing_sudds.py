# SPDX-License-Identifier: Apache-2.0
"""Patches by contrast, against the published code and in pictures of all kinds."""

import golden_upscaling as golden
import numpy as np
import pytest
import torch
from PIL import Image

from musiq_hf.models.sudds import UpscalingDetectorConfig, UpscalingDetectorImageProcessor, measure_contrast, to_luma
from musiq_hf.models.sudds.patches_sudds import mirror
from musiq_hf.models.sudds.spectrum_sudds import measure_spectrum


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_contrast_and_order_are_those_of_the_published_code():
    gray = torch.from_numpy(golden.ARRAYS["glcm_picture"])
    contrast = measure_contrast(gray.float(), 240)
    np.testing.assert_allclose(contrast.flatten().numpy(), golden.ARRAYS["glcm_contrast"], rtol=0, atol=1e-9)
    processor = UpscalingDetectorImageProcessor(patch_size=240, crop_size=224, num_patches=96)
    corners = processor.find_corners(gray[..., None].expand(-1, -1, 3))
    rows, columns = ((corners - 8) // 240).T
    assert (3 * rows + columns).tolist() == golden.ARRAYS["glcm_order"].tolist()


def test_the_patches_of_most_contrast_are_cut_and_the_first_of_equals_comes_first():
    pixels = np.full((130, 200, 3), 100, np.uint8)
    pixels[64:96, 96:128] = noise(32, 32)
    processor = UpscalingDetectorImageProcessor(patch_size=32, num_patches=3)
    picture = torch.from_numpy(pixels)
    assert processor.find_corners(picture).tolist() == [[64, 96], [0, 0], [0, 32]]
    feature = processor.cut(picture)
    expected = torch.from_numpy(pixels[64:96, 96:128]).permute(2, 0, 1) / 255
    torch.testing.assert_close(feature["pixel_values"][0], expected)
    assert feature["patch_mask"].tolist() == [1, 1, 1]
    gray = to_luma(picture).numpy() / 255
    np.testing.assert_allclose(feature["spectrum"].numpy(), measure_spectrum(gray), atol=1e-5)
    given = processor.cut(picture, corners=torch.tensor([[5, 7]]))
    torch.testing.assert_close(given["pixel_values"][0], torch.from_numpy(pixels[5:37, 7:39]).permute(2, 0, 1) / 255)


def test_a_crop_is_the_centre_of_a_patch():
    picture = torch.from_numpy(noise(90, 90))
    whole, cropped = (
        UpscalingDetectorImageProcessor(patch_size=40),
        UpscalingDetectorImageProcessor(patch_size=40, crop_size=32),
    )
    assert torch.equal(cropped.find_corners(picture), whole.find_corners(picture) + 4)
    values = whole.cut(picture)["pixel_values"]
    assert torch.equal(cropped.cut(picture)["pixel_values"], values[..., 4:36, 4:36])


def test_luma_has_the_weights_of_its_standard():
    pixels = torch.tensor([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [7, 7, 7]]], dtype=torch.uint8)
    expected = torch.tensor([[76.245, 149.685, 29.07, 7]])
    torch.testing.assert_close(to_luma(pixels), expected)
    torch.testing.assert_close(to_luma(pixels / 255), expected)
    with pytest.raises(ValueError, match="must be uint8 or float, got torch.int16"):
        to_luma(pixels.short())
    with pytest.raises(ValueError, match="`patch_size` must be above 5, got 5"):
        measure_contrast(torch.zeros(20, 20), 5)


def test_small_pictures_are_continued_as_in_a_mirror():
    row = torch.arange(3)[None, :, None].expand(1, 3, 3)
    assert mirror(row, 1, 8)[0, :, 0].tolist() == [0, 1, 2, 2, 1, 0, 0, 1]
    assert mirror(row, 1, 2) is row
    processor = UpscalingDetectorImageProcessor()
    picture = torch.from_numpy(noise(64, 300))
    feature = processor.cut(picture)
    assert processor.count_tokens(64, 300) == 3 == len(feature["pixel_values"])
    first = feature["pixel_values"][0]
    torch.testing.assert_close(first[:, 64:], first[:, 32:64].flip(1))
    np.testing.assert_allclose(feature["spectrum"], measure_spectrum(to_luma(picture).numpy() / 255), atol=1e-5)


def test_pictures_of_all_kinds_give_one_feature():
    processor, pixels = UpscalingDetectorImageProcessor(), noise(101, 203)
    image = Image.fromarray(pixels)
    expected = processor(image)
    assert (
        expected["pixel_values"].shape == (1, 12, 3, 96, 96)
        and expected["patch_mask"].tolist()[0] == [1, 1] + [0] * 10
    )
    for kind in (pixels, torch.from_numpy(pixels).permute(2, 0, 1), pixels.astype(np.float32) / 255, [image]):
        for name, values in processor(kind).items():
            torch.testing.assert_close(values, expected[name], atol=1e-5, rtol=0)
    gray = image.convert("L")
    both = processor([gray, np.array(gray)])
    assert torch.equal(both["spectrum"][0], both["spectrum"][1])
    assert processor(image, return_tensors="np")["spectrum"].dtype == np.float32
    assert "spectrum" not in UpscalingDetectorImageProcessor(use_spectrum=False)(image)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (noise(63, 200), "at least 64 x 64 pixels to show traces of upscaling, got 200 x 63. Give a larger one"),
        (Image.new("RGBA", (99, 99)), "got mode RGBA"),
        (np.zeros((99, 99, 4), np.uint8), "1 or 3 channels"),
        (np.full((99, 99, 3), np.nan, np.float32), "must lie in .0, 1., got nan"),
        ("photo.jpg", "got str"),
        ([], "got an empty list"),
    ],
)
def test_pictures_that_cannot_be_used_are_refused(picture, message):
    with pytest.raises(ValueError, match=message):
        UpscalingDetectorImageProcessor()(picture)


def test_gradients_and_corners_outside_are_refused():
    processor = UpscalingDetectorImageProcessor()
    with pytest.raises(ValueError, match="no gradient passes"):
        processor.cut(torch.rand(99, 99, 3, requires_grad=True))
    for corners in ([[4, 0]], [[0, -1]], [[0.5, 0.0]], [], [[1, 2, 3]]):
        with pytest.raises(ValueError, match="`corners` must"):
            processor.cut(torch.zeros(99, 99, 3), corners=torch.tensor(corners))


def test_padding_is_asked_for_rightly():
    processor = UpscalingDetectorImageProcessor()
    feature = processor.cut(torch.zeros(99, 200, 3))
    assert processor.pad([feature], padding="max_length", max_length=4)["patch_mask"].tolist() == [[1, 1, 0, 0]]
    with pytest.raises(ValueError, match="`padding` must be"):
        processor.pad([feature], padding="do_not_pad")
    for length in (0, 1):
        with pytest.raises(ValueError, match=f"at least the 2 patches of a picture, got {length}"):
            processor.pad([feature], padding="max_length", max_length=length)
    with pytest.raises(ValueError, match="`max_length` is read with `padding=.max_length.` alone, got None"):
        processor.pad([feature], max_length=4)
    with pytest.raises(ValueError, match="At least one feature"):
        processor.pad([])
    with pytest.raises(ValueError, match="has no spectrum"):
        processor.pad([{name: value for name, value in feature.items() if name != "spectrum"}])


@pytest.mark.parametrize("method", ["cut", "find_corners"])
def test_pixels_that_are_none_are_refused(method):
    read = getattr(UpscalingDetectorImageProcessor(), method)
    for shape, message in (((99, 99, 1), "height, width, 3"), ((0, 99, 3), "at least 64 x 64"), ((99, 99), "read")):
        with pytest.raises(ValueError, match=message):
            read(torch.zeros(shape, dtype=torch.uint8))
    with pytest.raises(ValueError, match="torch.int32"):
        read(torch.zeros(99, 99, 3, dtype=torch.int32))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_size": 97}, "`crop_size` must be at most `patch_size`, got 97 and 96"),
        ({"patch_size": 31}, "must be at least 32, got 31 and None"),
        ({"crop_size": 16}, "must be at least 32, got 96 and 16"),
        ({"num_patches": 0}, "`num_patches` must be at least 1"),
        ({"patch_size": 10**6}, "`patch_size` must be at most 4096"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    for kind in (UpscalingDetectorImageProcessor, UpscalingDetectorConfig):
        with pytest.raises(ValueError, match=message):
            kind(**settings)


def test_model_and_processor_must_agree():
    config = UpscalingDetectorConfig(patch_size=64, use_spectrum=False)
    UpscalingDetectorImageProcessor.from_config(config).check_config(config)
    with pytest.raises(ValueError, match="must agree on `patch_size`, got 64 and 96"):
        UpscalingDetectorImageProcessor().check_config(config)
