# SPDX-License-Identifier: Apache-2.0
"""Scales and patches of the multi-scale representation (section 3.2), cells of the spatial embedding (section 3.3).

Plain functions on sizes and tensors. Where the paper and the released code (google-research/musiq,
model/preprocessing.py) differ, the code wins, because the published weights were trained with it.

The released code calls TensorFlow's `scale_and_translate` with a Gaussian kernel and without antialiasing. At any
scale the kernel has a radius of 1.5 source pixels and a standard deviation of half a pixel. So downsampling aliases,
and a resize to the same size still filters. Scores depend on both, so both are kept.
"""

import math
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np
import torch
from torch.nn import functional as F

KERNEL_RADIUS = 1.5  # source pixels
NUM_TAPS = 4  # 3 source pixels that can lie within the radius, and one more for rounding


def arp_size(height: int, width: int, longer_side_length: int) -> tuple[int, int]:
    """Compute the size of the aspect-ratio-preserving resized copy (eq. 1).

    Sides are computed in float32 and rounded half to even, as in the released code. In float64 some would differ:
    27x192 at 224 would give 32 rows in place of 31.

    Args:
        height: Rows of the picture, in pixels, >= 1.
        width: Columns of the picture, in pixels, >= 1.
        longer_side_length: Longer side L_k of the copy, in pixels.

    Returns:
        Rows and columns of the copy, in pixels. The longer one is L_k; the other can be 0 for extreme aspect ratios.
    """
    ratio = np.float32(longer_side_length) / np.float32(max(height, width))
    return int(np.rint(np.float32(height) * ratio)), int(np.rint(np.float32(width) * ratio))


def num_patches(height: int, width: int, patch_size: int) -> tuple[int, int]:
    """Return the rows and columns of patches that cover a picture, the last ones padded: ceil(H / P), ceil(W / P)."""
    return -(-height // patch_size), -(-width // patch_size)


def scaled_sizes(
    height: int,
    width: int,
    *,
    longer_side_lengths: tuple[int, ...],
    use_native_resolution: bool,
    resize_mode: str,
    max_native_side: int | None = None,
) -> list[tuple[int, int]]:
    """Compute the sizes of all scales in sequence order: resized copies, shortest first, then the native picture.

    Args:
        height: Rows of the picture, in pixels.
        width: Columns of the picture, in pixels.
        longer_side_lengths: Longer sides L_k, in pixels, ascending.
        use_native_resolution: Whether the picture itself is the last scale.
        resize_mode: "arp" keeps the aspect ratio (eq. 1), "square" resizes to L_k x L_k (Table 5).
        max_native_side: Longer side to which a larger native picture is shrunk, in pixels; None = never.

    Returns:
        (rows, columns) of each scale, in pixels.

    Raises:
        ValueError: If a side of a resized copy rounds to 0.
    """
    sizes = []
    for length in longer_side_lengths:
        size = (length, length) if resize_mode == "square" else arp_size(height, width, length)
        if min(size) == 0:
            raise ValueError(
                f"its aspect ratio is too extreme: resized to a longer side of {length} pixels its shorter side "
                "rounds to 0 pixels. Crop it, or score it with a single-scale checkpoint."
            )
        sizes.append(size)
    native = (height, width)
    if max_native_side is not None and max(native) > max_native_side:
        rows, cols = arp_size(height, width, max_native_side)
        native = (max(rows, 1), max(cols, 1))  # a thin picture keeps a line
    return sizes + [native] * use_native_resolution


def patch_grids(
    height: int,
    width: int,
    *,
    patch_size: int,
    longer_side_lengths: tuple[int, ...],
    use_native_resolution: bool,
    resize_mode: str = "arp",
) -> list[tuple[int, int]]:
    """Compute the rows and columns of patches of every scale, in sequence order.

    Maps of a picture are drawn on these grids. They hold all native patches, also those beyond the first l.

    Args:
        height: Rows of the picture, in pixels.
        width: Columns of the picture, in pixels.
        patch_size: Side P of a patch, in pixels.
        longer_side_lengths: Longer sides L_k of the resized copies, in pixels, ascending.
        use_native_resolution: Whether the picture itself is the last scale.
        resize_mode: "arp" keeps the aspect ratio (eq. 1), "square" resizes to L_k x L_k (Table 5).

    Returns:
        (rows, columns) of each scale, in patches.

    Raises:
        ValueError: If a side of a resized copy rounds to 0.
    """
    sizes = scaled_sizes(
        height,
        width,
        longer_side_lengths=longer_side_lengths,
        use_native_resolution=use_native_resolution,
        resize_mode=resize_mode,
    )
    return [num_patches(*size, patch_size) for size in sizes]


def hash_positions(num_rows: int, num_cols: int, grid_size: int) -> torch.Tensor:
    """Hash each patch to a cell of the spatial grid (eq. 2; the released code floors, the paper rounds).

    Cells are computed in float32, which differs from integer division for a few counts, such as 205 patches with
    G = 10.

    Args:
        num_rows: Patch rows, >= 1.
        num_cols: Patch columns, >= 1.
        grid_size: Side G of the grid, in cells.

    Returns:
        int64, shape (num_rows * num_cols,), row-major, values in [0, G * G).

    Raises:
        ValueError: If a size is below 1.
    """
    if min(num_rows, num_cols, grid_size) < 1:
        raise ValueError(f"Sizes must be at least 1, got {num_rows} x {num_cols} patches and a grid of {grid_size}.")

    def cells(count: int) -> torch.Tensor:
        scale = np.float32(grid_size) / np.float32(count)
        cell = np.floor(np.arange(count, dtype=np.float32) * scale).astype(np.int64)
        return torch.from_numpy(np.minimum(cell, grid_size - 1))

    return (cells(num_rows)[:, None] * grid_size + cells(num_cols)[None, :]).flatten()


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


def shrink(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Shrink a picture with an antialiased cubic filter; the result is differentiable in the pixels.

    The Gaussian of the released code would skip most lines of a large picture, and leave it sharper than it is. A
    triangle would make it softer.

    Args:
        image: float32 in [-1, 1] or uint8, shape (in_height, in_width, channels).
        height: Output rows, in pixels, >= 1.
        width: Output columns, in pixels, >= 1.

    Returns:
        float32, shape (height, width, channels), in the units and range and on the device of `image`, not rounded.
    """
    lowest, highest = (0, 255) if image.dtype == torch.uint8 else (-1, 1)  # a cubic filter overshoots at edges
    # Channel by channel, so that only one is held as float32: a byte becomes four.
    planes = [
        F.interpolate(plane[None, None].float(), (height, width), mode="bicubic", antialias=True)[0, 0]
        for plane in image.unbind(-1)
    ]
    return torch.stack(planes, dim=-1).clamp(lowest, highest)


def extract_patches(image: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Cut a picture into patches, zero-padded to whole patches with the picture in the centre.

    The padding value 0 is mid gray, because the pixels are already scaled to [-1, 1]. The odd pixel of padding goes to
    the bottom and the right, as in TensorFlow's SAME.

    Args:
        image: float32, shape (height, width, 3).
        patch_size: Side P of a patch, in pixels.

    Returns:
        Shape (num_rows * num_cols, patch_size * patch_size * 3), row-major; a patch is in row, column, channel order.
    """
    height, width, channels = image.shape
    rows, cols = num_patches(height, width, patch_size)
    extra_height, extra_width = rows * patch_size - height, cols * patch_size - width
    top, left = extra_height // 2, extra_width // 2
    image = F.pad(image, (0, 0, left, extra_width - left, top, extra_height - top))
    # (rows * P, cols * P, C) -> (rows, cols, P, P, C) -> (rows * cols, P * P * C)
    patches = image.view(rows, patch_size, cols, patch_size, channels).transpose(1, 2)
    return patches.reshape(rows * cols, patch_size * patch_size * channels)


def write_patches(image: torch.Tensor, patch_size: int, patches: torch.Tensor) -> None:
    """Scale the pixels of a picture to [-1, 1] and write its patches, as `extract_patches` cuts them.

    On a CPU the result is bit for bit that of scaling first, because `x / 127.5 - 1` rounds as `2 (x / 255) - 1`. It
    takes a third of the memory and time.

    Args:
        image: uint8, shape (height, width, 3).
        patch_size: Side P of a patch, in pixels.
        patches: Output, float32, contiguous, shape (num_rows * num_cols, patch_size * patch_size * 3).
    """
    height, width, channels = image.shape
    rows, cols = num_patches(height, width, patch_size)
    top, left = (rows * patch_size - height) // 2, (cols * patch_size - width) // 2
    bottom, right = rows * patch_size - height - top, cols * patch_size - width - left
    if rows * patch_size > height or cols * patch_size > width:
        image = F.pad(image, (0, 0, left, right, top, bottom))
    # (rows * P, cols * P, C) -> (rows, cols, P, P, C)
    cut = image.view(rows, patch_size, cols, patch_size, channels).transpose(1, 2)
    patches = patches.view(rows, cols, patch_size, patch_size, channels)
    step = 1 if image.device.type == "cpu" else rows  # one row of patches stays in the cache
    for row in range(0, rows, step):
        patches[row : row + step].copy_(cut[row : row + step]).div_(127.5).sub_(1)
    patches[0, :, :top] = 0
    patches[-1, :, patch_size - bottom :] = 0
    patches[:, 0, :, :left] = 0
    patches[:, -1, :, patch_size - right :] = 0


def write_chosen_patches(image: torch.Tensor, patch_size: int, indices: torch.Tensor, patches: torch.Tensor) -> None:
    """Scale the pixels of some patches of a picture to [-1, 1] and write them, bit for bit as `write_patches` does.

    Args:
        image: uint8, shape (height, width, 3).
        patch_size: Side P of a patch, in pixels.
        indices: Numbers of the patches in row-major order, int64.
        patches: Output, float32, contiguous, shape (len(indices), patch_size * patch_size * 3).
    """
    height, width, channels = image.shape
    rows, cols = num_patches(height, width, patch_size)
    top, left = (rows * patch_size - height) // 2, (cols * patch_size - width) // 2
    patches = patches.view(len(indices), patch_size, patch_size, channels)
    row, col = (indices // cols).tolist(), (indices % cols).tolist()
    for patch, first_row, first_col in zip(patches, row, col, strict=True):
        y, x = first_row * patch_size - top, first_col * patch_size - left  # of the patch in the picture
        inside = image[max(y, 0) : y + patch_size, max(x, 0) : x + patch_size]
        if inside.shape[:2] == (patch_size, patch_size):
            patch.copy_(inside)
        else:
            patch.fill_(127.5)  # becomes 0
            patch[max(-y, 0) :, max(-x, 0) :][: len(inside), : inside.shape[1]] = inside
    patches.div_(127.5).sub_(1)


def sinusoid_table(num_positions: int, hidden_size: int, *, device: torch.device | None = None) -> torch.Tensor:
    """Make the table of fixed sine and cosine vectors over flat cell indices (released code, `use_sinusoid_pos_emb`).

    The angle of position p and column j is p / 10000 ** (2 * (j // 2) / D); even columns are sines, odd ones cosines.

    Args:
        num_positions: Number of positions p, >= 1.
        hidden_size: Number of columns D, >= 1.
        device: Device of the table; None = torch's default.

    Returns:
        float32, shape (num_positions, hidden_size).
    """
    columns = torch.arange(hidden_size, dtype=torch.float32, device=device)
    rates = 10000.0 ** (-2.0 * (columns // 2) / hidden_size)
    angles = torch.arange(num_positions, dtype=torch.float32, device=device)[:, None] * rates
    return torch.where(columns % 2 == 0, angles.sin(), angles.cos())


def check_inputs(
    config: Any,
    pixel_values: torch.Tensor | None,
    spatial_position_ids: torch.Tensor | None,
    scale_position_ids: torch.Tensor | None,
) -> None:
    """Raise a ValueError if tensors are not what a processor with the layout of a configuration makes."""
    expected = 3 * config.patch_size**2
    if pixel_values is None:
        raise ValueError("`pixel_values` is required: pass the output of `MusiqImageProcessor`.")
    length = pixel_values.shape[-1] if pixel_values.dim() == 3 else 0
    side = math.isqrt(length // 3)
    if side != config.patch_size and 0 < length == 3 * side**2:
        _refuse_layout("`pixel_values`", f"are patches of {side} pixels", f"reads patches of {config.patch_size}")
    if length != expected:
        raise ValueError(
            f"`pixel_values` must have shape (batch_size, sequence_length, {expected}), got "
            f"{tuple(pixel_values.shape)}. Did you skip `MusiqImageProcessor`?"
        )
    needed = {
        "spatial_position_ids": (spatial_position_ids, config.spatial_embedding != "none"),
        "scale_position_ids": (scale_position_ids, config.use_scale_embedding),
    }
    for name, (ids, is_needed) in needed.items():
        if is_needed and (ids is None or ids.shape != pixel_values.shape[:2]):
            got, wanted = None if ids is None else tuple(ids.shape), tuple(pixel_values.shape[:2])
            raise ValueError(
                f"`{name}` is required by this configuration, with shape {wanted}, got {got}. "
                "Pass all that the processor returns."
            )
    _check_positions(config, *(ids if is_needed else None for ids, is_needed in needed.values()))


def _check_positions(config: Any, spatial: torch.Tensor | None, scales: torch.Tensor | None) -> None:
    """Raise a ValueError if positions are those of another layout; where values are not known, nothing is checked.

    Every picture has patches of every scale, so fewer scales than the model's are another layout too.
    """
    parts: tuple[tuple[Any, str, str, int, int], ...] = (
        (spatial, "spatial_position_ids", "positions", config.num_spatial_positions, 0),
        (scales, "scale_position_ids", "scales", config.num_scales, config.num_scales - 1),
    )
    known = [part for part in parts if part[0] is not None and part[0].numel() and not part[0].is_meta]
    if not known or torch.compiler.is_compiling() or _is_captured(known[0][0]):
        return
    largest = torch.stack([ids.amax() for ids, *_ in known]).tolist()  # one wait for a GPU
    for (_, name, kind, count, least), found in zip(known, largest, strict=True):
        if not least <= found < count:
            _refuse_layout(f"`{name}`", f"go up to {found}", f"has {count} {kind}, 0 to {count - 1}")


def _is_captured(tensor: Any) -> bool:
    """Return whether work on a tensor is only recorded, in a CUDA graph."""
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


def _refuse_layout(name: str, given: str, wanted: str) -> NoReturn:
    raise ValueError(
        f"Model and image processor have different layouts: {name} {given}, but the model {wanted}. Build the "
        "processor with `MusiqImageProcessor.from_config(model.config)`."
    )
