# SPDX-License-Identifier: Apache-2.0
"""Upscaled pictures: whether one was enlarged, how and by which scale, and training of detectors."""

from .detection import (
    DEFAULT_CHECKPOINT,
    Detector,
    PatchVote,
    UpscalingReport,
    detect_upscaling,
    load_detector,
)
from .scale import ScaleEstimate, estimate_scale, measure_copies
from .training import METHODS, DetectorSettings, order_photographs
from .training_job import train_and_save
from .upscales import shrink_photograph

__all__ = [
    "DEFAULT_CHECKPOINT",
    "METHODS",
    "Detector",
    "DetectorSettings",
    "PatchVote",
    "ScaleEstimate",
    "UpscalingReport",
    "detect_upscaling",
    "estimate_scale",
    "load_detector",
    "measure_copies",
    "order_photographs",
    "shrink_photograph",
    "train_and_save",
]
