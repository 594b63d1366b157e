# SPDX-License-Identifier: Apache-2.0
"""Enlarged pictures: what becomes of their pixels, transparency, bits, orientation and colour profile."""

import numpy as np
import pytest
from PIL import ExifTags, Image
from upscalers import save_upscaler

from musiq_hf.upscaling import load_upscaler, upscale_picture

WIDTH, HEIGHT = 33, 20


@pytest.fixture(scope="module")
def bilinear(tmp_path_factory):
    """A tiny upscaler that samples bilinearly, as a new one does."""
    return load_upscaler(save_upscaler(tmp_path_factory.mktemp("upscaler") / "bilinear"))


@pytest.fixture(scope="module")
def spread(tmp_path_factory):
    """A tiny upscaler whose answers differ from bilinear ones."""
    return load_upscaler(save_upscaler(tmp_path_factory.mktemp("upscaler") / "spread", spread=0.5))


@pytest.fixture(params=["msit", "bicubic", "lanczos"])
def way(request, bilinear):
    """Each method, as keywords."""
    return {"method": request.param, **({"model": bilinear} if request.param == "msit" else {})}


def draw(width=WIDTH, height=HEIGHT):
    """Levels without detail, which each method keeps: what one picture shows at any size, float (height, width, 4)."""
    rows, columns = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    waves = [np.sin(3 * rows + number)[:, None] * np.cos(4 * columns - number) for number in range(4)]
    return 128 + 90 * np.stack(waves, axis=-1)


def make(mode, width=WIDTH, height=HEIGHT):
    levels = draw(width, height)
    if mode == "I;16":
        return Image.fromarray((levels[..., 0] * 257).round().astype(np.uint16))
    channels = {"L": 0, "RGB": slice(3), "RGBA": slice(4), "CMYK": slice(3)}[mode]
    picture = Image.fromarray(levels[..., channels].round().astype(np.uint8))
    return picture.convert("CMYK") if mode == "CMYK" else picture


def difference(found, expected):
    return np.abs(np.asarray(found, dtype=float) - np.asarray(expected, dtype=float))


@pytest.mark.parametrize(
    ("target", "size"),
    [({"scale": 2.7}, (89, 54)), ({"size": (40, 70)}, (40, 70)), ({"longer_side": 50}, (50, 30))],
)
def test_a_picture_shows_the_same_at_the_size_asked_for(way, target, size):
    large = upscale_picture(make("RGB"), **target, **way)
    assert (large.mode, large.size) == ("RGB", size)
    assert difference(large, make("RGB", *size))[2:-2, 2:-2].max() < 4


def test_a_scale_of_1_returns_the_picture(way):
    levels = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    assert difference(upscale_picture(Image.fromarray(levels), scale=1, **way), levels).max() == 0


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16"])
def test_gray_transparency_and_16_bits_stay(way, mode):
    large = upscale_picture(make(mode), scale=2, **way)
    assert (large.mode, large.size) == (mode, (66, 40))
    most = {"L": 4, "RGBA": 12, "I;16": 4 * 257}[mode]  # Pillow weighs colours by their alpha, and rounds
    assert difference(large, make(mode, 66, 40))[2:-2, 2:-2].max() < most
    if mode == "I;16":
        assert len(np.unique(np.asarray(large) % 257)) > 100
    if mode == "RGBA" and way["method"] == "msit":
        alpha = make(mode).getchannel("A").resize((66, 40), Image.Resampling.LANCZOS)
        assert difference(large.getchannel("A"), alpha).max() == 0


def test_a_file_is_turned_and_keeps_its_profile(way, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    profile = b"\0" * 16 + b"RGB " + b"\0" * 108
    make("RGB").save(tmp_path / "turned.png", exif=exif, icc_profile=profile)
    large = upscale_picture(tmp_path / "turned.png", scale=2, **way)
    expected = make("RGB", 66, 40).transpose(Image.Transpose.ROTATE_270)
    assert large.size == (40, 66) and difference(large, expected)[2:-2, 2:-2].max() < 4
    assert large.info["icc_profile"] == profile and not large.getexif()


@pytest.mark.parametrize(
    ("mode", "colours", "stays"),
    [("RGB", b"RGB ", True), ("L", b"GRAY", True), ("L", b"RGB ", False), ("CMYK", b"CMYK", False)],
)
def test_a_profile_of_other_colours_goes(way, mode, colours, stays):
    picture = make(mode)
    picture.info["icc_profile"] = b"\0" * 16 + colours + b"\0" * 108
    large = upscale_picture(picture, scale=1.5, **way)
    assert large.mode == ("RGB" if mode == "CMYK" else mode) and ("icc_profile" in large.info) == stays


def test_tiles_change_no_pixel(spread):
    levels = np.random.default_rng(1).integers(0, 256, (37, 41, 3), dtype=np.uint8)
    whole, tiles = (
        upscale_picture(Image.fromarray(levels), scale=2.3, model=spread, tile_size=size) for size in (64, 9)
    )
    assert difference(whole, tiles).max() <= 1
    plain = Image.fromarray(levels).resize(whole.size, Image.Resampling.BILINEAR)
    assert difference(whole, plain).mean() > 2


def test_a_model_may_be_named_and_others_are_refused(tmp_path, spread):
    by_name = upscale_picture(make("RGB"), scale=2, model=spread.name)
    assert difference(by_name, upscale_picture(make("RGB"), scale=2, model=spread)).max() == 0
    for name in ("musiq-tiny-biq2021", "sudds-small-biq2021"):
        with pytest.raises(
            ValueError, match=f"^{name} holds a .* model, which enlarges no pictures. Give a checkpoint"
        ):
            upscale_picture(make("RGB"), scale=2, model=name)
    with pytest.raises(ValueError, match="`model` is for the method 'msit', got 'bicubic' with it."):
        upscale_picture(make("RGB"), scale=2, model=spread, method="bicubic")
    with pytest.raises(ValueError, match="`tile_size` is for the method 'msit', got 'lanczos' with it. Leave one out"):
        upscale_picture(make("RGB"), scale=2, tile_size=64, method="lanczos")
    for tile_size in (0, 1.5, True):
        with pytest.raises(ValueError, match=f"`tile_size` must be a whole number of pixels from 1, got {tile_size}"):
            upscale_picture(make("RGB"), scale=1, tile_size=tile_size, model=spread)
    with pytest.raises(ValueError, match="`method` must be 'msit' or 'bicubic' or 'lanczos', got 'nearest'"):
        upscale_picture(make("RGB"), scale=2, method="nearest")
    with pytest.raises(ValueError, match="--device nothing cannot be used here"):
        load_upscaler(spread.name, device="nothing")
    with pytest.raises(ValueError, match="absent: neither a directory|absent: no such directory"):
        load_upscaler("absent")
    with pytest.raises(ValueError, match=r"PIL image: 33x20 pixels would become 20x33, which shrinks"):
        upscale_picture(make("RGB"), size=(20, 33), model=spread)


@pytest.mark.parametrize("mode", ["L", "I;16", "RGB", "RGBA", "CMYK"])
def test_at_its_own_size_a_picture_keeps_its_pixels(spread, mode):
    picture = make(mode)
    same = upscale_picture(picture, scale=1, model=spread)
    expected = picture.convert("RGB") if mode == "CMYK" else picture
    assert same.mode == expected.mode and difference(same, expected).max() == 0
