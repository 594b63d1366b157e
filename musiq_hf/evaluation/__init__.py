# SPDX-License-Identifier: Apache-2.0
"""Measurements of checkpoints: on scored pictures, on copies of pristine ones, on odd pictures, and of speed."""

from .checkpoints import EvaluationSettings, evaluate_checkpoints
from .common_sense import measure_common_sense, measure_odd_pictures
from .robustness import make_scorer, measure_half_size, measure_robustness
from .speed import measure_speed

__all__ = [
    "EvaluationSettings",
    "evaluate_checkpoints",
    "make_scorer",
    "measure_common_sense",
    "measure_half_size",
    "measure_odd_pictures",
    "measure_robustness",
    "measure_speed",
]
