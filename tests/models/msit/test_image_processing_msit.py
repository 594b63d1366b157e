# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from PIL import Image

from musiq_hf.models.msit import MsitImageProcessor


@pytest.fixture
def processor() -> MsitImageProcessor:
    return MsitImageProcessor()


def noise(*shape: int, high: int = 256, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, shape).astype(dtype)


def answer(values: torch.Tensor) -> dict[str, torch.Tensor]:
    """An output of a model that repeats what it reads."""
    return {"reconstruction": values}


def make_pictures() -> dict[str, Image.Image]:
    gray, high = noise(6, 8), noise(6, 8, high=2**16, dtype=np.uint16)
    return {
        "RGB": Image.fromarray(noise(6, 8, 3)),
        "L": Image.fromarray(gray),
        "RGBA": Image.fromarray(noise(6, 8, 4)),
        "LA": Image.fromarray(noise(6, 8, 2)),
        "I;16": Image.fromarray(high),
    }


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "I;16"])
def test_a_picture_that_is_not_changed_comes_back_with_its_mode_and_values(processor, mode):
    picture = make_pictures()[mode]
    assert picture.mode == mode
    values = processor(picture)["pixel_values"]
    assert values.shape == (1, 3, 6, 8) and values.dtype == torch.float32 and values.abs().max() <= 1
    (back,) = processor.post_process(answer(values), picture)
    assert back.mode == mode and np.array_equal(np.asarray(back), np.asarray(picture))


def test_alpha_is_upscaled_by_lanczos_and_colours_come_from_the_model(processor):
    picture = make_pictures()["RGBA"]
    values = processor(picture)["pixel_values"]
    (large,) = processor.post_process(answer(torch.zeros(1, 3, 12, 16)), [picture])
    expected = picture.getchannel("A").resize((16, 12), Image.Resampling.LANCZOS)
    assert np.array_equal(np.asarray(large)[..., 3], np.asarray(expected)) and set(np.asarray(large)[..., 0].flat) == {
        128
    }
    assert torch.equal(values, processor(picture.convert("RGB"))["pixel_values"])


def test_answers_without_pictures_are_rgb_and_clipped(processor):
    values = torch.tensor([-1.5, -1, 0.2, 1, 3]).expand(2, 3, 4, 5)
    pictures = processor.post_process(answer(values))
    assert [picture.mode for picture in pictures] == ["RGB"] * 2
    assert np.asarray(pictures[1])[0, :, 0].tolist() == [0, 0, 153, 255, 255]


def test_arrays_and_tensors_are_read_with_their_ranges(processor):
    picture = noise(6, 8, 3)
    expected = torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1
    batch = [picture, torch.from_numpy(picture).permute(2, 0, 1), picture.astype(np.float32) / 255]
    found = processor(batch, return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(found, expected.expand(3, -1, -1, -1), atol=1e-6)
    high = noise(6, 8, 3, high=2**16, dtype=np.uint16)
    for one in (high, torch.from_numpy(high)):
        values = processor(one)["pixel_values"]
        (back,) = processor.post_process(answer(values), [one])
        assert back.dtype == np.uint16 and np.array_equal(back, high)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (Image.new("CMYK", (4, 4)), r'got mode CMYK. Convert it by `picture.convert\("RGB"\)`'),
        (Image.new("F", (4, 4)), "got mode F. Scale it to gray of 16 bits."),
        ([Image.new("RGB", (4, 5)), Image.new("RGB", (4, 4))], "of one size make a batch, got 4 x 4, 4 x 5. Upscale"),
        (np.full((4, 4, 3), 2.0), r"must lie in \[0, 1\]"),
        ("photo.jpg", "got str"),
        ([], "At least one picture"),
    ],
)
def test_what_does_not_fit_is_refused(processor, images, message):
    with pytest.raises(ValueError, match=message):
        processor(images)


def test_answers_that_do_not_fit_are_refused(processor):
    with pytest.raises(ValueError, match="for whole pictures is needed.*Leave out `positions`"):
        processor.post_process(answer(torch.zeros(1, 3, 7)))
    with pytest.raises(ValueError, match="As many pictures as answers are needed, 2, got 1"):
        processor.post_process(answer(torch.zeros(2, 3, 4, 4)), Image.new("RGB", (2, 2)))
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="answered numbers that are not finite, which make no picture"):
            processor.post_process(answer(torch.tensor([0.0, value]).expand(1, 3, 4, 2)))
    with pytest.raises(ValueError, match="so `padding` must be None, got 'longest'"):
        processor.pad([processor.cut(torch.zeros(4, 4, 3))], padding="longest")
