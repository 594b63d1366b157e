# SPDX-License-Identifier: Apache-2.0
"""Measurements of checkpoints: on scored pictures, copies of pristine ones and odd pictures, of maps and of speed."""

from .checkpoints import EvaluationSettings, evaluate_checkpoints
from .common_sense import measure_common_sense, measure_odd_pictures
from .features import collect_feature_maps, measure_log_amplitudes, relative_log_amplitude
from .robustness import make_scorer, measure_half_size, measure_robustness
from .speed import measure_speed

__all__ = [
    "EvaluationSettings",
    "collect_feature_maps",
    "evaluate_checkpoints",
    "make_scorer",
    "measure_common_sense",
    "measure_half_size",
    "measure_log_amplitudes",
    "measure_odd_pictures",
    "measure_robustness",
    "measure_speed",
    "relative_log_amplitude",
]
