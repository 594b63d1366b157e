# SPDX-License-Identifier: Apache-2.0
"""Pictures of parquet files and CSV tables, row by row."""

import csv
import os
from collections.abc import Iterator, Sequence
from functools import partial
from io import BytesIO
from typing import Any, NamedTuple

from .lazy import LazyPicture, Source, as_text, checked_path, unreadable, why

PATH_COLUMNS = ("image", "path", "file_name", "filename", "image_name", "image_path", "file")  # the first one there is
ROWS_AT_ONCE = 8  # of a parquet file: pictures are large


class Columns(NamedTuple):
    """Which columns of a table are read.

    Attributes:
        picture: With the pictures; None looks for a usual one.
        key: With the keys; None calls a row by its number, that of a CSV file by its path.
    """

    picture: str | None = None
    key: str | None = None

    def read(self, picture: str) -> list[str]:
        """All that must be read, once it is known where the pictures are."""
        return [picture] if self.key is None else [picture, self.key]


def check_table(path: str, kind: str, columns: Columns) -> None:
    """Raise a ValueError if a column is missing; what cannot be read at all becomes a row with its error later."""
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
        _csv_places(names, columns, path)
    else:
        picture_column(schema, columns, path)


def check_key(names: Sequence[str], columns: Columns, path: str) -> None:
    """Raise a ValueError if there is no such column."""
    if columns.key is not None and columns.key not in names:
        raise ValueError(
            f"{path}: no column {columns.key!r} for the keys, only {', '.join(names)[:200]}. Change --key."
        )


def row_key(value: Any, place: str) -> str:
    """The key of a row, or its place where it has none."""
    return as_text(place if value in (None, "") else str(value))


def picture_column(schema: Any, columns: Columns, path: str) -> str:
    """Name of the column with pictures of an Arrow schema; a ValueError if it, or that of the keys, is missing."""
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
    """Bytes, or a path that starts from the folder, of a cell: bytes, or bytes and path as `datasets` writes them."""
    content, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    if content:
        return BytesIO(content)
    if path:
        return checked_path(os.path.join(folder, path), name)
    raise ValueError(f"{name}: the row has no picture.")


def arrow_sources(table: Any, name: str, columns: Columns, *, path: str, row: int, folder: str) -> Iterator[Source]:
    """The pictures in the column `name` of an Arrow table or batch, whose first row is number `row` of a path."""
    keys = table.column(columns.key).to_pylist() if columns.key else [None] * len(table)
    for place, (cell, own) in enumerate(zip(table.column(name), keys, strict=True), start=row):
        key = row_key(own, f"{path}::{place}")
        yield key, LazyPicture(key, partial(open_cell, cell.as_py(), key, folder))


def read_parquet(path: str, columns: Columns) -> Iterator[Source]:
    """A picture per row; all rows of a row group from the first that cannot be read on are rows with the error."""
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
        name = picture_column(file.schema_arrow, columns, path)
    except Exception as error:  # not a parquet file, or a damaged one
        yield unreadable(path, f"cannot be read as parquet ({why(error)}).")
        return
    with file:
        row, end = 0, 0
        for group in range(file.num_row_groups):
            end += file.metadata.row_group(group).num_rows
            problem = "the row group is too short"
            try:
                for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=columns.read(name)):
                    for source in arrow_sources(
                        batch, name, columns, path=path, row=row, folder=os.path.dirname(path)
                    ):
                        yield source
                        row += 1
            except Exception as error:  # damaged pages
                problem = why(error)
            while row < end:
                yield unreadable(f"{path}::{row}", f"cannot be read ({problem}).")
                row += 1


def _csv_places(names: Sequence[str], columns: Columns, path: str) -> tuple[int, int]:
    """Places of the columns with paths and with keys, which are the paths themselves if there is none."""
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
    """A picture per line, called by its path as it stands there."""
    folder = os.path.dirname(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.reader(file)
            index, key_index = _csv_places(next(table, []), columns, path)
            for cells in table:
                if len(cells) > index and cells[index]:
                    name = row_key(cells[key_index] if len(cells) > key_index else None, cells[index])
                    yield name, LazyPicture(name, partial(checked_path, os.path.join(folder, cells[index]), name))
                elif cells:  # not an empty line
                    yield unreadable(f"{path}::line {table.line_num}", "the line has no path.")
    except (OSError, ValueError, csv.Error) as error:
        yield unreadable(path, f"what follows cannot be read as CSV ({why(error)}).")


def count_parquet(path: str) -> int:
    """Rows of a parquet file."""
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_metadata(path).num_rows
    except Exception:  # damaged: one row with the error
        return 1
