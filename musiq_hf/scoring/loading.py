# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are to be used as they are: model and image processor, checked against each other."""

from pathlib import Path
from types import UnionType
from typing import Any

import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ..common.files import data_directory
from ..models.musiq.configuration_musiq import MusiqConfig
from ..models.musiq.image_processing_musiq import MusiqImageProcessor
from ..models.musiq.modeling_musiq import MusiqForImageClassification, MusiqForImageQualityAssessment

FROM_SCRATCH = "scratch:"
CONFIGURATIONS = data_directory("checkpoints")
Model = MusiqForImageQualityAssessment | MusiqForImageClassification


def load_scorer(
    name: str, *, dtype: torch.dtype = torch.float32
) -> tuple[MusiqForImageQualityAssessment, MusiqImageProcessor]:
    """Model in evaluation mode and processor of a checkpoint that predicts quality.

    Args:
        name: Directory or Hub id.
        dtype: Of the weights; of a half-precision model stem and head stay in float32.

    Raises:
        ValueError: If it has no weights, or predicts no quality, or the two do not fit together.
    """
    lack = "predicts no quality. Fine-tune it first."
    return load_for_inference(name, MusiqForImageQualityAssessment, lack=lack, dtype=dtype)


def load_checkpoint(name: str) -> tuple[Model, MusiqImageProcessor]:
    """Model in evaluation mode, float32, and processor of a checkpoint that predicts quality or classifies.

    Raises:
        ValueError: If there is no such checkpoint, it has no weights or no head, or the two do not fit together.
    """
    return load_for_inference(name, Model, lack="answers nothing. Give one with a head.")


def has_weights(name: str) -> bool:
    """Whether a checkpoint has weights; a directory may hold a configuration alone."""
    directory = Path(resolve_model(name))
    files = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)
    return not directory.is_dir() or any((directory / file).exists() for file in files)


def load_config(name: str) -> MusiqConfig:
    """The configuration of a checkpoint.

    Raises:
        ValueError: If there is no such checkpoint, or it is no MUSIQ.
    """
    name = resolve_model(name)
    if "/" not in str(name) and not Path(name).exists():
        raise ValueError(f"{name}: no such directory, and ids on the Hub have an owner (owner/{name}).")
    try:
        config = AutoConfig.from_pretrained(name)
    except OSError as error:
        raise ValueError(
            f"{name}: neither a directory with a config.json nor an id on the Hub that answers."
        ) from error
    if not isinstance(config, MusiqConfig):
        raise ValueError(f"{name} is a {config.model_type} checkpoint, a MUSIQ one was expected.")
    return config


def load_for_inference(
    name: str, kind: type | UnionType, *, lack: str, dtype: torch.dtype = torch.float32
) -> tuple[Any, MusiqImageProcessor]:
    """Model in evaluation mode and processor of a checkpoint that is to be used as it is.

    Args:
        name: Directory or Hub id.
        kind: The class, or classes, of model that will do.
        lack: What is said of others, after "which".
        dtype: Of the weights; of a half-precision model stem and head stay in float32.

    Raises:
        ValueError: If there is no such checkpoint, it has no weights or another kind of model, or the two do not fit.
    """
    if not has_weights(name):
        raise ValueError(f"{name} holds no weights. Give a trained or converted checkpoint.")
    load_config(name)  # says in a sentence if there is no such checkpoint
    model: Any = AutoModel.from_pretrained(name, dtype=dtype)
    if not issubclass(type(model), kind):
        raise ValueError(f"{name} holds a {type(model).__name__}, which {lack}")
    processor = AutoImageProcessor.from_pretrained(name)
    processor.check_config(model.config)
    return model.eval(), processor


def resolve_model(name: str) -> str:
    """Return the directory of a packaged configuration for "scratch:musiq-tiny" and the like, other names as they are.

    The prefix says aloud that training starts from random weights, though published weights of that name may exist.

    Raises:
        ValueError: If there is no such configuration.
    """
    if not str(name).startswith(FROM_SCRATCH):
        return name
    known = sorted(path.name for path in CONFIGURATIONS.iterdir())
    if name.removeprefix(FROM_SCRATCH) not in known:
        raise ValueError(f"There is no configuration for {name!r}. Choose {FROM_SCRATCH} with {', '.join(known)}.")
    return str(CONFIGURATIONS / name.removeprefix(FROM_SCRATCH))
