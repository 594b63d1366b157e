# SPDX-License-Identifier: Apache-2.0
"""Local attention of target pixels to source pixels, and the decoder that reads it.

The decoder's first layer reads a value of each cell of a window, weighted per head. It does most of the work if it is
computed for each target pixel. For whole pictures it is applied to the values of a window first, once per source
pixel, and the weights then mix its results.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_msit import MsitConfig
from .positions_msit import Places, sample


class Decoder(nn.Module):
    """Linear layers with GELU between them, from the values of a window and the size of a target pixel to RGB."""

    def __init__(self, config: MsitConfig):
        super().__init__()
        sizes = [config.decoder_input_size, *config.decoder_hidden_sizes, 3]
        self.first = nn.Linear(*sizes[:2])
        self.others = nn.ModuleList(nn.Linear(*pair) for pair in zip(sizes[1:], sizes[2:], strict=False))
        self.others[-1].initial = "zeros"  # type: ignore[assignment]
        self.num_values = config.num_cells * config.hidden_size

    @property
    def value_weight(self) -> torch.Tensor:
        """Weight of the first layer for the values of a window, shape (size, num_cells * hidden_size)."""
        return self.first.weight[:, : self.num_values]

    def constant(self, cell_size: Sequence[float]) -> torch.Tensor:
        """Return what the first layer adds for a size of target pixels, shape (size,)."""
        weight = self.first.weight[:, self.num_values :]
        if not weight.shape[1]:
            return self.first.bias
        return self.first.bias + weight @ torch.tensor(cell_size, dtype=weight.dtype, device=weight.device)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return RGB (..., 3) of the output of the first layer, (..., size)."""
        for layer in self.others:
            hidden = layer(F.gelu(hidden))
        return hidden


@dataclass(frozen=True)
class SourceMaps:
    """Maps of a source, or of a tile of it, channels last and with zeros around them.

    Attributes:
        value: Shape (b, height + 2 * ring, width + 2 * ring, hidden_size).
        query: Map of queries and keys, of the same shape; None without attention.
        first: Row and column of the maps at which the first pixel of the source lies, or would lie.
    """

    value: torch.Tensor
    query: torch.Tensor | None
    first: tuple[int, int]


def surround(
    value: torch.Tensor, query: torch.Tensor | None, *, ring: int, corner: tuple[int, int] = (0, 0)
) -> SourceMaps:
    """Put zeros around maps.

    Args:
        value: Shape (b, hidden_size, height, width).
        query: Map of the same shape, or None.
        ring: Width of the zeros.
        corner: Row and column of the source at which the maps begin.
    """

    def pad(maps: torch.Tensor) -> torch.Tensor:
        return F.pad(maps.permute(0, 2, 3, 1), (0, 0, ring, ring, ring, ring))

    first = (ring - corner[0], ring - corner[1])
    return SourceMaps(pad(value), None if query is None else pad(query), first)


@dataclass(frozen=True)
class Axis:
    """Target pixels of one side of a block, grouped by the source pixel that is nearest to them.

    Attributes:
        places: Places of the target pixels.
        sources: Source pixels that are the nearest of any, int64 (groups,).
        members: Index of the target pixels of each, int64 (groups, most); short groups repeat one.
        flat: Index of each target pixel among all members, int64.
    """

    places: Places
    sources: torch.Tensor
    members: torch.Tensor
    flat: torch.Tensor


def group(places: Places) -> Axis:
    """Group the target pixels of one side by the nearest source pixel."""
    sources, which, counts = places.nearest.unique_consecutive(return_inverse=True, return_counts=True)
    most = int(counts.max())
    first = counts.cumsum(0) - counts
    members = first[:, None] + torch.minimum(torch.arange(most, device=which.device), counts[:, None] - 1)
    flat = which * most + torch.arange(len(which), device=which.device) - first[which]
    return Axis(places, sources, members, flat)


class LocalAttention:
    """Attention of target pixels to windows of source pixels, joined with the first layer of a decoder.

    Args:
        config: Configuration of the model.
        maps: Maps of the source.
        weight: Weight of the first layer, see `Decoder.value_weight`.
    """

    def __init__(self, config: MsitConfig, maps: SourceMaps, weight: torch.Tensor):
        self.num_heads = config.num_attention_heads
        self.head_size = config.hidden_size // config.num_attention_heads
        self.radius = config.radius
        self.maps = maps
        self.weight = weight

    def mix_pixels(
        self, batch: torch.Tensor, rows: Places, columns: Places
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Compute the first layer for single target pixels.

        Args:
            batch: Index of the picture, shape (b, 1).
            rows: Places over the height, of shape (b, q).
            columns: Places over the width, of shape (b, q).

        Returns:
            Output (b, q, size), and weights of attention (b, q, cells, heads) or None.
        """
        values = self._read_windows(self.maps.value, batch, rows.nearest, columns.nearest)
        if self.maps.query is None:
            return F.linear(values.flatten(2), self.weight), None
        keys = self._read_windows(self.maps.query, batch, rows.nearest, columns.nearest)
        query = sample(self.maps.query, batch, rows, columns, first=self.maps.first)
        bias = None
        if rows.bias is not None and columns.bias is not None:
            bias = (rows.bias[..., :, None, :] + columns.bias[..., None, :, :]).flatten(2, 3)[:, :, None]
        weights = self._weigh(query[:, :, None], keys, bias).squeeze(2)
        weighted = values.unflatten(-1, (self.num_heads, self.head_size)) * weights[..., None]
        return F.linear(weighted.flatten(2), self.weight), weights

    def mix_block(self, rows: Axis, columns: Axis) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Compute the first layer for a block of target pixels.

        Args:
            rows: Rows of the block.
            columns: Columns of the block.

        Returns:
            Output (b, height, width, size), and weights of attention (b, height, width, cells, heads) or None.
        """
        batch = torch.arange(len(self.maps.value), device=self.maps.value.device)[:, None, None]
        sources = (batch, rows.sources[:, None], columns.sources)
        values = self._read_windows(self.maps.value, *sources)
        if self.maps.query is None:
            shared = F.linear(values.flatten(3), self.weight)[:, :, :, None]
            num_targets = rows.members.shape[1] * columns.members.shape[1]
            return self._ungroup(shared.expand(-1, -1, -1, num_targets, -1), rows, columns), None
        keys = self._read_windows(self.maps.query, *sources)
        places = (rows.places.take((slice(None), None)), columns.places)
        query = sample(self.maps.query, batch, *places, first=self.maps.first)
        query = query[:, rows.members[:, None, :, None], columns.members[:, None]].flatten(3, 4)
        weights = self._weigh(query, keys, self._add_biases(rows, columns))
        shares = values.unflatten(-1, (self.num_heads, self.head_size)).flatten(3, 4).flatten(0, 2)
        projected = torch.bmm(shares.transpose(0, 1), self.weight.T.unflatten(0, (-1, self.head_size)))
        hidden = torch.bmm(weights.flatten(0, 2).flatten(2), projected.transpose(0, 1)).unflatten(0, weights.shape[:3])
        return self._ungroup(hidden, rows, columns), self._ungroup(weights, rows, columns)

    def _read_windows(
        self, maps: torch.Tensor, batch: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
    ) -> torch.Tensor:
        """Read windows around source pixels.

        Args:
            maps: One of the maps of the source.
            batch: Index of the picture, of a shape that broadcasts with those of rows and columns.
            rows: Rows of the source, int64.
            columns: Columns of the source, int64.

        Returns:
            Values, shape (..., cells, hidden_size).
        """
        cells = torch.arange(-self.radius, self.radius + 1, device=maps.device)
        down = (rows[..., None] + self.maps.first[0] + cells)[..., :, None]
        right = (columns[..., None] + self.maps.first[1] + cells)[..., None, :]
        return maps[batch[..., None, None], down, right].flatten(-3, -2)

    def _weigh(self, query: torch.Tensor, keys: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Compute the weights of attention of target pixels that share a window.

        Args:
            query: Queries, shape (..., targets, hidden_size).
            keys: Keys of the windows, shape (..., cells, hidden_size).
            bias: Shape (..., targets, cells, heads), or None.

        Returns:
            Weights, shape (..., targets, cells, heads).
        """
        heads = (self.num_heads, self.head_size)
        queries = (query * self.head_size**-0.5).unflatten(-1, heads).transpose(-2, -3)
        logits = (queries @ keys.unflatten(-1, heads).movedim(-3, -1)).movedim(-3, -1)
        if bias is not None:
            logits = logits + bias
        precision = torch.promote_types(logits.dtype, torch.float32)
        return logits.softmax(dim=-2, dtype=precision).to(keys.dtype)

    @staticmethod
    def _add_biases(rows: Axis, columns: Axis) -> torch.Tensor | None:
        """Add the biases of both sides, shape (groups of rows, groups of columns, targets, cells, heads)."""
        if rows.places.bias is None or columns.places.bias is None:
            return None
        down, right = rows.places.bias[rows.members], columns.places.bias[columns.members]
        both = down[:, None, :, None, :, None] + right[None, :, None, :, None, :]
        return both.flatten(4, 5).flatten(2, 3)

    @staticmethod
    def _ungroup(grouped: torch.Tensor, rows: Axis, columns: Axis) -> torch.Tensor:
        """Return (b, height, width, ...) of (b, groups of rows, groups of columns, targets, ...)."""
        split: Any = grouped.unflatten(3, (rows.members.shape[1], -1)).transpose(2, 3)
        whole: torch.Tensor = split.flatten(1, 2).flatten(2, 3)[:, rows.flat[:, None], columns.flat]
        return whole


__all__ = ["Axis", "Decoder", "LocalAttention", "SourceMaps", "group", "surround"]
