# SPDX-License-Identifier: Apache-2.0
"""Floating point operations of one picture, counted from the configuration.

Convolutions and matrix products only, a multiplication and an addition as two: what `torch.utils.flop_counter` counts.
Norms, activations and embeddings are a few per cent of the time and no useful measure of work.
"""

from benchmarks.inputs import num_tokens
from musiq_hf.models.musiq.configuration_musiq import RESNET_DEPTHS, MusiqConfig

CHANNELS = 3
STEM_KERNEL = 7


def _halve(side: int) -> int:
    return -(-side // 2)


def patch_operations(config: MusiqConfig) -> int:
    """Operations of patch encoder and projection for one patch."""
    values = config.patch_size**2 * CHANNELS
    if config.patch_encoder == "linear":
        return 2 * values * config.hidden_size
    width, side = config.patch_encoder_width, _halve(config.patch_size)
    total = 2 * side**2 * width * STEM_KERNEL**2 * CHANNELS
    side, channels = _halve(side), width
    stages = RESNET_DEPTHS.index(config.patch_encoder_depth) + 1 if config.patch_encoder == "resnet" else 0
    for stage in range(stages):
        inner, outer = width * 2**stage, 4 * width * 2**stage
        total += 2 * side**2 * channels * inner  # 1x1 before the stride
        side = side if stage == 0 else _halve(side)
        total += 2 * side**2 * (9 * inner**2 + inner * outer + channels * outer)  # 3x3, 1x1 and the shortcut
        channels = outer
    return total + 2 * side**2 * channels * config.hidden_size


def block_operations(config: MusiqConfig, length: int, *, queries: int | None = None) -> int:
    """Operations of one Transformer block.

    Args:
        config: Of the model.
        length: Tokens, CLS included.
        queries: Rows for which attention output and MLP are computed; None = all.

    Returns:
        Keys and values of all tokens, and all else of the rows.
    """
    queries = length if queries is None else queries
    width = config.hidden_size
    projections = 4 * width**2 * length + 4 * width**2 * queries
    attention = 4 * queries * length * width
    return projections + attention + 4 * width * config.intermediate_size * queries


def picture_operations(config: MusiqConfig, num_patches: int, *, executed: bool = False) -> int:
    """Operations of one picture.

    Args:
        config: Of the model.
        num_patches: Patches of all scales, without padding.
        executed: Whether the last block computes attention output and MLP for the CLS row alone, as scoring does,
            because the score depends on no other row.

    Returns:
        Floating point operations.
    """
    length = num_patches + 1
    total = num_patches * patch_operations(config)
    total += (config.num_hidden_layers - 1) * block_operations(config, length)
    total += block_operations(config, length, queries=1 if executed else None)
    head = config.pre_logits_size or config.hidden_size
    total += 2 * head * config.num_labels
    return total + (2 * config.hidden_size * head if config.pre_logits_size else 0)


def operations_of_size(config: MusiqConfig, width: int, height: int, *, executed: bool = True) -> int:
    """Operations of a picture of a size in pixels; see `picture_operations`."""
    return picture_operations(config, num_tokens(config, width, height), executed=executed)


def training_operations(config: MusiqConfig, num_patches: int) -> int:
    """Useful operations of a training step per picture: backward twice the forward pass; recomputation not counted."""
    return 3 * picture_operations(config, num_patches, executed=True)
