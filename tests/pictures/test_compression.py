# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from PIL import Image, features

from musiq_hf.pictures import compression
from musiq_hf.pictures.compression import COMPRESSIONS, compress_jpeg
from musiq_hf.pictures.synthetic import make_picture

PICTURE = make_picture(seed=7, width=120, height=90)


def error(copy: Image.Image, original: Image.Image = PICTURE) -> float:
    return float(np.abs(np.asarray(copy, dtype=float) - np.asarray(original, dtype=float)).mean())


def test_all_encoders_of_this_pillow_are_used():
    assert {"jpeg", "double_jpeg", "chroma", "ringing"} <= COMPRESSIONS.keys()
    for name, needed in {"webp": "webp", "avif": "avif", "jpeg2000": "jpg_2000"}.items():
        assert (name in COMPRESSIONS) == bool(features.check(needed))


def test_encoders_that_are_missing_are_left_out(monkeypatch):
    monkeypatch.setattr(compression.features, "check", lambda name: False)
    assert list(compression._collect_compressions()) == ["ringing", "chroma", "jpeg", "double_jpeg"]


@pytest.mark.parametrize("kind", COMPRESSIONS)
@pytest.mark.parametrize("seed", range(3))
def test_losses_grow_repeat_and_keep_the_size(kind, seed):
    copies = [COMPRESSIONS[kind](PICTURE, strength, seed) for strength in (0.1, 0.5, 1.0)]
    assert all((copy.size, copy.mode) == (PICTURE.size, "RGB") for copy in copies)
    assert 0 < error(copies[0]) < error(copies[1]) < error(copies[2])
    assert COMPRESSIONS[kind](PICTURE, 0.5, seed).tobytes() == copies[1].tobytes()


@pytest.mark.parametrize("kind", COMPRESSIONS)
@pytest.mark.parametrize("size", [(1, 1), (3, 17), (40, 9)])
def test_small_pictures_have_losses_too(kind, size):
    for strength in (0.003, 1.0):
        assert COMPRESSIONS[kind](Image.new("RGB", size, (9, 99, 200)), strength, 1).size == size


def test_jpeg_goes_from_quality_95_to_5_with_every_subsampling():
    assert COMPRESSIONS["jpeg"](PICTURE, 1.0, 0).tobytes() == compress_jpeg(PICTURE, 5, subsampling=0).tobytes()
    assert COMPRESSIONS["jpeg"](PICTURE, 1e-6, 1).tobytes() == compress_jpeg(PICTURE, 95, subsampling=1).tobytes()
    assert len({COMPRESSIONS["jpeg"](PICTURE, 0.5, seed).tobytes() for seed in range(6)}) == 3


def test_double_compression_is_worse_than_single():
    twice = COMPRESSIONS["double_jpeg"](PICTURE, 0.5, 0)
    assert error(twice) > error(COMPRESSIONS["jpeg"](PICTURE, 0.5, 0))


def test_chroma_bleeds_and_leaves_the_luminance():
    copy = COMPRESSIONS["chroma"](PICTURE, 1.0, 1)
    assert error(copy.convert("L"), PICTURE.convert("L")) < 0.3 * error(copy)


def test_ringing_overshoots_beside_an_edge():
    edge = Image.fromarray(np.repeat(np.where(np.arange(96) < 48, 60, 180).astype(np.uint8), 3).reshape(1, 96, 3))
    rung = np.asarray(COMPRESSIONS["ringing"](edge.resize((96, 64)), 0.5, 0))
    assert rung.min() < 55 and rung.max() > 185
