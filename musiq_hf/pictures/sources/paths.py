# SPDX-License-Identifier: Apache-2.0
"""Pictures of files, folders, patterns, tar shards, tables and data sets: a stream of keys and pictures.

The order is the same every time, and only the sorted names of one folder's entries are held in memory. A picture is
read and decoded when its pixels are asked for, and one that cannot be read raises its error then. Archives are read in
place and never unpacked.
"""

import glob
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from ...common.extras import require
from ...common.files import NOTHING
from ...common.stores import check_url, is_remote
from ..finding import (
    LEFT_OUT,
    NO_PICTURES,
    NO_PICTURES_OR_VIDEOS,
    PICTURE,
    UNLISTED,
    LeftOutFiles,
    has_picture_suffix,
    walk_folder,
)
from ..lazy import LazyPicture, LeftOutFile, Source, check_path, escape_name, make_unreadable, read_url
from ..opening import URL_PREFIXES, download
from ..video import has_video_suffix
from .archives import read_tar
from .data_sets import (
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
from .remote import find_stored_kind, has_pattern, match_stored, walk_stored
from .tables import Columns, check_table, count_parquet, read_csv, read_parquet

TABLE_SUFFIXES = (".csv", ".parquet")
URL_TIMEOUT = 60  # seconds
MISSING = "missing"  # kind of a path that leads to nothing
DEFAULT_COLUMNS = Columns()


def find_sources(
    paths: Sequence[str], *, columns: Columns = DEFAULT_COLUMNS, videos: bool = False
) -> Iterator[Source]:
    """Find every picture of some paths.

    Pictures come in the order of the paths. Within a folder they come in the order of names, within a file in that of
    members or rows.

    Args:
        paths: Paths of any of these kinds:
            - Pictures, whatever their endings, or http(s) URLs of pictures.
            - Folders, searched as by `find_pictures`, and patterns such as "photos/**/*.jpg".
            - Archives (.tar), such as WebDataset shards, and links within them.
            - Tables (.parquet) with a column of pictures: bytes, or bytes and path as `datasets` writes them. Where
              there is none, a column of paths is read as in a CSV.
            - Tables (.csv) with a column of paths, which start from the folder of the file.
            - Data sets, as folders that `save_to_disk` has written.
            - Data sets of the Hub: "hf://datasets/owner/name/configuration@revision:split", the last three as needed.
            - URLs of other stores that fsspec knows, such as "s3://bucket/photos": pictures, folders, patterns,
              archives and tables; a CSV there names files of its store.
        columns: Columns of tables and data sets that are read.
        videos: Whether videos in folders and patterns are found too.

    Files of folders, patterns and archives whose endings are not those of pictures are left out. How many is logged as
    a warning at the end. A path that leads to nothing is a picture that cannot be read; `check_sources` refuses it.

    Yields:
        Key and picture. The key comes from the column of keys. Without one it is the path, "shard.tar::member",
        "file.parquet::row" (rows count from 0, of data sets as well), or a path as the CSV has it. Parts of a name
        that are not Unicode are written with backslashes.

    Raises:
        ValueError: If there is no picture at all, or a remote store may not be read.
        StoreError: If a remote store gives no answer. It is an OSError.
    """
    found, left_out = False, LeftOutFiles(NO_PICTURES_OR_VIDEOS if videos else NO_PICTURES)
    for path, kind in find_files(paths, videos=videos):
        for source in READERS[kind](path, columns):
            if isinstance(source, LeftOutFile):
                left_out.add(source.name)
            else:
                found = True
                yield source
    check_found(paths, found, left_out)


def check_found(paths: Sequence[str], found: bool, left_out: LeftOutFiles) -> None:
    """Warn of files that were left out, and raise a ValueError if no picture was found."""
    left_out.warn()
    if not found:
        raise ValueError(
            f"There is no picture in {', '.join(paths[:3])}{', ...' if len(paths) > 3 else ''}. Folders are searched "
            "for pictures only: name tar, parquet and CSV files, or give a pattern such as 'shards/*.tar'."
        )


def count_sources(paths: Sequence[str], *, columns: Columns = DEFAULT_COLUMNS, videos: bool = False) -> int | None:
    """Return the number of pictures that `find_sources` finds, reading none; None if a data set does not tell it."""
    total = 0
    for path, kind in find_files(paths, videos=videos):
        count = _count_pictures(path, kind, columns)
        if count is None:
            return None
        total += count
    return total


def check_sources(
    paths: Sequence[str],
    *,
    columns: Columns = DEFAULT_COLUMNS,
    allow_missing: bool = False,
    videos: bool = False,
) -> None:
    """Raise a ValueError for a mistake in the arguments of `find_sources`, before hours of work.

    Of the files that match a pattern, only the first table is checked.

    Args:
        paths: Paths, as `find_sources` takes them.
        columns: Columns of tables and data sets that are read.
        allow_missing: Whether a path may lead to nothing.
        videos: Whether videos in folders and patterns are found too.

    Raises:
        ValueError: If a path does not exist, cannot hold pictures, or lacks a column.
        ImportError: If a remote store needs a package that is missing.
        StoreError: If a remote store gives no answer.
    """
    # The list makes `any` check all of them.
    has_table = any([_check_argument(path, columns, allow_missing, videos) for path in paths])
    for option, name in (("--column", columns.picture), ("--key", columns.key)):
        if name is not None and not has_table:
            raise ValueError(f"{option} names a column ({name!r}) of a table or data set, but none is given. Drop it.")


def check_video_decoder(paths: Sequence[str]) -> None:
    """Raise an ImportError if there is a video and PyAV is missing: now, not after the pictures before it."""
    try:
        require("av", extra="video")
    except ImportError:
        if any(kind == PICTURE and has_video_suffix(path) for path, kind in find_files(paths, videos=True)):
            raise


def _check_argument(path: str, columns: Columns, allow_missing: bool, videos: bool) -> bool:
    """Check one path as `check_sources` does.

    Returns:
        True if it leads to a table or data set whose columns have been checked.
    """
    if path.startswith(HUB_PREFIX):
        check_hub(path, columns)
        return True
    if path.startswith(URL_PREFIXES):
        return False
    if is_remote(path):
        return _check_stored(path, columns, allow_missing)
    if os.path.isdir(path):
        return _check_saved_within(path, columns)
    matches = (match for match in _match_pattern(path) if _is_taken(match, videos) or os.path.isdir(match))
    files = [path] if os.path.lexists(path) else list(matches)
    if not (files or allow_missing):
        raise ValueError(f"{path}: {NOTHING}")
    for file in files:
        if not os.path.isdir(file) and (kind := _find_kind(file)) in TABLE_SUFFIXES:
            check_table(file, kind, columns)
            return True
    return False


def _check_stored(url: str, columns: Columns, allow_missing: bool) -> bool:
    """Check a path of a remote store as `_check_argument` does; of a long list no picture is asked for."""
    check_url(url)
    if _is_named_picture(url) and allow_missing:
        return False
    kind = find_stored_kind(url, once=True)
    if kind == "folder" and _is_named_picture(url):
        raise ValueError(f"{url}: a folder, but its name ends as that of a picture. Write a slash behind it.")
    if kind == "folder":
        return False
    found = [(url, _find_kind(url))] if kind == "file" else list(_find_stored_matches(url))
    if all(other in (LEFT_OUT, MISSING) for _, other in found) and kind is None and not allow_missing:
        raise ValueError(f"{url}: {NOTHING}")
    for file, suffix in found:
        if suffix in TABLE_SUFFIXES:
            check_table(file, suffix, columns)
            return True
    return False


def _check_saved_within(folder: str, columns: Columns) -> bool:
    """Check a saved data set, or all splits of one; in another folder check the first data set if columns are named.

    Returns:
        True if there is a data set.
    """
    has_splits = os.path.isfile(os.path.join(folder, "dataset_dict.json"))
    if not (is_saved(folder) or has_splits or columns != DEFAULT_COLUMNS):
        return False  # a walk through a large folder takes long, so it is made only where columns must be checked
    saved = (path for path, kind in find_files([folder]) if kind == SAVED)
    checked = list(saved if has_splits else itertools.islice(saved, 1))
    for path in checked:
        check_saved(path, columns)
    return bool(checked)


def find_files(paths: Sequence[str], *, videos: bool = False) -> Iterator[tuple[str, str]]:
    """Find path and kind of every file; the kind is a key of `READERS`."""
    for path, kind in _find_files(paths):
        is_video = videos and kind == LEFT_OUT and has_video_suffix(path) and not is_remote(path)
        yield path, PICTURE if is_video else kind


def _find_files(paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    visited: set[tuple[int, int]] = set()
    for path in paths:
        if path.startswith(HUB_PREFIX):
            yield path, HUB
        elif path.startswith(URL_PREFIXES):
            yield path, "url"
        elif is_remote(path):
            yield from _find_stored(path)
        elif os.path.isdir(path):
            yield from walk_folder(path, visited)
        elif os.path.lexists(path):
            kind = _find_kind(path)
            yield path, PICTURE if kind == LEFT_OUT else kind
        else:
            yield from _find_matches(path, visited)


def _find_matches(pattern: str, visited: set[tuple[int, int]]) -> Iterator[tuple[str, str]]:
    """Find path and kind of every file that matches a pattern, or lies in a folder that does."""
    match = None
    for match in _match_pattern(pattern):
        if os.path.isdir(match):
            yield from walk_folder(match, visited)
        else:
            yield match, _find_kind(match)
    if match is None:
        yield pattern, MISSING


def _is_named_picture(url: str) -> bool:
    """Return whether a path of a remote store is taken for a picture by its name, without asking the store."""
    return _find_kind(url) == PICTURE and not has_pattern(url)


def _find_stored(url: str) -> Iterator[tuple[str, str]]:
    """Find URL and kind of every file that a path of a remote store leads to."""
    if _is_named_picture(url):
        yield url, PICTURE
        return
    kind = find_stored_kind(url)
    if kind == "folder":
        yield from walk_stored(url)
    elif kind == "file":
        yield url, PICTURE if _find_kind(url) == LEFT_OUT else _find_kind(url)
    else:
        yield from _find_stored_matches(url)


def _find_stored_matches(url: str) -> Iterator[tuple[str, str]]:
    """Find URL and kind of every file that matches a pattern in a remote store, or lies in a folder that does."""
    match = None
    for match in match_stored(url) if has_pattern(url) else ():
        if match.is_folder:
            yield from walk_stored(match.url)
        else:
            yield match.url, _find_kind(match.url)
    if match is None:
        yield url, MISSING


def _find_kind(path: str) -> str:
    """Return the kind of a file by its ending, a key of `READERS`."""
    suffix = Path(path).suffix.lower()
    if suffix in READERS:
        return suffix
    return PICTURE if has_picture_suffix(path) else LEFT_OUT


def _is_taken(path: str, videos: bool) -> bool:
    """Return whether a file of a folder or pattern is read, by its ending."""
    return _find_kind(path) != LEFT_OUT or videos and has_video_suffix(path)


def find_matches(paths: Sequence[str]) -> Iterator[str]:
    """Find those of some paths that are there, and the first match of each that is a pattern."""
    for path in paths:
        if os.path.lexists(path):
            yield path
        elif "://" not in path:
            yield from itertools.islice(_match_pattern(path), 1)


def _match_pattern(pattern: str) -> Iterator[str]:
    """Find the files that match a pattern, and folders unless `**` finds their files anyway."""
    for path in sorted(glob.iglob(pattern, recursive=True)):
        if not os.path.isdir(path) or "**" not in pattern:
            yield path


def _read_picture(path: str, columns: Columns) -> Iterator[Source]:
    name = escape_name(path)
    yield name, LazyPicture(name, partial(read_url if is_remote(path) else check_path, path, name))


def _read_url(path: str, columns: Columns) -> Iterator[Source]:
    yield path, LazyPicture(path, partial(download, path, timeout=URL_TIMEOUT))


def _read_unlisted(path: str, columns: Columns) -> Iterator[Source]:
    yield make_unreadable(path, "the folder cannot be listed. Check its permissions.")


def _read_missing(path: str, columns: Columns) -> Iterator[Source]:
    yield make_unreadable(path, NOTHING)


def _read_left_out(path: str, columns: Columns) -> Iterator[LeftOutFile]:
    yield LeftOutFile(path)


READERS: dict[str, Callable[[str, Columns], Iterator[Source | LeftOutFile]]] = {
    PICTURE: _read_picture,
    LEFT_OUT: _read_left_out,
    "url": _read_url,
    UNLISTED: _read_unlisted,
    MISSING: _read_missing,
    ".tar": read_tar,
    ".parquet": read_parquet,
    ".csv": read_csv,
    SAVED: read_saved,
    HUB: read_hub,
}
COUNTERS: dict[str, Callable[[str], int | None]] = {".parquet": count_parquet, SAVED: count_saved, HUB: count_hub}


def _count_pictures(path: str, kind: str, columns: Columns) -> int | None:
    """Return the number of pictures of one file; None if a data set does not tell it."""
    if kind in COUNTERS:
        return COUNTERS[kind](path)
    return sum(not isinstance(source, LeftOutFile) for source in READERS[kind](path, columns))
