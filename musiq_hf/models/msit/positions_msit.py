# SPDX-License-Identifier: Apache-2.0
"""Places of target pixels over the source, from whole numbers, and the bias of attention by position.

Frequencies of positions go up to a thousand, so that rounded coordinates would be noise: places are computed exactly.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

from .configuration_msit import MsitConfig


@dataclass(frozen=True)
class Places:
    """Places of target pixels over one side of the source.

    Attributes:
        nearest: Index of the nearest source pixel, int64; the next one where two are equally near.
        lower: Index of the source pixel at or before the place, int64, from -1.
        fraction: Distance from it, in [0, 1).
        bias: Bias of attention for each cell of a window along this side and each head, shape
            (..., 2 * radius + 1, num_heads); None without it.
    """

    nearest: torch.Tensor
    lower: torch.Tensor
    fraction: torch.Tensor
    bias: torch.Tensor | None = None

    def take(self, index: Any) -> Self:
        """Return the places of some target pixels, by whatever indexes a tensor."""
        bias = None if self.bias is None else self.bias[index]
        return type(self)(self.nearest[index], self.lower[index], self.fraction[index], bias)

    def split(self, most: int) -> Iterator[Self]:
        """Yield the places in runs whose nearest source pixels span at most so many."""
        start = 0
        for count in (self.nearest // most).unique_consecutive(return_counts=True)[1].tolist():
            yield self.take(slice(start, start + count))
            start += count


def measure_offsets(source: int, target: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Measure where target pixels lie over a side of the source.

    Args:
        source: Length of the side in source pixels.
        target: Length of the side in target pixels.

    Returns:
        Index of the nearest source pixel, int64 (target,), and the offset from its centre, float64 (target,). The
        pitch of source pixels is 2.
    """
    centre = (2 * torch.arange(target) + 1) * source
    nearest = centre // (2 * target)
    return nearest, (centre - (2 * nearest + 1) * target).double() / target


def find_places(source: int, target: int, bias: torch.Tensor | None, like: torch.Tensor) -> Places:
    """Find the places of all target pixels of a side.

    Args:
        source: Length of the side in source pixels.
        target: Length of the side in target pixels.
        bias: That of `Places`.
        like: Tensor whose device and precision, or float32 if that is less, the places have.
    """
    from_first = (2 * torch.arange(target) + 1) * source - target  # the centre of the first source pixel is 0
    lower = from_first // (2 * target)
    fraction = (from_first - lower * 2 * target).double() / (2 * target)
    nearest, _ = measure_offsets(source, target)
    precision = torch.promote_types(like.dtype, torch.float32)
    return Places(nearest.to(like.device), lower.to(like.device), fraction.to(like.device, precision), bias)


def sample(
    maps: torch.Tensor, batch: torch.Tensor, rows: Places, columns: Places, *, first: tuple[int, int] = (0, 0)
) -> torch.Tensor:
    """Sample maps bilinearly; they are continued by the pixels of their border.

    Args:
        maps: Shape (b, height, width, channels).
        batch: Index of the picture, int64, of a shape that broadcasts with those of the places.
        rows: Places over the height.
        columns: Places over the width.
        first: Row and column of the maps at which the first pixel of the source lies.

    Returns:
        Values, shape (..., channels).
    """
    total: Any = 0
    for down in (0, 1):
        row = (rows.lower + down + first[0]).clamp(0, maps.shape[1] - 1)
        row_weight = rows.fraction if down else 1 - rows.fraction
        for right in (0, 1):
            column = (columns.lower + right + first[1]).clamp(0, maps.shape[2] - 1)
            column_weight = columns.fraction if right else 1 - columns.fraction
            total = total + maps[batch, row, column] * (row_weight * column_weight).to(maps.dtype)[..., None]
    values: torch.Tensor = total
    return values


class PositionBias(nn.Module):
    """Bias of attention by the offset between target and source pixel: sines and cosines, and a linear layer.

    The two sides of a picture add, so that each is computed alone.
    """

    def __init__(self, config: MsitConfig, scale: float):
        super().__init__()
        self.radius = config.radius
        self.scale = scale
        self.projection = nn.Linear(config.position_encoding_size, config.num_attention_heads)

    def forward(self, source: int, target: int, side: int) -> torch.Tensor:
        """Compute the bias along a side.

        Args:
            source: Length of the side in source pixels.
            target: Length of the side in target pixels.
            side: 0 for rows, to which the constant is added, and 1 for columns.

        Returns:
            Bias, shape (target, 2 * radius + 1, num_heads).
        """
        row_sines, column_sines, row_cosines, column_cosines = self.projection.weight.chunk(4, dim=1)
        count = row_sines.shape[1]
        _, offset = measure_offsets(source, target)
        cells = torch.arange(-self.radius, self.radius + 1)
        exponents = self.scale / (count - 1) * torch.arange(count, dtype=torch.float64)
        angles = (offset[:, None] - 2 * cells)[..., None] * (2**exponents - 1)
        sines, cosines = angles.sin().to(row_sines), angles.cos().to(row_sines)
        if side:
            return sines @ column_sines.T + cosines @ column_cosines.T
        return sines @ row_sines.T + cosines @ row_cosines.T + self.projection.bias


__all__ = ["Places", "PositionBias", "find_places", "sample"]
