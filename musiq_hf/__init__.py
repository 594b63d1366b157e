# SPDX-License-Identifier: Apache-2.0
"""MUSIQ, the multi-scale image quality Transformer (Ke et al., ICCV 2021), for the Hugging Face stack.

Importing registers the classes, so that `AutoModel`, `AutoImageProcessor` and `pipeline("image-quality-assessment")` know
them.
"""

from pathlib import Path

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification

from .configuration_musiq import MusiqConfig
from .image_processing_musiq import MusiqImageProcessor
from .modeling_musiq import (
    MusiqForImageClassification,
    MusiqForImageQualityAssessment,
    MusiqImageQualityOutput,
    MusiqModel,
    MusiqPreTrainedModel,
)

__version__ = "0.1.0"

# The small checkpoint that comes with the package: what the pipeline loads without a `model`.
DEFAULT_CHECKPOINT = Path(__file__).parent / "checkpoints" / "musiq-tiny-biq2021"

AutoConfig.register("musiq", MusiqConfig, exist_ok=True)
AutoModel.register(
    MusiqConfig, (MusiqForImageQualityAssessment, MusiqForImageClassification, MusiqModel), exist_ok=True
)
AutoModelForImageClassification.register(
    MusiqConfig, (MusiqForImageQualityAssessment, MusiqForImageClassification), exist_ok=True
)
# One torch-native class serves both keys; with "pil" alone a warning would appear wherever torchvision is installed.
AutoImageProcessor.register(
    MusiqConfig, image_processor_classes={"pil": MusiqImageProcessor, "torchvision": MusiqImageProcessor}, exist_ok=True
)

__all__ = [
    "DEFAULT_CHECKPOINT",
    "MusiqConfig",
    "MusiqForImageClassification",
    "MusiqForImageQualityAssessment",
    "MusiqImageProcessor",
    "MusiqImageQualityOutput",
    "MusiqModel",
    "MusiqPreTrainedModel",
    "__version__",
]
