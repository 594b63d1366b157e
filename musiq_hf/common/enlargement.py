# SPDX-License-Identifier: Apache-2.0
"""Enlargement of pictures as words say it: the size that is asked for, methods and formats, and where copies go.

Nothing heavy is imported for it.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from .files import check_output_file

MAX_SCALE = 64.0  # along each side
MAX_MEGAPIXELS = 128.0  # of an enlarged picture; a slip of the keyboard can ask for any size
MSIT = "msit"
METHODS = (MSIT, "bicubic", "lanczos")
SUFFIXES = {"png": ".png", "jpeg": ".jpg", "tiff": ".tiff", "webp": ".webp"}  # of files by the names of formats


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def is_length(value: Any) -> bool:
    """Return whether a value is a number of pixels from 1."""
    return _is_number(value, Integral) and value >= 1


def _is_size(value: Any) -> bool:
    try:
        return len(value) == 2 and all(is_length(side) for side in value)
    except TypeError:  # of a single number
        return False


@dataclass(frozen=True, kw_only=True)
class Target:
    """Size that a picture is enlarged to; one of the three says it.

    Attributes:
        scale: Sides of the enlarged picture over those of the picture, from 1 to 64.
        size: Width and height of the enlarged picture, in pixels; the picture is stretched to it.
        longer_side: Longer side of the enlarged picture, in pixels; the other follows.

    Raises:
        ValueError: If none or several are given, or one is out of range.
    """

    scale: float | None = None
    size: tuple[int, int] | None = None
    longer_side: int | None = None

    def __post_init__(self) -> None:
        given = [name for name, value in vars(self).items() if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"One of `scale`, `size` and `longer_side` is needed, got {' and '.join(given) or 'none'}. Give one."
            )
        if self.scale is not None and not (_is_number(self.scale, Real) and 1 <= self.scale <= MAX_SCALE):
            raise ValueError(f"`scale` must be a number between 1 and {MAX_SCALE:g}, got {self.scale}.")
        if self.size is not None and not _is_size(self.size):
            raise ValueError(f"`size` must be a width and a height of at least 1 pixel, got {self.size}.")
        if self.longer_side is not None and not is_length(self.longer_side):
            raise ValueError(f"`longer_side` must be a whole number of pixels from 1, got {self.longer_side}.")

    def __str__(self) -> str:
        (given,) = ((name, value) for name, value in vars(self).items() if value is not None)
        name, value = given
        return f"{name}:{'x'.join(map(str, value)) if name == 'size' else str(value).removesuffix('.0')}"

    def find_size(self, size: tuple[int, int], name: str) -> tuple[int, int]:
        """Return width and height of the enlarged picture, in pixels.

        Args:
            size: Width and height of the picture, in pixels.
            name: Name of the picture in error messages.

        Raises:
            ValueError: If a side would become shorter, more than 64 times as long, or the picture too large.
        """
        if self.size is not None:
            width, height = self.size
        else:
            scale = self.longer_side / max(size) if self.longer_side is not None else (self.scale or 1.0)
            width, height = (max(1, round(side * scale)) for side in size)
        before, after = f"{size[0]}x{size[1]}", f"{width}x{height}"
        if width < size[0] or height < size[1]:
            raise ValueError(f"{name}: {before} pixels would become {after}, which shrinks. Ask for a larger size.")
        if width > MAX_SCALE * size[0] or height > MAX_SCALE * size[1]:
            raise ValueError(f"{name}: {before} to {after} pixels is more than {MAX_SCALE:g} times. Ask for less.")
        if width * height > MAX_MEGAPIXELS * 1e6:
            raise ValueError(
                f"{name}: {before} pixels would become {after}, and the limit is {MAX_MEGAPIXELS:g} megapixels. Ask "
                "for less, or cut the picture into parts."
            )
        return width, height


def check_copies(folder: str | os.PathLike[str], paths: Sequence[str]) -> None:
    """Raise a ValueError if a picture or folder does not exist, or its copies cannot go to a folder.

    Args:
        folder: Folder of the copies, which may not exist yet.
        paths: Pictures, and folders of pictures.
    """
    check_output_file(Path(folder) / "picture")
    inside = os.path.realpath(folder)
    for path in paths:
        if not os.path.exists(path):
            raise ValueError(f"{path}: no such file or folder.")
        if os.path.isdir(path) and Path(inside).is_relative_to(os.path.realpath(path)):
            raise ValueError(
                f"{folder} lies in {path}, so that the next run would enlarge copies. Choose a folder outside of it."
            )
