# SPDX-License-Identifier: Apache-2.0
"""Rows of scored pictures: opened at once or where they are decoded, cut, and padded to batches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image
from transformers.image_processing_utils import BatchFeature

from ..models.protocol import Feature, QualityProcessor, TrainingView
from ..pictures.lazy import LazyPicture
from ..pictures.opening import (
    Preset,
    SizeCheck,
    accept_size,
    describe,
    open_picture,
    shrink_shorter_side,
    to_rgb_tensor,
)
from ..pictures.sources.tables import open_cell

WHOLE_PICTURE = TrainingView()


def open_row(row: Mapping[str, Any]) -> Any:
    """Open the picture of a row, and cut out its `box` (left, top, right, bottom in pixels) if it has one.

    Raises:
        ValueError: If the picture cannot be decoded, or the box does not lie inside of it; the message names the file.
    """
    picture, name = open_picture(row["image"]), row["image"]["path"] or "picture in the data set"
    return _cut_box(picture, row.get("box"), name)


@dataclass(frozen=True)
class RowPicture(LazyPicture):
    """Picture of a row that is read, and cut to its box, where it is decoded.

    Attributes:
        box: Left, top, right and bottom in pixels; None keeps the whole picture.
    """

    box: Sequence[int] | None = None

    def open(self, preset: Preset = "default", *, check_size: SizeCheck = accept_size) -> Image.Image:
        """Read, decode and cut the picture; the size that is checked is that of the box.

        Raises:
            ValueError: If the picture cannot be read or cut; the message names it.
        """
        if self.box is None:
            return super().open(preset, check_size=check_size)
        left, top, right, bottom = self.box
        check_size((right - left, bottom - top), self.name)
        return _cut_box(super().open(preset), self.box, self.name)


def lazy_row(row: Mapping[str, Any], name: str) -> RowPicture:
    """Return the picture of a row without reading it.

    Args:
        row: Row of `load_data`.
        name: Name of the picture in error messages.
    """
    return RowPicture(name, partial(open_cell, row["image"], name, ""), row.get("box"))


def _cut_box(picture: Image.Image, box: Sequence[int] | None, name: str) -> Image.Image:
    if box is None:
        return picture
    width, height = picture.size
    left, top, right, bottom = box
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise ValueError(f"{name}: the box {box} must lie inside of its {width}x{height} pixels. Check the labels.")
    return picture.crop((left, top, right, bottom))


def cut_picture(processor: QualityProcessor, image: Image.Image, view: TrainingView = WHOLE_PICTURE) -> Feature:
    """Turn an opened picture into a feature.

    Args:
        processor: Image processor of the model.
        image: Picture in any colour mode.
        view: Part of the picture that is seen; the whole one by default.

    Returns:
        The feature, without a batch axis.

    Raises:
        ValueError: If the picture cannot be used; the message names it.
    """
    try:
        pixels = to_rgb_tensor(image, do_convert_rgb=processor.do_convert_rgb, keep_uint8=True)
        return view.cut(processor, pixels)
    except ValueError as error:
        raise ValueError(f"Picture ({describe(image)}): {error}") from error


def pad_features(
    processor: QualityProcessor, features: Sequence[Feature], *, length: int | None = None
) -> BatchFeature:
    """Batch features, and count their tokens.

    Args:
        processor: Image processor of the model.
        features: Features, one for each picture.
        length: Number of tokens to pad to; None pads to the longest feature of the batch.

    Returns:
        The batch: the arguments of the model, and `num_tokens`, int64, shape (batch_size,).
    """
    padding = "longest" if length is None else "max_length"
    batch = processor.pad(features, padding=padding, max_length=length)
    batch["num_tokens"] = torch.tensor([processor.num_tokens(feature) for feature in features])
    return batch


class QualityCollator:
    """Collator of rows of pictures and scores to padded batches of whole pictures.

    Args:
        processor: Image processor of the model.
        shorter_side: Shorter side to which pictures are shrunk first, in pixels; None keeps their size.
    """

    def __init__(self, processor: QualityProcessor, *, shorter_side: int | None = None):
        self.processor = processor
        self.shorter_side = shorter_side

    def open(self, row: dict[str, Any]) -> tuple[Image.Image, Any]:
        """Open the picture of a row, shrunk as asked for, and read its score or distribution."""
        image, label = open_row(row), row["distribution"] if "distribution" in row else row["mos"]
        return image if self.shorter_side is None else shrink_shorter_side(image, self.shorter_side), label

    def __call__(self, rows: list[dict[str, Any]]) -> BatchFeature:
        opened = [self.open(row) for row in rows]
        batch = pad_features(self.processor, [cut_picture(self.processor, image) for image, _ in opened])
        batch["labels"] = torch.tensor([label for _, label in opened], dtype=torch.float32)
        return batch
