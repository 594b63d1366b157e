# SPDX-License-Identifier: Apache-2.0
"""Maps that the attention of MSIT reads, and the kernels that modulate themselves."""

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_msit import SHIFT_GROUP, MsitConfig

# Neighbours that the channels of a group read, as (row, column); the last four channels read the sum of two.
NEIGHBOURS = (
    ((0, 1),),
    ((0, -1),),
    ((1, 0),),
    ((-1, 0),),
    ((0, 1), (-1, 1)),
    ((0, -1), (1, -1)),
    ((1, 0), (1, 1)),
    ((-1, 0), (-1, -1)),
)


def shift_channels(ringed: torch.Tensor) -> torch.Tensor:
    """Give each channel the value of a neighbour, or the sum of two.

    Args:
        ringed: Maps with a ring of one pixel around them, shape (b, channels, h + 2, w + 2).

    Returns:
        Maps, shape (b, channels, h, w).
    """
    batch_size, channels, height, width = ringed.shape
    height, width = height - 2, width - 2
    groups = ringed.view(batch_size, channels // SHIFT_GROUP, SHIFT_GROUP, height + 2, width + 2)

    def read(channel: int, row: int, column: int) -> torch.Tensor:
        return groups[:, :, channel, 1 + row : 1 + row + height, 1 + column : 1 + column + width]

    shifted = []
    for channel, places in enumerate(NEIGHBOURS):
        values = [read(channel, row, column) for row, column in places]
        shifted.append(values[0] if len(values) == 1 else values[0] + values[1])
    return torch.stack(shifted, dim=2).flatten(1, 2)


class ReinteractionConv2d(nn.Module):
    """Convolution whose kernel may be frozen and modulated by itself (re-interaction).

    The kernel is then W + spatial(W) * pointwise(W), where W is seen as one picture with a channel per pair of output
    and input. Both maps treat each channel alone.

    Args:
        channels: Channels of input and output.
        size: Side of the kernel, odd.
        is_modulated: Whether the kernel is frozen and modulated; if not, it is a plain parameter.
    """

    weight: torch.Tensor

    def __init__(self, channels: int, size: int, *, is_modulated: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, size, size))
        self.bias = nn.Parameter(torch.empty(channels))
        self.spatial_map: nn.Parameter | None = None
        self.pointwise_map: nn.Parameter | None = None
        if is_modulated:
            self.modulate()

    def modulate(self) -> None:
        """Freeze the kernel, and add maps that have no effect yet: the pointwise one is 0."""
        weight = self.weight.detach()
        del self.weight
        self.register_buffer("weight", weight)
        count = weight.shape[0] * weight.shape[1]
        self.spatial_map = nn.Parameter(torch.empty(count, 3, 3, dtype=weight.dtype, device=weight.device))
        self.pointwise_map = nn.Parameter(torch.zeros(count, dtype=weight.dtype, device=weight.device))
        if not weight.is_meta:
            nn.init.uniform_(self.spatial_map, -1 / 3, 1 / 3)

    def fold(self) -> None:
        """Make the kernel that the maps give a plain parameter."""
        kernel = self.kernel().detach()
        del self.weight
        self.weight = nn.Parameter(kernel)
        self.spatial_map = self.pointwise_map = None

    def kernel(self) -> torch.Tensor:
        """Return the kernel, shape (channels, channels, size, size)."""
        if self.spatial_map is None or self.pointwise_map is None:
            return self.weight
        size = self.weight.shape[-1]
        picture = self.weight.flatten(0, 1)
        padded = F.pad(picture, (1, 1, 1, 1))
        # A convolution with a group per channel is slow where there are tens of thousands.
        spatial = torch.zeros_like(picture)
        for row in range(3):
            for column in range(3):
                moved = padded[:, row : row + size, column : column + size]
                spatial = spatial + self.spatial_map[:, row, column, None, None] * moved
        return (picture + spatial * picture * self.pointwise_map[:, None, None]).view_as(self.weight)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return maps of the shape of the input, which is continued with zeros."""
        return F.conv2d(maps, self.kernel(), self.bias, padding=self.weight.shape[-1] // 2)


class MultiScaleConvolution(nn.Module):
    """Convolutions of growing size, each of its share of the channels, and the layers that join them.

    Args:
        channels: Channels of input and output.
        num_kernels: Number of convolutions; the first has size 3, and each next one is larger by 2.
        num_groups: Groups of channels of the layer that doubles the channels.
        is_modulated: Whether the kernels are frozen and modulated.
    """

    def __init__(self, channels: int, num_kernels: int, num_groups: int, *, is_modulated: bool):
        super().__init__()
        share = channels // num_kernels
        self.convolutions = nn.ModuleList(
            ReinteractionConv2d(share, 3 + 2 * index, is_modulated=is_modulated) for index in range(num_kernels)
        )
        self.expansion = nn.Conv2d(channels, 2 * channels, 1, groups=num_groups)
        self.norm = nn.BatchNorm2d(2 * channels)
        self.projection = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return maps of the shape of the input."""
        shares = maps.chunk(len(self.convolutions), dim=1)
        joined = torch.cat([layer(share) for layer, share in zip(self.convolutions, shares, strict=True)], dim=1)
        hidden = self.expansion(joined)
        normed = self.norm(hidden.to(self.norm.weight.dtype)).to(hidden.dtype)
        projected: torch.Tensor = self.projection(F.gelu(normed))
        return projected


class ConvolutionModulation(nn.Module):
    """MSNO: a map of several receptive fields that modulates another one, elementwise."""

    def __init__(self, config: MsitConfig):
        super().__init__()
        channels, kernels = config.hidden_size, config.num_kernels
        self.use_shift = config.use_shift
        self.context = nn.Conv2d(channels, channels, 1, bias=False)
        self.scales = MultiScaleConvolution(channels, kernels, kernels, is_modulated=config.use_rim)
        self.value = nn.Conv2d(channels, channels, 1, bias=False)
        self.projection = nn.Conv2d(channels, channels, 1)

    def forward(self, ringed: torch.Tensor) -> torch.Tensor:
        """Return maps (b, channels, h, w) of maps with a ring around them, (b, channels, h + 2, w + 2)."""
        inner = ringed[:, :, 1:-1, 1:-1]
        context = shift_channels(self.context(ringed)) if self.use_shift else self.context(inner)
        projected: torch.Tensor = self.projection(self.scales(context) * self.value(inner))
        return projected


class QueryMap(nn.Module):
    """Map of queries and keys: a linear layer and convolutions of several sizes."""

    def __init__(self, config: MsitConfig):
        super().__init__()
        channels, kernels = config.hidden_size, config.num_attention_kernels
        self.reduction = nn.Conv2d(channels, channels, 1)
        self.scales = MultiScaleConvolution(channels, kernels, channels // kernels, is_modulated=config.use_rim)

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Return maps of the shape of the input."""
        maps: torch.Tensor = self.scales(self.reduction(latent))
        return maps


__all__ = ["ConvolutionModulation", "MultiScaleConvolution", "QueryMap", "ReinteractionConv2d", "shift_channels"]
