# SPDX-License-Identifier: Apache-2.0
"""MSIT as a model family: all that the rest of the package knows of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..protocol import CardText, Family
from .configuration_msit import MsitConfig
from .image_processing_msit import MsitImageProcessor
from .modeling_msit import MsitForImageSuperResolution

CITATION = """\
@article{zhu2024msit,
  title   = {Multi-Scale Implicit Transformer with Re-parameterize for Arbitrary-Scale Super-Resolution},
  author  = {Zhu, Jinchen and Zhang, Mingjian and Zheng, Ling and Weng, Shizhuang},
  journal = {arXiv preprint arXiv:2403.06536},
  year    = {2024}
}"""

_LIMITS = """\
- Detail that a picture does not hold is guessed. An upscaled picture is no evidence: faces, letters and number plates
  may come out wrong.
- A network learns one way of shrinking, by bicubic interpolation. Pictures with noise, blur, sharpening or traces of
  compression come out with these faults enlarged.
- Factors beyond those of the training come out softer.
- It is trained for little difference to the original, not for a sharp look: texture is rather smooth than invented."""


def parts(model: Any) -> Mapping[str, Sequence[nn.Module]]:
    """Return the parts that training can freeze, by name."""
    return {"encoder": [model.encoder], "head": [*model.decoder.others]}


def feature_maps(
    model: MsitForImageSuperResolution, processor: MsitImageProcessor, pixels: torch.Tensor
) -> dict[str, list[torch.Tensor]]:
    """Compute the maps of a picture.

    Args:
        model: Model in evaluation mode.
        processor: Processor that agrees with the model.
        pixels: Picture on the device of the model, see `QualityProcessor.cut`.

    Returns:
        "picture": maps of encoder, modulation, value and query, shape (1, channels, rows, columns).
    """
    outputs = model(**processor.pad([processor.cut(pixels)]), scale=1, output_hidden_states=True)
    return {"picture": list(outputs.hidden_states)}


def describe_encoder(config: MsitConfig) -> str:
    """Name the encoder with its size."""
    blocks, channels = config.encoder_num_blocks, config.encoder_hidden_size
    return f"{config.encoder_type.upper()} of {blocks} blocks and {channels} channels"


def facts(config: MsitConfig) -> dict[str, str]:
    """Describe the network, for `musiq info`."""
    side = 2 * config.radius + 1
    heads = f" by {config.num_attention_heads} heads" if config.use_local_attention else ""
    return {
        "encoder": describe_encoder(config),
        "reads": f"{side} x {side} source pixels for each target pixel{heads}",
        "kernels": "modulated by themselves (RIM)" if config.use_rim else "plain",
    }


def card(config: MsitConfig) -> CardText:
    """Write the sentences of a model card that follow from a configuration."""
    return CardText(
        summary=(
            "Super-resolution by any factor after MSIT (multi-scale implicit Transformer), with the encoder "
            f"{describe_encoder(config)}. For Hugging Face Transformers, with `musiq_hf`."
        ),
        preprocessing=(
            "By `MsitImageProcessor`, from preprocessor_config.json: nothing is resized, and RGB is brought to "
            "[-1, 1]. Gray pictures stay gray, 16 bits stay 16 bits, and alpha is upscaled by a Lanczos filter."
        ),
        score=(
            "None: the model gives a larger picture. What the network answers is added to a bilinear upscale, for "
            "factors above 0 up to 64, whole or not."
        ),
        intended="Enlarging of photographs, comparison of ways to upscale, and research on traces of upscaling.",
        limits=_LIMITS,
        citation=CITATION,
        tags=("msit", "super-resolution", "image-to-image"),
    )


MSIT = Family(
    name="msit",
    config=MsitConfig,
    processor=MsitImageProcessor,
    quality=None,
    upscaler=MsitForImageSuperResolution,
    parts=parts,
    card=card,
    facts=facts,
    feature_maps=feature_maps,
)
