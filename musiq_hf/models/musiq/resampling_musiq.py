# SPDX-License-Identifier: Apache-2.0
"""Gaussian resize of section 3.2, equal to the released code (google-research/musiq, model/preprocessing.py).

The released code calls TensorFlow's `scale_and_translate` with a Gaussian kernel and without antialiasing. At any
scale the kernel has a radius of 1.5 source pixels and a standard deviation of half a pixel. So downsampling aliases,
and a resize to the same size still filters. Scores depend on both, so both are kept.
"""

from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional as F

KERNEL_RADIUS = 1.5  # source pixels
NUM_TAPS = 4  # 3 source pixels that can lie within the radius, and one more for rounding


@lru_cache(maxsize=256)
def gaussian_taps(in_size: int, out_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute the source pixels and weights of each output pixel along one axis, in float32 as in the released code.

    Args:
        in_size: Number of source pixels, >= 1.
        out_size: Number of output pixels, >= 1.

    Returns:
        Source indices, int64 (out_size, 4), clamped to the axis, and weights, float32 (out_size, 4). Pixels outside
        of the picture have weight 0, and each row adds up to 1.
    """
    scale = np.float32(out_size) / np.float32(in_size)
    inverse_scale = np.float32(1.0) / scale
    # Half-pixel centres: output pixel i sits at (i + 0.5) / scale in source pixels.
    centres = (np.arange(out_size, dtype=np.float32) + np.float32(0.5)) * inverse_scale
    first = np.ceil(centres - np.float32(KERNEL_RADIUS + 0.5)).astype(np.int64)
    indices = first[:, None] + np.arange(NUM_TAPS)
    distances = indices.astype(np.float32) + np.float32(0.5) - centres[:, None]
    weights = np.exp(np.float32(-2.0) * distances * distances)  # sigma = radius / 3 = 0.5
    inside = (np.abs(distances) < KERNEL_RADIUS) & (indices >= 0) & (indices < in_size)
    weights = np.where(inside, weights, np.float32(0.0))
    weights = weights / weights.sum(axis=1, keepdims=True, dtype=np.float32)
    # Arrays, because they are cached: a tensor made in inference mode would fail a later call that needs gradients.
    return indices.clip(0, in_size - 1), weights


def _resize_axis(image: torch.Tensor, out_size: int, dim: int) -> torch.Tensor:
    indices, weights = (torch.from_numpy(taps).to(image.device) for taps in gaussian_taps(image.shape[dim], out_size))
    lines = image.movedim(dim, 0)
    if lines.dtype == torch.uint8:
        if indices.numel() < len(lines):  # most lines of a large picture have no weight
            lines, indices = (
                lines[indices.flatten()],
                torch.arange(indices.numel(), device=image.device).view_as(indices),
            )
        lines = lines.to(weights.dtype)
    # Each output line is a weighted sum of source lines, a bag of embeddings: (in_size, rest) -> (out_size, rest)
    table = lines.reshape(len(lines), -1)
    resized = F.embedding_bag(indices, table, per_sample_weights=weights.to(table.dtype), mode="sum")
    return resized.view(out_size, *lines.shape[1:]).movedim(0, dim)


def gaussian_resize(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resize with the Gaussian kernel of the released code; the result is differentiable in the pixels.

    Args:
        image: float32 or uint8, shape (..., in_height, in_width, channels).
        height: Output rows, in pixels, >= 1.
        width: Output columns, in pixels, >= 1.

    Returns:
        float32, shape (..., height, width, channels), in the units and on the device of `image`, neither clipped nor
        rounded.
    """
    # Each axis has its own ratio: the short side was rounded, so the two ratios differ.
    return _resize_axis(_resize_axis(image, height, dim=-3), width, dim=-2)
