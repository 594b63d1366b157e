# SPDX-License-Identifier: Apache-2.0
"""Signatures of scores: one line that says what they were made with, as sacreBLEU prints one with every BLEU.

Two scores are comparable if their signatures are equal. A signature depends on what changes a score, and on nothing
else: neither on the folder of a checkpoint nor on the layout of its files.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..models.protocol import QualityModel, QualityProcessor
from ..pictures.opening import Preset, describe_decoder
from ..version import __version__

DIGITS = 8  # digits of a hash: two of a hundred checkpoints share one with a probability of one in a million


def _normalize(value: Any) -> Any:
    """Return a value in one form, come from Python or from JSON: tuples are lists, whole floats integers."""
    if isinstance(value, list | tuple):
        return [_normalize(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _encode(settings: Mapping[str, Any]) -> bytes:
    return json.dumps({name: _normalize(value) for name, value in settings.items()}, sort_keys=True).encode()


def hash_weights(model: QualityModel) -> str:
    """Return the hexadecimal SHA-256 of names, shapes and values of all weights, as float32.

    The fields of the configuration that shape no weight but change a score (the number of attention heads, say, or the
    scale of the scores) are part of it. Computed anew each time.

    Raises:
        ValueError: If weights are not in memory.
    """
    digest = hashlib.sha256(_encode(model.config.signature_fields()))
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.is_meta:
            raise ValueError(f"The weights {name} are not in memory, so the model has no signature. Load them first.")
        values = tensor.detach().to(device="cpu", dtype=torch.float32).contiguous().numpy().astype("<f4", copy=False)
        digest.update(f"\n{name} {tuple(tensor.shape)}\n".encode())
        digest.update(values.reshape(-1).data)
    return digest.hexdigest()


def hash_preprocessing(processor: QualityProcessor, *, shorter_side: int | None = None) -> str:
    """Return the hexadecimal SHA-256 of the settings that decide what a model sees of a picture.

    Args:
        processor: Processor of the model.
        shorter_side: Length to which pictures were shrunk first, in pixels; None if they were not.
    """
    settings = processor.signature_fields() | {"shorter_side": shorter_side}
    return hashlib.sha256(_encode(settings)).hexdigest()


def _name_checkpoint(checkpoint: str) -> str:
    """Return the name of a folder without the path to it, or an id on the Hub, free of what separates the parts."""
    path = Path(checkpoint)
    name = path.resolve().name if path.exists() else checkpoint
    return re.sub(r"[\s|:]+", "_", name)


def _join_dtypes(model: QualityModel) -> str:
    """Return the types of the weights: some layers stay in float32 in models of half precision."""
    kinds = {str(weight.dtype).removeprefix("torch.") for weight in model.parameters()}
    return "+".join(sorted(kinds))


def make_signature(
    model: QualityModel,
    processor: QualityProcessor,
    *,
    checkpoint: str,
    shorter_side: int | None = None,
    preset: Preset = "default",
) -> str:
    """Write in one line what scores are made with.

    >>> make_signature(model, processor, checkpoint="musiq-koniq")
    'musiq-koniq|weights:1a2b3c4d|preset:default|preprocessing:5e6f7a8b|decoder:Pillow-13.0.0|dtype:float32|...'

    Args:
        model: Model with its weights, on any device.
        processor: Processor of the model.
        checkpoint: Folder or Hub id that both were loaded from; of a folder the name counts, not the path.
        shorter_side: Length to which pictures are shrunk first, in pixels; None if they are not.
        preset: How files become pixels.

    Returns:
        Name of the checkpoint, hash of the weights, preset, hash of the preprocessing, decoder of picture files, type
        of the weights, and versions of `musiq_hf` and `torch`. Equal for equal ones, in every process and on every
        machine.

    Raises:
        ValueError: If weights are not in memory.
    """
    parts = {
        "weights": hash_weights(model)[:DIGITS],
        "preset": preset,
        "preprocessing": hash_preprocessing(processor, shorter_side=shorter_side)[:DIGITS],
        "decoder": describe_decoder(preset),
        "dtype": _join_dtypes(model),
        "musiq_hf": __version__,
        "torch": torch.__version__,
    }
    return "|".join((_name_checkpoint(checkpoint), *(f"{name}:{value}" for name, value in parts.items())))
