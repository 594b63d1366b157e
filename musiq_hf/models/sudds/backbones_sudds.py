# SPDX-License-Identifier: Apache-2.0
"""Networks that read patches: a small one, and ResNet-18 with the staircase of the published code.

The modules of the ResNet have the names of torchvision, and those of the staircase the names of the published code.
"""

from collections.abc import Sequence

import torch
from torch import nn

from .configuration_sudds import UpscalingDetectorConfig


def convolve(channels: int, out_channels: int, size: int, stride: int = 1, *, bias: bool = False) -> nn.Conv2d:
    """Make a convolution whose map has the size of its input, divided by the stride and rounded up."""
    return nn.Conv2d(channels, out_channels, size, stride, padding=size // 2, bias=bias)


class ResidualBlock(nn.Module):
    """Basic block of a ResNet: two convolutions and a shortcut."""

    def __init__(self, channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = convolve(channels, out_channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = convolve(out_channels, out_channels, 3)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = None
        if stride != 1 or channels != out_channels:
            self.downsample = nn.Sequential(convolve(channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return maps (b, out_channels, h / stride, w / stride) of maps (b, channels, h, w)."""
        shortcut = maps if self.downsample is None else self.downsample(maps)
        hidden = torch.relu(self.bn1(self.conv1(maps)))
        return torch.relu(self.bn2(self.conv2(hidden)) + shortcut)


class SmallBackbone(nn.Module):
    """Convolution without a stride and three residual blocks, of which each halves the map."""

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        first, *others = widths
        self.conv1 = convolve(3, first, 3)
        self.bn1 = nn.BatchNorm2d(first)
        self.blocks = nn.ModuleList(
            ResidualBlock(channels, out_channels, 2) for channels, out_channels in zip(widths, others, strict=False)
        )

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the map of each stage, of images (b, 3, h, w)."""
        maps = [torch.relu(self.bn1(self.conv1(images)))]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return maps


class ResNet18(nn.Module):
    """ResNet-18 without its last layer; names as in torchvision."""

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        first = widths[0]
        self.conv1 = convolve(3, first, 7, 2)
        self.bn1 = nn.BatchNorm2d(first)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = first
        for index, width in enumerate(widths, start=1):
            layer = nn.Sequential(
                ResidualBlock(channels, width, 1 if index == 1 else 2), ResidualBlock(width, width, 1)
            )
            setattr(self, f"layer{index}", layer)
            channels = width

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps after the stem and after each of the four stages, of images (b, 3, h, w)."""
        maps = [self.maxpool(torch.relu(self.bn1(self.conv1(images))))]
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps.append(layer(maps[-1]))  # type: ignore[operator]
        return maps


class Staircase(nn.ModuleDict):
    """Branches that carry the maps of all stages down to the size of the last one, without norm or activation.

    Branch i begins with the map before stage i. At each stage j it is shrunk as the stage shrinks, and the map of that
    stage is added. The sum of the four branches is added to the last map.
    """

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        self.num_stages = len(widths)
        before = [widths[0], *widths]  # channels of the map before each stage
        for stage in range(1, self.num_stages + 1):
            channels, out_channels, stride = before[stage - 1], before[stage], 1 if stage == 1 else 2
            for branch in range(1, stage + 1):
                self[f"f{branch}{stage}"] = nn.Sequential(
                    convolve(channels, channels // 4, 1, bias=True),
                    convolve(channels // 4, channels // 2, 3, stride, bias=True),
                    convolve(channels // 2, out_channels, 1, bias=True),
                )

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return one map of the size of the last of some maps, which are those of stem and stages."""
        fused = maps[-1]
        for branch in range(1, self.num_stages + 1):
            hidden = maps[branch - 1]
            for stage in range(branch, self.num_stages + 1):
                hidden = self[f"f{branch}{stage}"](hidden)
                if stage < self.num_stages:
                    hidden = hidden + maps[stage]
            fused = fused + hidden
        return fused


class UpscalingDetectorExtractor(nn.Module):
    """Backbone with the fusion of its stages."""

    def __init__(self, config: UpscalingDetectorConfig):
        super().__init__()
        widths, is_small = config.widths, config.backbone == "small"
        self.backbone = SmallBackbone(widths) if is_small else ResNet18(widths)
        self.staircase = Staircase(widths) if config.use_staircase and not is_small else None
        self.joins_averages = config.use_staircase and is_small
        self.num_features = sum(widths) if self.joins_averages else widths[-1]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return features (b, num_features) of images (b, 3, h, w)."""
        maps = self.backbone(images)
        if self.joins_averages:
            return torch.cat([item.mean(dim=(2, 3)) for item in maps], dim=1)
        last: torch.Tensor = maps[-1] if self.staircase is None else self.staircase(maps)
        return last.mean(dim=(2, 3))


__all__ = ["ResNet18", "SmallBackbone", "Staircase", "UpscalingDetectorExtractor"]
