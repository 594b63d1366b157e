# SPDX-License-Identifier: Apache-2.0
"""Summary of ladders: smallest files that keep the score, rates saved between codecs, falls of the score, curves."""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from ..significance import bd_rate
from .rows import LadderRow

MEASURES = ("psnr_y", "ssim_y")  # which rise with the size of the file, and so have rates at one quality


class SmallestFile(NamedTuple):
    """Smallest file of a picture and a codec whose score stays within a drop.

    Attributes:
        key: Name of the picture.
        codec: Name of the codec.
        row: Row of the file; None if no file stays within it.
    """

    key: str
    codec: str
    row: LadderRow | None


class RateDifference(NamedTuple):
    """Difference in rate of two codecs at the same quality, the mean over pictures.

    Attributes:
        codec: Name of the codec.
        reference: Name of the codec that it is compared with.
        measure: Measure of the quality, "psnr_y" or "ssim_y".
        percent: Percent by which the rate differs: -10 means that the codec needs a tenth less. None if no picture has
            a difference.
        num_pictures: Number of pictures that have one.
        num_left_out: Number of pictures that have none: too few files, a curve that does not rise, or no quality that
            both codecs reach.
    """

    codec: str
    reference: str
    measure: str
    percent: float | None
    num_pictures: int
    num_left_out: int


class Fall(NamedTuple):
    """Largest fall of the score from a file to a larger one of the same picture and codec.

    Attributes:
        points: Fall in MOS points; 0 if the score never falls.
        key: Name of the picture; None if the score never falls.
        smaller: Quality of the smaller file; None if the score never falls.
        larger: Quality of the larger file; None if the score never falls.
    """

    points: float = 0.0
    key: str | None = None
    smaller: int | None = None
    larger: int | None = None


class CurvePoint(NamedTuple):
    """Means over pictures of the files of a codec and a quality; see `LadderRow`."""

    quality: float
    bits_per_pixel: float
    psnr_y: float
    ssim_y: float
    score: float


@dataclass(frozen=True)
class LadderSummary:
    """Summary of the ladders of some pictures.

    Attributes:
        smallest: Smallest files, by picture and codec; empty if no drop was given.
        rates: Differences in rate of each two codecs; the later one is compared with the earlier one.
        falls: Largest fall of the score by codec, of those with several files of a picture.
        curves: Points by codec, in the order of the qualities: means over the pictures without an error.
        keys: Names of the pictures without an error.
    """

    smallest: tuple[SmallestFile, ...]
    rates: tuple[RateDifference, ...]
    falls: Mapping[str, Fall]
    curves: Mapping[str, tuple[CurvePoint, ...]]
    keys: tuple[str, ...]


Ladder = Mapping[str, Sequence[LadderRow]]  # rows of a picture by codec


def _read_ladders(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Ladder]]:
    """Yield key and rows of each picture; one that was named twice is two pictures."""
    ladder: dict[str, dict[int, LadderRow]] = {}
    key: str | None = None
    for values in rows:
        row = LadderRow(**{name: values[name] for name in LadderRow._fields})
        if row.codec is None or row.quality is None:  # the picture could not be read
            continue
        if key is not None and (row.key != key or row.quality in ladder.get(row.codec, {})):
            yield key, {codec: list(own.values()) for codec, own in ladder.items()}
            ladder = {}
        key = row.key
        ladder.setdefault(row.codec, {})[row.quality] = row
    if key is not None:
        yield key, {codec: list(own.values()) for codec, own in ladder.items()}


def _find_smallest(key: str, ladder: Ladder, max_drop: float) -> Iterator[SmallestFile]:
    for codec, rows in ladder.items():
        within = [row for row in rows if row.score_drop is not None and row.score_drop <= max_drop]
        yield SmallestFile(key, codec, min(within, key=lambda row: row.bytes or 0, default=None))


def _find_differences(ladder: Ladder) -> Iterator[tuple[tuple[str, str, str], float | None]]:
    """Yield codec, reference and measure, and the difference in rate, of each two codecs on one picture."""
    for reference, codec in combinations(ladder, 2):
        for measure in MEASURES:
            yield (codec, reference, measure), _find_difference(ladder[reference], ladder[codec], measure)


def _find_difference(reference: Sequence[LadderRow], rows: Sequence[LadderRow], measure: str) -> float | None:
    """Compute the difference in rate of two codecs on one picture; None if there is none.

    Qualities whose files have one size are one point, and so are files that lose nothing: PSNR has no number for them.
    """
    curves = []
    for own in (reference, rows):
        points = {row.bits_per_pixel: getattr(row, measure) for row in own if row.error is None}
        finite = {rate: value for rate, value in points.items() if _is_finite(value)}
        curves += [list(finite), list(finite.values())]
    try:
        return bd_rate(*curves)
    except ValueError:
        return None


def _find_fall(key: str, rows: Sequence[LadderRow]) -> Fall:
    """Find the largest fall of the score from a file to a larger one."""
    fall, best, quality = Fall(), -math.inf, None
    for row in sorted((row for row in rows if row.error is None), key=lambda row: row.bytes or 0):
        score = -math.inf if row.score is None else row.score
        if best - score > fall.points:
            fall = Fall(best - score, key, quality, row.quality)
        if score > best:
            best, quality = score, row.quality
    return fall


def _is_whole(ladder: Ladder) -> bool:
    """Return whether all files of a picture have numbers; one that loses nothing has no finite PSNR."""
    return all(_is_finite(row.psnr_y) and row.error is None for rows in ladder.values() for row in rows)


def _is_finite(value: float | None) -> bool:
    """Return whether a value is a finite number; JSON has no others, and a table of its kind holds None there."""
    return value is not None and math.isfinite(value)


class _Curves:
    """Sums of the files of each codec and quality over pictures."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[int, np.ndarray]] = {}

    def add(self, ladder: Ladder) -> None:
        """Add the files of a picture."""
        for codec, rows in ladder.items():
            sums = self._sums.setdefault(codec, {})
            for row in rows:
                values = np.array([getattr(row, name) for name in CurvePoint._fields], dtype=np.float64)
                sums[row.quality or 0] = sums.get(row.quality or 0, 0.0) + values

    def average(self, num_pictures: int) -> dict[str, tuple[CurvePoint, ...]]:
        """Return the means of each codec, in the order of the qualities."""
        return {
            codec: tuple(CurvePoint(*(total / num_pictures).tolist()) for _, total in sorted(sums.items()))
            for codec, sums in self._sums.items()
        }


def summarize_ladders(rows: Iterable[Mapping[str, Any]], *, max_drop: float | None = None) -> LadderSummary:
    """Summarize the rows of `musiq ladder`.

    Args:
        rows: Rows by the names of their columns, picture by picture; None where there is no value.
        max_drop: Drop of the score, in MOS points, within which the smallest files stay; None looks for none.

    Raises:
        ImportError: If SciPy is missing.
    """
    smallest: list[SmallestFile] = []
    differences: dict[tuple[str, str, str], list[float | None]] = {}
    falls: dict[str, Fall] = {}
    curves, keys = _Curves(), []
    for key, ladder in _read_ladders(rows):
        if max_drop is not None:
            smallest += _find_smallest(key, ladder, max_drop)
        for names, difference in _find_differences(ladder):
            differences.setdefault(names, []).append(difference)
        for codec, own in ladder.items():
            if len(own) < 2:
                continue  # there is no larger file
            falls[codec] = max(falls.get(codec, Fall()), _find_fall(key, own), key=lambda fall: fall.points)
        if _is_whole(ladder):
            keys.append(key)
            curves.add(ladder)
    rates = (RateDifference(*names, *_average(values)) for names, values in differences.items())
    return LadderSummary(tuple(smallest), tuple(rates), falls, curves.average(len(keys)), tuple(keys))


def _average(values: Sequence[float | None]) -> tuple[float | None, int, int]:
    """Return the mean of what is there, and the numbers of values that are and are not."""
    found = [value for value in values if value is not None]
    return statistics.fmean(found) if found else None, len(found), len(values) - len(found)
