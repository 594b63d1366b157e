# SPDX-License-Identifier: Apache-2.0
"""Encoders of MSIT: EDSR and RDN without their upsamplers."""

import torch
from torch import nn

from .configuration_msit import MsitConfig


def convolve(channels: int, out_channels: int, size: int = 3) -> nn.Conv2d:
    """Make a convolution whose map has the size of its input."""
    return nn.Conv2d(channels, out_channels, size, padding=size // 2)


class ResidualBlock(nn.Module):
    """Two convolutions with a ReLU between them, and a shortcut."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = convolve(channels, channels)
        self.conv2 = convolve(channels, channels)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return maps of the shape of the input."""
        residual: torch.Tensor = self.conv2(torch.relu_(self.conv1(maps)))
        return residual.add_(maps)


class EdsrEncoder(nn.Module):
    """EDSR (Lim et al., 2017) without mean shift and upsampler."""

    def __init__(self, config: MsitConfig):
        super().__init__()
        channels = config.encoder_hidden_size
        self.first = convolve(3, channels)
        self.blocks = nn.ModuleList(ResidualBlock(channels) for _ in range(config.encoder_num_blocks))
        self.last = convolve(channels, channels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return maps (b, channels, h, w) of images (b, 3, h, w)."""
        first = self.first(images)
        hidden = first
        for block in self.blocks:
            hidden = block(hidden)
        maps: torch.Tensor = first + self.last(hidden)
        return maps


class DenseBlock(nn.Module):
    """Residual dense block: each layer reads the maps of all layers before it."""

    def __init__(self, channels: int, growth: int, num_layers: int):
        super().__init__()
        self.layers = nn.ModuleList(convolve(channels + index * growth, growth) for index in range(num_layers))
        self.fusion = convolve(channels + num_layers * growth, channels, 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return maps of the shape of the input."""
        hidden = maps
        for layer in self.layers:
            hidden = torch.cat([hidden, torch.relu_(layer(hidden))], dim=1)
        fused: torch.Tensor = self.fusion(hidden)
        return fused + maps


class RdnEncoder(nn.Module):
    """RDN (Zhang et al., 2018) without upsampler."""

    def __init__(self, config: MsitConfig):
        super().__init__()
        channels = config.encoder_hidden_size
        self.first = convolve(3, channels)
        self.second = convolve(channels, channels)
        self.blocks = nn.ModuleList(
            DenseBlock(channels, config.encoder_growth, config.encoder_num_layers)
            for _ in range(config.encoder_num_blocks)
        )
        self.fusion = convolve(channels * config.encoder_num_blocks, channels, 1)
        self.last = convolve(channels, channels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return maps (b, channels, h, w) of images (b, 3, h, w)."""
        first = self.first(images)
        maps = [self.second(first)]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        fused: torch.Tensor = first + self.last(self.fusion(torch.cat(maps[1:], dim=1)))
        return fused


def make_encoder(config: MsitConfig) -> EdsrEncoder | RdnEncoder:
    """Make the encoder that a configuration names."""
    return EdsrEncoder(config) if config.encoder_type == "edsr" else RdnEncoder(config)


def measure_reach(config: MsitConfig) -> int:
    """Return the pixels on each side that a pixel of the encoder's map depends on."""
    per_block = 2 if config.encoder_type == "edsr" else config.encoder_num_layers
    return per_block * config.encoder_num_blocks + (2 if config.encoder_type == "edsr" else 3)


__all__ = ["EdsrEncoder", "RdnEncoder", "make_encoder", "measure_reach"]
