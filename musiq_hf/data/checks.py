# SPDX-License-Identifier: Apache-2.0
"""What must be known of all pictures before training: which can be decoded, and how many patches each one has."""

import itertools
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from PIL import Image
from transformers.utils import logging

from ..models.musiq.image_processing_musiq import MusiqImageProcessor
from ..models.musiq.patching_musiq import patch_grids
from ..pictures.degradations import to_rgb_picture
from ..pictures.opening import compute_shrunk_size, open_picture
from .batches import open_row

if TYPE_CHECKING:
    import datasets


logger = logging.get_logger(__name__)


def _is_readable(row: dict[str, Any], processor: MusiqImageProcessor, shorter_side: int | None) -> bool:
    try:
        size = to_rgb_picture(open_row(row)).size
        _patches_of(row["image"], size, processor, shorter_side)
    except ValueError as error:
        logger.warning("Left out: %s", error)
        return False
    return True


def readable_rows(
    rows: "datasets.Dataset",
    processor: MusiqImageProcessor,
    *,
    shorter_side: int | None = None,
    num_workers: int = 0,
) -> "datasets.Dataset":
    """The rows whose pictures can be decoded and cut into patches; the others are named in warnings and counted.

    Args:
        rows: With the column `image`, undecoded.
        processor: Cuts the pictures.
        shorter_side: Pictures are shrunk to this shorter side, in pixels, first; None keeps their size.
        num_workers: Processes that decode.

    Raises:
        ValueError: If none can be used.
    """
    wanted = {"processor": processor, "shorter_side": shorter_side}
    kept = rows.filter(_is_readable, fn_kwargs=wanted, num_proc=num_workers or None, load_from_cache_file=False)
    if not len(kept):
        raise ValueError(f"None of the {len(rows)} pictures can be used. Check the files.")
    if len(kept) < len(rows):
        logger.warning("%d of %d pictures cannot be used and are left out.", len(rows) - len(kept), len(rows))
    return kept


def _size_in_head(cell: dict[str, Any]) -> tuple[int, int]:
    """Sides of a picture, undecoded and not turned upright: a quarter turn keeps the number of patches."""
    try:
        with Image.open(BytesIO(cell["bytes"]) if cell["bytes"] else cell["path"]) as opened:
            return opened.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return open_picture(cell).size  # says in one sentence what is wrong


def num_patches_of(
    rows: "datasets.Dataset",
    processor: MusiqImageProcessor,
    *,
    limits: Sequence[int | None] | None = None,
    shorter_side: int | None = None,
) -> list[int]:
    """Length of every picture's training sequence, from the sizes in the files' heads alone.

    It is that of the whole picture, of which training with random windows (`min_crop`) reads a part.

    Args:
        rows: With the column `image`, undecoded.
        processor: Cuts the pictures; its `max_native_patches` counts.
        limits: At most so many patches of each scale, in the order of the scales, as in `QualityCollator`; None keeps
            all.
        shorter_side: Pictures are shrunk to this shorter side, in pixels, first; None keeps their size.

    Raises:
        ValueError: If a picture is missing, is none, or is too long and thin; the message names the file.
    """
    lengths = []
    boxes = rows["box"] if "box" in rows.column_names else itertools.repeat(None)
    for cell, box in zip(rows["image"], boxes, strict=False):
        size = _size_in_head(cell) if box is None else (box[2] - box[0], box[3] - box[1])
        counts = _patches_of(cell, size, processor, shorter_side)
        if limits is not None:
            counts = [n if most is None else min(n, most) for n, most in zip(counts, limits, strict=True)]
        lengths.append(sum(counts))
    return lengths


def _patches_of(
    cell: dict[str, Any], size: tuple[int, int], processor: MusiqImageProcessor, shorter_side: int | None
) -> list[int]:
    """Patches per scale of a picture of this size, or a ValueError that names it."""
    width, height = size if shorter_side is None else compute_shrunk_size(size, shorter_side)
    try:
        return _patches_per_scale(height, width, processor)
    except ValueError as error:
        name = cell["path"] or "picture in the data set"
        raise ValueError(f"{name}, {width}x{height} pixels: {error}") from error


def _patches_per_scale(height: int, width: int, processor: MusiqImageProcessor) -> list[int]:
    grids = patch_grids(
        height,
        width,
        patch_size=processor.patch_size,
        longer_side_lengths=tuple(processor.longer_side_lengths),
        use_native_resolution=processor.use_native_resolution,
        resize_mode=processor.resize_mode,
    )
    counts = [num_rows * num_cols for num_rows, num_cols in grids]
    if processor.use_native_resolution and processor.max_native_patches is not None:
        counts[-1] = min(counts[-1], processor.max_native_patches)
    return counts
