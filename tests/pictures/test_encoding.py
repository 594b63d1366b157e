# SPDX-License-Identifier: Apache-2.0
"""Encoders: what they write, which settings they are described by, and what they refuse."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, features

from musiq_hf.pictures import encoding, make_picture
from musiq_hf.pictures.encoding import ENCODERS, check_encoders, describe_encoder, encode_pixels

PIXELS = np.asarray(make_picture(seed=0, width=64, height=48))


@pytest.mark.parametrize("codec", ENCODERS)
def test_files_are_of_their_codec_and_grow_with_the_quality(codec):
    files = [encode_pixels(PIXELS, codec, quality) for quality in (10, 50, 90)]
    assert sorted(map(len, files)) == list(map(len, files)) and len(set(map(len, files))) == 3
    assert files == [encode_pixels(PIXELS, codec, quality) for quality in (10, 50, 90)]
    with Image.open(BytesIO(files[-1])) as image:
        assert (image.format, image.mode, image.size) == (codec.upper(), "RGB", (64, 48))
        error = np.asarray(image).astype(float) - PIXELS
    assert np.sqrt(np.mean(error**2)) < 10


def test_colours_of_jpeg_have_half_the_resolution():
    with Image.open(BytesIO(encode_pixels(PIXELS, "jpeg", 80))) as image:
        assert [layer[1:3] for layer in image.layer] == [(2, 2), (1, 1), (1, 1)]
    assert describe_encoder("jpeg").endswith("+subsampling=4:2:0+optimize=False+progressive=False")
    assert describe_encoder("webp") == f"webp-{features.version('webp')}+method=4"


def test_a_picture_that_an_encoder_does_not_take_is_one_sentence():
    with pytest.raises(ValueError, match=r"16384x1 pixels cannot be written as webp \(.*\). Shrink the picture"):
        encode_pixels(np.zeros((1, 16384, 3), np.uint8), "webp", 50)


def test_a_missing_encoder_is_named(monkeypatch):
    check_encoders(list(ENCODERS))
    monkeypatch.setattr(encoding.features, "check", lambda feature: feature != "avif")
    check_encoders(["jpeg", "webp"])
    with pytest.raises(ValueError, match=r"Pillow writes no avif here. Install its wheel \(pip install -U pillow\)"):
        check_encoders(list(ENCODERS))
