# SPDX-License-Identifier: Apache-2.0
"""The two networks of a LoDa model, loaded from wherever others have put them."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoBackbone, AutoConfig, AutoModel, PreTrainedConfig
from transformers.modeling_utils import load_state_dict
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_NAME, cached_file

from .configuration_loda import VIT_TYPES
from .timm_loda import check_architecture, is_resnet, is_vit, read_resnet, read_vit, refuse

TIMM_KEY = "architecture"  # in the config.json of timm, and in none of Transformers
UNUSED = {"embeddings.mask_token"}  # weights of a vision Transformer that no picture reads
FORMS = "Give an id on the Hub, a folder in the format of Transformers or timm, or a file of weights of timm"
UNREACHABLE = (
    "{source}: there is no such folder, and no such model on the Hub that can be reached from here. "
    f"{FORMS}, which `--vit` and `--cnn` take as well."
)


def find_file(source: str, name: str) -> Path | None:
    """Find a file of a folder or of a repository on the Hub; None if it has no such file, or none can be reached.

    Raises:
        ValueError: If there is no such folder, and the Hub knows no such repository.
    """
    if os.path.isdir(source):
        path = Path(source, name)
        return path if path.is_file() else None
    try:
        found = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
    except (OSError, ValueError) as error:
        raise ValueError(UNREACHABLE.format(source=source)) from error
    return None if found is None else Path(found)


def read_arrays(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read the arrays in a file of weights, as float32 where they are floating-point.

    Raises:
        ValueError: If the file holds no arrays by name, or is damaged.
    """
    try:
        arrays: Any = load_state_dict(path)  # runs no code of the file
    except Exception as error:  # a damaged file raises whatever its reader comes upon
        raise ValueError(
            f"{path} holds no weights that can be read: it is no file of safetensors or PyTorch, or it is damaged. "
            "Give another one, or copy or download it again."
        ) from error
    for key in ("model", "state_dict"):
        arrays = arrays[key] if isinstance(arrays, dict) and isinstance(arrays.get(key), dict) else arrays
    if not isinstance(arrays, dict) or not all(isinstance(value, torch.Tensor) for value in arrays.values()):
        raise ValueError(f"{path} must hold arrays by name, as timm saves them.")
    return {name: value.float() if value.is_floating_point() else value for name, value in arrays.items()}


def _read_timm(source: str) -> dict[str, torch.Tensor] | None:
    """Read the arrays of a model of timm; None if the source is in the format of Transformers.

    Raises:
        ValueError: If there is no such source, or it holds no weights.
    """
    if os.path.isfile(source):
        return read_arrays(source)
    config = find_file(source, CONFIG_NAME)
    if config is None:
        is_folder = os.path.isdir(source)
        raise ValueError(
            f"{source} holds no {CONFIG_NAME}. {FORMS}." if is_folder else UNREACHABLE.format(source=source)
        )
    try:
        values = json.loads(config.read_text(encoding="utf-8")) | {}  # a TypeError for anything but an object
    except (ValueError, TypeError) as error:
        raise ValueError(f"{config} is no JSON object. Download it again.") from error
    if TIMM_KEY not in values:
        return None
    check_architecture(values, source=source)
    for name in (SAFE_WEIGHTS_NAME, WEIGHTS_NAME):
        if path := find_file(source, name):
            return read_arrays(path)
    raise ValueError(f"{source} holds neither {SAFE_WEIGHTS_NAME} nor {WEIGHTS_NAME}. Download it again.")


def _read_config(source: str, **changes: Any) -> Any:
    """Read a configuration in the format of Transformers.

    Raises:
        ValueError: If Transformers cannot read it.
    """
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=False, **changes)
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{source} holds no configuration that Transformers can read: {reason} {FORMS}.") from error


def _leave_out_pooler(config: Any) -> dict[str, bool]:
    """Return the keyword that makes a vision Transformer without a pooler; some kinds have none anyway."""
    return {} if config.model_type.startswith("dinov2") else {"add_pooling_layer": False}


def make_vit(config: Any) -> Any:
    """Make a vision Transformer without a pooler from its configuration, with random weights."""
    return AutoModel.from_config(config, trust_remote_code=False, **_leave_out_pooler(config))


def _fill(model: Any, weights: dict[str, torch.Tensor], source: Any) -> Any:
    """Load weights into a model, all of them, or raise a ValueError that names what does not fit."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"The weights of {source} are not those of a {type(model).__name__}: {reason}.") from error
    return model.eval()


def load_vit(source: Any, *, num_attention_heads: int | None = None) -> Any:
    """Load a vision Transformer.

    Args:
        source: Loaded model, id on the Hub, folder in the format of Transformers or timm, or file of weights of timm.
        num_attention_heads: Heads of a model of timm, whose weights do not tell; None = one for 64 of the width.

    Returns:
        Model of Transformers without a head, in evaluation mode, in float32.

    Raises:
        ValueError: If there is no such model, or it is of a kind that LoDa cannot use.
    """
    if isinstance(source, nn.Module):
        model: Any = getattr(source, "base_model", source)
        _check_vit(getattr(model, "config", None), type(source).__name__)
        return model
    arrays = _read_timm(str(source))
    if arrays is not None:
        if not is_vit(arrays):
            raise ValueError(f"{source} holds no vision Transformer of timm with a CLS token. Give another one.")
        config, weights = read_vit(arrays, num_attention_heads=num_attention_heads)
        return _fill(make_vit(config), weights, source)
    config = _read_config(str(source))
    _check_vit(config, str(source))
    return _load(AutoModel.from_pretrained, source, trust_remote_code=False, **_leave_out_pooler(config))


def _check_vit(config: PreTrainedConfig | None, source: str) -> None:
    kind = getattr(config, "model_type", None)
    if kind not in VIT_TYPES:
        raise ValueError(f"{source} must be a vision Transformer of one of {', '.join(VIT_TYPES)}, got {kind}.")


def load_backbone(source: Any) -> Any:
    """Load a convolutional network that gives the maps of its stages.

    Args:
        source: Loaded backbone, id on the Hub, folder in the format of Transformers or timm, or file of weights of
            timm. A loaded one gives its `out_features`, and any other all of its stages.

    Returns:
        Backbone of Transformers, in evaluation mode, in float32.

    Raises:
        ValueError: If there is no such model, or it is no backbone.
    """
    if isinstance(source, nn.Module):
        if not hasattr(source, "channels"):
            raise ValueError(
                f"A backbone with `out_features` was expected, got a {type(source).__name__}. Load it with "
                "`AutoBackbone`."
            )
        return source
    arrays = _read_timm(str(source))
    if arrays is not None:
        if not is_resnet(arrays):
            raise ValueError(f"{source} holds no ResNet of timm. Give another one.")
        config, weights = read_resnet(arrays)
        return _fill(AutoBackbone.from_config(config), weights, source)
    stages = getattr(_read_config(str(source)), "stage_names", None)
    if not stages:
        raise ValueError(f"{source} is no network whose stages `AutoBackbone` can give. Give a ResNet or a ConvNeXt.")
    config = _read_config(str(source), out_features=[name for name in stages if name != "stem"])
    # `AutoBackbone.from_pretrained` asks the Hub about a folder, so the class loads itself.
    kind: Any = type(AutoBackbone.from_config(config))
    return _load(kind.from_pretrained, source, config=config)


def _load(load: Callable[..., Any], source: Any, **options: Any) -> Any:
    """Load weights in the format of Transformers, in float32, all of them, or raise a ValueError."""
    try:
        model, found = load(str(source), dtype=torch.float32, output_loading_info=True, **options)
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{source} holds no weights that Transformers can read: {reason}") from error
    names = {
        *found["missing_keys"],
        *(item if isinstance(item, str) else item[0] for item in found["mismatched_keys"]),
    }
    # Transformers would fill these with random numbers.
    refuse(f"{source} lacks weights of a {type(model).__name__}", names - UNUSED, "Download it again.")
    return model.eval()


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Copy the weights of a network to another one of its kind, which may lack a pooler and a mask token."""
    weights = source.state_dict()
    target.load_state_dict({n: value for n, value in weights.items() if not (n in UNUSED or n.startswith("pooler."))})


__all__ = ["copy_weights", "load_backbone", "load_vit", "make_vit", "read_arrays"]
