# SPDX-License-Identifier: Apache-2.0
"""Tables of scores: their columns, and the formats that they are written in."""

import csv
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from .rows import Entry

STD = "std"  # column of checkpoints that predict a distribution
COLUMNS = ("key", "width", "height", "score", "score_0_1", STD, "model", "signature", "error")
ENSEMBLE = "ensemble"  # additional column, for several checkpoints with weights
PLACES = ("percentile", "stars")  # additional columns, for checkpoints with a calibration
ROWS_OF_GROUP = 10_000  # rows in a row group of a parquet file


def name_columns(*, std: bool, weights: Sequence[float] | None, percentile: bool) -> tuple[str, ...]:
    """Return the columns of a table, with or without standard deviations, an ensemble and percentiles."""
    columns = (name for name in COLUMNS if std or name != STD)
    return (*columns, *((ENSEMBLE,) if weights else ()), *(PLACES if percentile else ()))


def write_table(path: Path, suffix: str, entries: Iterable[Entry], head: Mapping[str, Any]) -> None:
    """Write a table to a file that must not exist yet.

    Args:
        path: File to write.
        suffix: Ending that names the format, in any case; that of the file may be another one.
        entries: Rows of each picture.
        head: Settings of the run: "models", "signatures", "std", "weights" and "percentile".
    """
    columns = name_columns(std=head[STD], weights=head["weights"], percentile=bool(head.get("percentile")))
    rows = _complete_rows(entries, head)
    WRITERS[suffix.lower()](path, columns, (tuple(map(row.get, columns)) for row in rows))


def _complete_rows(entries: Iterable[Entry], head: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each row by the names of its columns, with its model and signature."""
    for entry in entries:
        for row, model, signature in zip(entry, head["models"], head["signatures"], strict=True):
            yield row._asdict() | {"model": model, "signature": signature}


class _PlainLines:
    """Text file in which lines end with a line feed alone.

    `csv` quotes only those line breaks that its own line ending has, so it must write both.
    """

    def __init__(self, file: IO[str]):
        self._file = file

    def write(self, line: str) -> int:
        """Write a line that ends with carriage return and line feed."""
        return self._file.write(line.removesuffix("\r\n") + "\n")


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
    with open(path, "x", newline="", encoding="utf-8") as file:
        writer = csv.writer(_PlainLines(file), lineterminator="\r\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _write_json_lines(path: Path, columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
    with open(path, "x", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n")


def _write_parquet(path: Path, columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    text, count, number = pyarrow.string(), pyarrow.int32(), pyarrow.float64()
    kinds = dict.fromkeys(("width", "height", "stars"), count)
    kinds |= dict.fromkeys(("score", "score_0_1", "std", ENSEMBLE, "percentile"), number)
    schema = pyarrow.schema([(name, kinds.get(name, text)) for name in columns])
    with open(path, "xb") as file, pyarrow.parquet.ParquetWriter(file, schema) as writer:
        iterator = iter(rows)
        while group := list(itertools.islice(iterator, ROWS_OF_GROUP)):
            values = zip(*group, strict=True)
            arrays = [pyarrow.array(column, field.type) for column, field in zip(values, schema, strict=True)]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))


WRITERS: dict[str, Callable[[Path, Sequence[str], Iterable[tuple[Any, ...]]], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_json_lines,
    ".parquet": _write_parquet,
}
