# SPDX-License-Identifier: Apache-2.0
"""Splits that the names of files and folders tell."""

import re
from pathlib import Path

from .splits import SPLIT_WORDS, SPLITS


def _find_split(path: Path) -> str | None:
    """Return the split that a relative path tells: its folders, the innermost first, or else its file; None if none.

    Raises:
        ValueError: If one name tells several splits.
    """
    for name in (*reversed(path.parent.parts), path.stem):
        found = {SPLIT_WORDS[word] for word in re.split(r"[-._ 0-9]+", name) if word in SPLIT_WORDS}
        if len(found) > 1:
            raise ValueError(f"{path}: the name tells several splits ({', '.join(sorted(found))}). Rename it.")
        if found:
            return found.pop()
    return None


def is_hidden(path: Path) -> bool:
    """Return whether a relative path leads through a hidden folder or to a hidden file."""
    return any(name.startswith(".") for name in path.parts)


def find_split_files(folder: Path, pattern: str) -> dict[str, list[str]]:
    """Find the files below a folder, by their splits.

    Args:
        folder: Folder that is searched. Hidden files and folders are left out.
        pattern: Pattern of the names of files.

    Returns:
        Sorted paths by the names of splits, in the order of `SPLITS`; all are "train" if no name tells a split.

    Raises:
        ValueError: If some names tell splits and others do not, or one tells several.
    """
    splits: dict[str | None, list[str]] = {}
    for path in sorted(folder.rglob(pattern)):
        relative = path.relative_to(folder)
        if not is_hidden(relative):
            splits.setdefault(_find_split(relative), []).append(str(path))
    unnamed = splits.pop(None, [])
    if unnamed and splits:
        raise ValueError(f"{unnamed[0]}: its name tells no split, but others below {folder} do. Rename it.")
    return {"train": unnamed} if unnamed else {name: splits[name] for name in SPLITS if name in splits}
