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
