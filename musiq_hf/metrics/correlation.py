# SPDX-License-Identifier: Apache-2.0
"""Agreement of predicted scores with opinion scores: the metrics of section 4.1, and those of other papers.

MUSIQ reports SRCC and PLCC of the raw predictions. LoDa's supplement maps them through a logistic curve first (eq. 8
there), which gives a higher PLCC. Both are here, under names that tell them apart. The same rules hold everywhere:

- fewer than 3 pictures, or a value that is not finite: ValueError;
- a constant side ranks nothing, so every correlation with it is 0;
- ties share their mean rank (SRCC) or count as neither agreement nor disagreement (KRCC, tau-b).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..common.extras import require

MIN_PICTURES = 3  # with fewer pictures a correlation says nothing
TRUSTWORTHY_PICTURES = 100  # with fewer pictures the standard error of an SRCC exceeds about 0.1
MEAN_OF_GROUPS = "mean within groups"
OVERALL = "overall"
METRICS = ("srcc", "plcc", "plcc_logistic", "krcc", "rmse")

_MIN_FOR_LOGISTIC = 5  # four parameters pass through any four points
_LOGISTIC_STARTS = 2
_LOGISTIC_STEPS = 100  # without a limit the fit would creep for ever towards a straight line where that is best

Values = Sequence[float] | np.ndarray


def evaluate_module_path() -> str:
    """Return the folder for `evaluate.load`, in a clone as in an installed package."""
    return str(Path(__file__).parent / "evaluate_iqa")


def standard_error(count: int) -> float:
    """Return about how far chance moves an SRCC of so many pictures."""
    return float(1 / np.sqrt(max(count - MIN_PICTURES, 1)))


def check_pairs(predictions: Values, targets: Values) -> tuple[np.ndarray, np.ndarray]:
    """Return predictions and targets as float64 arrays, or raise a ValueError if they are no pairs."""
    predicted, wanted = np.asarray(predictions, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if predicted.shape != wanted.shape or predicted.ndim != 1:
        raise ValueError(
            f"Predictions and targets must be two lists of one length, got {predicted.shape} and {wanted.shape}."
        )
    if len(predicted) < MIN_PICTURES:
        raise ValueError(f"Correlations need at least {MIN_PICTURES} pictures, got {len(predicted)}.")
    if not (np.isfinite(predicted).all() and np.isfinite(wanted).all()):
        raise ValueError("Predictions and targets must be finite, got NaN or infinite values.")
    return predicted, wanted


def _correlate(correlation: Callable[..., Any], predicted: np.ndarray, wanted: np.ndarray) -> float:
    """Compute one of SciPy's correlations; 0 where it is undefined."""
    if np.ptp(predicted) == 0 or np.ptp(wanted) == 0:
        return 0.0
    value = float(correlation(predicted, wanted).statistic)
    return value if np.isfinite(value) else 0.0


def logistic_curve(predictions: Values, parameters: Sequence[float]) -> np.ndarray:
    """Map predictions to opinion scores with four parameters (eq. 8 of LoDa's supplement).

    Args:
        predictions: Predicted scores, shape (num_pictures,).
        parameters: `beta_1` to `beta_4`. The upper end `beta_1` and the lower end `beta_2` are in MOS points. The
            centre `beta_3` and the width `beta_4`, whose sign does not matter, are in the unit of the predictions.

    Returns:
        `(beta_1 - beta_2) / (1 + exp(-(predictions - beta_3) / |beta_4|)) + beta_2`, shape (num_pictures,).
    """
    special = require("scipy.special", extra="train")
    upper, lower, centre, width = parameters
    curve = special.expit((np.asarray(predictions, dtype=np.float64) - centre) / abs(width))
    return (upper - lower) * curve + lower


def fit_logistic(predictions: Values, targets: Values) -> tuple[float, float, float, float] | None:
    """Fit `logistic_curve` to opinion scores by least squares.

    It starts from the best of a grid of centres and widths, with the ends solved exactly for each. The widest curve of
    the grid is nearly a straight line, so the fit is never worse than a line.

    Args:
        predictions: Predicted scores, shape (num_pictures,), at least 3, finite.
        targets: Opinion scores, shape (num_pictures,), finite.

    Returns:
        The four parameters. None if there are fewer than 5 pictures (four parameters pass through any four), a side is
        constant, or the optimisation fails.

    Raises:
        ValueError: If `quality_metrics` would refuse the scores.
    """
    optimize = require("scipy.optimize", extra="train")
    predicted, wanted = check_pairs(predictions, targets)
    if len(predicted) < _MIN_FOR_LOGISTIC or np.ptp(predicted) == 0 or np.ptp(wanted) == 0:
        return None
    # The fit works in standard deviations, so that its grid and its limits suit every unit.
    offset, scale = predicted.mean(), predicted.std()
    target_offset, target_scale = wanted.mean(), wanted.std()
    if not (scale > 0 and target_scale > 0):  # values that differ too little for float64
        return None
    x, y = (predicted - offset) / scale, (wanted - target_offset) / target_scale

    def residuals(beta: np.ndarray) -> np.ndarray:
        return logistic_curve(x, (*beta[:3], _bound_width(beta[3]))) - y

    def slopes(beta: np.ndarray) -> np.ndarray:  # -> (num_pictures, 4)
        upper, lower, centre, width = *beta[:3], _bound_width(beta[3])
        curve = logistic_curve(x, (1.0, 0.0, centre, width))
        steepness = (upper - lower) * curve * (1 - curve)
        return np.stack([curve, 1 - curve, -steepness / width, -steepness * (x - centre) / width], axis=1)

    fits = []
    for start in _find_logistic_starts(x, y):
        with np.errstate(over="ignore", invalid="ignore"):  # the covariance, not used, may overflow
            beta, *_ = optimize.leastsq(residuals, start, Dfun=slopes, maxfev=_LOGISTIC_STEPS, full_output=True)
        if np.isfinite(beta).all():
            fits.append((float((residuals(beta) ** 2).sum()), (*beta[:3], _bound_width(beta[3]))))
    if not fits:
        return None
    upper, lower, centre, width = min(fits)[1]
    ends = [float(target_offset + target_scale * end) for end in (upper, lower)]
    return ends[0], ends[1], float(offset + scale * centre), float(scale * width)


def _bound_width(log_width: float) -> float:
    """Bound a width, so that it is neither 0 nor infinite whatever the optimiser tries."""
    return float(np.exp(min(max(log_width, -12.0), 12.0)))


def _find_logistic_starts(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Find the best curves of a grid, as (upper, lower, centre, log width) in standard deviations, best first."""
    starts = []
    for centre in np.quantile(x, (0.1, 0.3, 0.5, 0.7, 0.9)):
        for width in (0.1, 0.3, 1.0, 3.0, 10.0):
            curve = logistic_curve(x, (1.0, 0.0, centre, width))
            spread = float(((curve - curve.mean()) ** 2).sum())
            if spread > 0:
                slope = float((curve - curve.mean()) @ y) / spread  # y has the mean 0
                lower = -slope * curve.mean()
                starts.append((slope**2 * spread, np.array([lower + slope, lower, centre, np.log(width)])))
    starts.sort(key=lambda start: -start[0])
    return [start for _, start in starts[:_LOGISTIC_STARTS]]


def logistic_plcc(predictions: Values, targets: Values) -> float:
    """Compute PLCC after `fit_logistic`, as LoDa and most of the field report it.

    The curve may fall, so predictions in reversed order get a high figure as well: read it beside SRCC.

    Args:
        predictions: Predicted scores, shape (num_pictures,), at least 3, finite.
        targets: Opinion scores, shape (num_pictures,), finite.

    Returns:
        Correlation in [0, 1]; 0 if a side is constant. The raw PLCC, in [-1, 1], if `fit_logistic` finds no curve.

    Raises:
        ValueError: If `quality_metrics` would refuse the scores.
    """
    stats = require("scipy.stats", extra="train")
    predicted, wanted = check_pairs(predictions, targets)
    parameters = fit_logistic(predicted, wanted)
    mapped = predicted if parameters is None else logistic_curve(predicted, parameters)
    return _correlate(stats.pearsonr, mapped, wanted)


def quality_metrics(predictions: Values, targets: Values) -> dict[str, float]:
    """Compute SRCC, PLCC, KRCC and RMSE between predictions and opinion scores.

    Args:
        predictions: Predicted scores, shape (num_pictures,), at least 3, finite.
        targets: Opinion scores, shape (num_pictures,), finite.

    Returns:
        The correlations "srcc", "plcc" (of the raw predictions), "plcc_logistic" (see `logistic_plcc`) and "krcc"
        (tau-b), in [-1, 1]. They are 0 if a side is constant, because it ranks nothing. "rmse" is that of the raw
        predictions, in MOS points.

    Raises:
        ValueError: If the lengths differ, there are fewer than 3 pictures, or a value is not finite.
    """
    stats = require("scipy.stats", extra="train")
    predicted, wanted = check_pairs(predictions, targets)
    return {
        "srcc": _correlate(stats.spearmanr, predicted, wanted),
        "plcc": _correlate(stats.pearsonr, predicted, wanted),
        "plcc_logistic": logistic_plcc(predicted, wanted),
        "krcc": _correlate(stats.kendalltau, predicted, wanted),
        "rmse": float(np.sqrt(np.mean((predicted - wanted) ** 2))),
    }


def group_members(predicted: np.ndarray, wanted: np.ndarray, groups: Sequence[str]) -> dict[str, np.ndarray]:
    """Return {group: mask of its pictures} of the groups with at least 3 pictures, sorted by name."""
    names = np.asarray(groups)
    if not len(names) == len(predicted) == len(wanted):
        raise ValueError(
            "Each picture needs a prediction, a target and a group, got "
            f"{len(predicted)}, {len(wanted)}, {len(names)}."
        )
    masks = {str(name): names == name for name in sorted(set(groups))}
    return {name: rows for name, rows in masks.items() if rows.sum() >= MIN_PICTURES}


def grouped_metrics(predictions: Values, targets: Values, groups: Sequence[str]) -> dict[str, dict[str, float]]:
    """Compute `quality_metrics` within each group of at least 3 pictures, and their mean over those groups.

    The group of a picture alone can already tell something of its score, so the mean within groups is the stricter
    figure.

    Args:
        predictions: Predicted scores, shape (num_pictures,).
        targets: Opinion scores, shape (num_pictures,), finite.
        groups: Name of each picture's group.

    Returns:
        {group: metrics} in sorted order, then `MEAN_OF_GROUPS`; empty if no group is large enough.

    Raises:
        ValueError: If the lengths differ, or a value is not finite.
    """
    predicted, wanted = np.asarray(predictions), np.asarray(targets)
    members = group_members(predicted, wanted, groups)
    result = {name: quality_metrics(predicted[rows], wanted[rows]) for name, rows in members.items()}
    if result:
        result[MEAN_OF_GROUPS] = {
            key: float(np.mean([metrics[key] for metrics in result.values()])) for key in METRICS
        }
    return result
