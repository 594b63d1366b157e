# SPDX-License-Identifier: Apache-2.0
"""Floating point operations of one picture, counted from the configuration.

Only convolutions and matrix products are counted, as `torch.utils.flop_counter` does it: a multiplication and an
addition are two operations. Norms, activations and embeddings take a few per cent of the time, and their operations
are no useful measure of work.
"""

from benchmarks.inputs import num_tokens
from musiq_hf.models.musiq.configuration_musiq import RESNET_DEPTHS, MusiqConfig
from musiq_hf.models.musiq.patch_encoder_musiq import STEM_CHANNELS, list_blocks, reached_taps

CHANNELS = 3
STEM_KERNEL = 7


def _halve(side: int) -> int:
    return -(-side // 2)


def _efficientnet_operations(config: MusiqConfig) -> int:
    """Count the operations of an EfficientNet-Lite and the projection for one patch."""

    def convolve(side: int, kernel_size: int, stride: int, inputs: int, outputs: int) -> int:
        first, end, _, _ = reached_taps(side, kernel_size, stride)
        return 2 * (-(-side // stride)) ** 2 * (end - first) ** 2 * inputs * outputs

    side, total = _halve(config.patch_size), convolve(config.patch_size, 3, 2, CHANNELS, STEM_CHANNELS)
    outputs = STEM_CHANNELS
    for block in list_blocks(config.patch_encoder, config.num_efficientnet_stages):
        width, outputs = block.inputs * block.expansion, block.outputs
        total += 2 * side**2 * block.inputs * width * (block.expansion > 1)
        total += convolve(side, block.kernel_size, block.stride, 1, width) * (side > 1)  # one pixel is only scaled
        side = -(-side // block.stride)
        total += 2 * side**2 * width * outputs
    return total + 2 * side**2 * outputs * config.hidden_size


def patch_operations(config: MusiqConfig) -> int:
    """Count the operations of patch encoder and projection for one patch."""
    values = config.patch_size**2 * CHANNELS
    if config.patch_encoder == "linear":
        return 2 * values * config.hidden_size
    if config.uses_efficientnet:
        return _efficientnet_operations(config)
    width, side = config.patch_encoder_width, _halve(config.patch_size)
    total = 2 * side**2 * width * STEM_KERNEL**2 * CHANNELS
    side, channels = _halve(side), width
    stages = RESNET_DEPTHS.index(config.patch_encoder_depth) + 1 if config.patch_encoder == "resnet" else 0
    for stage in range(stages):
        inner, outer = width * 2**stage, 4 * width * 2**stage
        total += 2 * side**2 * channels * inner  # the 1x1 convolution before the stride
        side = side if stage == 0 else _halve(side)
        total += 2 * side**2 * (9 * inner**2 + inner * outer + channels * outer)  # 3x3, 1x1 and the shortcut
        channels = outer
    return total + 2 * side**2 * channels * config.hidden_size


def block_operations(config: MusiqConfig, length: int, *, queries: int | None = None) -> int:
    """Count the operations of one Transformer block.

    Args:
        config: Configuration of the model.
        length: Number of tokens, CLS included.
        queries: Number of tokens for which attention output and MLP are computed; None = all.

    Returns:
        Number of operations: for keys and values of all tokens, and for the rest of those that are queries.
    """
    queries = length if queries is None else queries
    width = config.hidden_size
    projections = 4 * width**2 * length + 4 * width**2 * queries
    attention = 4 * queries * length * width
    return projections + attention + 4 * width * config.intermediate_size * queries


def picture_operations(config: MusiqConfig, num_patches: int, *, executed: bool = False) -> int:
    """Count the operations of one picture.

    Args:
        config: Configuration of the model.
        num_patches: Number of patches of all scales, without padding.
        executed: Whether the last block computes attention output and MLP for CLS alone, as scoring does, because the
            score depends on no other token.

    Returns:
        Number of floating point operations.
    """
    length = num_patches + 1
    total = num_patches * patch_operations(config)
    total += (config.num_hidden_layers - 1) * block_operations(config, length)
    total += block_operations(config, length, queries=1 if executed else None)
    head = config.pre_logits_size or config.hidden_size
    total += 2 * head * config.num_labels
    return total + (2 * config.hidden_size * head if config.pre_logits_size else 0)


def operations_of_size(config: MusiqConfig, width: int, height: int, *, executed: bool = True) -> int:
    """Count the operations of a picture of this size, in pixels, as `picture_operations` does."""
    return picture_operations(config, num_tokens(config, width, height), executed=executed)


def training_operations(config: MusiqConfig, num_patches: int) -> int:
    """Count the useful operations of a training step for one picture.

    The backward pass counts as two forward passes. Recomputation by activation checkpointing does not count.
    """
    return 3 * picture_operations(config, num_patches, executed=True)
