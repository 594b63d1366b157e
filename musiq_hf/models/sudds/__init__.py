# SPDX-License-Identifier: Apache-2.0
"""Detector of upscaled pictures after SUDDS: was a picture upscaled, and by which kind of method."""

from .configuration_sudds import LABELS, UpscalingDetectorConfig
from .family import SUDDS
from .image_processing_sudds import UpscalingDetectorImageProcessor
from .modeling_sudds import (
    UpscalingDetectorForImageClassification,
    UpscalingDetectorOutput,
    UpscalingDetectorPreTrainedModel,
)
from .patches_sudds import measure_contrast, to_luma
from .spectrum_sudds import measure_spectrum

__all__ = [
    "LABELS",
    "SUDDS",
    "UpscalingDetectorConfig",
    "UpscalingDetectorForImageClassification",
    "UpscalingDetectorImageProcessor",
    "UpscalingDetectorOutput",
    "UpscalingDetectorPreTrainedModel",
    "measure_contrast",
    "measure_spectrum",
    "to_luma",
]
