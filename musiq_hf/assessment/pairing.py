# SPDX-License-Identifier: Apache-2.0
"""Files of systems, matched with those of a reference by relative paths without suffix."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..common.systems import System
from ..pictures.finding import LEFT_OUT, NO_PICTURES_OR_VIDEOS, UNLISTED, LeftOutFiles, walk_folder
from ..pictures.lazy import escape_name
from ..pictures.sources.data_sets import SAVED
from ..pictures.video import has_video_suffix


class Match(NamedTuple):
    """File of a reference, and what each system has made of it.

    Attributes:
        key: Relative path of the reference, with slashes; if there is none, that of the first system that has one.
        reference: Path of the reference; None if there is none.
        distorted: Path of each system's file, in the order of the systems; None for a system that has none.
    """

    key: str
    reference: str | None
    distorted: tuple[str | None, ...]


def match_files(reference: str, systems: Sequence[System]) -> list[Match]:
    """Match the files of systems with those of a reference.

    Args:
        reference: File or folder. A file matches those of all systems. Pictures and videos of a folder are known by
            their endings.
        systems: Systems, whose paths are of the same kind.

    Returns:
        Matches in the order of their keys.

    Raises:
        ValueError: If a folder holds no such file, or two that differ in their suffixes alone.
    """
    if os.path.isfile(reference):
        return [Match(_name_key(Path(reference).name), reference, tuple(system.path for system in systems))]
    folders = (reference, *(system.path for system in systems))
    found = [_find_files(folder) for folder in folders]
    matches = []
    for stem in dict.fromkeys(stem for files in found for stem in files):
        names = [files.get(stem) for files in found]
        paths = [_join(*parts) for parts in zip(folders, names, strict=True)]
        key = next(name for name in names if name is not None)
        matches.append(Match(_name_key(key), paths[0], tuple(paths[1:])))
    return sorted(matches, key=lambda match: match.key)


def _join(folder: str, name: str | None) -> str | None:
    return None if name is None else os.path.join(folder, name)


def drop_suffix(key: str) -> str:
    """Return a relative path without the suffix of its file."""
    return os.path.splitext(key)[0]


def _name_key(path: str) -> str:
    """Return a relative path as a key, which any table can hold."""
    return escape_name(path.replace(os.sep, "/"))


def _find_files(folder: str) -> dict[str, str]:
    """Return the relative paths of the pictures and videos below a folder, by the same without suffix."""
    files: dict[str, str] = {}
    left_out = LeftOutFiles(NO_PICTURES_OR_VIDEOS)
    for path, kind in walk_folder(folder, set()):
        if kind in (UNLISTED, SAVED):
            raise ValueError(f"{path}: its files cannot be listed, so they would all be missing. Move it away.")
        if kind == LEFT_OUT and not has_video_suffix(path):
            left_out.add(path)
            continue
        name = os.path.relpath(path, folder)
        other = files.setdefault(drop_suffix(name), name)
        if other != name:
            raise ValueError(
                f"{folder}: {other} and {name} differ in their suffixes alone, and one of them has to match. Move the "
                "other away."
            )
    left_out.warn()
    if not files:
        raise ValueError(f"{folder} holds no picture and no video. Give a folder of files to compare.")
    return files
