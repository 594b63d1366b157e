# SPDX-License-Identifier: Apache-2.0
"""Conversion back of MUSIQ, from a Hugging Face directory to the original's `.npz` or pyiqa's `.pth`."""

from pathlib import Path

import numpy as np
import torch

from ..common.files import replace_file
from ..models.musiq.configuration_musiq import MusiqConfig
from .directories import check_new_file, load_strictly, write_tensors
from .key_mapping import PYIQA, from_ours, ours_to_original
from .protocol import Array
from .weights import MODELS

ORIGINAL_GROUPS, ORIGINAL_EPSILON = 32, 1e-6  # fixed in the original's code


def _check_expressible(config: MusiqConfig) -> None:
    """Raise a ValueError if the original's program cannot compute such a model."""
    fixed = {"patch_encoder_groups": ORIGINAL_GROUPS, "layer_norm_eps": ORIGINAL_EPSILON}
    wrong = {name: getattr(config, name) for name, value in fixed.items() if getattr(config, name) != value}
    if config.patch_encoder == "linear":
        wrong.pop("patch_encoder_groups", None)
    if config.uses_efficientnet:
        wrong["patch_encoder"] = config.patch_encoder
    if config.spatial_embedding not in ("hash", "sinusoid"):
        wrong["spatial_embedding"] = config.spatial_embedding
    if config.pools_covariance:
        wrong["pooling"] = config.pooling
    if wrong:
        raise ValueError(
            f"The original's program has no {wrong}: it needs {fixed}, an encoder of the paper, hashed or "
            "sinusoid positions, and the CLS token alone. Such a checkpoint cannot be converted to its format."
        )


def _write_npz(path: Path, state: dict[str, Array], num_attention_heads: int) -> int:
    arrays, _ = ours_to_original(state, num_attention_heads=num_attention_heads)
    with replace_file(path) as temporary, temporary.open("xb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return len(arrays)


def _write_pth(path: Path, state: dict[str, Array], num_attention_heads: int) -> int:
    arrays, _ = from_ours(state, target=PYIQA, num_attention_heads=num_attention_heads)
    has_softmax = len(arrays["head.bias"]) > 1  # beside the layer, in pyiqa's head for several labels
    tensors = {
        name.replace("head.", "head.0.") if has_softmax else name: torch.from_numpy(np.ascontiguousarray(array))
        for name, array in arrays.items()
    }
    write_tensors(tensors, path)
    return len(tensors)


WRITERS = {".npz": _write_npz, ".pth": _write_pth}  # by the end of the name


def to_original(directory: Path, output: Path) -> int:
    """Write the original's `.npz` or pyiqa's `.pth` from a Hugging Face directory, as the name of the file ends.

    The original knows no `score_offset` and `score_scale`, so the weights of the head absorb them.

    Args:
        directory: Directory that holds config.json and weights.
        output: File to write, which must not exist; its name ends in .npz or .pth.

    Returns:
        The number of arrays in the file.

    Raises:
        ValueError: If there is no such directory, the weights do not fit, the original cannot express the model, or
            the output exists or ends otherwise.
    """
    write = WRITERS.get(output.suffix.lower())
    if write is None:
        raise ValueError(
            f"The original's file ends in .npz, and pyiqa's in .pth, got {output}. Change the end of the name."
        )
    check_new_file(output)
    config, weights = load_strictly(directory, MODELS)
    state: dict[str, Array] = {name: tensor.numpy() for name, tensor in weights.items()}
    _check_expressible(config)
    if (config.score_offset, config.score_scale) != (0, 1):
        weight, bias = (state[f"head.classifier.{name}"].astype(np.float64) for name in ("weight", "bias"))
        state["head.classifier.weight"] = (weight * config.score_scale).astype(np.float32)
        state["head.classifier.bias"] = (bias * config.score_scale + config.score_offset).astype(np.float32)
    output.parent.mkdir(parents=True, exist_ok=True)
    return write(output, state, config.num_attention_heads)
