# SPDX-License-Identifier: Apache-2.0
"""What must be known of all pictures before training: which can be decoded, and how many patches each one has."""

import itertools
from io import BytesIO
from typing import TYPE_CHECKING, Any

from PIL import Image
from transformers.utils import logging

from .data import open_row
from .image_processing_musiq import MusiqImageProcessor
from .patching_musiq import patch_grids

if TYPE_CHECKING:
    import datasets

NAMED_PICTURES = 5  # in the warning
logger = logging.get_logger(__name__)


def _is_readable(row: dict[str, Any]) -> bool:
    try:
        open_row(row)
    except ValueError as error:
        logger.warning("Left out: %s", error)
        return False
    return True


def readable_rows(rows: "datasets.Dataset", *, num_workers: int = 0) -> "datasets.Dataset":
    """The rows whose pictures can be decoded; the others are named in warnings and counted.

    Args:
        rows: With the column `image`, undecoded.
        num_workers: Processes that decode.

    Raises:
        ValueError: If none can be decoded.
    """
    kept = rows.filter(_is_readable, num_proc=num_workers or None, load_from_cache_file=False)
    if not len(kept):
        raise ValueError(f"None of the {len(rows)} pictures can be decoded. Check the files.")
    if len(kept) < len(rows):
        logger.warning("%d of %d pictures cannot be decoded and are left out.", len(rows) - len(kept), len(rows))
    return kept


def num_patches_of(rows: "datasets.Dataset", processor: MusiqImageProcessor) -> list[int]:
    """Patches of every picture at all scales, from the sizes in the files' heads alone.

    Args:
        rows: With the column `image`, undecoded.
        processor: Cuts the pictures.
    """
    lengths = []
    boxes = rows["box"] if "box" in rows.column_names else itertools.repeat(None)
    for cell, box in zip(rows["image"], boxes, strict=False):
        if box is not None:
            width, height = box[2] - box[0], box[3] - box[1]
        else:
            with Image.open(BytesIO(cell["bytes"]) if cell["bytes"] else cell["path"]) as opened:
                width, height = opened.size
        grids = patch_grids(
            height,
            width,
            patch_size=processor.patch_size,
            longer_side_lengths=tuple(processor.longer_side_lengths),
            use_native_resolution=processor.use_native_resolution,
            resize_mode=processor.resize_mode,
        )
        lengths.append(sum(num_rows * num_cols for num_rows, num_cols in grids))
    return lengths
