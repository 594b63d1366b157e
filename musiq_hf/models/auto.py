# SPDX-License-Identifier: Apache-2.0
"""Registration with Transformers: Auto classes and the pipeline task."""

from collections import OrderedDict
from pathlib import Path

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification
from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.pipelines import PIPELINE_REGISTRY

from .musiq.configuration_musiq import MusiqConfig
from .musiq.image_processing_musiq import MusiqImageProcessor
from .musiq.modeling_musiq import MusiqForImageClassification, MusiqForImageQualityAssessment, MusiqModel
from .musiq.pipeline_musiq import ImageQualityAssessmentPipeline

TASK = "image-quality-assessment"


# The small checkpoint that comes with the package: what the pipeline loads without a `model`.
DEFAULT_CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "musiq-tiny-biq2021"


class AutoModelForImageQualityAssessment(_BaseAutoModelClass):
    """Load whichever model for image quality assessment a checkpoint holds."""

    _model_mapping = _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict())


def register() -> None:
    """Make MUSIQ known to `AutoModel` and its relatives and to `pipeline`; doing it twice does no harm."""
    quality, classification = MusiqForImageQualityAssessment, MusiqForImageClassification
    AutoConfig.register("musiq", MusiqConfig, exist_ok=True)
    # Of several classes Transformers picks the one that config.json names, else the first.
    AutoModel.register(MusiqConfig, (quality, classification, MusiqModel), exist_ok=True)
    AutoModelForImageClassification.register(MusiqConfig, (quality, classification), exist_ok=True)
    AutoModelForImageQualityAssessment.register(MusiqConfig, quality, exist_ok=True)
    # One torch-native class serves both keys; with "pil" alone a warning appears wherever torchvision is installed.
    backends = {"pil": MusiqImageProcessor, "torchvision": MusiqImageProcessor}
    AutoImageProcessor.register(MusiqConfig, image_processor_classes=backends, exist_ok=True)
    if TASK not in PIPELINE_REGISTRY.supported_tasks:
        PIPELINE_REGISTRY.register_pipeline(
            TASK,
            pipeline_class=ImageQualityAssessmentPipeline,
            # Saved pipelines name this class, and Transformers can only resolve its own.
            pt_model=AutoModelForImageClassification,
            default={"model": (str(DEFAULT_CHECKPOINT), None)},
            type="image",
        )
