# SPDX-License-Identifier: Apache-2.0
"""Image classifiers that others have trained, without their heads, and how their pictures were prepared."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel
from transformers.utils import CONFIG_NAME, IMAGE_PROCESSOR_NAME

from .configuration_classifier import TOWERS, ClassifierConfig
from .reading_classifier import find_file, load_whole, read_config, read_timm
from .timm_classifier import is_resnet, is_vit, read_resnet, read_vit, refuse

NUM_MARKED = 1009  # labels that no network has otherwise, so that the head is known by its width
TOWER = "vision_model."  # of a network beside a text model
POSITIONS = "position_embedding"  # in names of weights that have a place for each patch

Weights = dict[str, torch.Tensor]


def build_classifier(config: Any) -> tuple[Any, str]:
    """Build an image classifier with random weights, and find the linear layer that gives its logits.

    Args:
        config: Configuration of the classifier, which is not changed.

    Returns:
        Network, and the name of the layer in it.

    Raises:
        ValueError: If the network cannot be built, or has not one such layer.
    """
    config = deepcopy(config)
    config.num_labels = NUM_MARKED
    config.architectures = []  # it may name a class with two heads, of which the first in Transformers' table has one
    try:
        network: Any = AutoModelForImageClassification.from_config(config, trust_remote_code=False)
    except ImportError as error:
        reason = " ".join(str(error).split()) or "a library is missing"
        raise ValueError(f"A network of type {config.model_type} cannot be built here: {reason[:200]}") from error
    linear = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    heads = [name for name, module in linear.items() if module.out_features == NUM_MARKED]
    if len(heads) != 1:
        raise ValueError(
            f"A {type(network).__name__} must have one linear layer that gives its logits, which a new head replaces, "
            f"got {len(heads)}. Give a network of another type."
        )
    return network, heads[0]


def make_network(config: Any) -> tuple[Any, int]:
    """Make an image classifier whose logits are the features that its head would read.

    Args:
        config: Configuration of the classifier, which is not changed.

    Returns:
        Network with random weights, and the number of features.

    Raises:
        ValueError: If the network cannot be built, or has not one linear layer that gives its logits.
    """
    network, head = build_classifier(config)
    num_features: int = network.get_submodule(head).in_features
    network.set_submodule(head, nn.Identity())
    return network, num_features


def _read_arrays_of_timm(arrays: Mapping[str, torch.Tensor], source: Any) -> tuple[PreTrainedConfig, Weights]:
    """Turn arrays by timm's names into configuration and weights of an image classifier."""
    if is_vit(arrays):
        config, weights = read_vit(arrays)
    elif is_resnet(arrays):
        config, weights = read_resnet(arrays)
    else:
        raise ValueError(
            f"{source} holds no plain vision Transformer with a CLS token and no plain ResNet of timm, which are the "
            "ones that are read. Give a network in the format of Transformers."
        )
    return config, {f"{config.model_type}.{name}": value for name, value in weights.items()}


def _read_module(model: nn.Module) -> tuple[PreTrainedConfig, Weights]:
    if not isinstance(model, PreTrainedModel):
        raise ValueError(
            f"A model of Transformers, an id on the Hub, a folder or a configuration was expected, got a "
            f"{type(model).__name__}. Load the network with `AutoModelForImageClassification`."
        )
    return model.config, {name: value.detach() for name, value in model.state_dict().items()}


def load_backbone(source: Any) -> tuple[PreTrainedConfig, Weights | None]:
    """Load an image classifier, or what it is made of.

    Args:
        source: Loaded model of Transformers, with or without a head, id on the Hub, or folder in the format of
            Transformers or timm. A file of weights of timm is read too. A configuration stands for random weights.

    Returns:
        Configuration and weights by their names, of which a head may be among them; None for random weights.

    Raises:
        ValueError: If there is no such network, or it is of a kind that cannot be used.
    """
    if isinstance(source, PreTrainedConfig):
        return source, None
    if isinstance(source, nn.Module):
        return _read_module(source)
    if not isinstance(source, str | os.PathLike):
        raise ValueError(
            f"A model of Transformers, an id on the Hub, a folder or a configuration was expected, got {source!r}."
        )
    arrays = read_timm(str(source))
    if arrays is not None:
        return _read_arrays_of_timm(arrays, source)
    return _read_transformers(str(source))


def _read_transformers(source: str) -> tuple[PreTrainedConfig, Weights]:
    """Read a network in the format of Transformers; its head may be missing, or have any number of labels."""
    config = read_config(source)
    checked: Any = ClassifierConfig(backbone_config=config).backbone_config  # it refuses kinds before they are loaded
    if config.model_type in TOWERS:
        return checked, load_whole(AutoModel.from_pretrained, source).state_dict()
    with torch.device("meta"):
        network, head = build_classifier(checked)
    unused = {f"{head}.{part}" for part in ("weight", "bias")}
    checked.architectures = []
    options = {"config": checked, "ignore_mismatched_sizes": True}
    return checked, load_whole(type(network).from_pretrained, source, unused=unused, **options).state_dict()


def _choose_prefix(wanted: Iterable[str], found: Iterable[str], network: Any) -> str:
    """Choose what the names of a network without a head lack in front of those of a classifier."""
    names, prefixes = set(wanted), ("", f"{network.base_model_prefix}.", TOWER)
    return max(prefixes, key=lambda prefix: len(names & {prefix + name for name in found}))


def resample_positions(positions: torch.Tensor, count: int) -> torch.Tensor:
    """Resample learned positions of a square grid to another one, bicubically; those of other tokens stay.

    Args:
        positions: Vectors of special tokens and of patches, row by row, shape (..., number, width).
        count: Number of vectors that are wanted, with as many special tokens.

    Raises:
        ValueError: If the numbers are not those of square grids with as many special tokens.
    """
    number, width = positions.shape[-2:]
    old, new = math.isqrt(number), math.isqrt(count)
    num_special = number - old * old
    if num_special != count - new * new:
        raise ValueError(f"{number} positions are not those of a square grid that could become {count}.")
    rows = positions.reshape(number, width)
    grid = rows[num_special:].view(1, old, old, width).permute(0, 3, 1, 2)
    resized = F.interpolate(grid.float(), size=(new, new), mode="bicubic", align_corners=False, antialias=new < old)
    patches = resized.permute(0, 2, 3, 1).reshape(new * new, width).to(positions.dtype)
    return torch.cat([rows[:num_special], patches]).view(*positions.shape[:-2], count, width)


def _fit(name: str, value: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Return weights in the shape of a network's own, where positions of another grid may be resampled."""
    is_positions = POSITIONS in name and value.dim() == own.dim() and value.shape[-1] == own.shape[-1]
    if value.shape == own.shape or not is_positions:
        return value
    return resample_positions(value, own.shape[-2])


def fill_network(network: Any, weights: Weights) -> None:
    """Copy weights to a network without a head; what it does not have, such as a head or a text model, is left out.

    Raises:
        ValueError: If weights are missing, or of another shape that cannot be resampled.
    """
    own = network.state_dict()
    prefix = _choose_prefix(own, weights, network)
    found = {prefix + name: value for name, value in weights.items()}
    found = {name: _fit(name, value, own[name]) for name, value in found.items() if name in own}
    what = f"The weights that were given are not those of a {type(network).__name__}"
    refuse(f"{what}; missing", own.keys() - found.keys(), "Give another network.")
    others = (f"{name} {tuple(found[name].shape)}" for name in own if found[name].shape != own[name].shape)
    refuse(f"{what}; of other shapes", others, "Leave out `image_size`, or give another network.")
    network.load_state_dict(found)


def _read_json(path: Path | None) -> dict[str, Any]:
    """Read a JSON object; an empty one if there is no file, or it holds none."""
    try:
        values = {} if path is None else json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _settings_of_transformers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return our names of the settings in a preprocessor_config.json."""
    found: dict[str, Any] = {}
    if values.get("do_normalize", True):
        found |= {name: values.get(name) for name in ("image_mean", "image_std")}
    else:
        found |= {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    if isinstance(number := values.get("resample"), int) and number in list(Image.Resampling):
        found["resample"] = Image.Resampling(number).name.lower()
    return found


def _settings_of_timm(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return our names of the settings in a config.json of timm."""
    given = values.get("pretrained_cfg") or {}
    found = {"image_mean": given.get("mean"), "image_std": given.get("std"), "resample": given.get("interpolation")}
    return found if str(found["resample"]).upper() in Image.Resampling.__members__ else found | {"resample": None}


def read_settings(source: Any) -> dict[str, Any]:
    """Read the settings of an image processor that a trained network comes with.

    Args:
        source: Id on the Hub or folder, in the format of Transformers or timm; anything else names no settings.

    Returns:
        Those of `image_mean`, `image_std` and `resample` that its files name.
    """
    if not isinstance(source, str | os.PathLike) or os.path.isfile(source):
        return {}
    values = _read_json(find_file(str(source), IMAGE_PROCESSOR_NAME))
    if values:
        found = _settings_of_transformers(values)
    else:
        found = _settings_of_timm(_read_json(find_file(str(source), CONFIG_NAME)))
    return {name: value for name, value in found.items() if value is not None}


__all__ = ["fill_network", "load_backbone", "make_network", "read_settings", "resample_positions"]
