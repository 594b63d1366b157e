# SPDX-License-Identifier: Apache-2.0
"""Faster kernels for inference on a CPU.

In float32 each gives the result of PyTorch's own operation, which is used wherever these kernels are not. Three
operations of PyTorch cost most on a CPU. Its float32 products go through MKL. On AMD processors that reaches less than
half of the speed of oneDNN, on Intel's about the same. Its group norm reads channels-last features slowly, and in
bfloat16 ten times as slowly. Its fused attention uses the slow products too, also in bfloat16.
"""

import platform
from collections.abc import Mapping, Sequence
from functools import cache

import torch
from torch import nn

# oneDNN's product with a fused activation, which torch.compile calls too. Its layouts are those of x86 processors.
HAS_ONEDNN = (
    torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    and platform.machine().lower() in ("x86_64", "amd64")
)
MIN_LENGTH = {torch.float32: 512, torch.bfloat16: 128}  # blocks are no faster for shorter sequences
LARGEST_BLOCK = 2**23  # attention weights of a block; for more, memory is mapped anew for every block
BLOCK_VALUES = 2**20  # attention weights at a time: so many stay in the cache, and need no new mapping


def needs_one_graph() -> bool:
    """Return whether gradients or a compiler need one graph, in which no shape depends on the data."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling() or torch._C._is_tracing()


def choose_size(sizes: Mapping[str, int], tensor: torch.Tensor) -> int:
    """Choose the size for the device of a tensor, the one of "cpu" or of "other"."""
    return sizes["cpu" if tensor.device.type == "cpu" else "other"]


def is_fast(tensor: torch.Tensor) -> bool:
    """Return whether the kernels of this file can be used for a tensor."""
    if tensor.device.type != "cpu" or needs_one_graph() or torch.is_autocast_enabled("cpu"):
        return False
    if not (HAS_ONEDNN and torch.backends.mkldnn.enabled):
        return False
    if tensor.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return tensor.dtype == torch.float32


@cache
def keep_freed_memory() -> None:
    """Let glibc keep freed memory, instead of returning it to the system and clearing it for the next tensor.

    Features of a few megabytes come and go hundreds of times for one picture, and each new page costs more than the
    arithmetic on it. The largest mapping that glibc sees freed teaches it how much to keep. That is at most 32 MB, and
    twice as much at the end of the heap. The mapping made here costs nothing, because nothing is written to it.
    """
    torch.empty(30 * 2**20, dtype=torch.uint8)


def as_input(tensor: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    """Cast the input of a layer to the type of its weight, unless the weight is quantised."""
    weight = layer.weight
    return tensor.to(weight.dtype) if isinstance(weight, torch.Tensor) and weight.is_floating_point() else tensor


def is_as_built(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Return whether a module is exactly of the class that it was built with, and nobody listens to its calls.

    Only then may a kernel compute it together with what follows.
    """
    hooked = bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))
    return type(module) is kind and not hooked


class MusiqLinear(nn.Linear):
    """Dense layer that is computed by oneDNN where possible.

    Tools that replace exactly `nn.Linear`, such as `torch.ao.quantization.quantize_dynamic`, skip this subclass. Tools
    that accept subclasses (PEFT, bitsandbytes) do not.

    Attributes:
        initial: Initial values of the weight: "xavier", "lecun", "he" or "zeros"; set where the layer is built.
        initial_bias: Standard deviation of the initial bias.
    """

    initial = "xavier"
    initial_bias = 0.0

    def is_fast(self, inputs: torch.Tensor) -> bool:
        """Return whether oneDNN's product can be used: weights are plain tensors on the device of the inputs."""
        weight = self.weight
        plain = type(weight) is nn.Parameter and weight.dtype == inputs.dtype and weight.device == inputs.device
        return plain and inputs.numel() > 0 and is_fast(inputs)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.multiply(inputs, "none", "") if self.is_fast(inputs) else super().forward(inputs)

    def multiply(
        self, inputs: torch.Tensor, activation: str, algorithm: str, *, scalars: Sequence[float] = ()
    ) -> torch.Tensor:
        """Multiply inputs (..., in_features) by oneDNN with a fused activation; `is_fast` must be true of them."""
        product = torch.ops.mkldnn._linear_pointwise
        return product(inputs, self.weight, self.bias, activation, list(scalars), algorithm)


class MusiqGroupNorm(nn.GroupNorm):
    """Group norm over (num_images, channels, height, width).

    Attributes:
        initial: Initial values of the weight: "ones" or "zeros"; set where the layer is built.
    """

    initial = "ones"

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if not (is_fast(features) and features.is_contiguous(memory_format=torch.channels_last)):
            return super().forward(features)
        num_images, channels, height, width = features.shape
        # (n, C, h, w) -> (n, h * w, C), in the order of the memory
        rows = features.permute(0, 2, 3, 1).reshape(num_images, height * width, channels).float()
        mean = rows.mean(dim=1)
        # Centred first, because flat pictures have a variance far below the square of their mean.
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
    """Return whether `attention_in_blocks` can be used and is faster: the sequence must be long enough."""
    return is_fast(query) and min(query.shape[2], key.shape[2]) >= MIN_LENGTH[query.dtype]


def attention_in_blocks(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, scaling: float
) -> torch.Tensor:
    """Attend inside one picture by matrix products, a block of queries at a time.

    In bfloat16 the products of queries and keys are rounded before the softmax. PyTorch's fused kernel keeps them in
    float32: with large products it is several times as exact, and less than half as fast.

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
        keys, value = key.transpose(1, 2).contiguous(), value.contiguous()  # otherwise they are copied for every block
        rows = min(max(BLOCK_VALUES // (num_heads * key.shape[1]), 64), num_queries)
        together = max(1, min(LARGEST_BLOCK // (rows * key.shape[1]), num_heads))  # heads at a time
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
    """Attend with one head in float32, and write the result to `output`; all have shape (length, head_dim).

    Keys and transposed values serve as weights of dense layers, so that oneDNN computes the products.
    """
    product = torch.ops.mkldnn._linear_pointwise
    key, value = key.contiguous(), value.t().contiguous()
    for start in range(0, len(query), rows):
        weights = product(query[start : start + rows], key, None, "none", [], "")
        weights = torch.softmax(weights, dim=-1, out=weights)
        output[start : start + rows] = product(weights, value, None, "none", [], "")
