# SPDX-License-Identifier: Apache-2.0
"""MUSIQ, the multi-scale image quality Transformer (Ke et al., ICCV 2021), for the Hugging Face stack.

Importing registers the classes, so that `AutoModel`, `AutoImageProcessor` and `pipeline("image-quality-assessment")`
know them.
"""

from .models.auto import DEFAULT_CHECKPOINT, AutoModelForImageQualityAssessment, register
from .models.musiq.configuration_musiq import MusiqConfig
from .models.musiq.image_processing_musiq import MusiqImageProcessor
from .models.musiq.modeling_musiq import (
    MusiqForImageClassification,
    MusiqForImageQualityAssessment,
    MusiqImageQualityOutput,
    MusiqModel,
    MusiqPreTrainedModel,
)
from .models.musiq.pipeline_musiq import ImageQualityAssessmentPipeline
from .version import __version__

register()

__all__ = [
    "DEFAULT_CHECKPOINT",
    "AutoModelForImageQualityAssessment",
    "ImageQualityAssessmentPipeline",
    "MusiqConfig",
    "MusiqForImageClassification",
    "MusiqForImageQualityAssessment",
    "MusiqImageProcessor",
    "MusiqImageQualityOutput",
    "MusiqModel",
    "MusiqPreTrainedModel",
    "__version__",
]
