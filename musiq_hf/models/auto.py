# SPDX-License-Identifier: Apache-2.0
"""Registration with Transformers: Auto classes, the pipeline task, and the names of the embedded checkpoints."""

import logging
import os
import shlex
from collections import OrderedDict
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForImageToImage,
    AutoProcessor,
    AutoTokenizer,
    pipelines,
)
from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.video_processing_auto import AutoVideoProcessor  # elsewhere it needs torchvision
from transformers.pipelines import PIPELINE_REGISTRY

from . import FAMILIES
from .musiq.pipeline_musiq import ImageQualityAssessmentPipeline, QualityClassificationPipeline
from .protocol import Family

TASK = "image-quality-assessment"
STANDARD_TASK = "image-classification"  # of the tasks that the Hub knows, the one on our cards
UPSCALING_TASK = "image-to-image"  # that of models that give larger pictures
# The checkpoints that come with the package. The pipeline loads the default one if no `model` is given; the tiny one
# is for those who need its speed. The detector says whether a picture was upscaled, and the upscaler enlarges one.
_EMBEDDED = Path(__file__).parents[1] / "checkpoints"
DEFAULT_CHECKPOINT, TINY_CHECKPOINT = _EMBEDDED / "musiq-lite-biq2021", _EMBEDDED / "musiq-tiny-biq2021"
DETECTOR_CHECKPOINT, UPSCALER_CHECKPOINT = _EMBEDDED / "sudds-small-biq2021", _EMBEDDED / "msit-small-biq2021"
# They are loaded by these names too.
EMBEDDED = {
    path.name: path for path in (DEFAULT_CHECKPOINT, TINY_CHECKPOINT, DETECTOR_CHECKPOINT, UPSCALER_CHECKPOINT)
}
_OTHER_TASKS = {DETECTOR_CHECKPOINT.name: STANDARD_TASK, UPSCALER_CHECKPOINT.name: UPSCALING_TASK}
# The Auto classes of Transformers have each a `from_pretrained` of their own; ours has that of the base.
_LOADING = (AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, _BaseAutoModelClass)
# A pipeline also looks for what our checkpoints do not have, and must look for it in their folders, not on the Hub.
_SOUGHT = (AutoVideoProcessor, AutoProcessor, AutoFeatureExtractor, AutoTokenizer)
# Functions that `pipeline` calls with the name of a model, beside those that load.
_ASKED = ("find_adapter_config_file", "resolve_revision")


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
    if family.upscaler is not None:
        AutoModelForImageToImage.register(family.config, family.upscaler, exist_ok=True)
    # One class serves both keys. With "pil" alone Transformers warns wherever torchvision is installed.
    backends = {"pil": family.processor, "torchvision": family.processor}
    AutoImageProcessor.register(family.config, image_processor_classes=backends, exist_ok=True)
    # No class is enough to say that there is no other. Else `pipeline` derives its name from that of the image
    # processor, finds the code of a checkpoint, and asks whether to run it.
    AutoVideoProcessor.register(family.config, None, exist_ok=True)


def find_embedded(name: Any) -> Any:
    """Return the folder of an embedded checkpoint by its name; any other name, or one of a local folder, as it is."""
    folder = EMBEDDED.get(str(name))
    return name if folder is None or os.path.isdir(name) else str(folder)


def describe_published(name: str) -> str:
    """Write, after a blank, how a published checkpoint of this name is made; an empty text for any other name."""
    last = os.path.basename(os.path.normpath(name))
    for family in FAMILIES.values():
        short = last.removeprefix(f"{family.name}-")
        if short in family.published:
            command = f"musiq convert {short} {shlex.quote(name)}"
            return f" `{command}` makes it of the published weights; in place of `{short}` it takes their .npz file."
    return ""


def describe_unknown(name: str) -> str:
    """Write the sentence about a name that is neither a folder, nor an embedded checkpoint, nor an id on the Hub."""
    if way := describe_published(name):
        return f"{name}: no such directory.{way}"
    embedded = ", ".join(EMBEDDED)
    return f"{name}: no such directory, and ids on the Hub have an owner (owner/{name}); embedded are {embedded}."


def _find_by_name(function: Callable[..., Any], name: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a function of Transformers with a checkpoint; a misspelt name is one sentence about the right ones."""
    try:
        return function(find_embedded(name), *args, **kwargs)
    except OSError as error:
        is_ours = isinstance(name, str) and name.startswith(tuple(FAMILIES)) and "/" not in name
        if not is_ours or os.path.exists(name):
            raise
        raise OSError(describe_unknown(name)) from error


def _teach_class(kind: Any) -> None:
    """Make the `from_pretrained` of a class know the embedded checkpoints by their names."""
    load = kind.from_pretrained.__func__

    @wraps(load)
    def from_pretrained(cls: Any, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        return _find_by_name(load.__get__(cls), pretrained_model_name_or_path, *args, **kwargs)

    kind.from_pretrained = classmethod(from_pretrained)


def _teach_function(name: str) -> None:
    """Make a function that `pipeline` calls with the name of a model know the embedded checkpoints."""
    ask = getattr(pipelines, name)

    @wraps(ask)
    def asked(model: Any, *args: Any, **kwargs: Any) -> Any:
        return _find_by_name(ask, model, *args, **kwargs)

    setattr(pipelines, name, asked)


@cache
def _teach_names() -> None:
    """Make Transformers know the embedded checkpoints by their names, once per process.

    It has no place to register a name, so what it loads checkpoints with is told where they are. Which of these was
    imported first, and how, makes no difference.
    """
    for kind in (*_LOADING, *_SOUGHT):
        _teach_class(kind)
    for family in FAMILIES.values():
        for kind in (family.config, family.processor, *family.models):
            _teach_class(kind)
    for name in _ASKED:
        _teach_function(name)
    ask = pipelines.get_task

    @wraps(ask)
    def get_task(model: str, *args: Any, **kwargs: Any) -> str:
        if find_embedded(model) == model:
            return ask(model, *args, **kwargs)
        return _OTHER_TASKS.get(model, TASK)

    pipelines.get_task = get_task


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether a message of `pipeline` says more than that our task has taken its own checkpoint."""
    default = PIPELINE_REGISTRY.supported_tasks[TASK]["default"]["model"][0]
    return not record.getMessage().startswith(f"No model was supplied, defaulted to {default} ")


def register() -> None:
    """Make all families known to the Auto classes, and the tasks to `pipeline`; doing it twice does no harm."""
    for family in FAMILIES.values():
        register_family(family)
    _teach_names()
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
