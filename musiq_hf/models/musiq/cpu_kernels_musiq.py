# SPDX-License-Identifier: Apache-2.0
"""Faster kernels for inference on a CPU. In float32 each equals the plain form, which serves wherever these do not.

Three things cost most there. PyTorch's fp32 products go through MKL, which on AMD processors reaches less than half of
what oneDNN reaches (and about the same on Intel's). Its group norm reads channels-last features slowly, in bf16 ten
times so. Its fused attention is built on the slow products too, in bf16 as well.
"""

import platform
from functools import cache

import torch
from torch import nn

# oneDNN's product with a fused activation, which torch.compile calls too; its layouts are those of x86.
HAS_ONEDNN = (
    torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    and platform.machine().lower() in ("x86_64", "amd64")
)
MIN_LENGTH = {torch.float32: 512, torch.bfloat16: 128}  # shorter sequences than these gain nothing from blocks
LARGEST_BLOCK = 2**23  # attention weights that are mapped anew for every block if they are more
BLOCK_VALUES = 2**20  # attention weights at a time: they stay in the cache, and below the size that is mapped anew


def needs_one_graph() -> bool:
    """Return whether gradients or a compiler ask for one graph whose shapes do not depend on the data."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling() or torch._C._is_tracing()


def is_fast(tensor: torch.Tensor) -> bool:
    """Return whether the kernels of this file take a tensor."""
    if tensor.device.type != "cpu" or needs_one_graph() or torch.is_autocast_enabled("cpu"):
        return False
    if not (HAS_ONEDNN and torch.backends.mkldnn.enabled):
        return False
    if tensor.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return tensor.dtype == torch.float32


@cache
def keep_freed_memory() -> None:
    """Let glibc keep what is freed, instead of returning it and clearing it anew for the next tensor.

    Features of a few megabytes come and go hundreds of times for one picture, and each page that is asked for anew
    costs more than the arithmetic on it. glibc learns from the largest mapping that it sees freed what to keep (up to
    32 MB, and twice as much at the end of the heap); nothing is written to this one, so it costs nothing.
    """
    torch.empty(30 * 2**20, dtype=torch.uint8)


def as_input(tensor: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    """Cast what a layer is to read to the type of its weight, unless that is quantised."""
    weight = layer.weight
    return tensor.to(weight.dtype) if isinstance(weight, torch.Tensor) and weight.is_floating_point() else tensor


class MusiqLinear(nn.Linear):
    """Dense layer, by oneDNN where that serves.

    A class of its own, so tools that look for exactly `nn.Linear`, as `torch.ao.quantization.quantize_dynamic` does,
    pass by; those that accept subclasses (PEFT, bitsandbytes) do not.

    Attributes:
        initial: Start of the weight: "xavier", "lecun" or "zeros"; set where the layer is built.
        initial_bias: Standard deviation of the bias at the start.
    """

    initial = "xavier"
    initial_bias = 0.0

    def is_fast(self, inputs: torch.Tensor) -> bool:
        """Return whether oneDNN's product serves: the weights are plain tensors beside the inputs, not offloaded."""
        weight = self.weight
        plain = type(weight) is nn.Parameter and weight.dtype == inputs.dtype and weight.device == inputs.device
        return plain and inputs.numel() > 0 and is_fast(inputs)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.multiply(inputs, "none", "") if self.is_fast(inputs) else super().forward(inputs)

    def multiply(self, inputs: torch.Tensor, activation: str, algorithm: str) -> torch.Tensor:
        """Multiply by oneDNN with a fused activation; inputs (..., in_features), only where `is_fast` says so."""
        return torch.ops.mkldnn._linear_pointwise(inputs, self.weight, self.bias, activation, [], algorithm)


class MusiqGroupNorm(nn.GroupNorm):
    """Group norm over (num_images, channels, height, width).

    Attributes:
        initial: Start of the weight: "ones" or "zeros"; set where the layer is built.
    """

    initial = "ones"

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if not (is_fast(features) and features.is_contiguous(memory_format=torch.channels_last)):
            return super().forward(features)
        num_images, channels, height, width = features.shape
        # (n, C, h, w) -> (n, h * w, C), in the order of the memory
        rows = features.permute(0, 2, 3, 1).reshape(num_images, height * width, channels).float()
        mean = rows.mean(dim=1)
        # About each channel's own mean first: flat pictures have a variance far below the square of their mean.
        centred = rows - mean[:, None]
        variance = (centred * centred).mean(dim=1)
        by_group = (num_images, self.num_groups, channels // self.num_groups)
        group_mean = mean.view(by_group).mean(dim=2, keepdim=True)
        offset = mean.view(by_group) - group_mean
        group_variance = (variance.view(by_group) + offset * offset).mean(dim=2, keepdim=True)
        factor = (group_variance + self.eps).rsqrt() * self.weight.float().view(by_group[1:])
        shift = (offset * factor).view(num_images, channels) + self.bias.float()
        normed = torch.addcmul(shift[:, None], centred, factor.view(num_images, 1, channels), out=centred)
        return normed.to(features.dtype).view(num_images, height, width, channels).permute(0, 3, 1, 2)


def is_fast_attention(query: torch.Tensor, key: torch.Tensor) -> bool:
    """Return whether `attention_in_blocks` serves: the sequence is long enough to gain."""
    return is_fast(query) and min(query.shape[2], key.shape[2]) >= MIN_LENGTH[query.dtype]


def attention_in_blocks(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, scaling: float
) -> torch.Tensor:
    """Attend inside one picture, a block of queries at a time, as matrix products.

    In bfloat16 the products of queries and keys are rounded before the softmax, where the fused kernel keeps them in
    float32: with large products that kernel is several times as exact, and less than half as fast.

    Args:
        query: Shape (1, num_heads, num_queries, head_dim).
        key: Shape (1, num_heads, length, head_dim).
        value: Shape (1, num_heads, length, head_dim).
        scaling: Factor of the products of queries and keys.

    Returns:
        Shape (1, num_queries, num_heads, head_dim).
    """
    query, key, value = query[0] * scaling, key[0], value[0]
    num_heads, num_queries, head_dim = query.shape
    output = query.new_empty((num_queries, num_heads, head_dim))
    if query.dtype == torch.float32:
        rows = min(max(BLOCK_VALUES // key.shape[1], 64), num_queries)
        for head in range(num_heads):
            _attend_with_head(query[head], key[head], value[head], rows, output[:, head])
    else:
        keys, value = key.transpose(1, 2).contiguous(), value.contiguous()  # else copied again for every block
        rows = min(max(BLOCK_VALUES // (num_heads * key.shape[1]), 64), num_queries)
        together = max(1, min(LARGEST_BLOCK // (rows * key.shape[1]), num_heads))  # heads
        for first in range(0, num_heads, together):
            part = slice(first, first + together)
            for start in range(0, num_queries, rows):
                weights = torch.matmul(query[part, start : start + rows], keys[part])
                weights = torch.softmax(weights, dim=-1, out=weights)
                output[start : start + rows, part] = torch.matmul(weights, value[part]).transpose(0, 1)
    return output[None]


def _attend_with_head(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rows: int, output: torch.Tensor
) -> None:
    """Attend with one head in fp32, (length, head_dim) each: keys, and values turned, are weights of dense layers."""
    product = torch.ops.mkldnn._linear_pointwise
    key, value = key.contiguous(), value.t().contiguous()
    for start in range(0, len(query), rows):
        weights = product(query[start : start + rows], key, None, "none", [], "")
        weights = torch.softmax(weights, dim=-1, out=weights)
        output[start : start + rows] = product(weights, value, None, "none", [], "")
