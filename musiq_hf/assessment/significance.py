# SPDX-License-Identifier: Apache-2.0
"""Comparisons of two systems: the mean difference on the same pictures, and the rate saved at the same quality."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..common.extras import require
from ..metrics.bootstrap import check_draws, split_draws

MIN_PAIRS = 3
MIN_POINTS = 4  # of a curve of rate and quality, as Bjontegaard's cubic needs
ROUNDING = 1e-12  # part of the sum of all sizes by which equal sums may differ

Numbers = Sequence[float] | np.ndarray


class PairedDifference(NamedTuple):
    """Mean difference of two systems on the same pictures.

    Attributes:
        mean: Mean of the second system's values minus those of the first.
        low: Lower end of the bootstrap interval.
        high: Upper end.
        p_value: Two-sided p of the permutation test: the chance of a mean so far from 0 if signs were random.
        wins: Number of pictures on which the second is higher.
        ties: Number of pictures on which both are equal.
        losses: Number of pictures on which the second is lower.
        num_pairs: Number of pictures.
    """

    mean: float
    low: float
    high: float
    p_value: float
    wins: int
    ties: int
    losses: int
    num_pairs: int


def _check_numbers(values: Numbers, name: str) -> np.ndarray:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1:
        raise ValueError(f"`{name}` must be one list of numbers, got shape {numbers.shape}.")
    if not np.isfinite(numbers).all():
        raise ValueError(f"`{name}` must be finite, got {numbers[~np.isfinite(numbers)][0]}. Leave such values out.")
    return numbers


def _check_equal_lengths(first: np.ndarray, second: np.ndarray, names: tuple[str, str]) -> None:
    if len(first) != len(second):
        raise ValueError(
            f"`{names[0]}` and `{names[1]}` must have one length, got {len(first)} and {len(second)}. Leave out what "
            "only one of them has."
        )


def _find_interval(
    differences: np.ndarray, *, confidence: float, num_resamples: int, generator: np.random.Generator
) -> tuple[float, float]:
    """Compute the percentile interval of the mean over draws of pictures with replacement."""
    count, means = len(differences), np.empty(num_resamples)
    for start, end in split_draws(num_resamples, count):
        means[start:end] = differences[generator.integers(0, count, (end - start, count))].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


def _test_signs(differences: np.ndarray, *, num_resamples: int, generator: np.random.Generator) -> float:
    """Compute the two-sided p of the sign-flip permutation test."""
    count = len(differences)
    is_exact = count < num_resamples.bit_length()  # 2^count <= num_resamples
    num_draws = 2**count if is_exact else num_resamples
    least, num_extreme = abs(differences.sum()) - ROUNDING * np.abs(differences).sum(), 0
    for start, end in split_draws(num_draws, count):
        if is_exact:
            flips = np.arange(start, end)[:, None] >> np.arange(count) & 1
        else:
            flips = generator.integers(0, 2, (end - start, count), dtype=np.int8)
        num_extreme += int((np.abs((1 - 2 * flips) @ differences) >= least).sum())
    # The order that was seen is one of the draws, so that random draws never give 0.
    return num_extreme / num_draws if is_exact else (num_extreme + 1) / (num_draws + 1)


def paired_difference(
    first: Numbers, second: Numbers, *, confidence: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> PairedDifference:
    """Compute the mean difference of two systems on the same pictures, with its interval and a test.

    Two intervals of their own would be wider by what the pictures have in common.

    Args:
        first: Values of the first system, shape (num_pairs,), at least 3, finite.
        second: Values of the second system for the same pictures in the same order.
        confidence: Part of the draws that the interval covers, in (0, 1).
        num_resamples: Number of draws of the bootstrap, and of the test: all changes of signs if there are no more.
        seed: Seed of the draws.

    Returns:
        Difference, second minus first.

    Raises:
        ValueError: If the lists differ in length, have fewer than 3 values or values that are not finite. Also if an
            argument is out of its range.
    """
    values = _check_numbers(first, "first"), _check_numbers(second, "second")
    _check_equal_lengths(*values, ("first", "second"))
    if len(values[0]) < MIN_PAIRS:
        raise ValueError(f"At least {MIN_PAIRS} pairs are needed, got {len(values[0])}. Measure more pictures.")
    check_draws(num_resamples, confidence)
    differences, generator = values[1] - values[0], np.random.default_rng(seed)
    low, high = _find_interval(differences, confidence=confidence, num_resamples=num_resamples, generator=generator)
    return PairedDifference(
        mean=float(differences.mean()),
        low=low,
        high=high,
        p_value=_test_signs(differences, num_resamples=num_resamples, generator=generator),
        wins=int((differences > 0).sum()),
        ties=int((differences == 0).sum()),
        losses=int((differences < 0).sum()),
        num_pairs=len(differences),
    )


def _order_curve(rates: Numbers, qualities: Numbers, names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the logarithms of rates, and the qualities, in the order of the rates."""
    curve = _check_numbers(rates, names[0]), _check_numbers(qualities, names[1])
    _check_equal_lengths(*curve, names)
    if len(curve[0]) < MIN_POINTS:
        raise ValueError(f"`{names[0]}`: at least {MIN_POINTS} points are needed, got {len(curve[0])}. Encode more.")
    order = np.argsort(curve[0], kind="stable")
    ordered, heights = curve[0][order], curve[1][order]
    if ordered[0] <= 0:
        raise ValueError(f"`{names[0]}` must be above 0, got {ordered[0]:g}.")
    if (np.diff(ordered) <= 0).any():
        raise ValueError(f"`{names[0]}` must differ from each other. Leave out points of one rate.")
    drops = np.flatnonzero(np.diff(heights) <= 0)
    if len(drops):
        place = int(drops[0])
        raise ValueError(
            f"`{names[1]}` must rise with the rate, got {heights[place]:g} at {ordered[place]:g} and "
            f"{heights[place + 1]:g} at {ordered[place + 1]:g}. Take a measure that rises, such as PSNR."
        )
    return np.log10(ordered), heights


def bd_rate(reference_rates: Numbers, reference_qualities: Numbers, rates: Numbers, qualities: Numbers) -> float:
    """Compute the Bjontegaard difference in rate, with monotone cubic pieces (PCHIP) through the points.

    Args:
        reference_rates: Rates of the reference, at least 4, above 0, in any unit and order.
        reference_qualities: Qualities of the reference at these rates, which rise with the rate.
        rates: Rates of the other codec, in the same unit.
        qualities: Qualities of the other codec at its rates.

    Returns:
        Percent by which the other's rate differs at the same quality: -10 means that it needs a tenth less. It is the
        mean of logarithms over the qualities that both reach.

    Raises:
        ValueError: If a curve has too few points or does not rise, or the curves have no quality in common.
        ImportError: If SciPy is missing.
    """
    interpolate = require("scipy.interpolate", extra="assessment")
    reference = _order_curve(reference_rates, reference_qualities, ("reference_rates", "reference_qualities"))
    other = _order_curve(rates, qualities, ("rates", "qualities"))
    low, high = max(reference[1][0], other[1][0]), min(reference[1][-1], other[1][-1])
    if low >= high:
        raise ValueError(
            f"The curves have no quality in common: {reference[1][0]:g} to {reference[1][-1]:g}, and {other[1][0]:g} "
            f"to {other[1][-1]:g}. Encode both at rates of like quality."
        )
    means = [
        float(interpolate.PchipInterpolator(heights, logarithms).integrate(low, high)) / (high - low)
        for logarithms, heights in (reference, other)
    ]
    return float(100 * (10 ** (means[1] - means[0]) - 1))
