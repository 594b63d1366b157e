# SPDX-License-Identifier: Apache-2.0
"""Checks of all pictures before training: whether they can be decoded, and how many tokens each one has."""

import itertools
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from transformers.utils import logging

from ..models.protocol import QualityProcessor, TrainingView
from ..pictures.degradations import to_rgb_picture
from ..pictures.opening import compute_shrunk_size, read_header
from .batches import WHOLE_PICTURE, open_row

if TYPE_CHECKING:
    import datasets


logger = logging.get_logger(__name__)


def _is_readable(row: dict[str, Any], processors: Sequence[QualityProcessor], shorter_side: int | None) -> bool:
    try:
        size = to_rgb_picture(open_row(row)).size
        for processor in processors:
            _count_tokens(row["image"], size, processor, WHOLE_PICTURE, shorter_side)
    except ValueError as error:
        logger.warning("Left out: %s", error)
        return False
    return True


def readable_rows(
    rows: "datasets.Dataset",
    *processors: QualityProcessor,
    shorter_side: int | None = None,
    num_workers: int = 0,
) -> "datasets.Dataset":
    """Keep the rows whose pictures can be decoded and cut; name the others in warnings, and count them.

    Args:
        rows: Rows with the column `image`, undecoded.
        *processors: Image processors that must be able to cut a picture, which is decoded once.
        shorter_side: Shorter side to which pictures are shrunk first, in pixels; None keeps their size.
        num_workers: Processes that decode; 0 decodes in this one.

    Raises:
        ValueError: If no picture can be used.
    """
    wanted = {"processors": processors, "shorter_side": shorter_side}
    kept = rows.filter(_is_readable, fn_kwargs=wanted, num_proc=num_workers or None, load_from_cache_file=False)
    if not len(kept):
        raise ValueError(f"None of the {len(rows)} pictures can be used. Check the files.")
    if len(kept) < len(rows):
        logger.warning("%d of %d pictures cannot be used and are left out.", len(rows) - len(kept), len(rows))
    return kept


def _read_size(cell: dict[str, Any]) -> tuple[int, int]:
    """Read width and height, turned upright, from the head of a file."""
    name = cell["path"] or "picture in the data set"
    header = read_header(BytesIO(cell["bytes"]) if cell["bytes"] else cell["path"], name)
    return header.size[::-1] if header.is_turned else header.size


def count_tokens_of_rows(
    rows: "datasets.Dataset",
    processor: QualityProcessor,
    *,
    view: TrainingView = WHOLE_PICTURE,
    shorter_side: int | None = None,
) -> list[int]:
    """Count the tokens of every training picture, from the sizes in the heads of the files alone.

    The tokens of the whole picture are counted. Training with random windows (`min_crop`) reads a part of them.

    Args:
        rows: Rows with the column `image`, undecoded.
        processor: Image processor of the model.
        view: Part of a picture that a step sees.
        shorter_side: Shorter side to which pictures are shrunk first, in pixels; None keeps their size.

    Raises:
        ValueError: If a file is missing or holds no picture, or the picture is too long and thin; the message names
            the file.
    """
    lengths = []
    boxes = rows["box"] if "box" in rows.column_names else itertools.repeat(None)
    for cell, box in zip(rows["image"], boxes, strict=False):
        size = _read_size(cell) if box is None else (box[2] - box[0], box[3] - box[1])
        lengths.append(_count_tokens(cell, size, processor, view, shorter_side))
    return lengths


def _count_tokens(
    cell: dict[str, Any],
    size: tuple[int, int],
    processor: QualityProcessor,
    view: TrainingView,
    shorter_side: int | None,
) -> int:
    """Count the tokens of a picture of this size, or raise a ValueError that names it."""
    width, height = size if shorter_side is None else compute_shrunk_size(size, shorter_side)
    try:
        return view.count_tokens(processor, height, width)
    except ValueError as error:
        name = cell["path"] or "picture in the data set"
        raise ValueError(f"{name}, {width}x{height} pixels: {error}") from error
