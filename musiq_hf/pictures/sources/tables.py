# SPDX-License-Identifier: Apache-2.0
"""Pictures of parquet files and CSV tables, row by row."""

import itertools
import os
import posixpath
from collections.abc import Iterator, Sequence
from functools import partial
from io import BytesIO
from typing import Any, NamedTuple

from ...common.stores import StoreError, hide_password, is_remote, open_binary
from ..csv_rows import CsvRow, open_csv
from ..lazy import LazyPicture, Source, check_path, describe_error, escape_name, make_unreadable, name_file, read_url
from ..opening import resolve_cell

PATH_COLUMNS = (
    "image",
    "path",
    "file_name",
    "filename",
    "image_name",
    "image_path",
    "file",
)  # the first of them that a table has is read
ROWS_AT_ONCE = 8  # few rows, because pictures are large


class Columns(NamedTuple):
    """Columns of a table that are read.

    Attributes:
        picture: Column with the pictures; None looks for a usual one.
        key: Column with the keys; None names a row by its number, and a row of a CSV file by its path.
    """

    picture: str | None = None
    key: str | None = None

    def list_names(self, picture: str) -> list[str]:
        """Return all columns that must be read, once it is known which one has the pictures."""
        return [picture] if self.key in (None, picture) else [picture, self.key]


def check_table(path: str, kind: str, columns: Columns) -> None:
    """Raise a ValueError if a column is missing; a table that cannot be read becomes a row with its error later."""
    try:
        if kind == ".csv":
            with open_csv(path) as rows:
                names = _read_header(rows)
        else:
            with _open_parquet(path) as file:
                schema = file.schema_arrow
    except StoreError:
        raise
    except Exception:  # damaged files provoke errors of all kinds
        return
    if kind == ".csv":
        _find_csv_columns(names, columns, path)
    else:
        find_picture_column(schema, columns, path)


def check_key(names: Sequence[str], columns: Columns, path: str) -> None:
    """Raise a ValueError if a table lacks the column of keys."""
    if columns.key is not None and columns.key not in names:
        raise ValueError(
            f"{path}: no column {columns.key!r} for the keys, only {', '.join(names)[:200]}. Change --key."
        )


def choose_key(value: Any, otherwise: str) -> str:
    """Return the key of a row as text, or another name if the row has none."""
    if value in (None, "", b""):
        return hide_password(escape_name(otherwise))
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else escape_name(str(value))
    return hide_password(text)


def _find_plain_kind(kind: Any) -> Any:
    """Return the type of the values of an Arrow type that only stores them in another way."""
    import pyarrow  # type: ignore[import-untyped]

    while isinstance(kind, pyarrow.DictionaryType | pyarrow.BaseExtensionType):
        kind = kind.value_type if isinstance(kind, pyarrow.DictionaryType) else kind.storage_type
    return kind


def holds_text(kind: Any) -> bool:
    """Return whether a column of an Arrow type holds texts, in whatever way it stores them."""
    import pyarrow.types as types  # type: ignore[import-untyped]

    plain = _find_plain_kind(kind)
    return types.is_string(plain) or types.is_large_string(plain) or types.is_string_view(plain)


def holds_bytes(kind: Any) -> bool:
    """Return whether a column of an Arrow type holds bytes, in whatever way it stores them."""
    import pyarrow.types as types

    plain = _find_plain_kind(kind)
    is_binary = types.is_binary(plain) or types.is_large_binary(plain) or types.is_binary_view(plain)
    return is_binary or types.is_fixed_size_binary(plain)


def holds_cells(kind: Any) -> bool:
    """Return whether a column of an Arrow type holds pictures as `datasets` writes them: bytes, path or both."""
    import pyarrow.types as types

    plain = _find_plain_kind(kind)
    return types.is_struct(plain) and max(map(plain.get_field_index, ("bytes", "path"))) >= 0


def find_picture_column(schema: Any, columns: Columns, path: str, *, takes_paths: bool = True) -> str:
    """Return the name of the column with pictures in an Arrow schema.

    Args:
        schema: Arrow schema.
        columns: Columns that are read.
        path: Path of the table, for error messages.
        takes_paths: Whether a column of texts, which are paths, is taken where it is named or no column has pictures.

    Raises:
        ValueError: If this column or the column of keys is missing, or several columns have pictures.
    """
    check_key(schema.names, columns, path)
    column = columns.picture
    fitting = [field.name for field in schema if holds_bytes(field.type) or holds_cells(field.type)]
    texts = [field.name for field in schema if holds_text(field.type)] if takes_paths else []
    if column is None and fitting:
        column = fitting[0] if len(fitting) == 1 else "image" if "image" in fitting else None
    elif column is None:
        column = next((name for name in PATH_COLUMNS if name in texts), None)
    if column is None or column not in fitting + texts:
        found = f"columns of pictures: {', '.join(fitting) or 'none'}; all: {', '.join(schema.names)}"
        wanted = "One column of pictures (bytes) is needed" if column is None else f"no column of pictures {column!r}"
        raise ValueError(f"{path}: {wanted} ({found}). Name it with --column.")
    if column == columns.key and column in fitting:
        raise ValueError(f"{path}: the column {column!r} has the pictures and cannot have the keys. Change --key.")
    return column


def open_cell(cell: Any, name: str, folder: str) -> str | BytesIO:
    """Return the bytes of a cell, or the path of its file.

    Args:
        cell: Cell of a table, see `resolve_cell`.
        name: Name of the picture in error messages.
        folder: Folder that a path starts from, as `find_folder` gives it.

    Raises:
        ValueError: If the cell has no picture, or its file does not exist.
        StoreError: If the file is in a remote store that gives no answer.
    """
    found = resolve_cell(cell)
    if found is None:
        raise ValueError(f"{name}: the row has no picture.")
    if not isinstance(found, str):
        return found
    if is_remote(folder):
        return read_url(_join_url(folder, found, name), name)
    return read_url(found, name) if is_remote(found) else check_path(os.path.join(folder, found), name)


def find_folder(path: str) -> str:
    """Return the folder that paths of a table start from; that of a remote table ends in a slash."""
    return path[: path.rindex("/") + 1] if is_remote(path) else os.path.dirname(path)


def _join_url(folder: str, path: str, name: str) -> str:
    """Return the URL of a file that a remote table names; it must not name files of this machine.

    Raises:
        ValueError: If it names a file outside of its store.
    """
    protocol = folder.partition("://")[0] + "://"
    if is_remote(path) and path.startswith(protocol):
        return path
    if is_remote(path) or path.startswith("/"):
        raise ValueError(
            f"{name}: a table of {protocol} names files of its own store alone, got {hide_password(path)}. Write "
            "paths that start from its folder."
        )
    url = folder + path
    if {".", ".."} & set(path.split("/")):  # names in a store are not resolved
        url = protocol + posixpath.normpath(url.removeprefix(protocol))
    return url


def read_arrow(table: Any, name: str, columns: Columns, *, path: str, row: int, folder: str) -> Iterator[Source]:
    """Read the pictures of an Arrow table or batch.

    Args:
        table: Table or batch.
        name: Column with the pictures.
        columns: Columns that are read.
        path: Path of the file or data set. Rows without a key are named `path::row`.
        row: Number of the first row.
        folder: Folder that paths of pictures start from.

    Yields:
        Key and picture of each row.
    """
    keys = table.column(columns.key).to_pylist() if columns.key else [None] * len(table)
    for number, (cell, value) in enumerate(zip(table.column(name), keys, strict=True), start=row):
        key = choose_key(value, f"{path}::{number}")
        found = cell.as_py()
        shown = name_file(key, found.get("path") if isinstance(found, dict) else found)
        yield key, LazyPicture(shown, partial(open_cell, found, shown, folder))


def _open_parquet(path: str) -> Any:
    import pyarrow.parquet  # type: ignore[import-untyped]

    file = open_binary(path) if is_remote(path) else check_path(path, path)
    return pyarrow.parquet.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)


def read_parquet(path: str, columns: Columns) -> Iterator[Source]:
    """Read a picture per row; from the first damaged row of a row group on, all its rows are rows with the error."""
    try:
        file = _open_parquet(path)
        name = find_picture_column(file.schema_arrow, columns, path)
    except Exception as error:  # not a parquet file, or a damaged one
        yield make_unreadable(path, f"cannot be read as parquet ({describe_error(error)}).")
        return
    with file:
        row = 0
        for group in range(file.num_row_groups):
            yield from _read_group(file, name, columns, path=path, group=group, row=row)
            row += file.metadata.row_group(group).num_rows


def _read_group(file: Any, name: str, columns: Columns, *, path: str, group: int, row: int) -> Iterator[Source]:
    """Read a picture per row of a row group, whose first row has a number in the file."""
    end, problem = row + file.metadata.row_group(group).num_rows, "the row group is too short"
    try:
        for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=columns.list_names(name)):
            for source in read_arrow(batch, name, columns, path=path, row=row, folder=find_folder(path)):
                yield source
                row += 1
    except Exception as error:  # damaged pages
        problem = describe_error(error)
    while row < end:
        yield make_unreadable(f"{path}::{row}", f"cannot be read ({problem}).")
        row += 1


def count_group_rows(path: str, columns: Columns) -> list[int] | None:
    """Return the number of rows of each row group; None if the file cannot be read, or has paths of pictures."""
    try:
        with _open_parquet(path) as file:
            name = find_picture_column(file.schema_arrow, columns, path)
            if holds_text(file.schema_arrow.field(name).type):
                return None
            return [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    except Exception:  # not a parquet file, or a damaged one
        return None


def read_row_group(path: str, columns: Columns, group: int, rows: range) -> Iterator[Source]:
    """Read some rows of a row group as `read_parquet` does, counted from the first of the group.

    Raises:
        ValueError: If the file cannot be opened.
    """
    with _open_parquet(path) as file:
        name = find_picture_column(file.schema_arrow, columns, path)
        first = sum(file.metadata.row_group(before).num_rows for before in range(group))
        sources = _read_group(file, name, columns, path=path, group=group, row=first)
        yield from itertools.islice(sources, rows.start, rows.stop, rows.step)


def _find_csv_columns(names: Sequence[str], columns: Columns, path: str) -> tuple[int, int]:
    """Return the numbers of the columns with paths and with keys; without keys both are the number of the paths."""
    wanted = PATH_COLUMNS if columns.picture is None else (columns.picture,)
    for name in wanted:
        if name in names:
            check_key(names, columns, path)
            return names.index(name), names.index(columns.key or name)
    raise ValueError(
        f"{path}: a column {' or '.join(wanted)} with paths was expected in the first line, got "
        f"{', '.join(names)[:200] or 'nothing'}. Name it with --column."
    )


def _read_header(rows: Iterator[CsvRow]) -> list[str]:
    """Read the names of the columns, or raise a ValueError if they cannot be read."""
    header = next(rows, CsvRow(1, [], None))
    if header.problem is not None:
        raise ValueError(f"line {header.line}: {header.problem}")
    return header.cells


def read_csv(path: str, columns: Columns) -> Iterator[Source]:
    """Read a picture per line, named by its key, or by its path as the table has it."""
    try:
        with open_csv(path) as rows:
            names = _read_header(rows)
            yield from _read_csv_rows(rows, _find_csv_columns(names, columns, path), path)
    except (OSError, ValueError) as error:
        yield make_unreadable(path, f"cannot be read as CSV ({describe_error(error)}).")


def _read_csv_rows(rows: Iterator[CsvRow], found: tuple[int, int], path: str) -> Iterator[Source]:
    folder, (index, key_index) = find_folder(path), found
    for line, cells, problem in rows:
        if problem is None and len(cells) > index and cells[index]:
            name = choose_key(cells[key_index] if len(cells) > key_index else None, cells[index])
            shown = name_file(name, cells[index])
            yield name, LazyPicture(shown, partial(open_cell, cells[index], shown, folder))
        else:
            yield make_unreadable(f"{path}::line {line}", problem or "the line has no path.")


def count_parquet(path: str) -> int:
    """Return the number of rows of a parquet file."""
    try:
        with _open_parquet(path) as file:
            return file.metadata.num_rows
    except StoreError:
        raise
    except Exception:  # a damaged file is one row, with the error
        return 1
