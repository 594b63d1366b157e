# SPDX-License-Identifier: Apache-2.0
"""Weights of MUSIQ models: all arrays of a checkpoint become a model, and the model gives them back."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..models.musiq.configuration_musiq import MusiqConfig
from ..models.musiq.modeling_musiq import MusiqForImageClassification, MusiqForImageQualityAssessment
from .checkpoints import MusiqCheckpoint
from .directories import check_same
from .infer_config import Flags, infer_config
from .key_mapping import ORIGINAL, account, from_ours, to_ours
from .protocol import Array

MODELS = {model.__name__: model for model in (MusiqForImageQualityAssessment, MusiqForImageClassification)}


def build_model(
    config: MusiqConfig, arrays: Mapping[str, Array]
) -> MusiqForImageQualityAssessment | MusiqForImageClassification:
    """Build a model in float32 from arrays by our names, which must be exactly those of the model."""
    with torch.device("meta"):
        model = MODELS[config.architectures[0]](config)
    state = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()


def parameter_shapes(config: MusiqConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's parameters, by our names, without allocating them."""
    with torch.device("meta"):
        model = MODELS[config.architectures[0]](config)
    return {name: tuple(parameter.shape) for name, parameter in model.state_dict().items()}


def infer_checked(
    checkpoint: MusiqCheckpoint, flags: Flags, *, score_range: Sequence[float] | None = None
) -> MusiqConfig:
    """Infer the configuration of a checkpoint, and check that its arrays are exactly those of such a model.

    Args:
        checkpoint: Arrays as they were found.
        flags: Options that the user gave.
        score_range: Lowest and highest opinion score behind a one-label head, if known.

    Raises:
        ValueError: If an array is missing, unknown or of a wrong shape; the message lists them. Or if a flag is needed
            or contradicts the arrays.
    """
    ours, _ = to_ours(checkpoint.arrays, source=checkpoint.source)
    query = checkpoint.arrays.get("Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel")
    heads = query.shape[1] if checkpoint.source == ORIGINAL and query is not None and query.ndim == 3 else None
    shapes = {name: array.shape for name, array in ours.items()}
    config = infer_config(shapes, flags, num_attention_heads=heads, score_range=score_range)
    problems = [f"unknown: {name}" for name in checkpoint.unknown]
    problems += account(
        checkpoint.arrays,
        source=checkpoint.source,
        expected=parameter_shapes(config),
        num_attention_heads=config.num_attention_heads,
    )
    if problems:
        raise ValueError("\n  ".join((f"{checkpoint.path} does not hold the arrays of one MUSIQ model:", *problems)))
    return config


def check_back(model: Any, checkpoint: MusiqCheckpoint) -> None:
    """Raise a ValueError unless the model's weights, renamed back, equal the source's arrays bit by bit."""
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    if checkpoint.source == ORIGINAL:
        back, _ = from_ours(state, target=ORIGINAL, num_attention_heads=model.config.num_attention_heads)
        wanted: Mapping[str, Array] = checkpoint.arrays
    else:
        back, (wanted, _) = state, to_ours(checkpoint.arrays, source=checkpoint.source)
    check_same(back, wanted)
