# SPDX-License-Identifier: Apache-2.0
"""Score distributions: their means, and the agreement of predicted ones with those of observers."""

import numpy as np

from .correlation import Values

AVA_THRESHOLD = 5.0  # on the scale 1..10 of AVA, whose pictures above it count as good


def opinion_scores(labels: Values) -> np.ndarray:
    """Return one opinion score per picture: as given, or the expectation of a distribution over the score values 1..n.

    Args:
        labels: Opinion scores in MOS points, shape (num_pictures,), or counts or fractions of the score values, shape
            (num_pictures, num_bins).

    Returns:
        Opinion scores, float64, shape (num_pictures,).
    """
    table = np.asarray(labels, dtype=np.float64)
    if table.ndim == 1:
        return table
    return table @ np.arange(1, table.shape[1] + 1) / table.sum(axis=1)


def distribution_metrics(predicted: np.ndarray, wanted: np.ndarray, *, exponent: float = 2.0) -> dict[str, float]:
    """Compute the metrics that papers report on AVA beside the correlations, for distributions over 1..num_bins.

    Args:
        predicted: Counts or probabilities >= 0, shape (num_pictures, num_bins).
        wanted: Counts or fractions of the observers, shape (num_pictures, num_bins).
        exponent: Exponent r of the earth mover's distance (eq. 3 of the paper).

    Returns:
        "emd" is the mean of the distances, in [0, 1]. "accuracy_at_5" is the part of the pictures whose predicted and
        actual mean score are on the same side of 5; exactly 5 counts as below. "mse" is the mean squared difference of
        the mean scores.

    Raises:
        ValueError: If the shapes differ, a distribution is negative, empty or not finite, 5 is no value inside the
            range, or the exponent is not positive.
    """
    tables = [np.asarray(predicted, dtype=np.float64), np.asarray(wanted, dtype=np.float64)]
    if tables[0].shape != tables[1].shape or tables[0].ndim != 2 or not tables[0].size:
        raise ValueError(
            "Distributions must be two tables of one shape (num_pictures, num_bins), got "
            f"{tables[0].shape} and {tables[1].shape}."
        )
    num_bins = tables[0].shape[1]
    if num_bins <= AVA_THRESHOLD:
        raise ValueError(f"The accuracy at {AVA_THRESHOLD:g} needs score values beyond it, got 1..{num_bins}.")
    if not exponent > 0:
        raise ValueError(f"`exponent` must be positive, got {exponent}.")
    for table in tables:
        if not (np.isfinite(table).all() and (table >= 0).all() and (table.sum(axis=1) > 0).all()):
            raise ValueError("Distributions must have finite entries >= 0 and a sum > 0, got others.")
    p, q = (table / table.sum(axis=1, keepdims=True) for table in tables)
    gaps = np.abs(p.cumsum(axis=1) - q.cumsum(axis=1)) ** exponent
    values = np.arange(1, num_bins + 1)
    means, actual = p @ values, q @ values
    return {
        "emd": float(np.mean(gaps.mean(axis=1) ** (1 / exponent))),
        "accuracy_at_5": float(np.mean((means > AVA_THRESHOLD) == (actual > AVA_THRESHOLD))),
        "mse": float(np.mean((means - actual) ** 2)),
    }
