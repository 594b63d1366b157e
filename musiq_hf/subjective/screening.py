# SPDX-License-Identifier: Apache-2.0
"""Screening of viewers: by the correlation with all (after P.913), or by kurtosis (after BT.500)."""

from dataclasses import dataclass

import numpy as np

from .votes import Votes, average_votes

THRESHOLD = 0.75  # lowest correlation with the means of those who stay
MIN_VOTES = 3  # a correlation of fewer says nothing
MAX_OUTSIDE = 0.05  # part of a viewer's votes that may lie outside of the bounds
MAX_BALANCE = 0.3  # a viewer whose votes lie outside more on one side is biased, which is no reason to go


@dataclass(frozen=True, eq=False)
class Screening:
    """Viewers that stay and those that go.

    Attributes:
        subjects: Names of the viewers.
        kept: Whether each viewer stays, bool, shape (num_subjects,).
        correlations: Correlation of each viewer with the mean opinion scores; None if kurtosis screened.
        num_high: Number of votes of each viewer at the upper bound or above; None if correlation screened.
        num_low: Number of votes of each viewer at the lower bound or below; None if correlation screened.
    """

    subjects: tuple[str, ...]
    kept: np.ndarray
    correlations: np.ndarray | None = None
    num_high: np.ndarray | None = None
    num_low: np.ndarray | None = None


def screen_by_correlation(votes: Votes, *, threshold: float = THRESHOLD) -> Screening:
    """Keep viewers whose votes agree with the mean opinion scores (Pearson's correlation, after P.913).

    The means contain the viewer's own votes. A viewer with equal votes, or fewer than 3, has the correlation 0. There
    is one pass: the means are not computed again without those who go.

    Args:
        votes: Votes.
        threshold: Lowest correlation of those who stay.

    Raises:
        ValueError: If the threshold is not within -1 and 1.
    """
    if not -1 <= threshold <= 1:
        raise ValueError(f"`threshold` must lie within -1 and 1, as a correlation does, got {threshold}.")
    mos = average_votes(votes.values, axis=1)
    found = np.array([_correlate(column, mos) for column in votes.values.T])
    return Screening(votes.subjects, found >= threshold, correlations=found)


def _correlate(column: np.ndarray, mos: np.ndarray) -> float:
    """Return Pearson's correlation of one viewer's votes with the means of the same items."""
    given = np.isfinite(column)
    own, means = column[given], mos[given]
    if len(own) < MIN_VOTES or np.ptp(own) == 0 or np.ptp(means) == 0:
        return 0.0
    return float(np.corrcoef(own, means)[0, 1])


def screen_by_kurtosis(votes: Votes, *, sample_std: bool = False) -> Screening:
    """Reject viewers whose votes often lie far outside, on both sides (after BT.500, section on screening).

    An item whose votes look normal (kurtosis 2 to 4) has bounds at 2 standard deviations from its mean, another one
    at sqrt(20). P votes of a viewer lie at the upper bound or above, and Q at the lower bound or below. The viewer
    goes if (P + Q) / n > 0.05 and |P - Q| / (P + Q) < 0.3, of n votes. If all would go, all stay.

    An item on which all agree counts for nobody. To the letter its bounds are its mean, and it counts twice for
    everybody: four such items of 30 would reject 11 of 12 viewers.

    Args:
        votes: Votes.
        sample_std: Whether standard deviations divide by n - 1, as BT.500 is remembered to, and not by n, as the
            program sureal does. Rejections can differ.
    """
    given = np.isfinite(votes.values)
    counts = given.sum(axis=1, keepdims=True)
    from_mean = np.where(given, votes.values - average_votes(votes.values, axis=1)[:, None], 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        squares, fourths = ((from_mean**power).sum(axis=1, keepdims=True) / counts for power in (2, 4))
        kurtosis = fourths / squares**2
        spread = np.sqrt(squares * (counts / (counts - 1) if sample_std else 1))
    bounds = np.where((kurtosis >= 2) & (kurtosis <= 4), 2, np.sqrt(20)) * spread
    counted = given & (squares > 0)
    high = (counted & (from_mean >= bounds)).sum(axis=0)
    low = (counted & (from_mean <= -bounds)).sum(axis=0)
    outside = high + low
    is_far = outside > MAX_OUTSIDE * given.sum(axis=0)
    kept = ~(is_far & (np.abs(high - low) < MAX_BALANCE * outside))
    return Screening(votes.subjects, kept if kept.any() else ~kept, num_high=high, num_low=low)
