# SPDX-License-Identifier: Apache-2.0
"""The signature of a score: one line that says what it was made with, as sacreBLEU prints one with every BLEU.

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
from transformers import PreTrainedModel

from ..models.musiq.configuration_musiq import MusiqConfig
from ..models.musiq.image_processing_musiq import MusiqImageProcessor
from ..pictures.opening import Preset, describe_decoder
from ..version import __version__

DIGITS = 8  # of a hash: two of a hundred checkpoints share one with a probability of one in a million
# Fields of the configuration that a model in evaluation mode does not read.
UNREAD_FIELDS = {
    "model_type",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "drop_path_rate",
    "initializer_range",
    "score_range",
}
# Settings of the processor that decide how its result is packed, which no score sees.
PACKING_FIELDS = {"padding", "return_tensors"}


def _plain(value: Any) -> Any:
    """A value in one form, whether it comes from Python or from JSON: tuples are lists, whole floats integers."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _canonical(settings: Mapping[str, Any]) -> bytes:
    return json.dumps({name: _plain(value) for name, value in settings.items()}, sort_keys=True).encode()


def weights_hash(model: PreTrainedModel) -> str:
    """Hexadecimal SHA-256 of what turns patches into numbers: names, shapes and values of all weights, as float32.

    The fields of the configuration that shape no weight but change a score (the number of attention heads, say, or the
    scale of the scores) are part of it. Computed anew each time.

    Raises:
        ValueError: If weights are not in memory.
    """
    config = model.config
    names = MusiqConfig.__annotations__.keys() - UNREAD_FIELDS
    digest = hashlib.sha256(_canonical({name: getattr(config, name) for name in names}))
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.is_meta:
            raise ValueError(f"The weights {name} are not in memory, so the model has no signature. Load them first.")
        values = tensor.detach().to(device="cpu", dtype=torch.float32).contiguous().numpy().astype("<f4", copy=False)
        digest.update(f"\n{name} {tuple(tensor.shape)}\n".encode())
        digest.update(memoryview(values.reshape(-1)))
    return digest.hexdigest()


def preprocessing_hash(processor: MusiqImageProcessor, *, shorter_side: int | None = None) -> str:
    """Hexadecimal SHA-256 of the settings that decide what a model sees of a picture.

    Args:
        processor: Its packing (`padding`, `return_tensors`) is left out: no score depends on it.
        shorter_side: To which pictures were shrunk first, in pixels; None if they were not.
    """
    names = processor.valid_kwargs.__annotations__.keys() - PACKING_FIELDS
    settings = {name: getattr(processor, name) for name in names} | {"shorter_side": shorter_side}
    return hashlib.sha256(_canonical(settings)).hexdigest()


def _model_id(checkpoint: str) -> str:
    """The name of a folder without the path to it, or an id on the Hub, free of what separates the parts."""
    path = Path(checkpoint)
    name = path.resolve().name if path.exists() else checkpoint
    return re.sub(r"[\s|:]+", "_", name)


def _dtype(model: PreTrainedModel) -> str:
    """The types of the weights: some layers stay in float32 in models of half precision."""
    kinds = {str(weight.dtype).removeprefix("torch.") for weight in model.parameters()}
    return "+".join(sorted(kinds))


def make_signature(
    model: PreTrainedModel,
    processor: MusiqImageProcessor,
    *,
    checkpoint: str,
    shorter_side: int | None = None,
    preset: Preset = "default",
) -> str:
    """What scores are made with, in one line.

    >>> make_signature(model, processor, checkpoint="musiq-koniq")
    'musiq-koniq|weights:1a2b3c4d|preset:default|preprocessing:5e6f7a8b|decoder:Pillow-13.0.0|dtype:float32|...'

    Args:
        model: With its weights; on any device.
        processor: Of the model.
        checkpoint: Folder or Hub id that both were loaded from; of a folder the name counts, not the path.
        shorter_side: To which pictures are shrunk first, in pixels; None if they are not.
        preset: How files become pixels.

    Returns:
        Name of the checkpoint, hash of the weights, preset, hash of the preprocessing, decoder of picture files, type
        of the weights, and versions of `musiq_hf` and `torch`. Equal for equal ones, in every process and on every
        machine.

    Raises:
        ValueError: If weights are not in memory.
    """
    parts = {
        "weights": weights_hash(model)[:DIGITS],
        "preset": preset,
        "preprocessing": preprocessing_hash(processor, shorter_side=shorter_side)[:DIGITS],
        "decoder": describe_decoder(preset),
        "dtype": _dtype(model),
        "musiq_hf": __version__,
        "torch": torch.__version__,
    }
    return "|".join((_model_id(checkpoint), *(f"{name}:{value}" for name, value in parts.items())))
