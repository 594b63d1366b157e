# SPDX-License-Identifier: Apache-2.0
"""Bursts: pictures that were taken within seconds of each other and look alike.

Pictures look alike if their perceptual hashes (the package ImageHash, 64 bits) differ in few bits. Pictures without a
time are compared with the one before in their folder.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from ..common.extras import require
from .tables import ScoreTable
from .thumbnails import PictureError, open_small, read_time

BURST = "burst"  # column with the number of the group, from 1
SECONDS, DISTANCE = 3.0, 18
NUM_BITS = 64
SIDE = 128  # pixels; a hash is made of 32


@dataclass(frozen=True, kw_only=True)
class BurstSettings:
    """Bounds within which two pictures, one after the other, belong together.

    Attributes:
        seconds: Longest time between them, at least 0.
        distance: Largest number of bits in which their hashes differ, from 0 to 64.

    Raises:
        ValueError: If a bound is out of range.
    """

    seconds: float = SECONDS
    distance: int = DISTANCE

    def __post_init__(self) -> None:
        if not self.seconds >= 0:
            raise ValueError(f"`seconds` must be at least 0, got {self.seconds}.")
        if not 0 <= self.distance <= NUM_BITS:
            raise ValueError(f"`distance` must lie between 0 and {NUM_BITS} bits, got {self.distance}.")


@dataclass(frozen=True)
class _Frame:
    """Picture with what bursts are found by.

    Attributes:
        place: Place of its row.
        folder: Folder of its file.
        time: Time at which it was taken, or None.
        hash: Perceptual hash, or None if it cannot be read.
    """

    place: int
    folder: str
    time: datetime | None
    hash: Any

    @property
    def order(self) -> tuple[str, bool, datetime, int]:
        """Key to sort by: those with a time first, in its order."""
        return self.folder, self.time is None, self.time or datetime.min, self.place


def find_bursts(
    paths: Sequence[str], settings: BurstSettings | None = None, *, on_picture: Callable[[], None] | None = None
) -> np.ndarray:
    """Find which pictures belong together.

    Args:
        paths: Files; one that cannot be read is a group of its own.
        settings: Bounds; None takes the defaults.
        on_picture: Function that is called after each picture.

    Returns:
        Numbers of the groups, from 1 in the order of their first pictures, int64 of shape (num_pictures,).

    Raises:
        ImportError: If ImageHash is missing.
    """
    bounds, frames = settings or BurstSettings(), []
    hashing = require("imagehash", extra="bursts")
    for place, path in enumerate(paths):
        try:
            code = hashing.phash(open_small(path, SIDE))
        except PictureError:
            code = None
        frames.append(_Frame(place, os.path.dirname(path), read_time(path), code))
        if on_picture is not None:
            on_picture()
    groups = np.arange(len(frames), dtype=np.int64)
    ordered = sorted(frames, key=lambda frame: frame.order)
    for before, after in zip(ordered, ordered[1:], strict=False):
        if _belong_together(before, after, bounds):
            groups[after.place] = groups[before.place]
    first_seen = {group: number for number, group in enumerate(dict.fromkeys(groups.tolist()), start=1)}
    return np.array([first_seen[group] for group in groups.tolist()], dtype=np.int64)


def _belong_together(before: _Frame, after: _Frame, bounds: BurstSettings) -> bool:
    """Return whether two frames, one after the other, belong to one burst."""
    if before.folder != after.folder or before.hash is None or after.hash is None:
        return False
    if (before.time is None) != (after.time is None):
        return False
    if before.time is not None and after.time is not None:
        if (after.time - before.time).total_seconds() > bounds.seconds:
            return False
    return bool(before.hash - after.hash <= bounds.distance)


def add_bursts(
    table: ScoreTable,
    paths: Sequence[str],
    settings: BurstSettings | None = None,
    *,
    on_picture: Callable[[], None] | None = None,
) -> ScoreTable:
    """Return a table with a column `burst`, the number of the group of each picture; `find_bursts` tells the rest.

    Args:
        table: Rows.
        paths: File of each row.
        settings: Bounds; None takes the defaults.
        on_picture: Function that is called after each picture.
    """
    return table.add(BURST, find_bursts(paths, settings, on_picture=on_picture).tolist())
