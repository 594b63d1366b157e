# SPDX-License-Identifier: Apache-2.0
"""Rows of scored pictures, opened."""

from typing import Any

from ..pictures.opening import Preset, open_picture


def open_row(row: dict[str, Any], preset: Preset = "default") -> Any:
    """Open the picture of a row, and cut out its `box` (left, top, right, bottom in pixels) if it has one.

    Raises:
        ValueError: If the picture cannot be decoded, or the box is not inside of it; the message names the file.
    """
    picture, box = open_picture(row["image"], preset), row.get("box")
    if box is None:
        return picture
    width, height = picture.size
    left, top, right, bottom = box
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        name = row["image"]["path"] or "picture in the data set"
        raise ValueError(f"{name}: the box {box} must lie inside of its {width}x{height} pixels. Check the labels.")
    return picture.crop((left, top, right, bottom))
