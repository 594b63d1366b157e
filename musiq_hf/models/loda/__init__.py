# SPDX-License-Identifier: Apache-2.0
"""LoDa, a vision Transformer adapted by local distortion features (Xu et al., CVPR 2024)."""

from .configuration_loda import LodaConfig
from .family import LODA
from .image_processing_loda import LodaImageProcessor
from .losses_loda import loda_loss
from .modeling_loda import (
    LodaForImageQualityAssessment,
    LodaImageQualityOutput,
    LodaModel,
    LodaModelOutput,
    LodaPreTrainedModel,
)

__all__ = [
    "LODA",
    "LodaConfig",
    "LodaForImageQualityAssessment",
    "LodaImageProcessor",
    "LodaImageQualityOutput",
    "LodaModel",
    "LodaModelOutput",
    "LodaPreTrainedModel",
    "loda_loss",
]
