# SPDX-License-Identifier: Apache-2.0
"""Weights of timm's vision Transformers and ResNets, as those of the classes of Transformers.

Sizes come from the arrays themselves. Whatever is not in the tables below is an error, because it would change the
features. Some families have this file under their own name.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from transformers import ResNetConfig, ViTConfig

Arrays = Mapping[str, torch.Tensor]
HEAD_SIZE = 64  # of timm's vision Transformers up to the large one
HEADS = {1280: 16, 1408: 16, 1664: 16}  # of the huge, giant and gigantic one, by width (Zhai et al., CVPR 2022)
# Parts of names of architectures that compute otherwise with arrays of the same names.
OTHER_KINDS = {
    "aa": "anti-aliased pooling",
    "blur": "anti-aliased pooling",
    "quickgelu": "another activation",
    "rpn": "norms after their blocks",
}
# Arguments in a config.json that change no feature, or that the arrays tell.
HARMLESS_ARGUMENTS = {"global_pool", "img_size", "num_classes", "pretrained"}

_VIT_NAMES = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
_BLOCK_NAMES = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
# Arrays that tell sizes, and their dimensions.
_VIT_SIZES = {"pos_embed": 3, "patch_embed.proj.weight": 4, "blocks.0.mlp.fc1.weight": 2}
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")  # the thirds of timm's `attn.qkv`, in order


def refuse(what: str, names: Iterable[str], advice: str) -> None:
    """Raise a ValueError that lists some names, if there are any."""
    names = sorted(names)
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise ValueError(f"{what}: {', '.join(names[:5])}{more}. {advice}")


def _require(what: str, arrays: Arrays, sizes: Mapping[str, int]) -> None:
    """Raise a ValueError if an array is missing, or has not its number of dimensions."""
    lacking = [name for name, number in sizes.items() if name not in arrays or arrays[name].dim() != number]
    refuse(f"{what} was expected, but it lacks", lacking, "Give another one.")


def check_architecture(config: Mapping[str, Any], *, source: str) -> None:
    """Raise a ValueError if a config.json of timm names an architecture that its arrays alone would not tell.

    Args:
        config: Content of the file, with an `architecture`.
        source: Name of the model, for the message.
    """
    name = str(config["architecture"])
    for part, what in OTHER_KINDS.items():
        if re.search(rf"(?:^|_|resnet){part}(?:\d|_|\.|$)", name):
            raise ValueError(f"{source} is a `{name}` of timm, with {what}, which is not read. Give another one.")
    arguments = config.get("model_args") or {}
    unknown = arguments.keys() - HARMLESS_ARGUMENTS
    refuse(f"{source} is a `{name}` of timm with arguments that are not read", unknown, "Give another one.")


def is_vit(arrays: Arrays) -> bool:
    """Return whether arrays have the names of one of timm's vision Transformers."""
    return "cls_token" in arrays and "patch_embed.proj.weight" in arrays


def is_resnet(arrays: Arrays) -> bool:
    """Return whether arrays have the names of one of timm's ResNets."""
    return any(name.startswith("layer1.0.") for name in arrays)


def read_vit(arrays: Arrays, *, num_attention_heads: int | None = None) -> tuple[ViTConfig, dict[str, torch.Tensor]]:
    """Turn the arrays of a vision Transformer of timm into configuration and weights of a `ViTModel`.

    Args:
        arrays: Arrays by timm's names; a classification head is left out.
        num_attention_heads: Heads, which no array tells; None = one for 64 of the width.

    Raises:
        ValueError: If the arrays are those of another kind of vision Transformer.
    """
    kept = {name: value for name, value in arrays.items() if not name.startswith(("head.", "fc_norm.", "pre_logits."))}
    _require("A plain vision Transformer of timm", kept, _VIT_SIZES)
    weights: dict[str, torch.Tensor] = {}
    unknown = []
    for name, value in kept.items():
        stem, _, last = name.rpartition(".")
        block = re.fullmatch(r"blocks\.(\d+)\.(.+)", stem)
        if name in _VIT_NAMES:
            weights[_VIT_NAMES[name]] = value
        elif stem in _VIT_NAMES:
            weights[f"{_VIT_NAMES[stem]}.{last}"] = value
        elif block and block[2] in _BLOCK_NAMES:
            weights[f"layers.{block[1]}.{_BLOCK_NAMES[block[2]]}.{last}"] = value
        elif block and block[2] == "attn.qkv" and value.dim() and value.shape[0] % 3 == 0:
            for projection, part in zip(_PROJECTIONS, value.chunk(3), strict=True):
                weights[f"layers.{block[1]}.attention.{projection}.{last}"] = part
        else:
            unknown.append(name)
    refuse("A plain vision Transformer of timm was expected, but it has", unknown, "Give another one.")
    return _describe_vit(kept, num_attention_heads), weights


def _describe_vit(arrays: Arrays, num_attention_heads: int | None) -> ViTConfig:
    """Read the sizes of a vision Transformer from its arrays."""
    _, num_positions, width = arrays["pos_embed"].shape
    side, patch_size = math.isqrt(num_positions - 1), arrays["patch_embed.proj.weight"].shape[-1]
    if side * side != num_positions - 1:
        raise ValueError(f"`pos_embed` must have 1 + n * n positions, got {num_positions}. Give a plain square ViT.")
    usual = HEADS.get(width, max(width // HEAD_SIZE, 1))
    heads = usual if num_attention_heads is None else num_attention_heads
    if heads < 1 or width % heads:
        raise ValueError(
            f"The width {width} of the vision Transformer is no multiple of {heads} heads. Say how many heads it has."
        )
    return ViTConfig(
        hidden_size=width,
        num_hidden_layers=len({name.split(".")[1] for name in arrays if name.startswith("blocks.")}),
        num_attention_heads=heads,
        intermediate_size=arrays["blocks.0.mlp.fc1.weight"].shape[0],
        image_size=side * patch_size,
        patch_size=patch_size,
        qkv_bias="blocks.0.attn.qkv.bias" in arrays,
        layer_norm_eps=1e-6,
    )


def rename_resnet(name: str) -> str | None:
    """Return the name in a `ResNetBackbone` of an array of timm's ResNets; None if it has no place there."""
    parts = name.split(".")
    last = parts[-1]
    if parts[0] in ("conv1", "bn1"):
        return f"embedder.embedder.{'convolution' if parts[0] == 'conv1' else 'normalization'}.{last}"
    match = re.fullmatch(r"layer(\d)\.(\d+)\.(?:(conv|bn)(\d)|downsample\.([01]))\.\w+", name)
    if match is None:
        return None
    stage, layer, kind, number, shortcut = match.groups()
    start = f"encoder.stages.{int(stage) - 1}.layers.{layer}."
    if shortcut is not None:
        return f"{start}shortcut.{'convolution' if shortcut == '0' else 'normalization'}.{last}"
    return f"{start}layer.{int(number) - 1}.{'convolution' if kind == 'conv' else 'normalization'}.{last}"


def read_resnet(arrays: Arrays) -> tuple[ResNetConfig, dict[str, torch.Tensor]]:
    """Turn the arrays of a ResNet of timm into configuration and weights of a `ResNetBackbone` with all its stages.

    Args:
        arrays: Arrays by timm's names; a classification head is left out.

    Raises:
        ValueError: If the arrays are those of another kind of ResNet.
    """
    kept = {name: value for name, value in arrays.items() if not name.startswith("fc.")}
    renamed = {name: rename_resnet(name) for name in kept}
    unknown = [name for name, new in renamed.items() if new is None]
    refuse("A plain ResNet of timm was expected, but it has", unknown, "Give another one.")
    last = "conv3" if "layer1.0.conv3.weight" in kept else "conv2"
    stages = sorted({name.split(".")[0] for name in kept if name.startswith("layer")})
    sizes = {"conv1.weight": 4, **{f"{stage}.0.{last}.weight": 4 for stage in stages}}
    _require("A plain ResNet of timm", kept, sizes)
    config = ResNetConfig(
        embedding_size=kept["conv1.weight"].shape[0],
        hidden_sizes=[kept[f"{stage}.0.{last}.weight"].shape[0] for stage in stages],
        depths=[len({name.split(".")[1] for name in kept if name.startswith(f"{stage}.")}) for stage in stages],
        layer_type="bottleneck" if last == "conv3" else "basic",
        out_features=[f"stage{number}" for number in range(1, len(stages) + 1)],
    )
    return config, {new: kept[name] for name, new in renamed.items() if new is not None}


__all__ = ["check_architecture", "is_resnet", "is_vit", "read_resnet", "read_vit", "refuse", "rename_resnet"]
