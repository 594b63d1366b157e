# SPDX-License-Identifier: Apache-2.0
"""Agreement between predicted scores and mean opinion scores, as the paper reports it (section 4.1)."""

from collections.abc import Sequence

import numpy as np

from .extras import require

MIN_PICTURES = 3  # below that a correlation says nothing
MEAN_OF_GROUPS = "mean within groups"


def quality_metrics(
    predictions: Sequence[float] | np.ndarray, targets: Sequence[float] | np.ndarray
) -> dict[str, float]:
    """SRCC, PLCC and RMSE between predictions and opinion scores.

    Args:
        predictions: Predicted scores, shape (num_pictures,), at least 3, finite.
        targets: Opinion scores, alike.

    Returns:
        "srcc" and "plcc" in [-1, 1] (0 if either side is constant: it ranks nothing), "rmse" in MOS points.

    Raises:
        ValueError: If the lengths differ, there are fewer than 3 pictures, or a value is not finite.
    """
    stats = require("scipy.stats", extra="train")
    predicted, wanted = np.asarray(predictions, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if predicted.shape != wanted.shape or predicted.ndim != 1:
        raise ValueError(
            f"Predictions and targets must be two lists of one length, got {predicted.shape} and {wanted.shape}."
        )
    if len(predicted) < MIN_PICTURES:
        raise ValueError(f"Correlations need at least {MIN_PICTURES} pictures, got {len(predicted)}.")
    if not (np.isfinite(predicted).all() and np.isfinite(wanted).all()):
        raise ValueError("Predictions and targets must be finite, got NaN or infinite values.")
    rmse = float(np.sqrt(np.mean((predicted - wanted) ** 2)))
    if np.ptp(predicted) == 0 or np.ptp(wanted) == 0:
        return {"srcc": 0.0, "plcc": 0.0, "rmse": rmse}
    srcc, plcc = stats.spearmanr(predicted, wanted).statistic, stats.pearsonr(predicted, wanted).statistic
    return {"srcc": float(srcc), "plcc": float(plcc), "rmse": rmse}


def grouped_metrics(
    predictions: Sequence[float] | np.ndarray, targets: Sequence[float] | np.ndarray, groups: Sequence[str]
) -> dict[str, dict[str, float]]:
    """`quality_metrics` within each group of at least 3 pictures, and their mean over those groups.

    Knowing only the group can already correlate with the scores, so the mean within groups is the stricter figure.

    Args:
        predictions: Predicted scores, shape (num_pictures,).
        targets: Opinion scores, alike.
        groups: Name of each picture's group.

    Returns:
        {group: metrics} in sorted order, then `MEAN_OF_GROUPS`; empty if no group is large enough.

    Raises:
        ValueError: If the lengths differ, or a value is not finite.
    """
    names = np.asarray(groups)
    predicted, wanted = np.asarray(predictions), np.asarray(targets)
    if not len(names) == len(predicted) == len(wanted):
        raise ValueError(
            "Each picture needs a prediction, a target and a group, got "
            f"{len(predicted)}, {len(wanted)}, {len(names)}."
        )
    members = {str(name): names == name for name in sorted(set(groups))}
    result = {
        name: quality_metrics(predicted[rows], wanted[rows])
        for name, rows in members.items()
        if rows.sum() >= MIN_PICTURES
    }
    if result:
        result[MEAN_OF_GROUPS] = {
            key: float(np.mean([metrics[key] for metrics in result.values()])) for key in ("srcc", "plcc", "rmse")
        }
    return result
