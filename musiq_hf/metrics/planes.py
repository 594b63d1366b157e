# SPDX-License-Identifier: Apache-2.0
"""Measures of planes of pixels with their reference: luma, squared error, decibels and SSIM."""

import math
from typing import Any

import numpy as np

from ..common.extras import require

PEAK = 255.0  # also of luma, although it ends at 235: the convention of papers on upscaling
LUMA = np.array([65.481, 128.553, 24.966]) / 255  # of BT.601, from 16 to 235
SIGMA, RADIUS = 1.5, 5  # of the window of SSIM, which has 11x11 pixels
K1, K2 = 0.01, 0.03  # constants of SSIM, parts of the peak


def split_planes(pixels: np.ndarray, channels: str) -> np.ndarray:
    """Return the planes to compare, shape (num_planes, height, width), of pixels in 0..255, (height, width, 3)."""
    return (16 + pixels @ LUMA)[None] if channels == "y" else np.moveaxis(pixels, -1, 0)


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
