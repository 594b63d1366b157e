# SPDX-License-Identifier: Apache-2.0
"""Pictures of parquet files and CSV tables, row by row."""

import csv
import os
from collections.abc import Iterator, Sequence
from functools import partial
from io import BytesIO
from typing import Any

from .lazy_pictures import LazyPicture, Source, as_text, checked_path, unreadable, why

PATH_COLUMNS = ("image", "path", "file_name", "filename", "image_name", "image_path", "file")  # the first one there is
ROWS_AT_ONCE = 8  # of a parquet file: pictures are large


def check_table(path: str, kind: str, column: str | None) -> None:
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
        picture_column(schema, column, path)


def picture_column(schema: Any, column: str | None, path: str) -> str:
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


def open_cell(cell: Any, name: str, folder: str) -> str | BytesIO:
    """Bytes, or a path that starts from the folder, of a cell: bytes, or bytes and path as `datasets` writes them."""
    content, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    if content:
        return BytesIO(content)
    if path:
        return checked_path(os.path.join(folder, path), name)
    raise ValueError(f"{name}: the row has no picture.")


def read_parquet(path: str, column: str | None) -> Iterator[Source]:
    """A picture per row; all rows of a row group from the first that cannot be read on are rows with the error."""
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
        name = picture_column(file.schema_arrow, column, path)
    except Exception as error:  # not a parquet file, or a damaged one
        yield unreadable(path, f"cannot be read as parquet ({why(error)}).")
        return
    with file:
        row, end = 0, 0
        for group in range(file.num_row_groups):
            end += file.metadata.row_group(group).num_rows
            problem = "the row group is too short"
            try:
                for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=[name]):
                    for cell in batch.column(0):
                        key = as_text(f"{path}::{row}")
                        yield key, LazyPicture(key, partial(open_cell, cell.as_py(), key, os.path.dirname(path)))
                        row += 1
            except Exception as error:  # damaged pages
                problem = why(error)
            while row < end:
                yield unreadable(f"{path}::{row}", f"cannot be read ({problem}).")
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


def read_csv(path: str, column: str | None) -> Iterator[Source]:
    """A picture per line, called by its path as it stands there."""
    folder = os.path.dirname(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.reader(file)
            index = _csv_column(next(table, []), column, path)
            for cells in table:
                if len(cells) > index and cells[index]:
                    name = as_text(cells[index])
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
