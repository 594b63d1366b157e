# SPDX-License-Identifier: Apache-2.0
"""Crops of photographs for super-resolution: small sources, and pixels of what they were shrunk from."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...common.devices import count_cores
from ...pictures import open_picture
from ...pictures.degradations import to_rgb_picture
from .settings import Recipe, SuperResolutionSettings

WINDOW = 256  # largest side of what is kept of a shrunk photograph, unless crops are larger: 5,000 take a gigabyte


def shrink_photograph(path: str | os.PathLike[str], factor: float) -> Image.Image:
    """Open a photograph as RGB, and shrink it by an antialiased bicubic filter."""
    image = to_rgb_picture(open_picture(path))
    if factor == 1:
        return image
    width, height = (max(1, round(side / factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _cut_window(path: Path, settings: SuperResolutionSettings, seed: Sequence[int]) -> np.ndarray | None:
    """Return a window of a shrunk photograph, uint8 (height, width, 3); None if it is smaller than a target crop."""
    pixels = np.asarray(shrink_photograph(path, settings.shrunk_by))
    if min(pixels.shape[:2]) < settings.crop_size:
        return None
    generator, most = np.random.default_rng(seed), max(WINDOW, settings.crop_size)
    top, left = (int(generator.integers(max(0, length - most) + 1)) for length in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + most, left : left + most])


def cut_windows(files: Sequence[Path], settings: SuperResolutionSettings) -> list[np.ndarray]:
    """Return a window of each photograph that is large enough.

    Args:
        files: Photographs for training.
        settings: Settings of the training; the place of a window follows from its seed.

    Returns:
        Pixels, uint8 (height, width, 3), with sides from the largest target crop to 256 pixels or that crop.

    Raises:
        ValueError: If a photograph cannot be read, or all are too small.
    """
    with ThreadPoolExecutor(count_cores()) as pool:
        jobs = [(path, settings, (settings.seed, index)) for index, path in enumerate(files)]
        found = [window for window in pool.map(lambda job: _cut_window(*job), jobs) if window is not None]
    if not found:
        side = round(settings.crop_size * settings.shrunk_by)
        raise ValueError(
            f"Photographs must have at least {side} x {side} pixels, and none of {len(files)} has. Give larger ones, "
            "or lower `shrinking`."
        )
    return found


def _cut_pair(
    window: np.ndarray, target_size: int, source_size: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a target crop at a random place, mirrored and turned at random, and shrink it to a source."""
    top, left = (int(generator.integers(length - target_size + 1)) for length in window.shape[:2])
    target = window[top : top + target_size, left : left + target_size]
    flips = generator.random(3) < 0.5
    target = target[:: -1 if flips[0] else 1, :: -1 if flips[1] else 1]
    target = np.ascontiguousarray(target.swapaxes(0, 1) if flips[2] else target)
    if target_size == source_size:
        return target, target
    source = Image.fromarray(target).resize((source_size, source_size), Image.Resampling.BICUBIC)
    return np.asarray(source), target


def _scale_values(pixels: np.ndarray) -> torch.Tensor:
    """Map levels of 0..255 to [-1, 1], as the image processor does."""
    return torch.from_numpy(pixels).float() / 127.5 - 1


def draw_batch(
    windows: Sequence[np.ndarray], recipe: Recipe, *, max_scale: float, seed: Sequence[int]
) -> dict[str, Any]:
    """Draw the batch of a step.

    All of its crops have one scale, uniform between 1 and the largest.

    Args:
        windows: Pixels of photographs; see `cut_windows`.
        recipe: Sizes of the batch.
        max_scale: Largest scale.
        seed: Seed of the batch, from which it follows alone, so that a training can be continued at any step.

    Returns:
        Arguments of the model's `forward`: sources, size of the targets, positions of target pixels and their values.
    """
    generator = np.random.default_rng(seed)
    size, number = recipe.source_size, recipe.num_positions
    target_size = round(size * generator.uniform(1, max_scale))
    sources, positions, labels = [], [], []
    for place in generator.integers(len(windows), size=recipe.batch_size):
        source, target = _cut_pair(windows[place], target_size, size, generator)
        chosen = generator.choice(target_size**2, number, replace=False)
        rows, columns = np.divmod(chosen, target_size)
        sources.append(source)
        positions.append(np.stack((rows, columns), axis=-1))
        labels.append(target[rows, columns])
    return {
        "pixel_values": _scale_values(np.stack(sources)).permute(0, 3, 1, 2),
        "target_size": (target_size, target_size),
        "positions": torch.from_numpy(np.stack(positions)),
        "labels": _scale_values(np.stack(labels)).transpose(1, 2),
    }
