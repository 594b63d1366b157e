# SPDX-License-Identifier: Apache-2.0
"""Pictures of files, folders, patterns, tar shards, parquet files and CSV tables: a stream of keys and pictures.

The order is the same every time and nothing but sorted names of one folder's entries is held. A picture is read and
decoded when its pixels are asked for; what cannot be read is a picture that says so then. Nothing is ever unpacked.
"""

import csv
import glob
import itertools
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from .image_loading_musiq import decode_image

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")
TABLE_SUFFIXES = (".csv", ".parquet")
PATH_COLUMNS = ("image", "path", "file_name", "filename", "image_name", "image_path", "file")  # the first one there is
KINDS = f"a picture ({', '.join(PICTURE_SUFFIXES)}), a .tar, .parquet or .csv file"
TAR_BLOCK = 512  # bytes
ROWS_AT_ONCE = 8  # of a parquet file: pictures are large

Source = tuple[str, "LazyPicture"]


class LazyPicture(Image.Image):
    """A picture that is read when its pixels are asked for, header included: in the thread or process that decodes it.

    Args:
        name: What error messages call it.
        read: Gives its path or its bytes; can be sent to another process.
    """

    def __init__(self, name: str, read: Callable[[], str | BytesIO]):
        super().__init__()
        self.filename = name
        self._read = read
        self._is_loaded = False

    def __reduce__(self) -> tuple[type, tuple[str, Callable[[], str | BytesIO]]]:
        return LazyPicture, (self.filename, self._read)  # not the pixels, which are to be decoded elsewhere

    def decode(self, decode: Callable[[str | BytesIO, str], Image.Image] = decode_image) -> Image.Image:
        """Read and decode.

        Raises:
            ValueError: Whatever is wrong, in one sentence that names the picture.
        """
        try:
            return decode(self._read(), self.filename)
        except ValueError:
            raise
        except Exception as error:  # damaged files provoke all kinds in decoders, and none may stop the run
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"{self.filename}: cannot be read or decoded ({reason}).") from error

    def load(self) -> Any:
        """Become the decoded picture, once; errors are those of `decode`."""
        if not self._is_loaded:
            self.__dict__.update(self.decode().__dict__)
            self._is_loaded = True
        return super().load()


def find_sources(paths: Sequence[str], *, column: str | None = None) -> Iterator[Source]:
    """Every picture of the paths, in their order; that of names within folders, of members and rows within files.

    Args:
        paths: Pictures; folders, searched through for pictures, hidden entries left out, each folder once even where
            links lead to it again; patterns ("photos/**/*.jpg"); .tar files (WebDataset shards are some); .parquet
            files with a column of pictures (bytes, or bytes and path as `datasets` writes them); .csv files with a
            column of paths that start from the file's folder.
        column: That column; None looks for a usual one.

    Yields:
        (key, picture). The key is the path, "shard.tar::member", "file.parquet::row" (from 0) or a path as the CSV has
        it; what of a name is not Unicode is written with backslashes.

    Raises:
        ValueError: If there is no such path, or no picture at all.
    """
    found = False
    for path, kind in _files(paths):
        for source in READERS[kind](path, column):
            found = True
            yield source
    if not found:
        raise ValueError(
            f"There is no picture in {', '.join(paths[:3])}{', ...' if len(paths) > 3 else ''}. Folders are searched "
            "for pictures only: name tar, parquet and CSV files, or give a pattern such as 'shards/*.tar'."
        )


def count_sources(paths: Sequence[str], *, column: str | None = None) -> int:
    """How many pictures `find_sources` will find, without reading any of them."""
    return sum(_count(path, kind, column) for path, kind in _files(paths))


def check_sources(paths: Sequence[str], *, column: str | None = None) -> None:
    """Find a mistake in the arguments of `find_sources` before hours of work; of a pattern look at the first table.

    Raises:
        ValueError: If a path does not exist, cannot hold pictures, or lacks the column.
    """
    has_table = False
    for path in paths:
        if os.path.isdir(path):
            continue
        files = [path] if os.path.lexists(path) else list(_matches(path))
        if not files:
            raise ValueError(f"{path}: no such file or folder, and no picture, tar, parquet or CSV file matches it.")
        tables = (
            (file, kind) for file in files if not os.path.isdir(file) and (kind := _kind(file)) in TABLE_SUFFIXES
        )
        for file, kind in itertools.islice(tables, 1):
            has_table = True
            _check_table(file, kind, column)
    if column is not None and not has_table:
        raise ValueError(f"--column names a column ({column!r}) of a CSV or parquet file, but none is given. Drop it.")


def _check_table(path: str, kind: str, column: str | None) -> None:
    """Raise a ValueError if the column is missing; what cannot be read at all becomes a row with its error later."""
    try:
        if kind == ".csv":
            with open(path, newline="", encoding="utf-8-sig") as file:
                names = next(csv.reader(file), [])
        else:
            import pyarrow.parquet  # type: ignore[import-untyped]

            schema = pyarrow.parquet.read_schema(path)
    except Exception:  # damaged
        return
    if kind == ".csv":
        _csv_column(names, column, path)
    else:
        _parquet_column(schema, column, path)


def _files(paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(path, kind) of every file; kind is a key of `READERS`."""
    visited: set[tuple[int, int]] = set()
    for path in paths:
        if os.path.isdir(path):
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


def _text(name: str) -> str:
    """A file name that any output can hold: bytes that are not Unicode are written with backslashes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _unreadable(name: str, reason: str) -> Source:
    """A picture that only says what is wrong."""
    message = f"{_text(name)}: {' '.join(_text(reason).split())}"
    return _text(name), LazyPicture(_text(name), partial(_refuse, message))


def _refuse(message: str) -> str:
    raise ValueError(message)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _checked_path(path: str, name: str) -> str:
    if not os.path.isfile(path):
        raise ValueError(f"{name}: {'not a regular file' if os.path.exists(path) else 'no such file'}.")
    return path


def _read_picture(path: str, column: str | None) -> Iterator[Source]:
    name = _text(path)
    yield name, LazyPicture(name, partial(_checked_path, path, name))


def _read_folder(path: str, column: str | None) -> Iterator[Source]:
    yield _unreadable(path, "the folder cannot be listed. Check its permissions.")


def _read_part(path: str, offset: int, size: int, name: str) -> BytesIO:
    """Bytes of a member of an archive."""
    if offset + size > os.path.getsize(path):  # looked at first: a damaged header may claim any size
        raise ValueError(f"{name}: the archive ends within this member. Download it again.")
    with open(path, "rb") as file:
        file.seek(offset)
        return BytesIO(file.read(size))


def _read_tar(path: str, column: str | None) -> Iterator[Source]:
    """Members that are pictures, found by their headers; their bytes are read in the thread that decodes them."""
    problem = None
    try:
        for member in _tar_members(path):
            name = _text(f"{path}::{member.name}")
            if member.sparse is not None:
                yield _unreadable(name, "sparse members of archives cannot be read. Pack it again without.")
            else:
                yield name, LazyPicture(name, partial(_read_part, path, member.offset_data, member.size, name))
    except Exception as error:  # whatever damaged headers provoke
        problem = _reason(error)
    if problem is not None:
        yield _unreadable(path, f"the archive is damaged, and what follows its last row is not read ({problem}).")


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


def _parquet_column(schema: Any, column: str | None, path: str) -> str:
    """Name of the column with pictures."""
    import pyarrow.types as types  # type: ignore[import-untyped]

    def holds_bytes(kind: Any) -> bool:
        is_cell = types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        return is_cell or types.is_binary(kind) or types.is_large_binary(kind)

    fitting = [field.name for field in schema if holds_bytes(field.type)]
    if column is None and (len(fitting) == 1 or "image" in fitting):
        return fitting[0] if len(fitting) == 1 else "image"
    if column is None or column not in fitting:
        found = f"columns of pictures: {', '.join(fitting) or 'none'}; all: {', '.join(schema.names)}"
        wanted = "One column of pictures (bytes) is needed" if column is None else f"no column of pictures {column!r}"
        raise ValueError(f"{path}: {wanted} ({found}). Name it with --column.")
    return column


def _open_cell(cell: Any, name: str, folder: str) -> str | BytesIO:
    """Bytes, or a path, of an Arrow cell."""
    value = cell.as_py()
    content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if content:
        return BytesIO(content)
    if path:
        return _checked_path(os.path.join(folder, path), name)
    raise ValueError(f"{name}: the row has no picture.")


def _read_parquet(path: str, column: str | None) -> Iterator[Source]:
    """A picture per row; all rows of a row group from the first that cannot be read on are rows with the error."""
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
        name = _parquet_column(file.schema_arrow, column, path)
    except Exception as error:  # not a parquet file, or a damaged one
        yield _unreadable(path, f"cannot be read as parquet ({_reason(error)}).")
        return
    with file:
        row, end = 0, 0
        for group in range(file.num_row_groups):
            end += file.metadata.row_group(group).num_rows
            problem = "the row group is too short"
            try:
                for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=[name]):
                    for cell in batch.column(0):
                        key = _text(f"{path}::{row}")
                        yield key, LazyPicture(key, partial(_open_cell, cell, key, os.path.dirname(path)))
                        row += 1
            except Exception as error:  # damaged pages
                problem = _reason(error)
            while row < end:
                yield _unreadable(f"{path}::{row}", f"cannot be read ({problem}).")
                row += 1


def _csv_column(names: Sequence[str], column: str | None, path: str) -> int:
    """Place of the column with paths."""
    wanted = PATH_COLUMNS if column is None else (column,)
    for name in wanted:
        if name in names:
            return names.index(name)
    raise ValueError(
        f"{path}: a column {' or '.join(wanted)} with paths was expected in the first line, got "
        f"{', '.join(names)[:200] or 'nothing'}. Name it with --column."
    )


def _read_csv(path: str, column: str | None) -> Iterator[Source]:
    """A picture per line, called by its path as it stands there."""
    folder = os.path.dirname(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.reader(file)
            index = _csv_column(next(table, []), column, path)
            for cells in table:
                if len(cells) > index and cells[index]:
                    name = _text(cells[index])
                    yield name, LazyPicture(name, partial(_checked_path, os.path.join(folder, cells[index]), name))
                elif cells:  # not an empty line
                    yield _unreadable(f"{path}::line {table.line_num}", "the line has no path.")
    except (OSError, ValueError, csv.Error) as error:
        yield _unreadable(path, f"what follows cannot be read as CSV ({_reason(error)}).")


READERS: dict[str, Callable[[str, str | None], Iterator[Source]]] = {
    "picture": _read_picture,
    "folder": _read_folder,
    ".tar": _read_tar,
    ".parquet": _read_parquet,
    ".csv": _read_csv,
}


def _count(path: str, kind: str, column: str | None) -> int:
    """Pictures of one file."""
    if kind == ".parquet":
        import pyarrow.parquet

        try:
            return pyarrow.parquet.read_metadata(path).num_rows
        except Exception:  # damaged: one row with the error
            return 1
    return sum(1 for _ in READERS[kind](path, column))
