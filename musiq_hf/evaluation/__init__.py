# SPDX-License-Identifier: Apache-2.0
"""Measurements of checkpoints: on scored, degraded, odd and upscaled pictures, of maps and of speed."""

from .checkpoints import EvaluationSettings, evaluate_checkpoints
from .common_sense import measure_common_sense, measure_odd_pictures
from .features import (
    MapIndex,
    calinski_harabasz,
    collect_feature_maps,
    fourier_spectrum,
    map_features,
    measure_log_amplitudes,
    measure_maps,
    pooled_features,
    relative_log_amplitude,
)
from .robustness import make_scorer, measure_half_size, measure_robustness
from .speed import measure_speed
from .super_resolution import make_upscaler, measure_upscaling, measure_upscaling_models

__all__ = [
    "EvaluationSettings",
    "MapIndex",
    "calinski_harabasz",
    "collect_feature_maps",
    "evaluate_checkpoints",
    "fourier_spectrum",
    "make_scorer",
    "make_upscaler",
    "map_features",
    "measure_common_sense",
    "measure_half_size",
    "measure_log_amplitudes",
    "measure_maps",
    "measure_odd_pictures",
    "measure_robustness",
    "measure_speed",
    "measure_upscaling",
    "measure_upscaling_models",
    "pooled_features",
    "relative_log_amplitude",
]
