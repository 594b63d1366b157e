# SPDX-License-Identifier: Apache-2.0
"""Faults of pictures at graded strengths, for self-supervised pre-training, training copies and sanity checks."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter

from .alterations import ALTERATIONS
from .compression import COMPRESSIONS, compress_jpeg
from .opening import describe, to_rgb_tensor

MAX_BLUR_SIGMA = 6.5  # pixels
MAX_NOISE_SIGMA = 70.0  # levels of 255
MIN_JPEG_QUALITY, MAX_JPEG_QUALITY = 5, 85
P_SECOND_FAULT = 0.3
# Strengths of a single fault at which the severity reaches 1 - 1/e.
BLUR_UNIT, NOISE_UNIT = 2.5, 30.0
PIVOT_GRAY = 128.0


def blur(image: Image.Image, sigma: float) -> Image.Image:
    """Blur with a Gaussian of `sigma` pixels (Pillow's approximation by box filters)."""
    return image.filter(ImageFilter.GaussianBlur(sigma))


def add_noise(image: Image.Image, sigma: float, *, seed: int) -> Image.Image:
    """Add independent Gaussian noise of `sigma` levels of 255 to every channel."""
    noise = np.random.default_rng(seed).standard_normal((image.height, image.width, 3), dtype=np.float32)
    return _make_picture(np.asarray(image) + sigma * noise)


def _make_picture(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))


def _map_levels(image: Image.Image, curve: Callable[[np.ndarray], np.ndarray]) -> Image.Image:
    """Apply a curve to the levels of all channels, by a table, since that is faster."""
    levels = np.asarray(curve(np.arange(256, dtype=np.float32))).round().clip(0, 255).astype(int)
    return image.point(levels.tolist() * 3)


def _blur_along_path(image: Image.Image, strength: float, seed: int) -> Image.Image:
    """Average along a straight path of 3 to 31 pixels in a random direction."""
    steps = round(3 + 28 * strength**1.5)
    angle = np.random.default_rng(seed).uniform(0, math.pi)
    offsets = np.linspace(-0.5, 0.5, steps)[:, None] * (steps - 1) * np.array([math.sin(angle), math.cos(angle)])
    margin = steps // 2 + 1
    padded = np.pad(np.asarray(image, dtype=np.float32), ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    total = np.zeros((image.height, image.width, 3), dtype=np.float32)
    for row, column in offsets.round().astype(int) + margin:
        total += padded[row : row + image.height, column : column + image.width]
    return _make_picture(total / steps)


def _resample(image: Image.Image, strength: float, seed: int) -> Image.Image:
    """Shrink up to six times and enlarge again with nearest neighbours, bilinear or bicubic interpolation."""
    factor = 1.25 + 4.75 * strength**1.5
    small = (max(1, round(image.width / factor)), max(1, round(image.height / factor)))
    methods = (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
    return image.resize(small, Image.Resampling.BOX).resize(image.size, methods[seed % 3])


def _change_exposure(image: Image.Image, strength: float, seed: int) -> Image.Image:
    """Expose up to three stops too dark or too bright, with a display gamma of 2.2."""
    stops = (-3 if seed % 2 else 3) * strength
    return _map_levels(image, lambda levels: levels * 2 ** (stops / 2.2))


def _reduce_contrast(image: Image.Image, strength: float, seed: int) -> Image.Image:
    return _map_levels(image, lambda levels: PIVOT_GRAY + (levels - PIVOT_GRAY) * (1 - 0.85 * strength))


def _tint(image: Image.Image, strength: float, seed: int) -> Image.Image:
    """Multiply the channels by random gains, up to a factor of two either way."""
    direction = np.random.default_rng(seed).normal(size=3)
    direction = (direction - direction.mean()) / np.abs(direction - direction.mean()).max()
    return _make_picture(np.asarray(image) * (2.0 ** (strength * direction)).astype(np.float32))


def _quantize(image: Image.Image, strength: float, seed: int) -> Image.Image:
    """Quantise to 64 down to 4 levels per channel."""
    step = 255.0 / (2 ** (6 - 4 * strength) - 1)
    return _map_levels(image, lambda levels: (levels / step).round() * step)


# Functions from (picture, strength, seed) by the name of the fault, in the order of a camera: compression is last.
DEGRADATIONS: Mapping[str, Callable[[Image.Image, float, int], Image.Image]] = {
    "exposure": _change_exposure,
    "contrast": _reduce_contrast,
    "color_cast": _tint,
    "blur": lambda image, strength, seed: blur(image, 0.5 + 5.5 * strength**1.5),
    "motion_blur": _blur_along_path,
    "resampling": _resample,
    "noise": lambda image, strength, seed: add_noise(image, 2 + 62 * strength**1.5, seed=seed),
    "banding": _quantize,
    **ALTERATIONS,
    **COMPRESSIONS,
}


def apply_degradations(image: Image.Image, strengths: Mapping[str, float], *, seed: int) -> Image.Image:
    """Apply faults one after the other, in the order of `DEGRADATIONS`.

    Args:
        image: RGB picture.
        strengths: Strength in (0, 1] of every fault that is wanted; 0 leaves it out.
        seed: Seed of noise and directions. The same one at another strength gives the same fault, stronger or weaker.

    Returns:
        RGB picture of the same size.

    Raises:
        ValueError: If a fault is unknown or a strength lies outside [0, 1].
    """
    for kind, strength in strengths.items():
        if kind not in DEGRADATIONS:
            raise ValueError(f"Unknown degradation {kind!r}. Choose from {', '.join(DEGRADATIONS)}.")
        if not 0 <= strength <= 1:
            raise ValueError(f"The strength of {kind} must lie in [0, 1], got {strength}.")
    for kind, degradation in DEGRADATIONS.items():
        if strengths.get(kind, 0) > 0:
            image = degradation(image, strengths[kind], seed)
    return image


def to_rgb_picture(image: Image.Image) -> Image.Image:
    """Convert a picture of any colour mode to RGB; `to_rgb_tensor` says how alpha and 16 bits are handled.

    Raises:
        ValueError: If the pixels cannot be used; the message names the picture.
    """
    try:
        pixels = to_rgb_tensor(image, keep_uint8=True)
    except ValueError as error:
        raise ValueError(f"Picture ({describe(image)}): {error}") from error
    levels = pixels if pixels.dtype == torch.uint8 else (pixels * 255).round().to(torch.uint8)
    return Image.fromarray(levels.contiguous().numpy())


def compute_severity(*, blur_sigma: float, noise_sigma: float, jpeg_quality: int | None = None) -> float:
    """Return the part of the way to the worst score that faults go, in [0, 1); several faults add up.

    The rule is ours, no human rating: `1 - exp(-blur_sigma / 2.5 - noise_sigma / 30 - ln(85 / jpeg_quality)^2 / 4)`.
    """
    compression = 0.0 if jpeg_quality is None else math.log(max(1.0, MAX_JPEG_QUALITY / jpeg_quality)) ** 2 / 4
    return 1.0 - math.exp(-blur_sigma / BLUR_UNIT - noise_sigma / NOISE_UNIT - compression)


def degrade(
    image: Image.Image, *, blur_sigma: float, noise_sigma: float, seed: int, jpeg_quality: int | None = None
) -> Image.Image:
    """Blur a picture, then add noise, then compress it.

    Args:
        image: Picture of any colour mode; it is converted to RGB.
        blur_sigma: Standard deviation of the Gaussian blur, in pixels, >= 0.
        noise_sigma: Standard deviation of the Gaussian noise, in levels of 255, >= 0.
        seed: Seed of the noise.
        jpeg_quality: Quality of Pillow's JPEG encoder; None does not compress.

    Returns:
        RGB picture of the same size.
    """
    degraded = blur(to_rgb_picture(image), blur_sigma)
    if noise_sigma > 0:
        degraded = add_noise(degraded, noise_sigma, seed=seed)
    return degraded if jpeg_quality is None else compress_jpeg(degraded, jpeg_quality)


def degrade_at_random(image: Image.Image, mos: float, *, worst: float) -> tuple[Image.Image, float]:
    """Blur a picture, add noise or compress it, sometimes two of them, and lower its score by the severity.

    Kinds and strengths are random, from torch's generator, so that a resumed run repeats them.

    Args:
        image: Training picture of any colour mode.
        mos: Score of the picture, in MOS points.
        worst: Lowest score of the training data, towards which the score moves, in MOS points.

    Returns:
        RGB picture of the same size, and its score.
    """
    second, *strengths = torch.rand(4).tolist()
    chosen = torch.randperm(3)[: 1 + (second < P_SECOND_FAULT)].tolist()
    # Weak faults are drawn more often than strong ones, because the severity changes fastest among them.
    blur, noise, compression = (value**1.5 * (index in chosen) for index, value in enumerate(strengths))
    faults: dict[str, Any] = {"blur_sigma": blur * MAX_BLUR_SIGMA, "noise_sigma": noise * MAX_NOISE_SIGMA}
    if 2 in chosen:
        # The severity depends on the ratio of qualities, so the quality falls in even ratios.
        faults["jpeg_quality"] = round(MAX_JPEG_QUALITY * (MIN_JPEG_QUALITY / MAX_JPEG_QUALITY) ** compression)
    degraded = degrade(image, **faults, seed=int(torch.randint(2**31, ())))
    return degraded, mos - compute_severity(**faults) * (mos - worst)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Kind of degradation at rising strengths.

    Attributes:
        label: Name of the fault in tables.
        unit: Unit of the levels.
        levels: Levels, the weakest first; for JPEG that is the highest quality.
        apply: Function from (picture, level, seed) to the degraded picture of the same size.
    """

    label: str
    unit: str
    levels: tuple[float, ...]
    apply: Callable[[Image.Image, Any, int], Image.Image]


FAULTS: Mapping[str, Fault] = {
    "gaussian_blur": Fault(
        label="Gaussian blur",
        unit="sigma in pixels",
        levels=(0.7, 1.2, 2, 3.5, 6),
        apply=lambda image, sigma, seed: blur(image, sigma),
    ),
    "gaussian_noise": Fault(
        label="Gaussian noise",
        unit="sigma in levels of 255",
        levels=(4, 8, 16, 32, 64),
        apply=lambda image, sigma, seed: add_noise(image, sigma, seed=seed),
    ),
    "jpeg": Fault(
        label="JPEG",
        unit="Pillow's quality",
        levels=(70, 40, 25, 12, 6),
        apply=lambda image, quality, seed: compress_jpeg(image, quality),
    ),
}
