# SPDX-License-Identifier: Apache-2.0
"""Upscaled pictures: the scale that a picture was enlarged by, and training of detectors."""

from .scale import ScaleEstimate, estimate_scale, measure_copies
from .training import METHODS, DetectorSettings
from .training_job import train_and_save

__all__ = [
    "METHODS",
    "DetectorSettings",
    "ScaleEstimate",
    "estimate_scale",
    "measure_copies",
    "train_and_save",
]
