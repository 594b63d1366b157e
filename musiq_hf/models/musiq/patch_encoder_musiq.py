# SPDX-License-Identifier: Apache-2.0
"""Networks that encode each patch: the small ResNet of the paper, and EfficientNet-Lite.

The ResNet is that of section 3.2 and Table 9 (google-research/musiq, model/resnet.py). The paper says no more than
"5-layer ResNet". The released code adds weight standardisation and group norm, pads as TensorFlow's SAME, and flattens
in row, column, channel order.

EfficientNet-Lite was trained by others on ImageNet and is applied to each patch alone. The architecture is that of
EfficientNet (Tan and Le, ICML 2019) in its Lite form (tensorflow/tpu, models/official/efficientnet/lite): inverted
bottlenecks with ReLU6, without squeeze-and-excitation. Two differences change no result. Each batch norm is part of
the convolution before it, so there are no running statistics. And taps of a kernel that would only ever reach the
padding of a small patch are left out.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .cpu_kernels_musiq import MusiqGroupNorm, MusiqLinear, as_input, is_as_built, is_fast, needs_one_graph

NUM_CHANNELS = 3
STEM_NORM_EPS = 1e-6
UNIT_NORM_EPS = 1e-4
WEIGHT_EPS = 1e-5
STEM_CHANNELS = 32
# Of each stage: blocks, side of the depthwise kernel, stride of the first block, expansion, channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# Factors of channels and of blocks. Stem, and blocks of the first and the last stage, are the same in every size.
FACTORS = {"efficientnet_lite0": (1.0, 1.0), "efficientnet_lite1": (1.0, 1.1), "efficientnet_lite2": (1.1, 1.2)}
CHANNEL_STEP = 8  # numbers of channels are multiples of this
# The network reads (x - 127) / 128 of the values x of 0..255; a patch in [-1, 1] has x = 127.5 * (patch + 1).
PIXEL_SCALE, PIXEL_SHIFT = 255 / 256, 1 / 256
LARGE_SIDE = 8  # from this side on, features of many patches would leave the cache of a CPU
CACHE_BYTES = 2**22  # large features at a time, on a CPU
SWITCHING = Lock()  # held while a setting of the whole process is changed


def pad_same(images: torch.Tensor, kernel_size: int, stride: int) -> torch.Tensor:
    """Pad (..., height, width) with zeros as TensorFlow's SAME does.

    A convolution then gives ceil(size / stride) outputs. An odd pixel of padding goes to the bottom or the right.
    """

    def split(size: int) -> tuple[int, int]:
        total = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
        return total // 2, total - total // 2

    return F.pad(images, (*split(images.shape[-1]), *split(images.shape[-2])))


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Compute convolutions of float32 in float32 on GPUs.

    PyTorch takes TF32 there by default, which has 10 bits of mantissa. It moved scores by up to 0.08 points, and from
    one run to the next. Matrix products are exact by default.
    """
    with SWITCHING:
        convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # made when the module is imported
        before, convolutions.fp32_precision = convolutions.fp32_precision, "ieee"
        try:
            yield
        finally:
            convolutions.fp32_precision = before


class MusiqStdConv2d(nn.Conv2d):
    """Convolution without bias, with SAME padding and a kernel that is standardised per output channel.

    The standard deviation is biased and epsilon is added to it, not to the variance, as in the released code.
    """

    initial = "lecun"  # initial values of the weight

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1):
        super().__init__(in_channels, out_channels, kernel_size, stride, bias=False)
        self._kept: tuple[torch.Tensor, torch.Tensor] | None = None  # a weight and its standardised kernel

    def standardized_weight(self) -> torch.Tensor:
        """Return the kernel with mean 0 and deviation 1 over (in_channels, rows, columns), in the weight's dtype."""
        weight = self.weight.float()
        std, mean = torch.std_mean(weight, dim=(1, 2, 3), correction=0, keepdim=True)
        return ((weight - mean) / (std + WEIGHT_EPS)).to(self.weight.dtype)

    def _get_kept_weight(self) -> torch.Tensor:
        """Return the standardised kernel, computed again only when the weight has changed.

        Weights are compared by value, because a write through `.data` changes neither version nor address. That costs
        a tenth of standardising.
        """
        weight = self.weight.detach()
        kept = self._kept
        if kept is None or kept[0].dtype != weight.dtype or not torch.equal(kept[0], weight):
            kept = self._kept = (weight.clone(), self.standardized_weight())
        return kept[1]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        kernel = self._get_kept_weight() if is_fast(images) else self.standardized_weight()
        return F.conv2d(pad_same(images, self.kernel_size[0], self.stride[0]), kernel, stride=self.stride)


class MusiqResidualUnit(nn.Module):
    """Bottleneck unit: 1x1, 3x3 and 1x1 convolutions to 4 times the width, added to a projection of the input.

    The 3x3 convolution and the projection have the stride.
    """

    def __init__(self, in_channels: int, width: int, stride: int, num_groups: int):
        super().__init__()
        out_channels = 4 * width
        self.conv1 = MusiqStdConv2d(in_channels, width, 1)
        self.norm1 = MusiqGroupNorm(num_groups, width, eps=UNIT_NORM_EPS)
        self.conv2 = MusiqStdConv2d(width, width, 3, stride)
        self.norm2 = MusiqGroupNorm(num_groups, width, eps=UNIT_NORM_EPS)
        self.conv3 = MusiqStdConv2d(width, out_channels, 1)
        self.norm3 = MusiqGroupNorm(num_groups, out_channels, eps=UNIT_NORM_EPS)
        self.norm3.initial = "zeros"  # a unit starts as its shortcut
        self.conv_proj = MusiqStdConv2d(in_channels, out_channels, 1, stride)
        self.norm_proj = MusiqGroupNorm(num_groups, out_channels, eps=UNIT_NORM_EPS)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = as_input(features, self.conv1)  # the stem computes in float32 in half-precision models too
        shortcut = self.norm_proj(self.conv_proj(features))
        features = F.relu(self.norm1(self.conv1(features)))
        features = F.relu(self.norm2(self.conv2(features)))
        return F.relu(self.norm3(self.conv3(features)) + shortcut)


class MusiqPatchEncoder(nn.Module):
    """Residual network that encodes flat patches, each on its own.

    Args:
        patch_size: Side P of a patch, in pixels.
        width: Number of channels of the stem. Stage i has width * 2 ** i channels and gives out 4 times as many.
        num_stages: Number of bottleneck stages, one unit each: 0 ("conv"), 1 (the published 5 layers), 2, 3 or 4.
        num_groups: Number of groups of every group norm.

    Attributes:
        output_size: Number of features of a patch.
        cached_values: Numbers of a patch that should stay in the cache of a CPU: its largest features.
    """

    def __init__(self, *, patch_size: int, width: int, num_stages: int, num_groups: int):
        super().__init__()
        self.patch_size = patch_size
        self.stem_conv = MusiqStdConv2d(NUM_CHANNELS, width, 7, stride=2)
        self.stem_norm = MusiqGroupNorm(num_groups, width, eps=STEM_NORM_EPS)
        self.stages = nn.ModuleList()
        channels, side = width, -(-patch_size // 4)
        for stage in range(num_stages):
            stride = 1 if stage == 0 else 2
            self.stages.append(MusiqResidualUnit(channels, width * 2**stage, stride, num_groups))
            channels, side = 4 * width * 2**stage, -(-side // stride)
        self.output_size = side * side * channels
        self.cached_values = (-(-patch_size // 2)) ** 2 * width

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Encode patches.

        Args:
            patches: Shape (num_patches, patch_size * patch_size * 3), values in [-1, 1].

        Returns:
            Shape (num_patches, output_size), in row, column, channel order.
        """
        # (num_patches, P * P * 3) -> (num_patches, 3, P, P), channels last in memory
        images = patches.view(-1, self.patch_size, self.patch_size, NUM_CHANNELS).permute(0, 3, 1, 2)
        images = as_input(images, self.stem_conv)  # the stem stays in float32 in half-precision models
        features = F.relu(self.stem_norm(self.stem_conv(images)))
        # TensorFlow's SAME: an even side is padded by one pixel at its end, which `ceil_mode` does without a copy.
        odd = features.shape[-1] % 2
        features = F.max_pool2d(features, kernel_size=3, stride=2, padding=odd, ceil_mode=not odd)
        for stage in self.stages:
            features = stage(features)
        # (num_patches, channels, side, side) -> (num_patches, side * side * channels)
        return features.permute(0, 2, 3, 1).flatten(1)


@dataclass(frozen=True)
class Block:
    """Shape of one inverted bottleneck.

    Attributes:
        inputs: Number of channels of the input.
        expansion: Factor by which the depthwise convolution has more channels.
        kernel_size: Side of the depthwise kernel.
        stride: Stride of the depthwise convolution.
        outputs: Number of channels of the output.
    """

    inputs: int
    expansion: int
    kernel_size: int
    stride: int
    outputs: int


def list_blocks(name: str, num_stages: int) -> list[Block]:
    """List the blocks of the first stages of a network.

    Args:
        name: Name of the network, one of `FACTORS`.
        num_stages: Number of stages, 1 to 7.
    """
    wider, deeper = FACTORS[name]
    blocks, inputs = [], STEM_CHANNELS
    for stage, (count, kernel_size, stride, expansion, channels) in enumerate(STAGES[:num_stages]):
        outputs = int(wider * channels + CHANNEL_STEP / 2) // CHANNEL_STEP * CHANNEL_STEP
        count = count if stage in (0, len(STAGES) - 1) else math.ceil(deeper * count)
        for index in range(count):
            blocks.append(Block(inputs, expansion, kernel_size, 1 if index else stride, outputs))
            inputs = outputs
    return blocks


def reached_taps(side: int, kernel_size: int, stride: int) -> tuple[int, int, int, int]:
    """Find the taps of a kernel with SAME padding that reach an image, and the padding that is left for them.

    Args:
        side: Side of the image.
        kernel_size: Side of the kernel.
        stride: Stride of the convolution.

    Returns:
        First tap, last tap plus 1, and zeros before and after the image.
    """
    last = -(-side // stride) - 1  # place of the last output
    before = max(last * stride + kernel_size - side, 0) // 2
    first, end = max(before - last * stride, 0), min(kernel_size, side + before)
    before -= first
    return first, end, before, max(last * stride + end - first - side - before, 0)


class MusiqConvolution(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding and ReLU6, for images of one side, channels last.

    Args:
        in_channels: Number of channels of the input.
        out_channels: Number of channels of the output.
        kernel_size: Side of the published kernel, of which only the taps that reach an image are kept.
        stride: Stride.
        side: Side of the images.
        groups: Number of groups of channels.
    """

    initial = "he"  # initial values of the weight
    bias: nn.Parameter

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int, side: int, groups: int = 1
    ):
        first, end, before, after = reached_taps(side, kernel_size, stride)
        super().__init__(in_channels, out_channels, end - first, stride, groups=groups)
        self.taps = slice(first, end)
        self.published_shape = (out_channels, in_channels // groups, kernel_size, kernel_size)
        self.margins = (before, after)
        self.is_scaling = side == 1 and groups == in_channels == out_channels  # one pixel, of each channel alone

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Convolve images, (num_images, side, side, in_channels), to the same layout."""
        if self.is_scaling:
            return F.relu6(images * self.weight[:, 0, 0, 0] + self.bias)  # a convolution is 100 times as slow
        before, after = self.margins
        if before != after:
            images, before = F.pad(images, (0, 0, before, after, before, after)), 0
        images = images.permute(0, 3, 1, 2)  # channels first in shape, last in memory
        if is_fast(images) and type(self.weight) is nn.Parameter and self.weight.dtype == images.dtype:
            convolve = torch.ops.mkldnn._convolution_pointwise
            shape = ([before, before], [*self.stride], [1, 1], self.groups)
            features = convolve(images, self.weight, self.bias, *shape, "hardtanh", [0.0, 6.0], "")
        else:
            features = F.relu6(F.conv2d(images, self.weight, self.bias, self.stride, before, groups=self.groups))
        return features.permute(0, 2, 3, 1)


class MusiqInvertedBottleneck(nn.Module):
    """Wider by a product, depthwise convolution, narrower by a product; the input is added where shapes allow it."""

    def __init__(self, block: Block, side: int):
        super().__init__()
        width = block.inputs * block.expansion
        self.expand = None
        if block.expansion > 1:
            self.expand = MusiqLinear(block.inputs, width)
            self.expand.initial = "he"
        self.depthwise = MusiqConvolution(
            width, width, block.kernel_size, stride=block.stride, side=side, groups=width
        )
        self.project = MusiqLinear(width, block.outputs)
        self.project.initial = "lecun"
        self.is_residual = block.stride == 1 and block.inputs == block.outputs

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        expanded = features
        if self.expand is not None and is_as_built(self.expand, MusiqLinear) and self.expand.is_fast(features):
            expanded = self.expand.multiply(features, "hardtanh", "", scalars=(0.0, 6.0))
        elif self.expand is not None:
            expanded = F.relu6(self.expand(features))
        projected = self.project(self.depthwise(expanded))
        return features + projected if self.is_residual else projected


class MusiqEfficientNetLite(nn.Module):
    """First stages of an EfficientNet-Lite, which encode flat patches, each on its own.

    Args:
        name: Name of the network, one of `FACTORS`.
        patch_size: Side P of a patch, in pixels.
        num_stages: Number of stages, 1 to 7.

    Attributes:
        output_size: Number of features of a patch.
        cached_values: Numbers of a patch that should stay in the cache of a CPU.
        num_published_blocks: Number of blocks of the whole network.
    """

    def __init__(self, name: str, *, patch_size: int, num_stages: int):
        super().__init__()
        self.patch_size = patch_size
        self.num_published_blocks = len(list_blocks(name, len(STAGES)))
        self.stem_conv = MusiqConvolution(NUM_CHANNELS, STEM_CHANNELS, 3, stride=2, side=patch_size)
        self.blocks = nn.ModuleList()
        side, self.num_large = -(-patch_size // 2), 0  # number of blocks that read large features
        large, small = side**2 * STEM_CHANNELS, 1  # numbers in the largest features of one patch
        for block in list_blocks(name, num_stages):
            self.blocks.append(MusiqInvertedBottleneck(block, side))
            values = side**2 * block.inputs * block.expansion
            if side >= LARGE_SIDE:
                self.num_large, large = len(self.blocks), max(large, values)
            else:
                small = max(small, values)
            side = -(-side // block.stride)
        self.output_size = side**2 * block.outputs
        self.large_values, self.cached_values = large, small

    def _encode_large(self, images: torch.Tensor) -> torch.Tensor:
        """Run stem and blocks as long as features are large: (num_patches, P, P, 3) -> (num_patches, s, s, C)."""
        # The affine map cannot be part of the stem, because its zero padding is that of the mapped values.
        features = self.stem_conv(as_input(images, self.stem_conv) * PIXEL_SCALE + PIXEL_SHIFT)
        first: Any = self.blocks[0]
        features = as_input(features, first.project)  # the stem computes in float32 in half-precision models too
        for block in self.blocks[: self.num_large]:
            features = block(features)
        return features

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Encode patches.

        Args:
            patches: Shape (num_patches, patch_size * patch_size * 3), values in [-1, 1].

        Returns:
            Shape (num_patches, output_size), in row, column, channel order.
        """
        images = patches.view(-1, self.patch_size, self.patch_size, NUM_CHANNELS)
        if needs_one_graph() or patches.device.type != "cpu":
            features = self._encode_large(images)
        else:
            few = max(1, CACHE_BYTES // (self.large_values * patches.element_size()))
            features = torch.cat([self._encode_large(part) for part in images.split(few)])
        for block in self.blocks[self.num_large :]:
            features = block(features)
        return features.flatten(1)
