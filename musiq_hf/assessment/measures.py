# SPDX-License-Identifier: Apache-2.0
"""Measures of a distorted picture with its reference: PSNR and SSIM."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ..common.checks import check_choice
from ..metrics.planes import crop, measure_error, measure_structure, split_planes, to_decibels
from .pixels import Picture, read_pixels

CHANNELS = ("y", "rgb")


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
