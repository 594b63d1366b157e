# SPDX-License-Identifier: Apache-2.0
"""Pictures below a folder: one list of endings and one walk through folders for scoring, training and examples."""

import os
from collections.abc import Iterator
from pathlib import Path

from .dataset_sources import SAVED, is_saved

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")
PICTURE, UNLISTED = "picture", "folder"  # kinds of paths that a walk finds, beside `SAVED`


def has_picture_suffix(name: str) -> bool:
    """Return whether a file name ends as those of pictures do, in any case."""
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES


def find_pictures(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the picture files below a folder in the order of their names.

    They are known by their endings (`PICTURE_SUFFIXES`), and `musiq score` finds the same ones. Hidden files and
    folders are left out. Each folder is visited once, even where links lead to it again.

    Raises:
        ValueError: If there is no such folder, or no picture in it.
    """
    if not os.path.isdir(folder):
        raise ValueError(f"{folder}: no such folder. Give a folder of pictures.")
    found = walk_folder(os.fspath(folder), set())
    files = [Path(path) for path, kind in found if kind == PICTURE and os.path.isfile(path)]
    if not files:
        endings = ", ".join(PICTURE_SUFFIXES)
        raise ValueError(f"{folder} holds no picture. Give a folder of PNG, JPEG or other pictures ({endings}).")
    return files


def walk_folder(folder: str, visited: set[tuple[int, int]]) -> Iterator[tuple[str, str]]:
    """Walk through a folder and those below it in the order of their names.

    Args:
        folder: Folder at which the walk starts.
        visited: Device and number of the folders visited so far, which are left out; those of this walk are added.

    Yields:
        Path and kind. The kind is `PICTURE`, `SAVED` for a saved data set, which is not entered, or `UNLISTED` for a
        folder that cannot be listed.
    """
    stack: list[tuple[str, Iterator[tuple[str, bool]]]] = [("", iter([(folder, True)]))]
    while stack:
        parent, entries = stack[-1]
        name, is_folder = next(entries, ("", False))
        path = os.path.join(parent, name) if parent else name
        if not name:
            stack.pop()
        elif not is_folder:
            yield path, PICTURE
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
    """Return the subfolders and pictures of a folder as sorted pairs: name, and whether it is a folder."""
    listed = []
    with os.scandir(folder) as entries:
        for entry in entries:
            # `entry.is_dir` raises where a link leads to itself, `isdir` does not.
            is_link = entry.is_symlink()
            is_folder = os.path.isdir(entry.path) if is_link else entry.is_dir(follow_symlinks=False)
            if (is_folder or has_picture_suffix(entry.name)) and not entry.name.startswith("."):
                listed.append((entry.name, is_folder))
    return sorted(listed)
