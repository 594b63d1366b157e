# SPDX-License-Identifier: Apache-2.0
"""Scale by which a linear filter has enlarged a picture, read off its spectrum; nothing is learned.

Enlarging N / n times repeats the spectrum of the n source pixels of a line around the frequency n. What stands at the
frequencies a and n - a then has one phase in sum, whatever a is, in all lines. The share o(n) in [0, 1] says how well
these sums agree, and it is near 0 elsewhere. The idea is that of the program resdet (0x09), which compares signs of
cosine transforms. Phases find cropped pictures as well, in which the copies have any phase.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..models.luma import to_luma
from ..pictures.decoding import Decoder

MIN_SIDE = 64  # pixels
MIN_SOURCE = 24  # pixels of a source's side: of fewer, one more or less would change the scale by more than 4 %
MIN_SCALE, MAX_SCALE = 1.15, 8.0
PAIRS = 12  # pairs of frequencies on each side of half of n
FAINT = 0.1  # amplitude, in levels of 255, below which only rounding errors of this program are seen
BLOCKS = 8  # a JPEG file is made of blocks of 8 pixels, which stand out at the frequencies N * k / 8
# Least height of a peak over the median of its curve, and the same in deviations of the curve. Of 100 photographs
# shrunk first, 2 pass both, and 1 or 2 after JPEG 75 or 90; of bilinear and bicubic enlargements by 1.5 and 2, all.
MIN_HEIGHT, MIN_DEVIATIONS = 0.15, 6.0
BALANCE = 0.3  # least height of the lower of two peaks, as a part of the higher: one side alone is not enough
SPREAD_FLOOR = 0.004  # least deviation of a curve
OVERTONE = 0.8  # of a peak's height: a peak at a part of its n is then the real one


@dataclass(frozen=True, kw_only=True)
class ScaleEstimate:
    """Scale by which a picture was enlarged.

    Attributes:
        scale: Size of the picture over the size of its source, the mean of both sides.
        source_size: Width and height of the source, in pixels; of a cropped picture, of what is left of it.
        agreement: Agreement of the spectrum with its copies, o(n) as the mean of both sides, in [0, 1]. It is 1 where
            repeated pixels were counted.
    """

    scale: float
    source_size: tuple[int, int]
    agreement: float


def _read_pixels(picture: Any) -> torch.Tensor:
    """Return pixels (height, width, 3); raise a ValueError if they are too few."""
    pixels = Decoder(max_megapixels=math.inf)(picture)
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise ValueError(f"A scale needs at least {MIN_SIDE} x {MIN_SIDE} pixels, got {width} x {height}.")
    return pixels


def _keep_low_frequencies(lines: np.ndarray) -> np.ndarray:
    """Return the lowest quarter of the cosine transform (type II) of lines: there, a picture is far above its noise.

    Args:
        lines: Shape (lines, size).

    Returns:
        float32, shape (size // 4, lines).
    """
    size = lines.shape[1]
    folded = np.concatenate([lines[:, ::2], lines[:, 1::2][:, ::-1]], axis=1)
    turns = np.exp(-0.5j * np.pi * np.arange(size // 4) / size).astype(np.complex64)
    return (np.fft.rfft(folded, axis=1)[:, : size // 4] * turns).real.T


def _measure_side(lines: np.ndarray) -> np.ndarray:
    """Measure o(n) at every n below the size of the lines, shape (lines, size)."""
    count, size = lines.shape
    window = np.sin(np.pi * (np.arange(size) + 0.5) / size).astype(np.float32)
    spectrum = np.fft.rfft(lines * window, axis=1)
    amplitudes = np.abs(spectrum)
    phases = np.divide(spectrum, amplitudes, out=np.zeros_like(spectrum), where=amplitudes > FAINT)
    pairs, sums = min(PAIRS, size // 16), np.zeros(size, dtype=np.complex128)
    for distance in range(1, 2 * pairs + 1):  # of two frequencies, a and n - a
        products = (phases[:, :-distance] * phases[:, distance:]).sum(axis=0)
        sums[distance : distance + 2 * len(products) : 2] += products
    return np.abs(sums) / (count * pairs)


def measure_copies(picture: Any) -> tuple[np.ndarray, np.ndarray]:
    """Measure how well the spectrum of a picture agrees with copies of itself, for each possible size of a source.

    Args:
        picture: Path, URL, PIL image, array or tensor with sides of at least 64 pixels.

    Returns:
        o(n) in [0, 1] for sources that are n pixels wide, float64 (width,), and for those that are n pixels high,
        float64 (height,). An enlarged picture has a peak at the size of its source. So have JPEG files at multiples of
        an eighth of their size.

    Raises:
        ValueError: If the picture cannot be used, or is smaller.
    """
    return _measure_both(_read_pixels(picture))


def _measure_both(pixels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    luma = to_luma(pixels).numpy()
    luma -= luma.mean()
    return _measure_side(_keep_low_frequencies(luma.T)), _measure_side(_keep_low_frequencies(luma))


def _find_heights(curve: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the heights of a curve over its median, -inf at impossible sizes, and its deviation.

    The blocks of a JPEG file raise the curve at every eighth, and more towards the end. So from each of these the next
    one is subtracted, which an enlargement does not raise.
    """
    size = len(curve)
    first = max(MIN_SOURCE, int(size / MAX_SCALE) - 1)
    last = min(int(size / MIN_SCALE), size - 2 * min(PAIRS, size // 16) - 1)
    inner = curve[first:last]
    heights = curve - np.median(inner)
    spread = 1.4826 * float(np.median(np.abs(inner - np.median(inner)))) + SPREAD_FLOOR
    eighths = [round(size * part / BLOCKS) for part in range(1, BLOCKS)]
    tops = [heights[place - 1 : place + 2].max() for place in eighths]
    for place, following in zip(eighths, tops[1:], strict=False):
        heights[place - 1 : place + 2] -= max(0.0, following)
    heights[:first] = heights[last:] = -np.inf
    return heights, spread


def _find_source(longer: np.ndarray, shorter: np.ndarray) -> tuple[int, int] | None:
    """Find the sizes of a source at which the curves of both sides are high together; None if there are none."""
    (heights, spread), (others, other_spread) = _find_heights(longer), _find_heights(shorter)
    expected = np.round(np.arange(len(longer)) * len(shorter) / len(longer)).astype(int)
    near = np.clip(expected + np.array([[0], [-1], [1]]), 0, len(shorter) - 1)  # rounded in one way or the other
    best = near[others[near].argmax(axis=0), np.arange(len(longer))]
    means = (heights + others[best]) / 2
    means[np.minimum(heights, others[best]) < BALANCE * np.maximum(heights, others[best])] = -np.inf
    top = int(means.argmax())
    if means[top] < MIN_HEIGHT:
        return None
    for part in (4, 3, 2):  # copies at 2 n and 3 n as well, of repeated pixels
        first = max(top // part - 1, 0)
        lower = first + int(means[first : first + 3].argmax())
        if means[lower] > OVERTONE * means[top]:
            top = lower
            break
    deviations = (heights[top] / spread + others[best[top]] / other_spread) / math.sqrt(2)
    return (top, int(best[top])) if deviations >= MIN_DEVIATIONS else None


def _count_repeated(pixels: np.ndarray) -> int | None:
    """Return the number of columns before they were repeated, exactly; None if they were not, or without a rule."""
    starts = np.flatnonzero((pixels[:, 1:] != pixels[:, :-1]).any(axis=(0, 2)))
    count, lengths = len(starts) + 1, np.diff(starts)  # the first and last column may be cut in part
    is_enlarged = count >= MIN_SOURCE and MIN_SCALE <= pixels.shape[1] / count <= MAX_SCALE
    return count if is_enlarged and np.ptp(lengths) <= 1 else None


def estimate_scale(picture: Any) -> ScaleEstimate | None:
    """Estimate the scale by which a picture was enlarged.

    It finds linear filters, such as bilinear, bicubic and Lanczos, at the scales 1.15 to 8, and both sides must be
    enlarged alike. Repeated pixels ("nearest") are found at whole scales, and without compression at any scale.
    Learned upscalers leave no such copies, and shrinking or blurring afterwards hides them.

    Args:
        picture: Path, URL, PIL image, array or tensor with sides of at least 64 pixels.

    Returns:
        The estimate; None if the picture shows no enlargement, which is no proof that there was none.

    Raises:
        ValueError: If the picture cannot be used, or is smaller.
    """
    pixels = _read_pixels(picture)
    height, width = pixels.shape[:2]
    columns, rows = _count_repeated(pixels.numpy()), _count_repeated(pixels.transpose(0, 1).numpy())
    if columns is not None and rows is not None:
        return _make_estimate((width, height), (columns, rows), 1.0)
    curves = _measure_both(pixels)
    is_wide = width >= height
    found = _find_source(*(curves if is_wide else curves[::-1]))
    if found is None:
        return None
    source = found if is_wide else found[::-1]
    agreement = (curves[0][source[0]] + curves[1][source[1]]) / 2
    return _make_estimate((width, height), source, float(agreement))


def _make_estimate(size: tuple[int, int], source: tuple[int, int], agreement: float) -> ScaleEstimate:
    scale = (size[0] / source[0] + size[1] / source[1]) / 2
    return ScaleEstimate(scale=scale, source_size=source, agreement=agreement)
