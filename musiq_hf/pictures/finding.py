# SPDX-License-Identifier: Apache-2.0
"""Pictures below a folder: one list of endings and one walk through folders for scoring, training and examples."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from transformers.utils import logging

from .opening import PICTURE_SUFFIXES, find_suffix, read_header
from .sources.data_sets import SAVED, is_saved

# Kinds of paths that a walk finds, beside `SAVED`.
PICTURE, UNLISTED, LEFT_OUT = "picture", "folder", "left out"
# Words for the endings of files that are left out.
NO_PICTURES = "endings that pictures do not have"
NO_PICTURES_OR_VIDEOS = "endings that neither pictures nor videos have"
PLAIN_SUFFIX = re.compile(r"\.\w{1,12}", re.ASCII)
MOST_SUFFIXES = 8  # endings that one line names

logger = logging.get_logger(__name__)


def has_picture_suffix(name: str) -> bool:
    """Return whether a file name ends as those of pictures do, in any case."""
    return find_suffix(name) in PICTURE_SUFFIXES


class LeftOutFiles:
    """Number of the files that were left out, because of their endings.

    Args:
        reason: Words for these endings in the line that `warn` logs.
    """

    def __init__(self, reason: str = NO_PICTURES) -> None:
        self.reason = reason
        self.counts: Counter[str] = Counter()

    def add(self, name: str) -> None:
        """Count one more file; endings that no line of text should repeat are counted together."""
        suffix = find_suffix(name)
        other = "with odd endings" if suffix else "without ending"
        self.counts[suffix if PLAIN_SUFFIX.fullmatch(suffix) else other] += 1

    def warn(self) -> None:
        """Log one line that says how many files were left out, if there are any."""
        if self.counts:
            logger.warning(str(self))

    def __str__(self) -> str:
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        parts = [f"{count} {suffix}" for suffix, count in ordered[:MOST_SUFFIXES]]
        rest = sum(count for _, count in ordered[MOST_SUFFIXES:])
        total = self.counts.total()
        named = ", ".join(parts + [f"{rest} with other endings"] * bool(rest))
        return f"{total} file{' was' if total == 1 else 's were'} left out ({self.reason}): {named}"


def find_pictures(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the picture files below a folder in the order of their names.

    They are known by their endings (`PICTURE_SUFFIXES`), and `musiq score` finds the same ones. How many files have
    other endings is logged as a warning. Hidden files and folders are left out. Each folder is visited once, even
    where links lead to it again.

    Raises:
        ValueError: If there is no such folder, or no picture in it.
    """
    if not os.path.isdir(folder):
        raise ValueError(f"{folder}: no such folder. Give a folder of pictures.")
    files, left_out = [], LeftOutFiles()
    for path, kind in walk_folder(os.fspath(folder), set()):
        if kind == LEFT_OUT:
            left_out.add(path)
        elif kind == PICTURE and os.path.isfile(path):
            files.append(Path(path))
    left_out.warn()
    if not files:
        raise ValueError(f"{folder} holds no picture. Give a folder of PNG, JPEG or other pictures.")
    return files


def hold_out_pictures(
    folder: str | os.PathLike[str],
    *,
    most: int,
    seed: int,
    smallest: int = 1,
    report: Callable[[str], None] = print,
) -> tuple[list[Path], list[Path]]:
    """Return the pictures of a folder to train on, in a random order, and others that are held out.

    Args:
        folder: Folder of pictures; see `find_pictures`.
        most: Largest number that is held out; it is a tenth of the pictures if that is less, but at least one.
        seed: Seed of the order.
        smallest: Shortest side in pixels; the heads of all files are read if it is above 1.
        report: Function that is told in a sentence how many pictures are smaller and were left out.

    Raises:
        ValueError: If there are fewer than two pictures that are large enough, or the head of one cannot be read.
    """
    found = find_pictures(folder)
    files = found
    if smallest > 1:
        files = [path for path in found if min(read_header(path, path.name).size) >= smallest]
    if len(files) < 2:
        kind = f" of at least {smallest} x {smallest} pixels" if smallest > 1 else ""
        raise ValueError(
            f"{folder} holds {len(files) or 'no'} picture{'s' * (not files)}{kind}; one for training and another to "
            "measure are needed. Add pictures."
        )
    if len(files) < len(found):
        report(f"Left out are {len(found) - len(files)} with a side below {smallest} pixels.")
    chosen = [files[place] for place in np.random.default_rng(seed).permutation(len(files))]
    number = min(most, max(1, len(files) // 10))
    return chosen[number:], chosen[:number]


def walk_folder(folder: str, visited: set[tuple[int, int]]) -> Iterator[tuple[str, str]]:
    """Walk through a folder and those below it in the order of their names.

    Args:
        folder: Folder at which the walk starts.
        visited: Device and number of the folders visited so far, which are left out; those of this walk are added.

    Yields:
        Path and kind. The kind of a file is `PICTURE`, or `LEFT_OUT` if it has another ending. The kind of a folder is
        `SAVED` for a saved data set, which is not entered, or `UNLISTED` if it cannot be listed.
    """
    stack: list[tuple[str, Iterator[tuple[str, bool]]]] = [("", iter([(folder, True)]))]
    while stack:
        parent, entries = stack[-1]
        name, is_folder = next(entries, ("", False))
        path = os.path.join(parent, name) if parent else name
        if not name:
            stack.pop()
        elif not is_folder:
            yield path, PICTURE if has_picture_suffix(name) else LEFT_OUT
        else:
            try:
                status = os.stat(path)
                if (status.st_dev, status.st_ino) not in visited:
                    visited.add((status.st_dev, status.st_ino))
                    if is_saved(path):
                        yield path, SAVED
                    else:
                        stack.append((path, iter(_list_entries(path))))
            except OSError:
                yield path, UNLISTED


def _list_entries(folder: str) -> list[tuple[str, bool]]:
    """Return what is in a folder as sorted pairs: name, and whether it is a folder; hidden entries are left out."""
    listed = []
    with os.scandir(folder) as entries:
        for entry in entries:
            # `entry.is_dir` raises where a link leads to itself, `isdir` does not.
            is_link = entry.is_symlink()
            is_folder = os.path.isdir(entry.path) if is_link else entry.is_dir(follow_symlinks=False)
            if not entry.name.startswith("."):
                listed.append((entry.name, is_folder))
    return sorted(listed)
