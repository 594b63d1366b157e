# SPDX-License-Identifier: Apache-2.0
"""Small ResNet that encodes each patch (section 3.2 and Table 9; google-research/musiq, model/resnet.py).

The paper says no more than "5-layer ResNet". The released code adds weight standardisation and group norm, pads as
TensorFlow's SAME, and flattens in row, column, channel order.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch
from torch import nn
from torch.nn import functional as F

from .cpu_kernels_musiq import MusiqGroupNorm, as_input, is_fast

NUM_CHANNELS = 3
STEM_NORM_EPS = 1e-6
UNIT_NORM_EPS = 1e-4
WEIGHT_EPS = 1e-5
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
