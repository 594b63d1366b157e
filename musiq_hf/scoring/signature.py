# SPDX-License-Identifier: Apache-2.0
"""Signatures of scores: one line that says what they were made with, as sacreBLEU prints one with every BLEU.

Two scores are comparable if their signatures are equal. A signature depends only on what changes a score, so neither
on the folder of a checkpoint nor on the layout of its files.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..models.protocol import QualityModel, QualityProcessor
from ..pictures.lazy import escape_name
from ..pictures.opening import Preset, describe_decoder
from ..version import __version__

DIGITS = 8  # digits of a hash: that two of a hundred checkpoints share one has a probability of one in a million


def _normalize(value: Any) -> Any:
    """Return a value in the form that Python and JSON share: tuples become lists, whole floats integers."""
    if isinstance(value, list | tuple):
        return [_normalize(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _encode(settings: Mapping[str, Any]) -> bytes:
    return json.dumps({name: _normalize(value) for name, value in settings.items()}, sort_keys=True).encode()


def hash_weights(model: QualityModel) -> str:
    """Return the hexadecimal SHA-256 of names, shapes and values of all weights, as float32.

    The hash covers also the fields of the configuration that shape no weight but change a score. Examples are the
    number of attention heads and the scale of the scores. It is computed anew each time.

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
        shorter_side: Shorter side to which pictures were shrunk first, in pixels; None if they were not.
    """
    settings = processor.signature_fields() | {"shorter_side": shorter_side}
    return hashlib.sha256(_encode(settings)).hexdigest()


def _name_checkpoint(checkpoint: str) -> str:
    """Return the name of a folder or an id on the Hub, without the signs that separate the parts of a signature."""
    path = Path(checkpoint)
    name = path.resolve().name if path.exists() else checkpoint
    return re.sub(r"[\s|:]+", "_", escape_name(name))


def _join_dtypes(model: QualityModel) -> str:
    """Return the types of the weights; in models of half precision some layers stay in float32."""
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
    """Write the signature of scores, one line that says what they are made with.

    >>> make_signature(model, processor, checkpoint="musiq-koniq")
    'musiq-koniq|weights:1a2b3c4d|preset:default|preprocessing:5e6f7a8b|decoder:Pillow-13.0.0|dtype:float32|...'

    Args:
        model: Model with its weights, on any device.
        processor: Processor of the model.
        checkpoint: Folder or Hub id that both were loaded from. The name of a folder counts, its path does not.
        shorter_side: Shorter side to which pictures are shrunk first, in pixels; None if they are not.
        preset: Way in which files become pixels; see `pictures.opening`.

    Returns:
        Name of the checkpoint, hash of the weights, preset, hash of the preprocessing, and decoder of picture files.
        Type of the weights, and versions of `musiq_hf` and `torch`, follow. Equal parts make equal signatures, in
        every process and on every machine.

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
