# SPDX-License-Identifier: Apache-2.0
"""Tables of subjective tests: read whole, or refused with file and line, and written whole or not at all."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ..common.files import replace_file
from ..common.outputs import check_local_table
from ..common.tables import Kinds, write_table
from ..pictures.csv_rows import (
    check_columns,
    check_number,
    check_row,
    find_delimiter,
    name_cells,
    open_csv,
    read_column_names,
    to_point,
)

Row = tuple[str, dict[str, str]]  # file and line, and the cells by column


def read_rows(path: str | os.PathLike[str]) -> tuple[list[str], list[Row]]:
    """Read a CSV table with a header.

    Returns:
        The names of the columns, and the rows.

    Raises:
        ValueError: If two columns have one name, or a row has fewer or more cells than there are columns.
    """
    with open_csv(path) as lines:
        names = read_column_names(lines, path)
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise ValueError(f"{path}: several columns are named {repeated[0]!r}. Give each a name of its own.")
        rows = []
        for line in lines:
            where = check_row(line, path)
            if any(line.cells[len(names) :]):
                raise ValueError(
                    f"{where}: the row has {len(line.cells)} cells for {len(names)} columns. Quote texts that hold "
                    "what stands between cells."
                )
            rows.append(name_cells(line, names, path))
    return names, rows


def read_columns(path: str | os.PathLike[str], needed: Sequence[str]) -> list[Row]:
    """Read the rows of a table that has some columns; raise a ValueError if it lacks one, or has no row."""
    names, rows = read_rows(path)
    check_columns(names, needed, source=str(path), expected=", ".join(needed))
    if not rows:
        raise ValueError(f"{path}: no rows below the header. Give the whole table.")
    return rows


class Numbers:
    """Reader of the numbers of one table.

    Where no comma stands between cells, numbers may have a decimal comma.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self._has_decimal_commas = find_delimiter(path) != ","

    def read(self, text: str, *, name: str, where: str, low: float = -math.inf) -> float | None:
        """Return the number of a cell, None if it is empty or nan.

        Args:
            text: Text of the cell.
            name: Name of the number in the error message.
            where: File and line.
            low: Lowest number that is allowed.

        Raises:
            ValueError: If it is no finite number from `low` on.
        """
        if text.strip().lower() in ("", "nan"):
            return None
        return check_number(to_point(text, self._has_decimal_commas), name=name, where=where, low=low)


def write_rows(path: str | os.PathLike[str], columns: Kinds, rows: Iterable[tuple[Any, ...]]) -> None:
    """Write a table, and make its folder.

    Args:
        path: File, whose ending names the format: .csv, .jsonl or .parquet.
        columns: Names of the columns, and the kind of the values in each.
        rows: Values of each row; numbers keep all their digits, and None is an empty cell.

    Raises:
        ValueError: If the file has another ending, or cannot be written there.
    """
    table = check_local_table(path)
    table.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(table) as temporary:
        write_table(temporary, columns, rows, suffix=table.suffix)
