# SPDX-License-Identifier: Apache-2.0
"""Relative location: a loss that asks pairs of tokens how far apart their patches are.

It is the loss of "Efficient Training of Visual Transformers with Small Datasets" (Liu et al., NeurIPS 2021;
yhlleo/VTs-Drloc, MIT), with absolute differences. Positions are cells of a square grid, in [0, 1] along each axis. The
published program counts in cells instead: its weight .1 for a grid of 7 is .6 here, and .5 is 3.
"""

import torch
from torch import nn


def cell_positions(spatial_position_ids: torch.Tensor, grid_size: int) -> torch.Tensor:
    """Compute where the cells of patches lie in the picture, from (0, 0) for the first to (1, 1) for the last.

    Args:
        spatial_position_ids: Cells, row * grid_size + column, whole numbers of shape (batch_size, N). With
            `spatial_embedding="fixed"` they are slots of a sequence instead, which have no place.
        grid_size: Cells along a side, at least 2.

    Returns:
        Row and column in [0, 1], float32, shape (batch_size, N, 2).

    Raises:
        ValueError: If the grid has fewer than two cells a side.
    """
    if grid_size < 2:
        raise ValueError(f"`grid_size` must be at least 2, got {grid_size}.")
    rows = spatial_position_ids.div(grid_size, rounding_mode="floor")
    return torch.stack((rows, spatial_position_ids % grid_size), dim=-1) / (grid_size - 1)


def sample_token_pairs(
    mask: torch.Tensor,
    num_pairs: int,
    *,
    scale_position_ids: torch.Tensor | None = None,
    across_scales: bool = False,
) -> torch.Tensor:
    """Draw pairs of real tokens of each picture by torch's generator; the two may be one token.

    Args:
        mask: 1 or True = real token, shape (batch_size, N).
        num_pairs: Number of pairs of each picture.
        scale_position_ids: Scales of the tokens, shape (batch_size, N). None = all are of one scale.
        across_scales: Whether the tokens of a pair are of two scales, instead of one.

    Returns:
        Indices of tokens, int64, shape (batch_size, num_pairs, 2).

    Raises:
        ValueError: If a picture has no real token, `scale_position_ids` have another shape, or pairs across scales are
            wanted where a picture has one scale.
    """
    if num_pairs < 1:
        raise ValueError(f"`num_pairs` must be at least 1, got {num_pairs}.")
    real = mask.bool()
    if not bool(real.any(dim=-1).all()):
        raise ValueError("Every picture needs a real token, got one without. Give a mask with 1 for what is real.")
    scales = torch.zeros_like(real, dtype=torch.int64) if scale_position_ids is None else scale_position_ids
    if scales.shape != mask.shape:
        raise ValueError(f"`scale_position_ids` must have shape {tuple(mask.shape)}, got {tuple(scales.shape)}.")
    first = torch.multinomial(real.float(), num_pairs, replacement=True)
    # (batch_size, num_pairs, N): tokens that may be second
    is_same = scales[:, None, :] == scales.gather(1, first)[..., None]
    allowed = real[:, None, :] & (is_same != across_scales)
    if across_scales and not bool(allowed.any(dim=-1).all()):
        raise ValueError("Pairs across scales need pictures of several scales, got one of one scale.")
    second = torch.multinomial(allowed.flatten(0, 1).float(), 1).view(first.shape)
    return torch.stack((first, second), dim=-1)


def gather_pairs(values: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """Return values (batch_size, N, D) of the tokens of pairs (batch_size, m, 2): (batch_size, m, 2, D).

    Raises:
        ValueError: If the shapes do not fit each other.
    """
    if values.dim() != 3 or pairs.dim() != 3 or pairs.shape[-1] != 2 or len(values) != len(pairs):
        raise ValueError(
            "Shapes (batch_size, N, D) and, of pairs, (batch_size, m, 2) were expected, got "
            f"{tuple(values.shape)} and {tuple(pairs.shape)}."
        )
    indices = pairs.flatten(1)[..., None].expand(-1, -1, values.shape[-1])
    return values.gather(1, indices).unflatten(1, (-1, 2))


class RelativeLocation(nn.Module):
    """Three dense layers that predict the distances of two tokens along both axes; training throws them away."""

    def __init__(self, hidden_size: int, *, width: int = 512):
        """Make the layers.

        Args:
            hidden_size: Width D of the tokens.
            width: Width of the layers.
        """
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * hidden_size, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2)
        )

    def forward(self, tokens: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
        """Predict distances.

        Args:
            tokens: Final tokens of the patches, without CLS, shape (batch_size, N, D).
            pairs: Indices of tokens, int64, shape (batch_size, m, 2).

        Returns:
            Distances between rows and between columns, shape (batch_size, m, 2).

        Raises:
            ValueError: If the shapes do not fit each other.
        """
        return self.layers(gather_pairs(tokens, pairs).flatten(2))


def relative_location_loss(predicted: torch.Tensor, positions: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """Compute the mean absolute error of predicted distances, over pictures, pairs and axes.

    Args:
        predicted: Predictions of `RelativeLocation`, shape (batch_size, m, 2).
        positions: Positions of the tokens, shape (batch_size, N, 2).
        pairs: Indices of tokens, int64, shape (batch_size, m, 2).

    Returns:
        Scalar, >= 0, in the unit of the positions.

    Raises:
        ValueError: If the shapes do not fit each other.
    """
    ends = gather_pairs(positions, pairs)
    distances = (ends[:, :, 0] - ends[:, :, 1]).abs()
    if predicted.shape != distances.shape:
        raise ValueError(f"`predicted` must have shape {tuple(distances.shape)}, got {tuple(predicted.shape)}.")
    return (predicted - distances).abs().mean()
