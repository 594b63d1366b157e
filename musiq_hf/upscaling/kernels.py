# SPDX-License-Identifier: Apache-2.0
"""Interpolations that enlarge pictures, by the labels of the detector, as different programs compute them.

A detector that is trained on one program's bicubic misses that of another. `SEEN` are for training, `UNSEEN` tell how
well others are found.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from PIL import Image

Enlarge = Callable[[np.ndarray, int], np.ndarray]  # uint8 (n, n, 3) and a side to uint8 (side, side, 3)
Kernel = Callable[[np.ndarray], np.ndarray]


def _enlarge_by_pillow(pixels: np.ndarray, side: int, *, filter_name: str) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling[filter_name]))


def _pillow(filter_name: str) -> Enlarge:
    return partial(_enlarge_by_pillow, filter_name=filter_name)


def _tent(distances: np.ndarray) -> np.ndarray:
    return np.maximum(0, 1 - np.abs(distances))


def _cubic(distances: np.ndarray, *, b: float = 0.0, c: float) -> np.ndarray:
    """Return the weights of the cubic kernels of Mitchell and Netravali; bicubic has b = 0 and c = -a."""
    x = np.abs(distances)
    near = (12 - 9 * b - 6 * c) * x**3 + (-18 + 12 * b + 6 * c) * x**2 + (6 - 2 * b)
    far = (-b - 6 * c) * x**3 + (6 * b + 30 * c) * x**2 + (-12 * b - 48 * c) * x + (8 * b + 24 * c)
    return np.where(x < 1, near, np.where(x < 2, far, 0)) / 6


def _lanczos(distances: np.ndarray, *, lobes: int) -> np.ndarray:
    return np.where(np.abs(distances) < lobes, np.sinc(distances) * np.sinc(distances / lobes), 0)


def _make_weights(size: int, side: int, kernel: Kernel, *, keeps_corners: bool) -> np.ndarray:
    """Make the matrix (side, size) that enlarges a line; beyond the ends the last pixels are repeated.

    Args:
        size: Pixels of the source.
        side: Pixels of the result.
        kernel: Weights at distances in pixels of the source.
        keeps_corners: Whether the middles of the first and last pixels stay in place, and not their outer edges.
    """
    places = np.arange(side)
    centres = places * (size - 1) / (side - 1) if keeps_corners else (places + 0.5) * size / side - 0.5
    reach = 6
    sources = np.floor(centres).astype(int)[:, None] + np.arange(1 - reach, reach + 1)
    values = kernel(centres[:, None] - sources)
    weights = np.zeros((side, size))
    np.add.at(weights, (np.broadcast_to(places[:, None], sources.shape), sources.clip(0, size - 1)), values)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _enlarge_by_kernel(pixels: np.ndarray, side: int, *, kernel: Kernel, keeps_corners: bool = False) -> np.ndarray:
    weights = _make_weights(len(pixels), side, kernel, keeps_corners=keeps_corners)
    planes = weights @ pixels.astype(np.float32).transpose(2, 0, 1) @ weights.T
    return planes.transpose(1, 2, 0).round().clip(0, 255).astype(np.uint8)


def _kernel(kernel: Kernel, *, keeps_corners: bool = False) -> Enlarge:
    return partial(_enlarge_by_kernel, kernel=kernel, keeps_corners=keeps_corners)


def _repeat(pixels: np.ndarray, side: int, *, keeps_corners: bool) -> np.ndarray:
    """Repeat pixels: those before the place, as OpenCV does, or the nearest ones of a grid that keeps the corners."""
    size = len(pixels)
    if keeps_corners:
        places = np.round(np.arange(side) * (size - 1) / (side - 1)).astype(int)
    else:
        places = np.floor(np.arange(side) * size / side).astype(int)
    return pixels[places][:, places]


SEEN: Mapping[str, Mapping[str, Enlarge]] = {
    "nearest": {"Pillow": _pillow("NEAREST"), "floor": partial(_repeat, keeps_corners=False)},
    "bilinear": {
        "Pillow": _pillow("BILINEAR"),
        "corners kept": _kernel(_tent, keeps_corners=True),
        "Hermite": _kernel(partial(_cubic, b=0, c=0)),
    },
    "bicubic": {
        "Pillow, a = -0.5": _pillow("BICUBIC"),
        "a = -0.6": _kernel(partial(_cubic, c=0.6)),
        "a = -0.75": _kernel(partial(_cubic, c=0.75)),
    },
    "lanczos": {"Pillow, 3 lobes": _pillow("LANCZOS"), "4 lobes": _kernel(partial(_lanczos, lobes=4))},
}
UNSEEN: Mapping[str, Mapping[str, Enlarge]] = {
    "nearest": {"corners kept": partial(_repeat, keeps_corners=True)},
    "bilinear": {"Hamming": _pillow("HAMMING")},
    "bicubic": {
        "Mitchell": _kernel(partial(_cubic, b=1 / 3, c=1 / 3)),
        "B-spline": _kernel(partial(_cubic, b=1, c=0)),
        "a = -0.5, corners kept": _kernel(partial(_cubic, c=0.5), keeps_corners=True),
        "a = -1": _kernel(partial(_cubic, c=1)),
    },
    "lanczos": {
        "2 lobes": _kernel(partial(_lanczos, lobes=2)),
        "5 lobes": _kernel(partial(_lanczos, lobes=5)),
    },
}


def choose_side(size: int, scale: float) -> int:
    """Return the side of a source of `size` pixels after an enlargement."""
    return math.floor(size * scale + 0.5)
