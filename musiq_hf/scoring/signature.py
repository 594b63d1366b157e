# SPDX-License-Identifier: Apache-2.0
"""Signatures of scores: one line that says what they were made with, as sacreBLEU prints one with every BLEU.

Two scores are comparable if their signatures are equal. A signature depends only on what changes a score, so neither
on the folder of a checkpoint nor on the layout of its files.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..models.protocol import QualityModel, QualityProcessor
from ..models.weights import identify_scores
from ..pictures.lazy import escape_name
from ..pictures.opening import Preset, describe_decoder
from ..version import __version__


def _remove_separators(name: str) -> str:
    """Return a name without the signs that separate the parts of a signature."""
    return re.sub(r"[\s|:]+", "_", escape_name(name))


def _name_checkpoint(checkpoint: str) -> str:
    """Return the name of a folder or an id on the Hub, as a part of a signature."""
    path = Path(checkpoint)
    return _remove_separators(path.resolve().name if path.exists() else checkpoint)


def _join_dtypes(model: QualityModel) -> str:
    """Return the types of the weights; in models of half precision some layers stay in float32."""
    kinds = {str(weight.dtype).removeprefix("torch.") for weight in model.parameters()}
    return "+".join(sorted(kinds))


def _name_quantization(model: Any) -> str:
    """Name the classes of quantised weights and layers; an empty text if there are none.

    A library of quantisation has weights of its own (torchao, bitsandbytes), or layers of its own (torch.ao, quanto).
    """
    kinds = {type(weight) for weight in model.parameters()} - {torch.Tensor, nn.Parameter}
    kinds |= {type(layer) for layer in model.modules() if "quant" in type(layer).__module__}
    return "+".join(sorted(f"{kind.__module__}.{kind.__name__}" for kind in kinds))


def _name_adapters(model: Any) -> str:
    """Name the adapters of peft that take part in scores, with their scales; an empty text if there are none.

    Their weights are among those of the model, but not whether they are active, and how much they count.
    """
    kinds = set()
    for layer in model.modules():
        merged = getattr(layer, "merged_adapters", None)
        if isinstance(merged, list) and not layer.disable_adapters:
            scales = getattr(layer, "scaling", {})
            kinds |= {f"{name}*{scales.get(name, 1):g}" for name in layer.active_adapters if name not in merged}
    return "+".join(sorted(map(_remove_separators, kinds)))


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
        Type of the weights, and versions of `musiq_hf` and `torch`, follow. Where weights are quantised, or adapters
        of peft are active, a part names them. Equal parts make equal signatures, in every process and on every
        machine. Device and number of threads are no part of it: they move the last digits of scores alone.

    Raises:
        ValueError: If weights are not in memory, or have no values that can be read.
    """
    parts = {
        **identify_scores(model, processor, shorter_side=shorter_side, preset=preset),
        "decoder": describe_decoder(preset),
        "dtype": _join_dtypes(model),
        "quantization": _name_quantization(model),
        "adapters": _name_adapters(model),
        "musiq_hf": __version__,
        "torch": torch.__version__,
    }
    return "|".join((_name_checkpoint(checkpoint), *(f"{name}:{value}" for name, value in parts.items() if value)))
