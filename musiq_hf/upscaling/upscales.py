# SPDX-License-Identifier: Apache-2.0
"""Native and upscaled pictures that are made of photographs, with their labels, for training a detector.

Photographs are shrunk first, by a random filter, so that traces of their own JPEG files and cameras vanish. Natives
get the same distortions as upscaled ones, so that distortions tell nothing of the label.
"""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from ..models import FAMILIES
from ..pictures import open_picture
from ..pictures.compression import NUM_SUBSAMPLINGS, compress_jpeg
from ..pictures.degradations import to_rgb_picture
from .kernels import Enlarge, choose_side
from .learned import BLOCK, LearnedUpscaler

DETECTOR = FAMILIES["sudds"]
SIDE = 192  # pixels of a made picture
MIN_SHRINKING, MAX_SHRINKING = 1.4, 2.3
SMALLEST = math.ceil(SIDE * MIN_SHRINKING)  # shorter side of a photograph
SHRINKING = ("BOX", "BILINEAR", "HAMMING", "BICUBIC", "LANCZOS")
MIN_SCALE, MAX_SCALE = 1.3, 4.0
FREQUENT_SCALES = (1.5, 2.0, 3.0)
P_FREQUENT = 0.5
P_SHARPENED, P_NOISY, P_JPEG = 0.15, 0.15, 0.5
WORST_JPEG, BEST_JPEG = 60, 98
NATIVE, LEARNED = "native", "learned"
NATIVE_WEIGHT = 4.5  # natives are drawn more often than pictures of one method, which are several


@dataclass(frozen=True, kw_only=True)
class Upscalers:
    """Ways to enlarge pictures.

    Attributes:
        kernels: Interpolations by label and name.
        learned: Learned upscalers, whose label is "learned".
    """

    kernels: Mapping[str, Mapping[str, Enlarge]]
    learned: Sequence[LearnedUpscaler] = ()

    @property
    def labels(self) -> list[str]:
        """Labels of the pictures, native first."""
        return [NATIVE, *self.kernels, *[LEARNED] * bool(self.learned)]


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Pictures with their labels.

    Attributes:
        pixels: uint8 (number, 192, 192, 3).
        spectra: float32 (number, 128).
        labels: Names of the labels.
        targets: Index of the label of each picture, int64 (number,).
    """

    pixels: torch.Tensor
    spectra: torch.Tensor
    labels: list[str]
    targets: torch.Tensor


def _open_photograph(photograph: Path) -> Image.Image:
    image = to_rgb_picture(open_picture(photograph))
    if min(image.size) < SMALLEST:
        raise ValueError(
            f"{photograph.name}: photographs must have at least {SMALLEST} x {SMALLEST} pixels, got "
            f"{image.width} x {image.height}. Remove it, or give larger ones."
        )
    return image


def _draw_factor(image: Image.Image, generator: np.random.Generator) -> float:
    return float(generator.uniform(MIN_SHRINKING, min(MAX_SHRINKING, min(image.size) / SIDE)))


def _draw_filter(generator: np.random.Generator) -> Image.Resampling:
    return Image.Resampling[SHRINKING[generator.integers(len(SHRINKING))]]


def shrink_photograph(photograph: Path, generator: np.random.Generator) -> Image.Image:
    """Shrink a whole photograph 1.4 to 2.3 times, so that traces of its own JPEG file and camera vanish.

    Args:
        photograph: File.
        generator: Generator of filter and factor.

    Returns:
        RGB picture with sides of at least 192 pixels.

    Raises:
        ValueError: If the photograph is too small.
    """
    image = _open_photograph(photograph)
    factor = _draw_factor(image, generator)
    width, height = (round(length / factor) for length in image.size)
    return image.resize((width, height), _draw_filter(generator))


def cut_window(photograph: Path, side: int, generator: np.random.Generator) -> np.ndarray:
    """Cut a window out of a photograph and shrink it.

    Args:
        photograph: File.
        side: Side of the result, at most 192 pixels.
        generator: Generator of place, filter and factor.

    Returns:
        uint8 (side, side, 3).

    Raises:
        ValueError: If the photograph is too small.
    """
    image = _open_photograph(photograph)
    factor = _draw_factor(image, generator)
    size = min(round(side * factor), *image.size)
    left, top = (int(generator.integers(length - size + 1)) for length in image.size)
    window = (left, top, left + size, top + size)
    return np.asarray(image.resize((side, side), _draw_filter(generator), box=window))


def cut_middle(pixels: np.ndarray, generator: np.random.Generator) -> Image.Image:
    """Cut 192 x 192 pixels at a random place."""
    top, left = (int(generator.integers(length - SIDE + 1)) for length in pixels.shape[:2])
    return Image.fromarray(np.ascontiguousarray(pixels[top : top + SIDE, left : left + SIDE]))


def enlarge_window(photograph: Path, generator: np.random.Generator, *, enlarge: Enlarge, scale: float) -> Image.Image:
    """Make an enlarged picture of 192 x 192 pixels by an interpolation."""
    source = cut_window(photograph, min(SIDE, math.ceil(SIDE / scale) + 3), generator)
    return cut_middle(enlarge(source, choose_side(len(source), scale)), generator)


def upscale_window(photograph: Path, generator: np.random.Generator, *, upscaler: LearnedUpscaler) -> Image.Image:
    """Make an enlarged picture of 192 x 192 pixels by a learned upscaler."""
    side = math.ceil(SIDE / upscaler.scale / BLOCK) * BLOCK
    return cut_middle(upscaler.upscale(cut_window(photograph, side, generator)), generator)


def draw_scale(generator: np.random.Generator) -> float:
    """Draw a scale: 1.5, 2 or 3 in half of all cases, else any from 1.3 to 4."""
    if generator.random() < P_FREQUENT:
        return float(generator.choice(FREQUENT_SCALES))
    return float(generator.uniform(MIN_SCALE, MAX_SCALE))


def distort_at_random(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Sharpen, add noise, and compress, each with its probability."""
    if generator.random() < P_SHARPENED:
        radius, percent = generator.uniform(0.5, 2), int(generator.integers(40, 160))
        image = image.filter(ImageFilter.UnsharpMask(radius=radius, percent=percent, threshold=0))
    if generator.random() < P_NOISY:
        noise = generator.standard_normal((*image.size, 3), dtype=np.float32) * generator.uniform(1, 8)
        image = Image.fromarray((np.asarray(image) + noise).round().clip(0, 255).astype(np.uint8))
    if generator.random() < P_JPEG:
        quality = int(generator.integers(WORST_JPEG, BEST_JPEG + 1))
        image = compress_jpeg(image, quality, subsampling=int(generator.integers(NUM_SUBSAMPLINGS)))
    return image


def make_upscale(photograph: Path, label: str, upscalers: Upscalers, generator: np.random.Generator) -> Image.Image:
    """Make a picture of 192 x 192 pixels with a label, with random distortions.

    Args:
        photograph: File.
        label: Label of the picture.
        upscalers: Ways to enlarge pictures.
        generator: Generator of all that is random.

    Raises:
        ValueError: If the photograph is too small.
    """
    if label == NATIVE:
        image = Image.fromarray(cut_window(photograph, SIDE, generator))
    elif label == LEARNED:
        upscaler = upscalers.learned[int(generator.integers(len(upscalers.learned)))]
        image = upscale_window(photograph, generator, upscaler=upscaler)
    else:
        kernels = list(upscalers.kernels[label].values())
        enlarge = kernels[generator.integers(len(kernels))]
        image = enlarge_window(photograph, generator, enlarge=enlarge, scale=draw_scale(generator))
    return distort_at_random(image, generator)


def describe_picture(image: Image.Image) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pixels, uint8 (192, 192, 3), and spectrum, float32 (128,), of a picture."""
    pixels = torch.from_numpy(np.array(image))
    return pixels, DETECTOR.processor(num_patches=1).cut(pixels)["spectrum"]


def make_pool(photographs: Sequence[Path], upscalers: Upscalers, *, count: int, seed: int) -> Pool:
    """Make pictures of photographs, each photograph as often as any other.

    Args:
        photographs: Files.
        upscalers: Ways to enlarge pictures.
        count: Number of pictures.
        seed: Seed; picture by picture, it decides everything.

    Raises:
        ValueError: If a photograph cannot be read or is too small.
    """
    labels = upscalers.labels
    chances = np.array([NATIVE_WEIGHT, *[1.0] * (len(labels) - 1)])
    targets = np.random.default_rng(seed).choice(len(labels), size=count, p=chances / chances.sum())

    def make(index: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = np.random.default_rng((seed, index))
        photograph = photographs[index % len(photographs)]
        return describe_picture(make_upscale(photograph, labels[targets[index]], upscalers, generator))

    pixels = torch.empty(count, SIDE, SIDE, 3, dtype=torch.uint8)
    spectra = []
    with ThreadPoolExecutor(torch.get_num_threads()) as workers:
        for index, (own, spectrum) in enumerate(workers.map(make, range(count))):
            pixels[index] = own
            spectra.append(spectrum)
    return Pool(pixels=pixels, spectra=torch.stack(spectra), labels=labels, targets=torch.from_numpy(targets))
