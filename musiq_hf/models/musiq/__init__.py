# SPDX-License-Identifier: Apache-2.0
"""MUSIQ, the multi-scale image quality Transformer (Ke et al., ICCV 2021)."""

from .configuration_musiq import MusiqConfig
from .covariance_musiq import masked_covariance, matrix_inverse_sqrt, matrix_sqrt, upper_triangle
from .family import MUSIQ
from .image_processing_musiq import MusiqImageProcessor
from .modeling_musiq import (
    MusiqForImageClassification,
    MusiqForImageQualityAssessment,
    MusiqImageQualityOutput,
    MusiqModel,
    MusiqPreTrainedModel,
)
from .pipeline_musiq import ImageQualityAssessmentPipeline

__all__ = [
    "MUSIQ",
    "ImageQualityAssessmentPipeline",
    "MusiqConfig",
    "MusiqForImageClassification",
    "MusiqForImageQualityAssessment",
    "MusiqImageProcessor",
    "MusiqImageQualityOutput",
    "MusiqModel",
    "MusiqPreTrainedModel",
    "masked_covariance",
    "matrix_inverse_sqrt",
    "matrix_sqrt",
    "upper_triangle",
]
