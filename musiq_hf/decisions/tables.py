# SPDX-License-Identifier: Apache-2.0
"""Tables of scores as `musiq score` writes them, held in memory with all of their columns.

A hundred thousand rows are read in well under a second. Nothing here imports PyTorch or Transformers.
"""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..common.files import replace_file
from ..common.outputs import TABLES
from ..common.tables import read_table as read_rows
from ..common.tables import write_table

KEY, SCORE, ERROR, MODEL, SIGNATURE = "key", "score", "error", "model", "signature"
ENSEMBLE = "ensemble"  # column with one value for all checkpoints of a picture
# Columns of `musiq score` that hold numbers; CSV has texts alone.
WHOLE, REAL = ("width", "height", "stars"), (SCORE, "score_0_1", "std", ENSEMBLE, "percentile")
NO_SCORE, NO_NUMBER = "no score", "the score is no finite number"
ROWS_AT_ONCE = 10_000
MOST_NAMED = 5  # checkpoints or columns that a sentence names


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Rows of pictures with their scores, one row a picture.

    Attributes:
        rows: Table of pyarrow, with all columns of the file.
        by: Column that holds the scores.
        path: File that was read, for messages.
        is_text: Whether all values are texts, as in CSV.
    """

    rows: Any
    by: str = SCORE
    path: str = "the table"
    is_text: bool = False

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.rows.column_names)

    def texts(self, column: str) -> np.ndarray:
        """Return the values of a column as texts, empty where there is none, shape (num_rows,) of objects.

        Raises:
            ValueError: If there is no such column.
        """
        if column not in self.columns:
            raise ValueError(f"{self.path} has no column {column!r}. It has {_name(self.columns)}.")
        values = self.rows.column(column).to_pylist()
        return np.array(["" if value is None else str(value) for value in values], dtype=object)

    @cached_property
    def keys(self) -> np.ndarray:
        """Names of the pictures, texts of shape (num_rows,)."""
        return self.texts(KEY)

    @cached_property
    def scores(self) -> np.ndarray:
        """Scores, float64 of shape (num_rows,); NaN where there is none."""
        return self.numbers(self.by)

    def numbers(self, column: str) -> np.ndarray:
        """Return the values of a column as numbers, float64 of shape (num_rows,); NaN where there is none.

        Raises:
            ValueError: If there is no such column, or a value is no number.
        """
        if column not in self.columns:
            raise ValueError(f"{self.path} has no column {column!r}. It has {_name(self.columns)}.")
        numbers = np.full(len(self), np.nan)
        for place, value in enumerate(self.rows.column(column).to_pylist()):
            if value is not None and value != "":
                try:
                    numbers[place] = float(value)
                except (TypeError, ValueError):
                    raise ValueError(
                        f"{self.path}, row {place + 1}: {column} must be a number, got {value!r}. Name another column."
                    ) from None
        return numbers

    @cached_property
    def reasons(self) -> np.ndarray:
        """Reason why each row has no score, its error say; empty where it has one. Texts of shape (num_rows,)."""
        errors = self.texts(ERROR) if ERROR in self.columns else np.full(len(self), "", dtype=object)
        reasons, values = np.full(len(self), "", dtype=object), self.rows.column(self.by).to_pylist()
        for place in np.flatnonzero(~np.isfinite(self.scores)):
            reasons[place] = errors[place] or (NO_SCORE if values[place] in (None, "") else NO_NUMBER)
        return reasons

    def take(self, places: np.ndarray | Sequence[int]) -> "ScoreTable":
        """Return the table of some rows, in the order of their places."""
        import pyarrow  # type: ignore[import-untyped]

        return ScoreTable(self.rows.take(pyarrow.array(places, pyarrow.int64())), self.by, self.path, self.is_text)

    def add(self, column: str, values: Sequence[Any]) -> "ScoreTable":
        """Return the table with one more column, or with other values in one that it has."""
        import pyarrow

        content = [None if value is None else str(value) for value in values] if self.is_text else list(values)
        array = pyarrow.array(content)
        if column in self.columns:
            rows = self.rows.set_column(self.columns.index(column), column, array)
        else:
            rows = self.rows.append_column(column, array)
        return ScoreTable(rows, self.by, self.path, self.is_text)


def _name(names: Sequence[str]) -> str:
    """Return names for a sentence; of many, the first few."""
    shown = ", ".join(names[:MOST_NAMED])
    return f"{shown} and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else shown


def read_scores(path: str | os.PathLike[str], *, model: str | None = None, by: str = SCORE) -> ScoreTable:
    """Read a table of scores.

    Args:
        path: A .csv, .parquet or .jsonl file with the column `key`, as `musiq score` writes them.
        model: Checkpoint whose rows are taken, by its name in the column `model`; None needs a table of one.
        by: Column that holds the scores. With "ensemble", which all rows of a picture share, the rows of the first
            checkpoint are taken.

    Returns:
        Table whose columns and values are those of the file.

    Raises:
        ValueError: If it is no such table, or holds scores of several checkpoints and none was chosen.
        OSError: If the file cannot be read.
    """
    file = Path(path)
    if file.suffix.lower() not in TABLES:
        raise ValueError(
            f"{path}: a table of scores is a {', '.join(TABLES)} file. Name one, or a folder of pictures."
        )
    if not file.is_file():
        raise ValueError(f"{path}: no such file. Name a table that `musiq score` wrote, or a folder of pictures.")
    try:
        rows = _READERS[file.suffix.lower()](file)
    except (ValueError, TypeError, AttributeError) as error:  # pyarrow raises subclasses of ValueError
        raise ValueError(f"{path} cannot be read as a table: {' '.join(str(error).split())}.") from error
    repeated = [name for name in rows.column_names if rows.column_names.count(name) > 1]
    if repeated:
        raise ValueError(f"{path} has several columns {repeated[0]!r}. Rename them.")
    table = ScoreTable(rows, by, os.fspath(path), file.suffix.lower() == ".csv")
    for column in (KEY, by):
        if column not in table.columns:
            raise ValueError(
                f"{path} has no column {column!r}, as tables of `musiq score` do. It has {_name(table.columns)}."
            )
    return _choose_model(table, model)


def _choose_model(table: ScoreTable, model: str | None) -> ScoreTable:
    """Return the rows of one checkpoint.

    Raises:
        ValueError: If there are several and none was chosen, the chosen one is missing, or its signatures differ.
    """
    if MODEL not in table.columns:
        if model is not None:
            raise ValueError(f"{table.path} has no column {MODEL!r}, so no checkpoint can be chosen. Drop --model.")
        return table
    models = table.texts(MODEL)
    found = list(dict.fromkeys(models))
    if model is None and len(found) > 1:
        if table.by != ENSEMBLE:
            raise ValueError(
                f"{table.path} holds scores of {len(found)} checkpoints ({_name(found)}). Choose one with --model, or "
                f"the column of another score with --by, such as {ENSEMBLE}."
            )
        model = found[0]
    if model is not None and model not in found:
        raise ValueError(f"{table.path} has no scores of {model}. It has those of {_name(found)}.")
    chosen = table if len(found) <= 1 else table.take(np.flatnonzero(models == model))
    if SIGNATURE in chosen.columns:
        signatures = sorted(set(chosen.texts(SIGNATURE)) - {""})
        if len(signatures) > 1:
            raise ValueError(
                f"{table.path} holds scores that were made in {len(signatures)} ways, such as {signatures[0]} and "
                f"{signatures[1]}. They cannot be compared. Score all pictures in one way."
            )
    return chosen


def write_scores(path: str | os.PathLike[str], table: ScoreTable) -> None:
    """Write a table, under a temporary name first; a file of that name is replaced.

    Args:
        path: A .csv, .jsonl or .parquet file. What CSV holds as texts become numbers in the others, where it is known
            to be one.
        table: Rows to write.

    Raises:
        ValueError: If the name ends otherwise.
    """
    file = Path(path)
    if file.suffix.lower() not in TABLES:
        raise ValueError(f"{path}: tables are written as {', '.join(TABLES)} files. Change the end of the name.")
    rows = table.rows if file.suffix.lower() == ".csv" or not table.is_text else _type(table.rows)
    with replace_file(file) as temporary:
        if file.suffix.lower() == ".parquet":
            _write_parquet(temporary, rows)
        else:
            write_table(temporary, dict.fromkeys(rows.column_names, str), _list_rows(rows), suffix=file.suffix)


def _type(rows: Any) -> Any:
    """Return rows of texts with the types that `musiq score` gives them; an empty cell of these columns is null."""
    import pyarrow
    import pyarrow.compute  # type: ignore[import-untyped]

    for place, name in enumerate(rows.column_names):
        if name in (*WHOLE, *REAL, ERROR):
            column = rows.column(place)
            filled = pyarrow.compute.if_else(pyarrow.compute.equal(column, ""), None, column)
            kind = pyarrow.int32() if name in WHOLE else pyarrow.float64() if name in REAL else pyarrow.string()
            rows = rows.set_column(place, name, filled.cast(kind))
    return rows


def _read_csv(path: Path) -> Any:
    """Read all cells as texts, so that they are written as they were."""
    import pyarrow
    import pyarrow.csv  # type: ignore[import-untyped]

    with open(path, newline="", encoding="utf-8-sig") as file:
        names = next(csv.reader(file), [])
    if not names:
        raise ValueError("it is empty")
    kinds = dict.fromkeys(names, pyarrow.string())
    return pyarrow.csv.read_csv(
        path,
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types=kinds, strings_can_be_null=False),
    )


def _read_json_lines(path: Path) -> Any:
    """Read objects, one a line; pyarrow's own reader would turn texts into dates."""
    import pyarrow

    rows = read_rows(path)
    names = dict.fromkeys(next(rows))
    content = list(rows)
    for row in content:
        names.update(dict.fromkeys(row))
    return pyarrow.table({name: _make_array([row.get(name) for row in content]) for name in names})


def _make_array(values: list[Any]) -> Any:
    """Return a column of JSON's values; where whole and other numbers are mixed, all are float64."""
    import pyarrow

    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return pyarrow.array([None if value is None else float(value) for value in values])
    if len(kinds) > 1:
        values = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return pyarrow.array(values)


def _read_parquet(path: Path) -> Any:
    import pyarrow.parquet  # type: ignore[import-untyped]

    with open(path, "rb") as file:  # a name is no pattern and no URL here
        return pyarrow.parquet.read_table(file)


def _list_rows(rows: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the values of each row; those that JSON does not have, such as dates, as texts."""
    plain = (str, int, float, list, dict)
    for batch in rows.to_batches(max_chunksize=ROWS_AT_ONCE):
        for row in batch.to_pylist():
            yield tuple(value if value is None or isinstance(value, plain) else str(value) for value in row.values())


def _write_parquet(path: Path, rows: Any) -> None:
    import pyarrow.parquet

    with open(path, "xb") as file:
        pyarrow.parquet.write_table(rows, file)


_READERS = {".csv": _read_csv, ".jsonl": _read_json_lines, ".parquet": _read_parquet}
