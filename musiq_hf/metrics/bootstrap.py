# SPDX-License-Identifier: Apache-2.0
"""Bootstrap intervals of correlations, and of their differences on the same pictures."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import combinations

import numpy as np

from .correlation import MEAN_OF_GROUPS, OVERALL, Values, check_pairs, group_members

MIN_FOR_INTERVALS = 10  # pictures; draws of fewer are often the same few, and their intervals far too narrow
_VALUES_PER_CHUNK = 1_000_000  # entries of a table of draws, which bounds the memory


def split_draws(num_draws: int, num_pictures: int) -> Iterator[tuple[int, int]]:
    """Yield the first draw of each chunk, and the one behind its last."""
    size = max(1, _VALUES_PER_CHUNK // num_pictures)
    for start in range(0, num_draws, size):
        yield start, min(start + size, num_draws)


def _rank_resamples(values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank the values within each resample, without sorting each of them; equal values share their mean rank.

    Args:
        values: Values of the pictures, shape (num_pictures,).
        counts: Number of times that each resample holds each picture, shape (num_resamples, num_pictures).

    Returns:
        Ranks minus their mean, shape (num_resamples, num_pictures), and bool, shape (num_resamples,): whether a
        resample holds more than one value.
    """
    _, codes = np.unique(values, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    ties = np.add.reduceat(counts[:, order], starts, axis=1)  # -> (num_resamples, num_values)
    ranks = ties.cumsum(axis=1) - (ties + len(values)) / 2
    return ranks[:, codes], (ties > 0).sum(axis=1) > 1


def _correlate_resamples(
    predicted: np.ndarray, wanted: np.ndarray, *, num_resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """Compute SRCC and PLCC of draws with replacement, shape (2, num_resamples).

    They are 0 where a side is constant in all pictures, and NaN for other draws that are constant by chance.
    """
    if np.ptp(predicted) == 0 or np.ptp(wanted) == 0:
        return np.zeros((2, num_resamples))
    count, results = len(predicted), []
    values = [side - side.mean() for side in (predicted, wanted)]
    for start, end in split_draws(num_resamples, count):
        rows = end - start
        drawn = generator.integers(0, count, (rows, count)) + count * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        ranked = [_rank_resamples(side, counts) for side in values]
        varied = ranked[0][1] & ranked[1][1]
        centred = [side - (counts @ side)[:, None] / count for side in values]
        for a, b in (tuple(ranks for ranks, _ in ranked), centred):
            covariance, first, second = ((counts * pair).sum(axis=1) for pair in (a * b, a * a, b * b))
            norms = np.where(varied, np.sqrt(first * second), 0)
            results.append(np.where(norms > 0, covariance / np.where(norms > 0, norms, 1), np.nan).clip(-1, 1))
    return np.stack([np.concatenate(results[0::2]), np.concatenate(results[1::2])])


def check_draws(num_resamples: int, confidence: float) -> None:
    """Raise a ValueError if there are no draws, or an interval would cover none or all of them."""
    if num_resamples < 1:
        raise ValueError(f"`num_resamples` must be at least 1, got {num_resamples}.")
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie between 0 and 1, got {confidence}.")


def bootstrap_intervals(
    predictions: Values,
    targets: Values,
    *,
    groups: Sequence[str] | None = None,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, dict[str, list[float]]]:
    """Compute percentile bootstrap intervals of SRCC and PLCC.

    They show how much another draw of pictures could change the figures, and nothing about another training run; for
    that see `musiq_hf.training.repeat_runs`.

    Args:
        predictions: Predicted scores, shape (num_pictures,), at least 3, finite.
        targets: Opinion scores, shape (num_pictures,), finite.
        groups: Name of each picture's group; None leaves the interval of the mean within groups out.
        num_resamples: Number of draws with replacement, >= 1. A draw that is constant by chance has no correlation
            and does not count.
        confidence: Part of the draws that an interval covers, in (0, 1).
        seed: Seed of the draws.

    Returns:
        {"overall": {"srcc": [low, high], "plcc": [low, high]}}. If groups have at least 3 pictures, there is an entry
        `MEAN_OF_GROUPS` of the same form. Its draws stay within each group, so that the sizes of the groups are kept.
        An entry is left out if it has fewer than 10 pictures, of which draws say nothing.

    Raises:
        ValueError: If `quality_metrics` or `grouped_metrics` would refuse the scores, or an argument is out of its
            range.
    """
    check_draws(num_resamples, confidence)
    predicted, wanted = check_pairs(predictions, targets)
    generator = np.random.default_rng(seed)

    correlations = partial(_correlate_resamples, num_resamples=num_resamples, generator=generator)
    parts = {OVERALL: [np.ones(len(predicted), dtype=bool)]}
    members = {} if groups is None else group_members(predicted, wanted, groups)
    if members:
        parts[MEAN_OF_GROUPS] = list(members.values())
    tail, intervals = (1 - confidence) / 2, {}
    for name, masks in parts.items():
        if np.sum(masks) < MIN_FOR_INTERVALS:
            continue
        draws = np.stack([correlations(predicted[rows], wanted[rows]) for rows in masks])
        num_varied = np.isfinite(draws).sum(axis=0)  # -> (2, num_resamples); the others have no correlation
        table = np.nansum(draws, axis=0) / np.where(num_varied, num_varied, np.nan)
        table = table[:, np.isfinite(table).all(axis=0)]
        if table.size:
            ends = np.quantile(table, (tail, 1 - tail), axis=1).T.tolist()
            intervals[name] = dict(zip(("srcc", "plcc"), ends, strict=True))
    return intervals


def bootstrap_differences(
    predictions: Sequence[Values],
    targets: Values,
    *,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[tuple[int, int], tuple[float, float]]:
    """Compute percentile bootstrap intervals of the differences between SRCCs, all of the same draws of pictures.

    Intervals of each SRCC alone can overlap where the difference is clear: the same pictures are hard for all.

    Args:
        predictions: Scores of each model for the same pictures, each of shape (num_pictures,), at least 3, finite.
        targets: Opinion scores, shape (num_pictures,), finite.
        num_resamples: Number of draws with replacement, >= 1. A draw in which a side is constant by chance does not
            count.
        confidence: Part of the draws that an interval covers, in (0, 1).
        seed: Seed of the draws.

    Returns:
        {(first, second): (low, high)} for each two models by their places, of SRCC(second) - SRCC(first). Empty if
        there are fewer than 10 pictures, of which draws say nothing.

    Raises:
        ValueError: If `quality_metrics` would refuse the scores, or an argument is out of its range.
    """
    check_draws(num_resamples, confidence)
    pairs = [check_pairs(scores, targets) for scores in predictions]
    if any(len(predicted) < MIN_FOR_INTERVALS for predicted, _ in pairs):
        return {}
    draws = [
        _correlate_resamples(*pair, num_resamples=num_resamples, generator=np.random.default_rng(seed))[0]
        for pair in pairs
    ]
    tail, intervals = (1 - confidence) / 2, {}
    for first, second in combinations(range(len(draws)), 2):
        differences = draws[second] - draws[first]
        differences = differences[np.isfinite(differences)]
        if differences.size:
            low, high = np.quantile(differences, (tail, 1 - tail)).tolist()
            intervals[first, second] = (low, high)
    return intervals
