# SPDX-License-Identifier: Apache-2.0
"""Tables of rows in the formats that commands write, and the reading of what they have written."""

import csv
import io
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from .stores import open_binary

ROWS_OF_GROUP = 10_000  # rows in a row group of a parquet file
Kinds = Mapping[str, type]  # kind of each column: str, int, float or bool


def write_table(path: Path, columns: Kinds, rows: Iterable[tuple[Any, ...]], *, suffix: str | None = None) -> None:
    """Write a table to a file that must not exist yet.

    Args:
        path: File to write.
        columns: Names of the columns, and the kind of the values in each: str, int, float or bool.
        rows: Values of each row, None where there is none.
        suffix: Ending that names the format, in any case; None takes that of the file.
    """
    WRITERS[(suffix or path.suffix).lower()](path, columns, rows)


def read_table(path: Path | str) -> Iterator[dict[str, Any]]:
    """Read a table in the format that its ending names.

    Args:
        path: File, or the URL of an object in a remote store.

    Yields:
        First the names of the columns, as keys, then each row. Cells of a CSV table are texts.

    Raises:
        ValueError: If it is no such table.
    """
    yield from READERS[Path(path).suffix.lower()](path)


class _PlainLines:
    """Text file in which lines end with a line feed alone.

    `csv` quotes only those line breaks that its own line ending has, so it must write both.
    """

    def __init__(self, file: IO[str]):
        self._file = file

    def write(self, line: str) -> int:
        """Write a line that ends with carriage return and line feed."""
        return self._file.write(line.removesuffix("\r\n") + "\n")


def _write_csv(path: Path, columns: Kinds, rows: Iterable[tuple[Any, ...]]) -> None:
    with open(path, "x", newline="", encoding="utf-8") as file:
        writer = csv.writer(_PlainLines(file), lineterminator="\r\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _write_json_lines(path: Path, columns: Kinds, rows: Iterable[tuple[Any, ...]]) -> None:
    with open(path, "x", encoding="utf-8") as file:
        for row in rows:
            # JSON has no infinite numbers.
            values = (None if isinstance(value, float) and not math.isfinite(value) else value for value in row)
            file.write(json.dumps(dict(zip(columns, values, strict=True)), ensure_ascii=False) + "\n")


def _write_parquet(path: Path, columns: Kinds, rows: Iterable[tuple[Any, ...]]) -> None:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    kinds = {str: pyarrow.string(), int: pyarrow.int32(), float: pyarrow.float64(), bool: pyarrow.bool_()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in columns.items()])
    with open(path, "xb") as file, pyarrow.parquet.ParquetWriter(file, schema) as writer:
        iterator = iter(rows)
        while group := list(itertools.islice(iterator, ROWS_OF_GROUP)):
            values = zip(*group, strict=True)
            arrays = [pyarrow.array(column, field.type) for column, field in zip(values, schema, strict=True)]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))


def _read_csv(path: Path | str) -> Iterator[dict[str, Any]]:
    with io.TextIOWrapper(open_binary(path), newline="", encoding="utf-8") as file:
        reader = csv.reader(file, strict=True)
        try:
            names = next(reader, [])
            yield dict.fromkeys(names)
            yield from (dict(zip(names, row, strict=True)) for row in reader)
        except csv.Error as error:
            raise ValueError(f"{path}: {error}") from error


def _read_json_lines(path: Path | str) -> Iterator[dict[str, Any]]:
    with io.TextIOWrapper(open_binary(path), encoding="utf-8") as file:
        rows = map(json.loads, file)
        first: dict[str, Any] = next(rows, {})
        yield dict.fromkeys(first)
        yield from itertools.chain([first] if first else [], rows)


def _read_parquet(path: Path | str) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    with open_binary(path) as content, pyarrow.parquet.ParquetFile(content) as file:
        yield dict.fromkeys(file.schema_arrow.names)
        for batch in file.iter_batches():
            yield from batch.to_pylist()


WRITERS: dict[str, Callable[[Path, Kinds, Iterable[tuple[Any, ...]]], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_json_lines,
    ".parquet": _write_parquet,
}
READERS: dict[str, Callable[[Path | str], Iterator[dict[str, Any]]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_json_lines,
    ".parquet": _read_parquet,
}
