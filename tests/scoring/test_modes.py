# SPDX-License-Identifier: Apache-2.0
"""One picture in every mode, with every kind of transparency, depth and byte order, by every route: the same score."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
import torch
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image
from transformers import pipeline

from musiq_hf import MusiqImageProcessor
from musiq_hf.pictures.decoding import Decoder
from musiq_hf.scoring.engine import score_pictures

HEIGHT, WIDTH = 40, 56
GENERATOR = np.random.default_rng(3)
COARSE = GENERATOR.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
RGB = np.array(Image.fromarray(COARSE).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
RGB[8:24, 8:40] = (0, 7, 0)  # one colour, which is a hole where it is the key
HOLE = (RGB == (0, 7, 0)).all(axis=-1)
GRAY = RGB[..., 0] | 1  # 0 is taken by the hole
GRAY[HOLE] = 0
SIXTEEN = GRAY.astype(np.uint16) * 257
ALPHA = np.where(HOLE, 0, 255).astype(np.uint8)
HALF = np.where(HOLE, 90, 255).astype(np.uint8)


def repeat(gray):
    return gray[..., None].repeat(3, axis=2)


def add_alpha(rgb, alpha):
    return np.concatenate([rgb, alpha[..., None]], axis=2)


def save(image, format="PNG", **options):
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def write_png(samples, *, depth, key=None):
    """Write gray or RGB samples of any depth, which Pillow itself does not write."""
    colour = 2 if samples.ndim == 3 else 0
    bits = np.unpackbits(samples.astype(">u2").view(np.uint8).reshape(*samples.shape, 2), axis=-1)[..., -depth:]
    lines = np.packbits(bits.reshape(HEIGHT, -1), axis=1)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + line.tobytes() for line in lines))
    chunks = [(b"IHDR", header), (b"tRNS", np.asarray(key, ">u2").tobytes() if key is not None else None)]
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in [*chunks, (b"IDAT", body), (b"IEND", b"")]:
        if data is not None:
            content += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return content


def make_palette(transparency):
    palette = Image.fromarray(RGB).quantize(64)
    wanted = add_alpha(np.array(palette.convert("RGB")), np.full((HEIGHT, WIDTH), 255, np.uint8))
    index = np.array(palette)[HOLE][0]
    alpha = bytes(90 if value == index else 255 for value in range(64))
    wanted[np.array(palette) == index, 3] = 0 if transparency == "entry" else 90
    return save(palette, transparency=int(index) if transparency == "entry" else alpha), wanted


def make_few_bits(depth, *, key):
    """Make gray of 1, 2 or 4 bits with the value of the hole's place as its key, which is not 0."""
    samples = (GRAY >> (8 - depth)).astype(np.uint16)
    samples[HOLE] = key
    gray = (samples * (255 // (2**depth - 1))).astype(np.uint8)
    return write_png(samples, depth=depth, key=key), add_alpha(
        repeat(gray), np.where(samples == key, 0, 255).astype("u1")
    )


def convert(mode, source=RGB):
    """Make a PIL image that no file holds, and its pixels."""
    image = Image.fromarray(source).convert(mode)
    return image, np.array(image.convert("RGBA" if source.shape[-1] == 4 else "RGB"))


def make_la(mode):
    image = Image.fromarray(np.stack([GRAY, HALF], axis=-1), "LA")
    return (image if mode == "LA" else image.convert("La")), add_alpha(repeat(GRAY), HALF)


def make_premultiplied():
    image = Image.fromarray(add_alpha(RGB, HALF)).convert("RGBa")
    return image, np.array(image.convert("RGBA"))


SIXTEEN_KEY = np.where(HOLE, 65535, SIXTEEN).astype(np.uint16)
RGB_SIXTEEN = RGB.astype(np.uint16) << 8 | 3
# Kind to bytes of a file, or PIL image, and the same picture as an array.
KINDS = {
    "1": lambda: (save(Image.fromarray(GRAY > 99)), repeat(np.where(GRAY > 99, 255, 0).astype(np.uint8))),
    "1, key": lambda: make_few_bits(1, key=1),
    "2 bits, key": lambda: make_few_bits(2, key=2),
    "4 bits, key": lambda: make_few_bits(4, key=5),
    "L": lambda: (save(Image.fromarray(GRAY)), repeat(GRAY)),
    "L, key": lambda: (save(Image.fromarray(GRAY), transparency=0), add_alpha(repeat(GRAY), ALPHA)),
    "LA": lambda: (save(make_la("LA")[0]), make_la("LA")[1]),
    "La": lambda: make_la("La"),
    "P": lambda: (save(Image.fromarray(RGB).quantize(64)), np.array(Image.fromarray(RGB).quantize(64).convert("RGB"))),
    "P, entry": lambda: make_palette("entry"),
    "P, alpha": lambda: make_palette("alpha"),
    "PA": lambda: convert("PA", np.array(Image.fromarray(add_alpha(RGB, HALF)))),
    "RGB": lambda: (save(Image.fromarray(RGB)), RGB),
    "RGB, key": lambda: (save(Image.fromarray(RGB), transparency=(0, 7, 0)), add_alpha(RGB, ALPHA)),
    "RGB of 16 bits": lambda: (write_png(RGB_SIXTEEN, depth=16), RGB),
    "RGB of 16 bits, key": lambda: (write_png(RGB_SIXTEEN, depth=16, key=RGB_SIXTEEN[9, 9]), add_alpha(RGB, ALPHA)),
    "RGBA": lambda: (save(Image.fromarray(add_alpha(RGB, HALF))), add_alpha(RGB, HALF)),
    "RGBA, WebP": lambda: (
        save(Image.fromarray(add_alpha(RGB, HALF)), "WEBP", lossless=True, exact=True),
        add_alpha(RGB, HALF),
    ),
    "RGBA, TIFF": lambda: (save(Image.fromarray(add_alpha(RGB, HALF)), "TIFF"), add_alpha(RGB, HALF)),
    "RGBa": make_premultiplied,
    "RGBX": lambda: convert("RGBX"),
    "CMYK": lambda: (save(convert("CMYK")[0], "TIFF"), convert("CMYK")[1]),
    "YCbCr": lambda: convert("YCbCr"),
    "HSV": lambda: convert("HSV"),
    "LAB": lambda: (save(convert("LAB")[0], "TIFF"), convert("LAB")[1]),
    "I;16": lambda: (save(Image.fromarray(SIXTEEN)), SIXTEEN),
    "I;16, key": lambda: (write_png(SIXTEEN, depth=16, key=0), SIXTEEN_KEY),
    "I;16B": lambda: (
        save(Image.frombytes("I;16B", (WIDTH, HEIGHT), SIXTEEN.astype(">u2").tobytes()), "TIFF"),
        SIXTEEN,
    ),
    "I;16L": lambda: (Image.frombytes("I;16L", (WIDTH, HEIGHT), SIXTEEN.astype("<u2").tobytes()), SIXTEEN),
    "I, PGM": lambda: (b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + SIXTEEN.astype(">u2").tobytes(), SIXTEEN),
    "F": lambda: (save(Image.fromarray(GRAY / np.float32(255)), "TIFF"), GRAY / np.float32(255)),
}


@pytest.fixture(scope="module")
def scorer(tiny_model):
    model = tiny_model()
    return pipeline(
        "image-quality-assessment", model=model, image_processor=MusiqImageProcessor.from_config(model.config)
    )


def list_routes(made, folder):
    """Make every form in which a picture can be given: PIL images, and of bytes also what leads to a file."""
    if isinstance(made, Image.Image):
        return {"PIL": made, "copy": made.copy()}
    path = folder / "picture"
    path.write_bytes(made)
    loaded = Image.open(BytesIO(made))
    loaded.load()
    column = Dataset.from_dict({"image": [str(path)]}).cast_column("image", ImageFeature())
    copy = Image.open(BytesIO(made)).copy()
    return {
        "path": str(path),
        "lazy": Image.open(path),
        "loaded": loaded,
        **({} if copy.mode == "I" else {"copy": copy}),  # it has lost the format, by which its range is known
        "cell": {"bytes": made, "path": None},
        "datasets": column[0]["image"],
    }


def read(source, **options):
    pixels = Decoder(**options)(source)
    return pixels / 255 if pixels.dtype == torch.uint8 else pixels


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_picture_has_the_same_score(tmp_path, scorer, kind):
    made, array = KINDS[kind]()
    model, processor = scorer.model, scorer.image_processor
    (wanted,) = score_pictures([array], model=model, processor=processor)
    for order in ("<", ">"):
        foreign = array.astype(array.dtype.newbyteorder(order))
        (row,) = score_pictures([foreign], model=model, processor=processor)
        assert row.score == wanted.score
    for route, source in list_routes(made, tmp_path).items():
        for preset in ("default", "google"):
            torch.testing.assert_close(read(source, preset=preset), read(array), atol=2e-7, rtol=0, msg=route)
        (row,) = score_pictures([source], model=model, processor=processor)
        assert row.score == pytest.approx(wanted.score, abs=1e-4), (route, row)
        if not isinstance(source, dict):
            assert scorer(source)["score"] == pytest.approx(wanted.score, abs=1e-4), route
            assert model(**processor(source)).scores.item() == pytest.approx(wanted.score, abs=1e-4), route


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [10, 39])
def test_the_same_picture_shrinks_to_the_same_pixels(tmp_path, kind, length):
    made, array = KINDS[kind]()
    plain = Image.fromarray(array)
    wanted = read(plain, shorter_side=length)
    assert wanted.shape[0] == length
    for route, source in list_routes(made, tmp_path).items():
        for preset in ("default", "google"):
            ours = read(source, shorter_side=length, preset=preset)
            torch.testing.assert_close(ours, wanted, atol=2e-7, rtol=0, msg=route)


def test_what_shrinking_overshoots_is_clipped():
    edge = np.repeat(np.array([[0, 1]], np.float32), 30, axis=1).repeat(60, axis=0)
    for image in (Image.fromarray(edge), Image.fromarray((edge * 65535).astype(np.uint16))):
        pixels = read(image, shorter_side=31)
        assert pixels.min() == 0 and pixels.max() == 1
