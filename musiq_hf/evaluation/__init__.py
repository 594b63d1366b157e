# SPDX-License-Identifier: Apache-2.0
"""Measurements of checkpoints: on scored pictures, and on degraded copies of pristine ones."""

from .checkpoints import EvaluationSettings, evaluate_checkpoints
from .robustness import make_scorer, measure_half_size, measure_robustness

__all__ = [
    "EvaluationSettings",
    "evaluate_checkpoints",
    "make_scorer",
    "measure_half_size",
    "measure_robustness",
]
