# SPDX-License-Identifier: Apache-2.0
"""Rows of CSV tables as texts, whose problems cost them alone, and checks for tables that must be whole."""

import csv
import io
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TextIO

from ..common.stores import is_remote, open_binary
from .lazy import check_path, escape_name

LONGEST_CELL = 131_072  # characters; the usual limit of the module csv
UNCLOSED = "unexpected end of data"  # as the module csv says it
LONGEST_LINE = 32 * LONGEST_CELL  # no more than this is held of any line
DELIMITERS = (",", ";", "\t")  # spreadsheets write the second where a comma begins the decimals of a number


class CsvRow(NamedTuple):
    """Row of a CSV table.

    Attributes:
        line: Line on which the row begins, as an editor counts it: from 1, blank lines and broken cells included.
        cells: Texts of the cells; bytes that are not UTF-8 are written with backslashes.
        problem: Sentence that says why the row cannot be used, None for a sound one.
    """

    line: int
    cells: list[str]
    problem: str | None


class _Lines:
    """Iterator over the lines of a table that holds no endless line in memory, and can skip the rest of a row."""

    def __init__(self, file: TextIO):
        self._file = file
        self.count = 0
        self._num_quotes, self._length = 0, 0  # of the row so far

    def begin_row(self) -> None:
        """Begin to count the quotes and characters of a row."""
        self._num_quotes, self._length = 0, 0

    def skip_long_row(self) -> bool:
        """Skip the rest of a row that is too long; return whether its last quote is closed on any line."""
        while self._length > LONGEST_CELL and self._num_quotes % 2:
            if not self._read_part():
                return False
        return True

    def _read_part(self) -> str:
        """Read a line, or the first part of a long one."""
        part = self._file.readline(LONGEST_LINE)
        self._num_quotes += part.count('"')
        self._length += len(part)
        self.count += part.endswith(("\n", "\r"))
        return part

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._read_part()
        if len(line) == LONGEST_LINE:
            while line and not line.endswith(("\n", "\r")):
                line = self._read_part()
            raise csv.Error(f"a line over {LONGEST_LINE:,} characters")
        if not line:
            raise StopIteration
        return line


def _open_text(path: str | os.PathLike[str]) -> TextIO:
    if not is_remote(path):
        check_path(os.fspath(path), os.fspath(path))
    return io.TextIOWrapper(open_binary(path), newline="", encoding="utf-8-sig", errors="surrogateescape")


def find_delimiter(path: str | os.PathLike[str]) -> str:
    """Return the sign between the cells of a CSV table: that of `DELIMITERS` of which its header has most.

    Raises:
        ValueError: If the path leads to no regular file.
    """
    header = ""
    with _open_text(path) as file:
        while not header.strip() and (line := file.readline(LONGEST_LINE)):
            header = re.sub(r'"[^"]*"?', "", line)  # no sign within quotes stands between cells
    return max(DELIMITERS, key=header.count)


@contextmanager
def open_csv(path: str | os.PathLike[str]) -> Iterator[Iterator[CsvRow]]:
    """Open a CSV table in UTF-8, with or without a byte order mark, as an iterator over its rows.

    Empty rows are left out. `find_delimiter` finds what stands between the cells.

    Raises:
        ValueError: If the path leads to no regular file.
    """
    delimiter = find_delimiter(path)
    with _open_text(path) as file:
        yield _read_rows(file, delimiter)


def _read_rows(file: TextIO, delimiter: str) -> Iterator[CsvRow]:
    lines = _Lines(file)
    # Strict, because a quote that is never closed swallows all rows below it.
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.begin_row()
        line, cells, problem = lines.count + 1, list[str](), None
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = _describe_problem(str(error) if lines.skip_long_row() else UNCLOSED)
        escaped = [escape_name(cell) for cell in cells]
        if escaped != cells:
            problem = "the row has bytes that are not UTF-8. Save the table as UTF-8."
        if cells or problem:
            yield CsvRow(line, escaped, problem)


def _describe_problem(reason: str) -> str:
    if reason == UNCLOSED:
        reason = "a quote is never closed, and all that follows would be in its cell"
    if "field limit" in reason:
        reason = f"a cell over {LONGEST_CELL:,} characters"
    return f"the row cannot be read as CSV ({reason})."


def read_column_names(rows: Iterator[CsvRow], path: str | os.PathLike[str]) -> list[str]:
    """Read the names of the columns; raise a ValueError if they cannot be read."""
    header = next(rows, CsvRow(1, [], None))
    check_row(header, path)
    return header.cells


def check_row(row: CsvRow, path: str | os.PathLike[str]) -> str:
    """Return file and line of a row; raise a ValueError that begins with them if it cannot be read."""
    where = f"{path}, line {row.line}"
    if row.problem is not None:
        raise ValueError(f"{where}: {row.problem}")
    return where


def name_cells(row: CsvRow, names: Sequence[str], path: str | os.PathLike[str]) -> tuple[str, dict[str, str]]:
    """Return file and line of a row, and its cells by column.

    Raises:
        ValueError: If it cannot be read, or ends before the last column that has a name.
    """
    where = check_row(row, path)
    missing = [name for name in names[len(row.cells) :] if name]
    if missing:
        raise ValueError(f"{where}: the row ends before {missing}. Give a cell for every column.")
    return where, dict(zip(names, row.cells, strict=False))


def check_columns(names: Sequence[Any], needed: Sequence[str], *, source: str, expected: str) -> None:
    """Raise a ValueError that names the missing columns and says what a table needs."""
    missing = [name for name in needed if name not in names]
    if missing:
        raise ValueError(f"{source}: columns {missing} are missing, got {list(names)}. A table needs {expected}.")


def check_number(value: Any, *, name: str, where: str, low: float = -math.inf, high: float = math.inf) -> float:
    """Return a score as a float.

    Args:
        value: Number, or a text of one.
        name: Name of the score in the error message.
        where: Beginning of the error message: file and line.
        low: Lowest number that is allowed.
        high: Highest number that is allowed.

    Raises:
        ValueError: If it is no finite number in [low, high].
    """
    try:
        number = parse_number(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and low <= number <= high):
        allowed = "a number" if low == -math.inf else f"a number in {low:g}..{high:g}"
        is_missing = value in (None, "") or value != value
        raise ValueError(f"{where}: `{name}` must be {allowed}, got {'nothing' if is_missing else value}.")
    return number


def parse_number(value: Any) -> float:
    """Return a number, or the number that a text holds; raise a ValueError or TypeError if it is none."""
    if isinstance(value, bool):
        raise ValueError("Python reads True as 1, but a table that holds it answers a question.")
    if "_" in str(value):
        raise ValueError("Python reads 1_0 as 10, but a table that holds it is wrong.")
    return float(value)


def to_point(number: str | None, has_decimal_commas: bool) -> str | None:
    """Return the text of a number with a point before its decimals."""
    if has_decimal_commas and re.fullmatch(r"\s*[-+]?\d+,\d+\s*", number or ""):
        return (number or "").replace(",", ".")
    return number
