# SPDX-License-Identifier: Apache-2.0
"""Checks of arguments that several layers share, each with one wording."""

import math
from collections.abc import Sequence
from typing import Any


def require_evaluation_mode(model: Any) -> None:
    """Raise a ValueError if a model is in training mode, where dropout would change what it answers."""
    if model.training:
        raise ValueError("The model must be in evaluation mode, or dropout would change scores. Call `model.eval()`.")


def check_counts(settings: Any, *names: str) -> None:
    """Raise a ValueError if one of these settings is below 1; None means that it has no bound."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise a ValueError if a setting is none of its choices."""
    if value not in choices:
        raise ValueError(f"`{name}` must be {' or '.join(repr(choice) for choice in choices)}, got {value!r}.")


def are_weights(values: Sequence[float]) -> bool:
    """Return whether numbers can be the weights of an ensemble: finite, not negative, and not all 0."""
    return all(math.isfinite(value) and value >= 0 for value in values) and any(values)


def check_calibration_choice(models: Sequence[str], calibration: Any, *, percentile: bool) -> None:
    """Raise a ValueError if a calibration is given for several checkpoints, or in addition to their own ones."""
    if calibration is None:
        return
    if percentile:
        raise ValueError("--percentile takes the checkpoint's own calibration, --calibration another. Drop one.")
    if len(models) > 1:
        raise ValueError(
            f"--calibration holds the scores of one checkpoint, got {len(models)} checkpoints (-m). Score with each "
            "one by itself."
        )


def check_intervals(intervals: Sequence[float] | None, calibration: Any) -> None:
    """Raise a ValueError if intervals of scores are no four rising numbers, or a calibration is given beside them."""
    if intervals is None:
        return
    if calibration is not None:
        raise ValueError("--intervals says which scores have how many stars, and so does --calibration. Drop one.")
    rises = all(math.isfinite(low) and low < high for low, high in zip(intervals, intervals[1:], strict=False))
    if len(intervals) != 4 or not rises or not math.isfinite(intervals[-1]):
        shown = ",".join(f"{value:g}" for value in intervals)
        raise ValueError(f"--intervals needs four scores that rise, as 20,40,60,80, got {shown}.")


def check_ensemble(models: Sequence[str], weights: Sequence[float] | None) -> None:
    """Raise a ValueError if a checkpoint is named twice, or the weights do not fit the checkpoints."""
    repeated = [name for name in models if models.count(name) > 1]
    if repeated:
        raise ValueError(f"-m {repeated[0]} is given {len(repeated)} times. Give each checkpoint once.")
    if weights is None:
        return
    if len(models) == 1 or len(weights) != len(models):
        raise ValueError(
            f"--weights needs several checkpoints (-m) and a weight for each, got {len(models)} and {len(weights)}."
        )
    if not are_weights(weights):
        raise ValueError(f"`weights` must be numbers from 0 on, not all 0, got {list(weights)}.")
