# SPDX-License-Identifier: Apache-2.0
"""Pictures of files, folders, patterns, tar shards, tables and data sets: a stream of keys and pictures.

The order is the same every time and nothing but sorted names of one folder's entries is held. A picture is read and
decoded when its pixels are asked for; what cannot be read is a picture that says so then. Nothing is ever unpacked.
"""

import glob
import itertools
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path

from .dataset_sources import (
    HUB,
    HUB_PREFIX,
    SAVED,
    check_hub,
    check_saved,
    count_hub,
    count_saved,
    is_saved,
    read_hub,
    read_saved,
)
from .lazy import LazyPicture, Source, as_text, checked_path, unreadable, why
from .opening import URL_PREFIXES, download
from .table_sources import Columns, check_table, count_parquet, read_csv, read_parquet

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")
TABLE_SUFFIXES = (".csv", ".parquet")
KINDS = f"a picture ({', '.join(PICTURE_SUFFIXES)}), a .tar, .parquet or .csv file"
TAR_BLOCK = 512  # bytes
URL_TIMEOUT = 60  # seconds
DEFAULT_COLUMNS = Columns()


def find_sources(paths: Sequence[str], *, columns: Columns = DEFAULT_COLUMNS) -> Iterator[Source]:
    """Every picture of the paths, in their order; that of names within folders, of members and rows within files.

    Args:
        paths: Pictures, or http(s) URLs of some; folders, searched through for pictures, hidden entries left out, each
            folder once even where links lead to it again; patterns ("photos/**/*.jpg"); .tar files (WebDataset shards
            are some); .parquet files with a column of pictures (bytes, or bytes and path as `datasets` writes them);
            .csv files with a column of paths that start from the file's folder; data sets, as folders that
            `save_to_disk` has written or on the Hub ("hf://datasets/owner/name/configuration@revision:split", the last
            three as needed).
        columns: Of tables and data sets.

    Yields:
        (key, picture). The key is that of the row's column; without one it is the path, "shard.tar::member",
        "file.parquet::row" (from 0, of data sets as well) or a path as the CSV has it; what of a name is not Unicode
        is written with backslashes.

    Raises:
        ValueError: If there is no such path, or no picture at all.
    """
    found = False
    for path, kind in _files(paths):
        for source in READERS[kind](path, columns):
            found = True
            yield source
    if not found:
        raise ValueError(
            f"There is no picture in {', '.join(paths[:3])}{', ...' if len(paths) > 3 else ''}. Folders are searched "
            "for pictures only: name tar, parquet and CSV files, or give a pattern such as 'shards/*.tar'."
        )


def count_sources(paths: Sequence[str], *, columns: Columns = DEFAULT_COLUMNS) -> int | None:
    """How many pictures `find_sources` will find, without reading any of them; None if a data set does not say it."""
    total = 0
    for path, kind in _files(paths):
        count = _count(path, kind, columns)
        if count is None:
            return None
        total += count
    return total


def check_sources(paths: Sequence[str], *, columns: Columns = DEFAULT_COLUMNS) -> None:
    """Find a mistake in the arguments of `find_sources` before hours of work; of a pattern look at the first table.

    Raises:
        ValueError: If a path does not exist, cannot hold pictures, or lacks a column.
    """
    has_table = False
    for path in paths:
        if path.startswith(HUB_PREFIX):
            check_hub(path, columns)
            has_table = True
        if path.startswith((HUB_PREFIX, *URL_PREFIXES)):
            continue
        if os.path.isdir(path):
            has_table |= _check_saved_within(path, columns)
            continue
        files = [path] if os.path.lexists(path) else list(_matches(path))
        if not files:
            raise ValueError(f"{path}: no such file or folder, and no picture, tar, parquet or CSV file matches it.")
        tables = (
            (file, kind) for file in files if not os.path.isdir(file) and (kind := _kind(file)) in TABLE_SUFFIXES
        )
        for file, kind in itertools.islice(tables, 1):
            has_table = True
            check_table(file, kind, columns)
    for option, name in (("--column", columns.picture), ("--key", columns.key)):
        if name is not None and not has_table:
            raise ValueError(f"{option} names a column ({name!r}) of a table or data set, but none is given. Drop it.")


def _check_saved_within(folder: str, columns: Columns) -> bool:
    """Check a saved data set, or all splits of one; of other folders, if columns are named, the first data set in it.

    Returns:
        Whether there is one.
    """
    has_splits = os.path.isfile(os.path.join(folder, "dataset_dict.json"))
    if not (is_saved(folder) or has_splits or columns != DEFAULT_COLUMNS):
        return False  # a walk through all of a large folder is only worth it for an answer that is needed
    saved = (path for path, kind in _files([folder]) if kind == SAVED)
    checked = list(saved if has_splits else itertools.islice(saved, 1))
    for path in checked:
        check_saved(path, columns)
    return bool(checked)


def _files(paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(path, kind) of every file; kind is a key of `READERS`."""
    visited: set[tuple[int, int]] = set()
    for path in paths:
        if path.startswith(HUB_PREFIX):
            yield path, HUB
        elif path.startswith(URL_PREFIXES):
            yield path, "url"
        elif os.path.isdir(path):
            yield from _walk(path, visited)
        elif os.path.lexists(path):
            yield path, _kind(path)
        else:
            for match in _matches(path):
                if os.path.isdir(match):
                    yield from _walk(match, visited)
                else:
                    yield match, _kind(match)


def _kind(path: str) -> str:
    suffix = Path(path).suffix.lower()
    if suffix in PICTURE_SUFFIXES or not suffix:
        return "picture"
    if suffix in READERS:
        return suffix
    raise ValueError(f"{path}: {KINDS}, or a folder was expected. Leave it out, or convert it.")


def _matches(pattern: str) -> Iterator[str]:
    """Files of a pattern that can hold pictures, and folders; not these where `**` finds what is in them itself."""
    for path in sorted(glob.iglob(pattern, recursive=True)):
        if os.path.isdir(path):
            if "**" not in pattern:
                yield path
        elif Path(path).suffix.lower() in (*PICTURE_SUFFIXES, *READERS):
            yield path


def _walk(folder: str, visited: set[tuple[int, int]]) -> Iterator[tuple[str, str]]:
    """Pictures below a folder in the order of their names; kind "folder" is one that cannot be listed."""
    stack: list[tuple[str, Iterator[tuple[str, bool]]]] = [("", iter([(folder, True)]))]
    while stack:
        parent, entries = stack[-1]
        name, is_folder = next(entries, ("", False))
        path = os.path.join(parent, name) if parent else name
        if not name:
            stack.pop()
        elif not is_folder:
            yield path, "picture"
        else:
            try:
                status = os.stat(path)
                if (status.st_dev, status.st_ino) not in visited:
                    visited.add((status.st_dev, status.st_ino))
                    if is_saved(path):
                        yield path, SAVED
                    else:
                        stack.append((path, iter(_listing(path))))
            except OSError:
                yield path, "folder"


def _listing(folder: str) -> list[tuple[str, bool]]:
    """Sorted (name, is it a folder?) of a folder's subfolders and pictures."""
    listed = []
    with os.scandir(folder) as entries:
        for entry in entries:
            # `is_dir` raises where a link leads to itself.
            is_link = entry.is_symlink()
            is_folder = os.path.isdir(entry.path) if is_link else entry.is_dir(follow_symlinks=False)
            is_picture = os.path.splitext(entry.name)[1].lower() in PICTURE_SUFFIXES
            if (is_folder or is_picture) and not entry.name.startswith("."):
                listed.append((entry.name, is_folder))
    return sorted(listed)


def _read_picture(path: str, columns: Columns) -> Iterator[Source]:
    name = as_text(path)
    yield name, LazyPicture(name, partial(checked_path, path, name))


def _read_url(path: str, columns: Columns) -> Iterator[Source]:
    yield path, LazyPicture(path, partial(download, path, timeout=URL_TIMEOUT))


def _read_folder(path: str, columns: Columns) -> Iterator[Source]:
    yield unreadable(path, "the folder cannot be listed. Check its permissions.")


def _read_part(path: str, offset: int, size: int, name: str) -> BytesIO:
    """Bytes of a member of an archive."""
    if offset + size > os.path.getsize(path):  # looked at first: a damaged header may claim any size
        raise ValueError(f"{name}: the archive ends within this member. Download it again.")
    with open(path, "rb") as file:
        file.seek(offset)
        return BytesIO(file.read(size))


def _read_tar(path: str, columns: Columns) -> Iterator[Source]:
    """Members that are pictures, found by their headers; their bytes are read in the thread that decodes them."""
    problem = None
    try:
        for member in _tar_members(path):
            name = as_text(f"{path}::{member.name}")
            if member.sparse is not None:
                yield unreadable(name, "sparse members of archives cannot be read. Pack it again without.")
            else:
                yield name, LazyPicture(name, partial(_read_part, path, member.offset_data, member.size, name))
    except Exception as error:  # whatever damaged headers provoke
        problem = why(error)
    if problem is not None:
        yield unreadable(path, f"the archive is damaged, and what follows its last row is not read ({problem}).")


def _tar_members(path: str) -> Iterator[tarfile.TarInfo]:
    """Headers of the pictures; a TarError if the archive does not end as it should."""
    with tarfile.open(path, "r:") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
            if member.isreg() and os.path.splitext(member.name)[1].lower() in PICTURE_SUFFIXES:
                yield member
        # `next` takes any block that is no header for the end; the true one is a block of zeros.
        with open(path, "rb") as file:
            file.seek(archive.offset)
            if file.read(TAR_BLOCK) != bytes(TAR_BLOCK):
                raise tarfile.ReadError(f"no header and no end mark at byte {archive.offset}")


READERS: dict[str, Callable[[str, Columns], Iterator[Source]]] = {
    "picture": _read_picture,
    "url": _read_url,
    "folder": _read_folder,
    ".tar": _read_tar,
    ".parquet": read_parquet,
    ".csv": read_csv,
    SAVED: read_saved,
    HUB: read_hub,
}
COUNTERS: dict[str, Callable[[str], int | None]] = {".parquet": count_parquet, SAVED: count_saved, HUB: count_hub}


def _count(path: str, kind: str, columns: Columns) -> int | None:
    """Pictures of one file; None if that cannot be known beforehand."""
    return COUNTERS[kind](path) if kind in COUNTERS else sum(1 for _ in READERS[kind](path, columns))
