# SPDX-License-Identifier: Apache-2.0
"""Signatures of scores: one line that says what they were made with, as sacreBLEU prints one with every BLEU.

Two scores are comparable if their signatures are equal. A signature depends only on what changes a score, so neither
on the folder of a checkpoint nor on the layout of its files.
"""

import re
from pathlib import Path

import torch

from ..models.protocol import QualityModel, QualityProcessor
from ..models.weights import identify_scores
from ..pictures.lazy import escape_name
from ..pictures.opening import Preset, describe_decoder
from ..version import __version__


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
        **identify_scores(model, processor, shorter_side=shorter_side, preset=preset),
        "decoder": describe_decoder(preset),
        "dtype": _join_dtypes(model),
        "musiq_hf": __version__,
        "torch": torch.__version__,
    }
    return "|".join((_name_checkpoint(checkpoint), *(f"{name}:{value}" for name, value in parts.items())))
