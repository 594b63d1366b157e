# SPDX-License-Identifier: Apache-2.0
"""Losses of compression at graded strengths: blocks, bleeding colours and ringing, by encoders and without them.

All functions of `COMPRESSIONS` take (picture, strength in (0, 1], seed). One seed gives one kind of subsampling or
method, so that two strengths differ in nothing else.
"""

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, features

from .opening import decode_image

JPEG_BLOCK = 8  # pixels
HIGHEST_JPEG, LOWEST_JPEG = 95, 5  # qualities of strength 0 and 1
NUM_SUBSAMPLINGS = 3  # 4:4:4, 4:2:2 and 4:2:0, as Pillow numbers them
MIN_RATIO, MAX_RATIO = 8, 200  # of JPEG 2000
MAX_CHROMA_FACTOR = 16


def compress_jpeg(image: Image.Image, quality: int, *, subsampling: int = -1) -> Image.Image:
    """Compress with Pillow's JPEG encoder, and decode.

    Args:
        image: RGB picture.
        quality: Quality as Pillow counts it.
        subsampling: Number of the chroma subsampling, 0 = 4:4:4, 1 = 4:2:2, 2 = 4:2:0; -1 leaves it to the encoder.
    """
    return _encode_and_decode(image, "JPEG", quality=quality, subsampling=subsampling)


def _encode_and_decode(image: Image.Image, kind: str, **options: Any) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return decode_image(buffer, f"{kind} copy").convert("RGB")


def _choose_jpeg_quality(strength: float) -> int:
    """Choose a quality from 95 down to 5 in even ratios, as its effect grows."""
    return round(HIGHEST_JPEG * (LOWEST_JPEG / HIGHEST_JPEG) ** strength)


def _choose_quality(strength: float) -> int:
    return round(4 + 76 * (1 - strength) ** 1.5)


def _compress_twice(image: Image.Image, strength: float, seed: int) -> Image.Image:
    """Compress twice; the blocks of the second time lie elsewhere, as after a crop."""
    quality, subsampling = _choose_jpeg_quality(strength), seed % NUM_SUBSAMPLINGS
    shift = 1 + seed % (JPEG_BLOCK - 1)
    once = np.pad(
        np.asarray(compress_jpeg(image, quality, subsampling=subsampling)), ((shift, 0), (shift, 0), (0, 0)), "edge"
    )
    # The second quality is higher: the first one decides how bad it gets.
    again = compress_jpeg(Image.fromarray(once), min(HIGHEST_JPEG, quality + 15), subsampling=subsampling)
    return again.crop((shift, shift, again.width, again.height))


def _subsample_chroma(image: Image.Image, strength: float, seed: int) -> Image.Image:
    """Shrink the colour differences up to 16 times and enlarge them again; the luminance stays."""
    factor = MAX_CHROMA_FACTOR**strength
    small = (max(1, round(image.width / factor)), max(1, round(image.height / factor)))
    luminance, *chroma = image.convert("YCbCr").split()
    method = (Image.Resampling.NEAREST, Image.Resampling.BILINEAR)[seed % 2]
    bled = [plane.resize(small, Image.Resampling.BOX).resize(image.size, method) for plane in chroma]
    return Image.merge("YCbCr", [luminance, *bled]).convert("RGB")


def _compress_jpeg2000(image: Image.Image, strength: float, seed: int) -> Image.Image:
    """Compress 8 to 200 times, which rings and blurs."""
    ratio = MIN_RATIO * (MAX_RATIO / MIN_RATIO) ** strength
    resolutions = min(6, min(image.size).bit_length())  # each halves the sides, down to one pixel
    return _encode_and_decode(
        image,
        "JPEG2000",
        quality_mode="rates",
        quality_layers=[ratio],
        irreversible=True,
        num_resolutions=resolutions,
    )


def _make_cosines(length: int, count: int) -> np.ndarray:
    """Make the first cosines of the discrete cosine transform, orthonormal, shape (count, length)."""
    angles = np.pi / length * (np.arange(length, dtype=np.float32) + 0.5) * np.arange(count, dtype=np.float32)[:, None]
    rows = np.cos(angles) * np.float32((2 / length) ** 0.5)
    rows[0] *= np.float32(0.5**0.5)
    return rows


def _ring(image: Image.Image, strength: float, seed: int) -> Image.Image:
    """Cut off the high frequencies of the whole picture at once, which rings beside edges; 70 to 10 % remain."""
    kept = 0.7 - 0.6 * strength
    down, across = (_make_cosines(side, max(1, round(kept * side))) for side in (image.height, image.width))
    planes = np.asarray(image, dtype=np.float32).transpose(2, 0, 1)  # (height, width, 3) -> (3, height, width)
    planes = (down.T @ (down @ planes @ across.T)) @ across
    return Image.fromarray(planes.round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0).copy())


def _compress_webp(image: Image.Image, strength: float, seed: int) -> Image.Image:
    # Slower methods make smaller files, but the same faults.
    return _encode_and_decode(image, "WEBP", quality=_choose_quality(strength), method=0)


def _compress_avif(image: Image.Image, strength: float, seed: int) -> Image.Image:
    # One thread, since several processes load pictures.
    return _encode_and_decode(image, "AVIF", quality=_choose_quality(strength), speed=10, max_threads=1)


def _collect_compressions() -> dict[str, Callable[[Image.Image, float, int], Image.Image]]:
    """Collect the losses by name; those whose encoder this Pillow lacks are left out."""
    optional = {"webp": ("webp", _compress_webp), "avif": ("avif", _compress_avif)}
    optional |= {"jpeg2000": ("jpg_2000", _compress_jpeg2000)}
    always: dict[str, Callable[[Image.Image, float, int], Image.Image]] = {
        "ringing": _ring,
        "chroma": _subsample_chroma,
        "jpeg": lambda image, strength, seed: compress_jpeg(
            image, _choose_jpeg_quality(strength), subsampling=seed % NUM_SUBSAMPLINGS
        ),
        "double_jpeg": _compress_twice,
    }
    return always | {name: apply for name, (needed, apply) in optional.items() if features.check(needed)}


COMPRESSIONS: Mapping[str, Callable[[Image.Image, float, int], Image.Image]] = _collect_compressions()
