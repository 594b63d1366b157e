# SPDX-License-Identifier: Apache-2.0
"""Readers of networks that others have trained: from the Hub, from folders of Transformers or timm, and from files.

Some families have this file under their own name.
"""

import json
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig
from transformers.modeling_utils import load_state_dict
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_NAME, cached_file

from .timm_classifier import check_architecture, refuse

TIMM_KEY = "architecture"  # in the config.json of timm, and in none of Transformers
FORMS = "Give an id on the Hub, a folder in the format of Transformers or timm, or a file of weights of timm"
UNREACHABLE = (
    "{source}: there is no such folder, and no such model on the Hub that can be reached from here. "
    f"{FORMS}; command lines take them as well."
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


def read_timm(source: str) -> dict[str, torch.Tensor] | None:
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


def read_config(source: str, **changes: Any) -> Any:
    """Read a configuration in the format of Transformers.

    Raises:
        ValueError: If Transformers cannot read it.
    """
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=False, **changes)
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{source} holds no configuration that Transformers can read: {reason} {FORMS}.") from error


def fill(model: Any, weights: dict[str, torch.Tensor], source: Any) -> Any:
    """Load weights into a model, all of them, or raise a ValueError that names what does not fit."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"The weights of {source} are not those of a {type(model).__name__}: {reason}.") from error
    return model.eval()


def load_whole(load: Callable[..., Any], source: Any, *, unused: Collection[str] = (), **options: Any) -> Any:
    """Load weights in the format of Transformers, in float32.

    Args:
        load: Method `from_pretrained` of a class.
        source: Id on the Hub, or folder.
        unused: Names of weights that may be missing, or of other shapes.
        **options: Further keywords of `load`.

    Raises:
        ValueError: If there are no weights, or some are missing.
    """
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
    refuse(f"{source} lacks weights of a {type(model).__name__}", names - set(unused), "Download it again.")
    return model.eval()


__all__ = ["fill", "find_file", "load_whole", "read_arrays", "read_config", "read_timm"]
