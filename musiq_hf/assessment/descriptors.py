# SPDX-License-Identifier: Apache-2.0
"""Descriptors of content: spatial information after ITU-T P.910, and colourfulness."""

from typing import NamedTuple

import numpy as np

from ..common.extras import require
from .pixels import Picture, read_pixels

LUMA = np.array([0.299, 0.587, 0.114])
MIN_SIDE = 3  # pixels, which the Sobel filter needs
BLACK, WHITE, GAMMA = 0.1, 300.0, 2.4  # light of the display in cd/m2, and its exponent (BT.1886)
# Constants of the perceptual quantizer (SMPTE ST 2084).
PEAK, M1, M2 = 10_000.0, 2610 / 16384, 128 * 2523 / 4096
C1, C2, C3 = 3424 / 4096, 32 * 2413 / 4096, 32 * 2392 / 4096


class Description(NamedTuple):
    """Content of a picture in numbers.

    Attributes:
        width: Columns, in pixels.
        height: Rows, in pixels.
        si: Spatial information, see `spatial_information`.
        cf: Colourfulness, see `colourfulness`.
    """

    width: int
    height: int
    si: float
    cf: float


def _to_perceived(luma: np.ndarray) -> np.ndarray:
    """Turn luma in 0..1 into what is seen of it on a display, in the unit of the perceptual quantizer."""
    light = ((WHITE - BLACK) * luma**GAMMA + BLACK) / PEAK
    powers = light**M1
    return ((C1 + C2 * powers) / (1 + C3 * powers)) ** M2


def _measure_detail(pixels: np.ndarray, *, legacy: bool) -> float:
    """Compute the spatial information of pixels, shape (height, width, 3)."""
    ndimage = require("scipy.ndimage", extra="assessment")
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise ValueError(
            f"Spatial information needs {MIN_SIDE} pixels on each side, got {width}x{height}. Take a larger picture."
        )
    luma = pixels @ LUMA / 255
    values = 255 * (luma if legacy else _to_perceived(luma))
    slopes = np.hypot(ndimage.sobel(values, axis=1), ndimage.sobel(values, axis=0))
    return float(slopes[1:-1, 1:-1].std())


def _measure_colour(pixels: np.ndarray) -> float:
    """Compute the colourfulness of pixels, shape (height, width, 3)."""
    red, green, blue = np.moveaxis(pixels, -1, 0)
    opponents = red - green, (red + green) / 2 - blue  # signed: sizes alone give other numbers
    spread = np.hypot(*(plane.std() for plane in opponents))
    return float(spread + 0.3 * np.hypot(*(plane.mean() for plane in opponents)))


def spatial_information(picture: Picture, *, legacy: bool = False) -> float:
    """Compute how much detail a picture has: the standard deviation of its slopes (after ITU-T P.910).

    The luma is first turned into what is seen on a display of 0.1 to 300 cd/m2 (BT.1886, perceptual quantizer).

    Args:
        picture: Path, PIL image, or uint8 array of shape (height, width) or (height, width, 3).
        legacy: Whether the luma is taken as it is, as earlier editions and ffmpeg do. Both kinds differ by a factor of
            about 2, and can order pictures otherwise.

    Returns:
        Spatial information in the unit of luma in 0..255.

    Raises:
        ValueError: If a side has fewer than 3 pixels, or the picture cannot be read.
        FileNotFoundError: If the file is missing.
        ImportError: If SciPy is missing.
    """
    return _measure_detail(read_pixels(picture), legacy=legacy)


def colourfulness(picture: Picture) -> float:
    """Compute how colourful a picture is (Hasler and Suesstrunk 2003); 0 for gray.

    Args:
        picture: Path, PIL image, or uint8 array of shape (height, width) or (height, width, 3).

    Raises:
        ValueError: If the picture cannot be read.
        FileNotFoundError: If the file is missing.
    """
    return _measure_colour(read_pixels(picture))


def describe(picture: Picture, *, legacy: bool = False) -> Description:
    """Describe the content of a picture.

    Args:
        picture: Path, PIL image, or uint8 array of shape (height, width) or (height, width, 3).
        legacy: Whether spatial information is that of earlier editions, see `spatial_information`.

    Raises:
        ValueError: If a side has fewer than 3 pixels, or the picture cannot be read.
        FileNotFoundError: If the file is missing.
        ImportError: If SciPy is missing.
    """
    pixels = read_pixels(picture)
    height, width = pixels.shape[:2]
    return Description(width, height, _measure_detail(pixels, legacy=legacy), _measure_colour(pixels))
