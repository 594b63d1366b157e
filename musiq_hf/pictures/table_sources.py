# SPDX-License-Identifier: Apache-2.0
"""Pictures of parquet files and CSV tables, row by row."""

import csv
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

from .lazy import LazyPicture, Source, check_path, describe_error, escape_name, make_unreadable
from .opening import resolve_cell

if TYPE_CHECKING:
    from _csv import Reader

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
        return [picture] if self.key is None else [picture, self.key]


@contextmanager
def open_csv(path: str | os.PathLike[str]) -> Iterator["Reader"]:
    """Open a CSV table in UTF-8, with or without a byte order mark, as an iterator over its rows of cells.

    The iterator's `line_num` is the line on which the last row ended. A file that is no such table raises `csv.Error`
    or `UnicodeDecodeError` when the row is read at which that shows.
    """
    with open(path, newline="", encoding="utf-8-sig") as file:
        yield csv.reader(file)


def check_table(path: str, kind: str, columns: Columns) -> None:
    """Raise a ValueError if a column is missing; a table that cannot be read becomes a row with its error later."""
    try:
        if kind == ".csv":
            with open_csv(path) as rows:
                names = next(rows, [])
        else:
            import pyarrow.parquet  # type: ignore[import-untyped]

            schema = pyarrow.parquet.read_schema(path)
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
    return escape_name(otherwise if value in (None, "") else str(value))


def find_picture_column(schema: Any, columns: Columns, path: str) -> str:
    """Return the name of the column with pictures in an Arrow schema.

    Raises:
        ValueError: If this column or the column of keys is missing, or several columns have pictures.
    """
    import pyarrow.types as types  # type: ignore[import-untyped]

    def holds_bytes(kind: Any) -> bool:
        is_cell = types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        return is_cell or types.is_binary(kind) or types.is_large_binary(kind)

    check_key(schema.names, columns, path)
    column, fitting = columns.picture, [field.name for field in schema if holds_bytes(field.type)]
    if column is None and (len(fitting) == 1 or "image" in fitting):
        column = fitting[0] if len(fitting) == 1 else "image"
    if column is None or column not in fitting:
        found = f"columns of pictures: {', '.join(fitting) or 'none'}; all: {', '.join(schema.names)}"
        wanted = "One column of pictures (bytes) is needed" if column is None else f"no column of pictures {column!r}"
        raise ValueError(f"{path}: {wanted} ({found}). Name it with --column.")
    if column == columns.key:
        raise ValueError(f"{path}: the column {column!r} has the pictures and cannot have the keys. Change --key.")
    return column


def open_cell(cell: Any, name: str, folder: str) -> str | BytesIO:
    """Return the bytes of a cell, or the path of its file.

    Args:
        cell: Cell of a table, see `resolve_cell`.
        name: Name of the picture in error messages.
        folder: Folder that a path starts from.

    Raises:
        ValueError: If the cell has no picture, or its file does not exist.
    """
    found = resolve_cell(cell, folder)
    if found is None:
        raise ValueError(f"{name}: the row has no picture.")
    return check_path(found, name) if isinstance(found, str) else found


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
        yield key, LazyPicture(key, partial(open_cell, cell.as_py(), key, folder))


def read_parquet(path: str, columns: Columns) -> Iterator[Source]:
    """Read a picture per row; from the first damaged row of a row group on, all its rows are rows with the error."""
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
        name = find_picture_column(file.schema_arrow, columns, path)
    except Exception as error:  # not a parquet file, or a damaged one
        yield make_unreadable(path, f"cannot be read as parquet ({describe_error(error)}).")
        return
    with file:
        row, end = 0, 0
        for group in range(file.num_row_groups):
            end += file.metadata.row_group(group).num_rows
            problem = "the row group is too short"
            try:
                for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=columns.list_names(name)):
                    for source in read_arrow(batch, name, columns, path=path, row=row, folder=os.path.dirname(path)):
                        yield source
                        row += 1
            except Exception as error:  # damaged pages
                problem = describe_error(error)
            while row < end:
                yield make_unreadable(f"{path}::{row}", f"cannot be read ({problem}).")
                row += 1


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


def read_csv(path: str, columns: Columns) -> Iterator[Source]:
    """Read a picture per line, named by its key, or by its path as the table has it."""
    folder = os.path.dirname(path)
    try:
        with open_csv(path) as rows:
            index, key_index = _find_csv_columns(next(rows, []), columns, path)
            for cells in rows:
                if len(cells) > index and cells[index]:
                    name = choose_key(cells[key_index] if len(cells) > key_index else None, cells[index])
                    yield name, LazyPicture(name, partial(open_cell, cells[index], name, folder))
                elif cells:  # not an empty line
                    yield make_unreadable(f"{path}::line {rows.line_num}", "the line has no path.")
    except (OSError, ValueError, csv.Error) as error:
        yield make_unreadable(path, f"what follows cannot be read as CSV ({describe_error(error)}).")


def count_parquet(path: str) -> int:
    """Return the number of rows of a parquet file."""
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_metadata(path).num_rows
    except Exception:  # a damaged file is one row, with the error
        return 1
