# SPDX-License-Identifier: Apache-2.0
"""Configuration behind a set of arrays, inferred from their shapes; options of the user give the rest."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..models.musiq.configuration_musiq import RESNET_DEPTHS, MusiqConfig

NUM_IMAGENET_CLASSES = 1000
PUBLISHED_HEADS = {384: 6}  # hidden size: attention heads
PUBLISHED_LENGTHS: dict[int, tuple[int, ...]] = {
    1: (),
    3: (224, 384),
}  # scales: longer sides, beside the native picture
PUBLISHED_PATCH_SIZE = 32
NUM_CHANNELS = 3

_EMBEDDINGS = "musiq.embeddings"
_PROJECTION = f"{_EMBEDDINGS}.patch_projection.weight"
_STEM = f"{_EMBEDDINGS}.patch_encoder.stem_conv.weight"
_MLP = "musiq.encoder.layers.0.mlp.fc1.weight"
_HEAD = "head.classifier.weight"

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Options of MUSIQ's converter; None = inferred from the arrays.

    Attributes:
        longer_side_lengths: Longer sides of the resized copies, in pixels, in any order.
        use_native_resolution: True if the picture itself is the last scale.
        hash_grid_size: Side G of the spatial grid, in cells.
        num_attention_heads: Number of attention heads of every layer.
    """

    longer_side_lengths: Sequence[int] | None = None
    use_native_resolution: bool = True
    hash_grid_size: int | None = None
    num_attention_heads: int | None = None


def _count(shapes: Shapes, pattern: str) -> int:
    """Return one more than the largest number in the names that match; 0 if no name does."""
    return 1 + max((int(match[1]) for name in shapes if (match := re.match(pattern, name))), default=-1)


def _infer_heads(hidden_size: int, *, from_arrays: int | None, flag: int | None) -> int:
    if from_arrays is not None:
        if flag not in (None, from_arrays):
            raise ValueError(
                f"`--num_attention_heads {flag}` contradicts the attention kernels, which have {from_arrays}."
            )
        return from_arrays
    heads = PUBLISHED_HEADS.get(hidden_size) if flag is None else flag
    if heads is None:
        raise ValueError(
            "`--num_attention_heads` is needed: the arrays of a .pth do not tell it, and a hidden size of "
            f"{hidden_size} is not the published one."
        )
    return heads


def _infer_spatial(shapes: Shapes, *, flag: int | None) -> dict[str, Any]:
    table = shapes.get(f"{_EMBEDDINGS}.spatial_embedding.weight")
    if table is None:
        return {"spatial_embedding": "sinusoid", "hash_grid_size": 10 if flag is None else flag}
    side = math.isqrt(table[0])
    if side * side != table[0]:
        raise ValueError(f"The position table must have G * G rows, got {table[0]}: it is not one of a spatial grid.")
    if flag not in (None, side):
        raise ValueError(
            f"`--hash_grid_size {flag}` contradicts the position table, which has {table[0]} = {side} * {side} rows."
        )
    return {"spatial_embedding": "hash", "hash_grid_size": side}


def _infer_scales(shapes: Shapes, flags: Flags) -> dict[str, Any]:
    table = shapes.get(f"{_EMBEDDINGS}.scale_embedding.weight")
    native, lengths = flags.use_native_resolution, flags.longer_side_lengths
    if lengths is None:
        lengths = PUBLISHED_LENGTHS.get(table[0]) if table is not None and native else None
    if lengths is None:
        rows = "there is no scale table" if table is None else f"the scale table has {table[0]} rows"
        without = "" if native else ", and `--no_native_resolution` was given"
        raise ValueError(
            f"`--longer_side_lengths` is needed (in pixels, nothing after it = no resized copy): {rows}{without}."
        )
    if table is not None and len(lengths) + native != table[0]:
        raise ValueError(
            f"`--longer_side_lengths {' '.join(map(str, lengths))}` {'with' if native else 'without'} the native "
            f"picture makes {len(lengths) + native} scales, but the scale table has {table[0]} rows."
        )
    return {
        "use_scale_embedding": table is not None,
        "longer_side_lengths": sorted(lengths),
        "use_native_resolution": native,
    }


def _infer_patch_encoder(shapes: Shapes) -> dict[str, Any]:
    features = shapes[_PROJECTION][1]
    if _STEM not in shapes:
        return {"patch_encoder": "linear", "patch_size": _infer_patch_size(features, NUM_CHANNELS, reduction=1)}
    width = shapes[_STEM][0]
    stages = _count(shapes, rf"{re.escape(_EMBEDDINGS)}\.patch_encoder\.stages\.(\d+)\.")
    if stages > len(RESNET_DEPTHS):
        raise ValueError(f"The patch encoder must have at most {len(RESNET_DEPTHS)} stages, got {stages}.")
    # Stem and pool reduce the side to a quarter. Every stage but the first halves it and doubles the width.
    halvings = max(stages - 1, 0)
    channels = width * (4 * 2**halvings if stages else 1)
    kind: dict[str, Any] = {"patch_encoder": "conv", "patch_encoder_width": width}
    if stages:
        kind |= {"patch_encoder": "resnet", "patch_encoder_depth": RESNET_DEPTHS[stages - 1]}
    return kind | {"patch_size": _infer_patch_size(features, channels, reduction=4 * 2**halvings)}


def _infer_patch_size(features: int, channels: int, *, reduction: int) -> int:
    """Infer the side of a patch; if several sides give this number of features, prefer the published one."""
    if math.ceil(PUBLISHED_PATCH_SIZE / reduction) ** 2 * channels == features:
        return PUBLISHED_PATCH_SIZE
    side = math.isqrt(features // channels)
    if side * side * channels != features or side == 0:
        raise ValueError(f"The patch embedding must have side * side * {channels} inputs, got {features}.")
    return side * reduction


def _infer_labels(num_labels: int, score_range: Sequence[float] | None) -> dict[str, Any]:
    if num_labels == NUM_IMAGENET_CLASSES:
        return {"num_labels": num_labels}
    names = ["MOS"]
    if num_labels > 1:
        names, score_range = [str(value) for value in range(1, num_labels + 1)], [1, num_labels]
    return {
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
        "score_range": score_range,
    }


def infer_config(
    shapes: Shapes, flags: Flags, *, num_attention_heads: int | None, score_range: Sequence[float] | None = None
) -> MusiqConfig:
    """Infer the configuration from shapes.

    Args:
        shapes: Shapes of the arrays by our names, in our layouts.
        flags: Options that the user gave.
        num_attention_heads: Number of attention heads that the shapes of the source's kernels show; None if they show
            none.
        score_range: Lowest and highest opinion score behind a one-label head, if known.

    Returns:
        The configuration, with the model class in `architectures`.

    Raises:
        ValueError: If the shapes are not those of a MUSIQ model, contradict a flag, or leave something open.
    """
    absent = [name for name in (_PROJECTION, _MLP, _HEAD) if len(shapes.get(name, ())) != 2]
    if absent:
        raise ValueError(f"These are not the arrays of a MUSIQ model: nothing (of 2 dimensions) stands for {absent}.")
    hidden_size, num_labels = shapes[_PROJECTION][0], shapes[_HEAD][0]
    is_classifier = num_labels == NUM_IMAGENET_CLASSES
    return MusiqConfig(
        architectures=["MusiqForImageClassification" if is_classifier else "MusiqForImageQualityAssessment"],
        hidden_size=hidden_size,
        num_hidden_layers=_count(shapes, r"musiq\.encoder\.layers\.(\d+)\."),
        num_attention_heads=_infer_heads(hidden_size, from_arrays=num_attention_heads, flag=flags.num_attention_heads),
        intermediate_size=shapes[_MLP][0],
        pre_logits_size=shapes.get("head.pre_logits.weight", (None,))[0],
        **_infer_spatial(shapes, flag=flags.hash_grid_size),
        **_infer_scales(shapes, flags),
        **_infer_patch_encoder(shapes),
        **_infer_labels(num_labels, score_range),
    )
