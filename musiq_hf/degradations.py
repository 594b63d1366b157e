# SPDX-License-Identifier: Apache-2.0
"""Blurred and noisy copies of training pictures with lowered scores, for data sets that hold too few such faults."""

import math

import numpy as np
import torch
from PIL import Image, ImageFilter

from .image_loading_musiq import to_rgb_tensor

MAX_BLUR_SIGMA = 5.0  # pixels
MAX_NOISE_SIGMA = 50.0  # levels of 255
# Strengths at which severity reaches 1 - 1/e.
BLUR_UNIT, NOISE_UNIT = 2.5, 30.0


def severity(*, blur_sigma: float, noise_sigma: float) -> float:
    """How much of the way to the worst score a fault goes, in [0, 1); blur and noise add to each other.

    A rule of ours, not a human rating: 1 - exp(-blur_sigma / 2.5 - noise_sigma / 30).
    """
    return 1.0 - math.exp(-blur_sigma / BLUR_UNIT - noise_sigma / NOISE_UNIT)


def degrade(image: Image.Image, *, blur_sigma: float, noise_sigma: float, seed: int) -> Image.Image:
    """Blur a picture, then add noise.

    Args:
        image: Any colour mode; converted to RGB.
        blur_sigma: Standard deviation of the Gaussian blur, in pixels, >= 0.
        noise_sigma: Standard deviation of the Gaussian noise, in levels of 255, >= 0.
        seed: Of the noise.

    Returns:
        RGB picture of the same size.
    """
    # The policy of the image processor for alpha, 16 bits and so on.
    pixels = (to_rgb_tensor(image) * 255).round().to(torch.uint8).numpy()
    blurred = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(blur_sigma))
    if noise_sigma == 0:
        return blurred
    noise = np.random.default_rng(seed).normal(0, noise_sigma, (image.height, image.width, 3))
    return Image.fromarray((np.asarray(blurred) + noise).round().clip(0, 255).astype(np.uint8))


def degrade_at_random(image: Image.Image, mos: float, *, worst: float) -> tuple[Image.Image, float]:
    """Blur, noise or both at random strengths, and the score lowered towards `worst` by the severity.

    Args:
        image: A training picture.
        mos: Its score.
        worst: Lowest score of the training data.

    Returns:
        Picture and score. Random numbers come from torch's generator, so that a resumed run repeats them.
    """
    kind, blur, noise = torch.rand(3).tolist()
    blur_sigma = blur * MAX_BLUR_SIGMA if kind < 2 / 3 else 0.0
    noise_sigma = noise * MAX_NOISE_SIGMA if kind > 1 / 3 else 0.0
    seed = int(torch.randint(2**31, ()))
    amount = severity(blur_sigma=blur_sigma, noise_sigma=noise_sigma)
    degraded = degrade(image, blur_sigma=blur_sigma, noise_sigma=noise_sigma, seed=seed)
    return degraded, mos - amount * (mos - worst)
