# SPDX-License-Identifier: Apache-2.0
"""Encoders of Pillow with settings that are named, and so are their versions."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, features


class _Encoder(NamedTuple):
    """Encoder of a codec.

    Attributes:
        kind: Format as Pillow calls it.
        library: Library as Pillow calls it where it tells versions.
        options: Settings beside the quality.
    """

    kind: str
    library: str
    options: Mapping[str, Any]


# All three halve the colour differences; WebP knows nothing else. The others are Pillow's own defaults, but AVIF takes
# one thread, so that machines with other numbers of cores write the same bytes.
ENCODERS = {
    "jpeg": _Encoder("JPEG", "libjpeg_turbo", {"subsampling": "4:2:0", "optimize": False, "progressive": False}),
    "webp": _Encoder("WEBP", "webp", {"method": 4}),
    "avif": _Encoder("AVIF", "avif", {"subsampling": "4:2:0", "speed": 6, "max_threads": 1}),
}


def check_encoders(codecs: Sequence[str]) -> None:
    """Raise a ValueError if this Pillow cannot write files of a codec.

    Args:
        codecs: Names among `ENCODERS`.
    """
    missing = [codec for codec in codecs if not features.check("jpg" if codec == "jpeg" else codec)]
    if missing:
        raise ValueError(
            f"Pillow writes no {missing[0]} here. Install its wheel (pip install -U pillow), or leave it out of "
            "the codecs."
        )


def describe_encoder(codec: str) -> str:
    """Return library, version and settings of the encoder of a codec, for signatures."""
    _, library, options = ENCODERS[codec]
    version = features.version(library) or "unknown"  # libjpeg without turbo has another name
    return "+".join([f"{library}-{version}", *(f"{name}={value}" for name, value in options.items())])


def encode_pixels(pixels: np.ndarray, codec: str, quality: int) -> bytes:
    """Encode pixels as a file.

    Args:
        pixels: uint8, shape (height, width, 3).
        codec: Name among `ENCODERS`.
        quality: Quality from 1 to 100 as the encoder counts it.

    Raises:
        ValueError: If the encoder cannot write the picture, as one of more pixels along a side than it takes.
    """
    kind, _, options = ENCODERS[codec]
    buffer = BytesIO()
    try:
        Image.fromarray(pixels).save(buffer, kind, quality=quality, **options)
    except (ValueError, OSError, RuntimeError) as error:
        size = f"{pixels.shape[1]}x{pixels.shape[0]} pixels"
        advice = "Shrink the picture, or leave the codec out."
        raise ValueError(f"{size} cannot be written as {codec} ({error}). {advice}") from error
    return buffer.getvalue()
