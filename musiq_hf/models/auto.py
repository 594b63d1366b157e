# SPDX-License-Identifier: Apache-2.0
"""Registration with Transformers: Auto classes and the pipeline task."""

import logging
from collections import OrderedDict
from pathlib import Path

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification
from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.pipelines import PIPELINE_REGISTRY

from . import FAMILIES
from .musiq.pipeline_musiq import ImageQualityAssessmentPipeline, QualityClassificationPipeline
from .protocol import Family

TASK = "image-quality-assessment"
STANDARD_TASK = "image-classification"  # of the tasks that the Hub knows, the one on our cards
# The two checkpoints that come with the package. The pipeline loads the default one if no `model` is given; the other
# one is for those who need its speed.
_EMBEDDED = Path(__file__).parents[1] / "checkpoints"
DEFAULT_CHECKPOINT, TINY_CHECKPOINT = _EMBEDDED / "musiq-lite-biq2021", _EMBEDDED / "musiq-tiny-biq2021"


class AutoModelForImageQualityAssessment(_BaseAutoModelClass):
    """Auto class that loads whichever model for image quality assessment a checkpoint holds."""

    _model_mapping = _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict())


def register_family(family: Family) -> None:
    """Make a family known to `AutoModel` and its relatives; doing it twice does no harm."""
    heads = tuple(kind for kind in (family.quality, family.classifier) if kind is not None)
    AutoConfig.register(family.name, family.config, exist_ok=True)
    # Of several classes Transformers picks the one that config.json names, else the first.
    AutoModel.register(family.config, family.models, exist_ok=True)
    if heads:
        AutoModelForImageClassification.register(family.config, heads, exist_ok=True)
    if family.quality is not None:
        AutoModelForImageQualityAssessment.register(family.config, family.quality, exist_ok=True)
    # One class serves both keys. With "pil" alone Transformers warns wherever torchvision is installed.
    backends = {"pil": family.processor, "torchvision": family.processor}
    AutoImageProcessor.register(family.config, image_processor_classes=backends, exist_ok=True)


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether a message of `pipeline` says more than that our task has taken its own checkpoint."""
    default = PIPELINE_REGISTRY.supported_tasks[TASK]["default"]["model"][0]
    return not record.getMessage().startswith(f"No model was supplied, defaulted to {default} ")


def register() -> None:
    """Make all families known to the Auto classes, and the tasks to `pipeline`; doing it twice does no harm."""
    for family in FAMILIES.values():
        register_family(family)
    if TASK not in PIPELINE_REGISTRY.supported_tasks:
        PIPELINE_REGISTRY.register_pipeline(
            TASK,
            pipeline_class=ImageQualityAssessmentPipeline,
            # Saved pipelines name this class, and Transformers can only resolve its own.
            pt_model=AutoModelForImageClassification,
            default={"model": (str(DEFAULT_CHECKPOINT), None)},
            type="image",
        )
    logging.getLogger("transformers.pipelines").addFilter(_is_news)
    # For models of other families it answers as before.
    PIPELINE_REGISTRY.supported_tasks[STANDARD_TASK]["impl"] = QualityClassificationPipeline
