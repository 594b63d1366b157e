# SPDX-License-Identifier: Apache-2.0
"""Loading of finished checkpoints: model and image processor, checked against each other."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import (
    CONFIG_NAME,
    IMAGE_PROCESSOR_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    cached_file,
)

from ..common.devices import is_out_of_memory
from ..common.enlargement import MSIT
from ..common.files import data_directory, read_json
from ..models import family_of
from ..models.auto import (
    DEFAULT_CHECKPOINT,
    UPSCALER_CHECKPOINT,
    describe_published,
    describe_unknown,
    find_embedded,
)
from ..models.weights import check_index, check_weight_files

ADAPTER_CONFIG_NAME = "adapter_config.json"  # of peft
FROM_SCRATCH = "scratch:"
CONFIGURATIONS = data_directory("checkpoints")


def load_quality(
    name: str = str(DEFAULT_CHECKPOINT), *, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Load model and processor of a checkpoint that predicts quality.

    Args:
        name: Directory, Hub id or name of an embedded checkpoint; without one the default checkpoint is loaded.
        dtype: Type of the weights; layers that a model keeps in float32 stay in it.

    Returns:
        The model (see `models.protocol.QualityModel`), in evaluation mode on the CPU, and its processor.

    Raises:
        ValueError: If there is no such checkpoint, its weights are not those of its model or it predicts no quality,
            or model and processor disagree.
    """
    model = _load_model(name, dtype)
    if not has_quality(model):
        is_trainable = family_of(model.config).quality is not None
        advice = "Fine-tune it first." if is_trainable else "Give a checkpoint of another family."
        raise ValueError(f"{name} holds a {type(model).__name__}, which predicts no quality. {advice}")
    return model, _load_processor(name, model)


def load_with_head(name: str) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Load model (in float32) and processor of a checkpoint that predicts quality, classifies or upscales.

    Args:
        name: Directory, Hub id or name of an embedded checkpoint.

    Returns:
        The model, in evaluation mode on the CPU, and its processor.

    Raises:
        ValueError: If there is no such checkpoint, its weights are not those of its model or it has no head, or model
            and processor disagree.
    """
    model = _load_model(name, torch.float32)
    if not (has_quality(model) or is_classifier(model) or is_upscaler(model)):
        raise ValueError(f"{name} holds a {type(model).__name__}, which answers nothing. Give one with a head.")
    return model, _load_processor(name, model)


def load_enlarging(name: str) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Load model (in float32) and processor of a checkpoint that enlarges pictures by any scale.

    Args:
        name: Directory, Hub id or name of an embedded checkpoint.

    Returns:
        The model, in evaluation mode on the CPU, and its processor.

    Raises:
        ValueError: If there is no such checkpoint, its weights are not those of its model or it enlarges no pictures.
    """
    family = family_of(load_config(name))  # weights, which may be large, come after the refusal
    if family.upscaler is None:
        raise ValueError(
            f"{name} holds a {family.name} model, which enlarges no pictures. Give a checkpoint of the family {MSIT}, "
            f"such as {UPSCALER_CHECKPOINT.name}."
        )
    model = _load_model(name, torch.float32)
    return model, _load_processor(name, model)


def has_quality(model: PreTrainedModel) -> bool:
    """Return whether a model of any family has a quality head."""
    kind = family_of(model.config).quality
    return kind is not None and isinstance(model, kind)


def is_classifier(model: PreTrainedModel) -> bool:
    """Return whether a model of any family has a head for classes."""
    kind = family_of(model.config).classifier
    return kind is not None and isinstance(model, kind)


def is_upscaler(model: PreTrainedModel) -> bool:
    """Return whether a model of any family answers larger pictures."""
    kind = family_of(model.config).upscaler
    return kind is not None and isinstance(model, kind)


def has_weights(name: str) -> bool:
    """Return whether a checkpoint has weights; a directory may hold a configuration alone."""
    directory = Path(resolve_model(name))
    files = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)
    return not directory.is_dir() or any((directory / file).exists() for file in files)


def load_config(name: str) -> PreTrainedConfig:
    """Load the configuration of a checkpoint of any family; code in the checkpoint is neither run nor offered.

    Args:
        name: Directory, Hub id or name of an embedded checkpoint.

    Raises:
        ValueError: If there is no such checkpoint, it belongs to none of the families, or its configuration is
            damaged.
    """
    name = resolve_model(name)
    values = read_config(name)
    with _reading(name):
        family = family_of(SimpleNamespace(model_type=values.get("model_type")))
        return family.config.from_dict(values, name_or_path=str(name))


def read_config(name: str) -> dict[str, Any]:
    """Read the config.json of a checkpoint, of whatever kind.

    Args:
        name: Directory, Hub id or name of an embedded checkpoint.

    Raises:
        ValueError: If there is no such checkpoint, or the file is damaged.
    """
    name = resolve_model(name)
    _check_name(name)
    try:
        file = find_file(name, CONFIG_NAME)
    except OSError:  # there is no such id, or no way to it
        file = None
    if file is None:
        way = describe_published(str(name))
        raise ValueError(f"{name}: neither a directory with a config.json nor an id on the Hub that answers.{way}")
    return read_json(file)


def _check_name(name: str) -> None:
    """Raise a ValueError if a name can be neither a directory nor an id on the Hub."""
    try:
        str(name).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: the name is not UTF-8, so no weights are read there. Rename it.") from error
    if "/" not in str(name) and not Path(name).exists():
        raise ValueError(describe_unknown(name))


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn whatever is raised while a checkpoint is read into a ValueError that names it.

    Its files say what Transformers does with them, so a damaged one can raise anything there. An end of the memory
    stays what it is.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError | MemoryError) or is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(reason if str(name) in reason else f"{name}: {reason}") from error


def find_file(checkpoint: str, name: str) -> Path | None:
    """Find a file of a checkpoint, in its folder or on the Hub; return None if it has no such file."""
    path = cached_file(
        resolve_model(checkpoint),
        name,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if path is None else Path(path)


def find_weight_files(name: str) -> list[Path]:
    """Find all files of weights of a checkpoint.

    Raises:
        ValueError: If an index names files that are not there.
    """
    whole, index = find_file(name, SAFE_WEIGHTS_NAME), find_file(name, SAFE_WEIGHTS_INDEX_NAME)
    if whole is not None or index is None:
        return [] if whole is None else [whole]
    parts = {part: find_file(name, part) for part in check_index(read_json(index), index)}
    missing = [part for part, file in parts.items() if file is None]
    if missing:
        raise ValueError(f"{name} lacks {', '.join(missing)}, named in {index}. Download the checkpoint again.")
    return [file for file in parts.values() if file is not None]


def check_checkpoint(name: str) -> PreTrainedConfig:
    """Check that the weights of a checkpoint are those of the model in its configuration, before any is loaded.

    Args:
        name: Directory, Hub id or name of an embedded checkpoint.

    Returns:
        The configuration.

    Raises:
        ValueError: If there is no such checkpoint, or its weights do not fit. The message names what is missing,
            unexpected, of a wrong shape or not of a floating-point type.
    """
    config = load_config(name)
    files = find_weight_files(name)
    if not files:
        raise ValueError(f"{name} holds no weights. Give a trained or converted checkpoint.")
    if find_file(name, ADAPTER_CONFIG_NAME) is not None:
        raise ValueError(f"{name} holds {ADAPTER_CONFIG_NAME}: additions to its weights. Merge them, and save again.")
    with _reading(name):
        check_weight_files(config, files, source=name)
    return config


def _load_model(name: str, dtype: torch.dtype) -> PreTrainedModel:
    """Load the model that a checkpoint holds, of any class, in evaluation mode."""
    config = check_checkpoint(name)
    choices = {"config": config, "dtype": dtype, "use_safetensors": True, "trust_remote_code": False}
    with _reading(name):
        return AutoModel.from_pretrained(resolve_model(name), **choices).eval()


def load_processor(name: str, config: PreTrainedConfig, **changes: Any) -> BaseImageProcessor:
    """Load the image processor of a checkpoint, which must be that of its family; code in the checkpoint never runs.

    Args:
        name: Directory, Hub id or name of an embedded checkpoint.
        config: Configuration of the checkpoint.
        **changes: Settings to change.

    Raises:
        ValueError: If the checkpoint has no image processor, a damaged one or one of another type.
    """
    file, expected = find_file(name, IMAGE_PROCESSOR_NAME), family_of(config).processor
    if file is None:
        raise ValueError(f"{name} holds no {IMAGE_PROCESSOR_NAME}. Save the image processor of the model there.")
    values = read_json(file)
    named = values.get("image_processor_type", expected.__name__)
    if named != expected.__name__:
        raise ValueError(
            f"{name} names {named} as its image processor, but a {config.model_type} model needs {expected.__name__}. "
            "Code in a checkpoint is never run. Save the processor of the model there."
        )
    with _reading(name):
        processor: BaseImageProcessor = expected.from_dict(values, **changes)
    return processor


def _load_processor(name: str, model: PreTrainedModel) -> BaseImageProcessor:
    """Load the processor of a checkpoint, and raise a ValueError if it disagrees with the model."""
    processor = load_processor(name, model.config)
    processor.check_config(model.config)
    return processor


def resolve_model(name: str) -> str:
    """Return the directory of an embedded checkpoint or of a packaged configuration, and any other name as it is.

    A configuration is named "scratch:musiq-tiny", say. The prefix says aloud that training starts from random weights,
    though published weights of that name may exist.

    Raises:
        ValueError: If there is no such configuration.
    """
    if not str(name).startswith(FROM_SCRATCH):
        return find_embedded(name)
    known = sorted(path.name for path in CONFIGURATIONS.iterdir())
    if name.removeprefix(FROM_SCRATCH) not in known:
        raise ValueError(f"There is no configuration for {name!r}. Choose {FROM_SCRATCH} with {', '.join(known)}.")
    return str(CONFIGURATIONS / name.removeprefix(FROM_SCRATCH))
