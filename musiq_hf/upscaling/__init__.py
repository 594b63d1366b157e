# SPDX-License-Identifier: Apache-2.0
"""Upscaled pictures: made by a model, told from native ones, their scale, and training of detectors."""

from ..models.auto import UPSCALER_CHECKPOINT
from .detection import (
    DEFAULT_CHECKPOINT,
    Detector,
    PatchVote,
    UpscalingReport,
    detect_upscaling,
    load_detector,
)
from .enlarging import Upscaler, load_upscaler, upscale_picture
from .scale import ScaleEstimate, estimate_scale, measure_copies
from .training import METHODS, DetectorSettings, order_photographs
from .training_job import train_and_save
from .upscales import shrink_photograph

__all__ = [
    "DEFAULT_CHECKPOINT",
    "METHODS",
    "UPSCALER_CHECKPOINT",
    "Detector",
    "DetectorSettings",
    "PatchVote",
    "ScaleEstimate",
    "Upscaler",
    "UpscalingReport",
    "detect_upscaling",
    "estimate_scale",
    "load_detector",
    "load_upscaler",
    "measure_copies",
    "order_photographs",
    "shrink_photograph",
    "train_and_save",
    "upscale_picture",
]
