# SPDX-License-Identifier: Apache-2.0
"""Fidelity of upscaled pictures: originals are shrunk first, enlarged again, and compared with what they were.

Papers on upscaling measure so: PSNR and SSIM of luma of 8 bits, without a border as wide as the scale.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from ..common.extras import require
from ..metrics.fidelity import FidelityReport, FidelityRow
from ..metrics.planes import RADIUS, crop, measure_error, measure_structure, split_planes, to_decibels
from ..models import family_of
from ..pictures import open_picture
from ..pictures.degradations import to_rgb_picture
from ..pictures.enlarging import FILTERS, enlarge_by_model
from ..pictures.opening import resize_picture

# Function from a picture and a size, columns and rows, to the picture in that size.
Upscale = Callable[[Image.Image, tuple[int, int]], Image.Image]

SCALES = (1.3, 2.0, 2.7, 3.0, 4.0, 6.0)
MOST_DECIBELS = 100.0  # of one picture: equal pictures would have infinitely many, and so would their mean


INTERPOLATIONS: Mapping[str, Upscale] = {
    "bicubic": partial(resize_picture, method=FILTERS["bicubic"]),
    "Lanczos": partial(resize_picture, method=FILTERS["lanczos"]),
}


def make_upscaler(model: Any) -> Upscale:
    """Make a function that enlarges pictures by a super-resolution model in evaluation mode."""
    processor: Any = family_of(model.config).processor.from_config(model.config)
    return partial(enlarge_by_model, model=model, processor=processor)


def _check_originals(originals: Sequence[Any], scales: Sequence[float]) -> None:
    """Raise a ValueError if there is nothing to measure, or a scale does not enlarge."""
    if not originals:
        raise ValueError("At least one original is needed, got none.")
    if not scales or not all(1 < scale < math.inf for scale in scales):
        raise ValueError(f"`scales` must be at least one number above 1, got {list(scales)}.")


def shrink_original(original: Image.Image, scale: float) -> tuple[Image.Image, Image.Image]:
    """Return what a method is given, and what it should give.

    The small picture has the sides of the original divided by the scale and rounded down. The original loses the
    columns and rows at its end that exceed the small one times the scale.

    Args:
        original: RGB picture.
        scale: Scale above 1.

    Raises:
        ValueError: If the picture is too small to be measured.
    """
    small = tuple(math.floor(side / scale) for side in original.size)
    width, height = (round(side * scale) for side in small)
    if min(width, height) - 2 * math.ceil(scale) < 2 * RADIUS + 1:
        raise ValueError(
            f"An original of {original.width} x {original.height} pixels is too small for the scale {scale:g}. Remove "
            "it, or give larger ones."
        )
    whole = original.crop((0, 0, width, height))
    return whole.resize((small[0], small[1]), Image.Resampling.BICUBIC), whole


def compare_pictures(original: Image.Image, enlarged: Image.Image, *, border: int) -> tuple[float, float]:
    """Compute PSNR, at most 100 dB, and SSIM of the luma of two RGB pictures of one size, without a border.

    Raises:
        ImportError: If SciPy is missing.
    """
    first, second = (
        crop(split_planes(np.asarray(picture, np.float64), "y"), border) for picture in (original, enlarged)
    )
    return min(to_decibels(measure_error(first, second)), MOST_DECIBELS), measure_structure(first, second)


def measure_upscaling(
    originals: Sequence[Any], upscalers: Mapping[str, Upscale], *, scales: Sequence[float] = SCALES
) -> FidelityReport:
    """Measure how well methods restore shrunk pictures, beside bicubic and Lanczos interpolation of Pillow.

    Args:
        originals: Pictures as `open_picture` takes them: files, say, or PIL images.
        upscalers: Further methods by name.
        scales: Scales above 1.

    Returns:
        Means over the pictures by method and scale; gains are over bicubic interpolation.

    Raises:
        ValueError: If there is no original, one cannot be used, or a scale is not above 1.
        ImportError: If SciPy is missing.
    """
    require("scipy.ndimage", extra="assessment")  # before anything is computed
    _check_originals(originals, scales)
    methods = {**INTERPOLATIONS, **upscalers}
    found = np.empty((len(originals), len(methods), len(scales), 2))
    for index, source in enumerate(originals):
        original = to_rgb_picture(open_picture(source))
        for column, scale in enumerate(scales):
            small, whole = shrink_original(original, scale)
            for row, upscale in enumerate(methods.values()):
                enlarged = upscale(small, whole.size)
                found[index, row, column] = compare_pictures(whole, enlarged, border=math.ceil(scale))
    gains = found[..., 0] - found[:, :1, :, 0]
    return FidelityReport(
        num_pictures=len(originals),
        fidelity=tuple(
            FidelityRow(
                method=method,
                scale=float(scale),
                psnr=float(found[:, row, column, 0].mean()),
                ssim=float(found[:, row, column, 1].mean()),
                gain=float(gains[:, row, column].mean()),
                smallest_gain=float(gains[:, row, column].min()),
            )
            for row, method in enumerate(methods)
            for column, scale in enumerate(scales)
        ),
    )


def measure_upscaling_models(
    originals: Sequence[Any], models: Mapping[str, Any], *, scales: Sequence[float] = SCALES
) -> FidelityReport:
    """Measure super-resolution models in evaluation mode by name; see `measure_upscaling`."""
    return measure_upscaling(originals, {name: make_upscaler(model) for name, model in models.items()}, scales=scales)
