# SPDX-License-Identifier: Apache-2.0
"""Measures of a distorted picture with its reference: PSNR and SSIM."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ..common.checks import check_choice
from ..common.extras import require
from .pixels import Picture, read_pixels

CHANNELS = ("y", "rgb")
PEAK = 255.0  # also of luma, although it ends at 235: the convention of papers on upscaling
LUMA = np.array([65.481, 128.553, 24.966]) / 255  # of BT.601, from 16 to 235
SIGMA, RADIUS = 1.5, 5  # of the window of SSIM, which has 11x11 pixels
K1, K2 = 0.01, 0.03  # constants of SSIM, parts of the peak


def split_planes(pixels: np.ndarray, channels: str) -> np.ndarray:
    """Return the planes to compare, shape (num_planes, height, width), of pixels in 0..255, (height, width, 3)."""
    return (16 + pixels @ LUMA)[None] if channels == "y" else np.moveaxis(pixels, -1, 0)


def check_sizes(sizes: Sequence[tuple[int, int]], crop_border: int) -> None:
    """Raise a ValueError if the widths and heights of both pictures differ, or their borders leave nothing."""
    (width, height), other = sizes
    if other != (width, height):
        raise ValueError(
            f"Both pictures must have one size, got {width}x{height} and {other[0]}x{other[1]}. "
            "Scale the distorted one to the size of its reference."
        )
    if crop_border < 0 or 2 * crop_border >= min(height, width):
        raise ValueError(
            f"`crop_border` must be 0 or more and leave pixels of {width}x{height}, got {crop_border}. Lower it."
        )


def crop(planes: np.ndarray, crop_border: int) -> np.ndarray:
    """Cut pixels off each side of planes, shape (num_planes, height, width)."""
    height, width = planes.shape[1:]
    return planes[:, crop_border : height - crop_border, crop_border : width - crop_border]


def measure_error(first: np.ndarray, second: np.ndarray) -> float:
    """Compute the mean squared error of planes."""
    return float(np.mean((first - second) ** 2))


def to_decibels(error: float, *, peak: float = PEAK) -> float:
    """Compute 10 log10(peak^2 / error); infinite without an error."""
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def _read_both(
    reference: Picture, distorted: Picture, channels: str, crop_border: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the planes of both pictures without their borders."""
    check_choice("channels", channels, CHANNELS)
    first, second = (split_planes(read_pixels(picture), channels) for picture in (reference, distorted))
    check_sizes([(planes.shape[2], planes.shape[1]) for planes in (first, second)], crop_border)
    return crop(first, crop_border), crop(second, crop_border)


def psnr(
    reference: Picture, distorted: Picture, *, channels: Literal["y", "rgb"] = "y", crop_border: int = 0
) -> float:
    """Compute the peak signal-to-noise ratio of two pictures, 10 log10(255^2 / mean squared error).

    Args:
        reference: Path, PIL image, or uint8 array of shape (height, width) or (height, width, 3).
        distorted: Picture of the same size.
        channels: "y" for the luma of BT.601 in 16..235, not rounded, as papers on upscaling have it; "rgb" for all
            three channels together. The two differ by more than a decibel.
        crop_border: Number of pixels that are cut off each side first; upscalers are often measured with their factor.

    Returns:
        Decibels; infinite for equal pictures.

    Raises:
        ValueError: If the sizes differ, `crop_border` leaves nothing, or a picture cannot be read.
        FileNotFoundError: If a file is missing.
    """
    return to_decibels(measure_error(*_read_both(reference, distorted, channels, crop_border)))


def _compare_structure(first: np.ndarray, second: np.ndarray, peak: float, ndimage: Any) -> float:
    """Compute the SSIM of two planes, the mean over the pixels that have a whole window."""

    def average(plane: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(plane, SIGMA, radius=RADIUS)[RADIUS:-RADIUS, RADIUS:-RADIUS]

    means = average(first), average(second)
    product = means[0] * means[1]
    squares = means[0] ** 2 + means[1] ** 2
    covariance = average(first * second) - product
    variances = average(first * first + second * second) - squares
    low, high = (K1 * peak) ** 2, (K2 * peak) ** 2
    return float(np.mean((2 * product + low) * (2 * covariance + high) / ((squares + low) * (variances + high))))


def check_window(planes: np.ndarray) -> None:
    """Raise a ValueError if planes, shape (num_planes, height, width), are smaller than the window of SSIM."""
    height, width = planes.shape[1:]
    if min(height, width) < 2 * RADIUS + 1:
        raise ValueError(
            f"SSIM needs {2 * RADIUS + 1} pixels on each side, got {width}x{height}. Take a larger picture, or cut "
            "off less."
        )


def measure_structure(first: np.ndarray, second: np.ndarray, *, peak: float = PEAK) -> float:
    """Compute the mean SSIM of planes, shape (num_planes, height, width), float64.

    Args:
        first: Planes of the reference.
        second: Planes of the distorted picture.
        peak: Largest value that a sample can have.

    Raises:
        ValueError: If a side has fewer than 11 pixels.
        ImportError: If SciPy is missing.
    """
    ndimage = require("scipy.ndimage", extra="assessment")
    check_window(first)
    return float(np.mean([_compare_structure(*planes, peak, ndimage) for planes in zip(first, second, strict=True)]))


def ssim(
    reference: Picture, distorted: Picture, *, channels: Literal["y", "rgb"] = "y", crop_border: int = 0
) -> float:
    """Compute the structural similarity of two pictures (Wang and others 2004).

    The window is Gaussian with a standard deviation of 1.5 and 11x11 pixels, with population moments. Other windows,
    such as scikit-image's default one, give other numbers.

    Args:
        reference: Path, PIL image, or uint8 array of shape (height, width) or (height, width, 3).
        distorted: Picture of the same size.
        channels: "y" for luma as in `psnr`; "rgb" for the mean over the three channels.
        crop_border: Number of pixels that are cut off each side first.

    Returns:
        Similarity, 1 for equal pictures.

    Raises:
        ValueError: If the sizes differ, a side has fewer than 11 pixels, or a picture cannot be read.
        FileNotFoundError: If a file is missing.
        ImportError: If SciPy is missing.
    """
    return measure_structure(*_read_both(reference, distorted, channels, crop_border))
