# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of LoDa's published program (NeosXu/LoDa), and their arrays by our names.

Such a file holds the learner, which is all that was trained, and `bn_buffer`. The latter are the statistics of the
batch norms of the convolutional network, which training changes. The two networks themselves are not in it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..common.files import hash_file
from ..models.loda.timm_loda import rename_resnet
from .checkpoints import describe_unfit, load_content
from .directories import check_same
from .protocol import Checkpoint

LEARNER, STATISTICS = "learner", "bn_buffer"
MODEL = "model"  # of a training state, which holds the checkpoint beside what follows
LEFT_OUT = ("optimizer", "scheduler", "step", "epoch")
CNN_PREFIX = "loda.cnn."
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_STAGE = re.compile(LEARNER + r"/conv\.(\d\d?)\..+")
# Our names of statistics.
_NORM = re.compile(
    r"(?:embedder\.embedder|encoder\.stages\.(\d+)\.layers\.(\d+)\.(?:layer\.(\d+)|shortcut))\.normalization\.(\w+)"
)

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Learner:
    """Sizes that a learner's arrays tell.

    Attributes:
        latent_dim: Width of the space in which local features are added.
        channels: Channels of the stages that give local features, in their order.
        depth: Blocks of the vision Transformer.
        width: Width of the vision Transformer.
    """

    latent_dim: int
    channels: tuple[int, ...]
    depth: int
    width: int


def find_parts(content: object) -> Mapping[str, Any] | None:
    """Return the part of a file's content that holds learner and statistics; None if there is none."""
    if isinstance(content, Mapping) and isinstance(content.get(MODEL), Mapping):
        content = content[MODEL]
    return content if isinstance(content, Mapping) and LEARNER in content else None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint or a training state of the published program.

    Args:
        path: File to read.

    Returns:
        The checkpoint; its arrays are named "learner/..." and "bn_buffer/...".

    Raises:
        ValueError: If the file is damaged, holds pickled objects, or is no such checkpoint.
    """
    content: Any = load_content(path)
    parts = find_parts(content)
    if parts is None or not all(isinstance(parts.get(key), Mapping) for key in (LEARNER, STATISTICS)):
        raise ValueError(
            f"{path} is not a LoDa checkpoint: it must hold `{LEARNER}` and `{STATISTICS}`, or a training state with "
            f"them under `{MODEL}`."
        )
    is_state = parts is not content
    unknown = [str(name) for name in parts if name not in (LEARNER, STATISTICS)]
    unknown += [str(name) for name in content if name not in (MODEL, *LEFT_OUT)] if is_state else []
    arrays = {f"{key}/{name}": value for key in (LEARNER, STATISTICS) for name, value in parts[key].items()}
    unknown += [name for name, value in arrays.items() if not isinstance(value, torch.Tensor)]
    if unknown:
        raise ValueError(f"{path} must hold the arrays of one LoDa model, but has also: {', '.join(unknown)}.")
    types = (torch.float32, torch.int64)
    unfit = [f"{name} ({why})" for name, value in arrays.items() if (why := describe_unfit(value, types))]
    if unfit:
        raise ValueError(f"{path} must hold dense tensors of float32, got {', '.join(unfit)}. Save them as float32.")
    left_out = ", ".join(name for name in LEFT_OUT if is_state and name in content)
    return Checkpoint(
        path=path,
        sha256=hash_file(path),
        kind="checkpoint of the original" + (f" in a training state; {left_out} left out" if left_out else ""),
        arrays={name: value.detach().numpy() for name, value in arrays.items()},
    )


def _refuse(path: Path, problems: Sequence[str]) -> None:
    """Raise a ValueError that lists what is wrong with the arrays of a file, if anything is."""
    if problems:
        raise ValueError("\n  ".join((f"{path} does not hold the arrays of one LoDa model:", *problems)))


def read_sizes(checkpoint: Checkpoint) -> Learner:
    """Read the sizes of a learner from its arrays.

    Raises:
        ValueError: If an array that tells a size is missing, or has another number of dimensions.
    """
    shapes = {name: array.shape for name, array in checkpoint.arrays.items()}
    last = max((int(match[1]) for name in shapes if (match := _STAGE.fullmatch(name))), default=0)
    scale, stages = f"{LEARNER}/scale_factor", [f"{LEARNER}/conv.{number}.0.weight" for number in range(last + 1)]
    wanted = {scale: 2, **dict.fromkeys(stages, 4)}
    _refuse(
        checkpoint.path,
        [
            f"wrong shape: {name} {shapes[name]}, expected {size} dimensions" if name in shapes else f"missing: {name}"
            for name, size in wanted.items()
            if len(shapes.get(name, ())) != size
        ],
    )
    depth, width = shapes[scale]
    channels = tuple(shapes[name][1] for name in stages)
    return Learner(latent_dim=shapes[stages[0]][0], channels=channels, depth=depth, width=width)


def list_names(num_stages: int, num_layers: int) -> dict[str, tuple[str, ...]]:
    """List our names by those in the learner; an array with several names holds one after the other.

    Args:
        num_stages: Stages of the convolutional network that give local features.
        num_layers: Blocks of the vision Transformer, before each of which they are added.
    """
    names: dict[str, tuple[str, ...]] = {"head.weight": ("head.weight",)}
    names["scale_factor"] = tuple(f"loda.interactions.{layer}.scale" for layer in range(num_layers))
    for stage in range(num_stages):
        ours = f"loda.cnn_projections.{stage}."
        names |= {f"conv.{stage}.0.{kind}": (f"{ours}reduce.{kind}",) for kind in ("weight", "bias")}
        names[f"conv.{stage}.2.weight"] = (f"{ours}mix.weight",)
    for layer in range(num_layers):
        ours = f"loda.interactions.{layer}."
        for last in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"):
            names |= {f"{part}.{layer}.{last}": (f"{ours}{part}.{last}",) for part in ("down_proj", "up_proj")}
        theirs, ours = f"cross_attn.{layer}.", f"{ours}cross_attention."
        names[f"{theirs}q.weight"] = (f"{ours}q_proj.weight",)
        names[f"{theirs}kv.weight"] = (f"{ours}k_proj.weight", f"{ours}v_proj.weight")
        names |= {f"{theirs}proj.{kind}": (f"{ours}o_proj.{kind}",) for kind in ("weight", "bias")}
    return names


def _split(name: str, value: torch.Tensor, count: int) -> Sequence[torch.Tensor]:
    """Split an array of the learner into as many of ours."""
    if name == "head.weight":
        return [value.T]
    return value.unbind() if name == "scale_factor" else value.chunk(count)


def _join(name: str, values: Sequence[torch.Tensor]) -> torch.Tensor:
    """Join our arrays to one of the learner, the reverse of `_split`."""
    if name == "head.weight":
        return values[0].T.contiguous()
    return torch.stack(list(values)) if name == "scale_factor" else torch.cat(list(values))


def to_ours(arrays: State, *, num_stages: int, num_layers: int) -> dict[str, torch.Tensor]:
    """Translate learner and statistics, which must be complete, to our names and layouts."""
    state: dict[str, torch.Tensor] = {}
    for name, ours in list_names(num_stages, num_layers).items():
        state |= dict(zip(ours, _split(name, arrays[f"{LEARNER}/{name}"], len(ours)), strict=True))
    for name, value in arrays.items():
        if name.startswith(f"{STATISTICS}/"):
            state[f"{CNN_PREFIX}{rename_resnet(name.partition('/')[2])}"] = value
    return state


def from_ours(state: State, *, num_stages: int, num_layers: int) -> dict[str, torch.Tensor]:
    """Translate our weights to learner and statistics.

    Args:
        state: Weights of a model by name. Those of the two networks are left out, but for the statistics.
        num_stages: Stages of the convolutional network that give local features.
        num_layers: Blocks of the vision Transformer, before each of which they are added.

    Returns:
        Arrays by name, "learner/..." and "bn_buffer/...".

    Raises:
        ValueError: If the statistics are those of a network for which the original has no names.
    """
    arrays = {}
    for name, ours in list_names(num_stages, num_layers).items():
        arrays[f"{LEARNER}/{name}"] = _join(name, [state[key] for key in ours])
    for key, value in state.items():
        if key.startswith(CNN_PREFIX) and key.endswith(BUFFERS):
            arrays[f"{STATISTICS}/{_name_statistic(key.removeprefix(CNN_PREFIX))}"] = value
    return arrays


def _name_statistic(key: str) -> str:
    """Return timm's name of a statistic of a `ResNetBackbone`, the reverse of `rename_resnet`."""
    match = _NORM.fullmatch(key)
    if match is None:
        raise ValueError(
            f"The original's file names statistics as a ResNet of timm does, and has no name for `{key}`. A LoDa with "
            "such a network cannot have its format."
        )
    stage, layer, number, last = match.groups()
    if stage is None:
        return f"bn1.{last}"
    place = "downsample.1" if number is None else f"bn{int(number) + 1}"
    return f"layer{int(stage) + 1}.{layer}.{place}.{last}"


def check_arrays(checkpoint: Checkpoint, state: State, sizes: Learner) -> None:
    """Raise a ValueError that lists each array that is missing, unknown, or of a wrong shape or type, if any is.

    Args:
        checkpoint: Arrays as they were found.
        state: Weights of a model of these sizes, by our names.
        sizes: Sizes of the learner.
    """
    wanted = from_ours(state, num_stages=len(sizes.channels), num_layers=sizes.depth)
    problems = [f"missing: {name} {tuple(wanted[name].shape)}" for name in wanted.keys() - checkpoint.arrays.keys()]
    for name, array in checkpoint.arrays.items():
        expected = wanted.get(name)
        if expected is None:
            problems.append(f"unknown: {name} {array.shape}")
        elif array.shape != tuple(expected.shape):
            problems.append(f"wrong shape: {name} {array.shape}, expected {tuple(expected.shape)}")
        elif array.dtype != expected.numpy().dtype:
            problems.append(f"wrong type: {name} {array.dtype}, expected {expected.numpy().dtype}")
    _refuse(checkpoint.path, sorted(problems))


def check_back(model: Any, checkpoint: Checkpoint, sizes: Learner) -> None:
    """Raise a ValueError unless the model's weights, renamed back, equal the source's arrays bit by bit."""
    back = from_ours(model.state_dict(), num_stages=len(sizes.channels), num_layers=sizes.depth)
    check_same({name: value.numpy() for name, value in back.items()}, checkpoint.arrays)
