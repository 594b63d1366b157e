# SPDX-License-Identifier: Apache-2.0
"""Image classifiers of Transformers as models of image quality, the baseline of MUSIQ's Table 5."""

from .configuration_classifier import ClassifierConfig
from .family import CLASSIFIER
from .image_processing_classifier import ClassifierImageProcessor
from .modeling_classifier import (
    ClassifierForImageQualityAssessment,
    ClassifierImageQualityOutput,
    ClassifierPreTrainedModel,
)

__all__ = [
    "CLASSIFIER",
    "ClassifierConfig",
    "ClassifierForImageQualityAssessment",
    "ClassifierImageProcessor",
    "ClassifierImageQualityOutput",
    "ClassifierPreTrainedModel",
]
