# SPDX-License-Identifier: Apache-2.0
"""Forms of tables: the rows that a command makes for each picture, and the columns that they are written in."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ...common.tables import write_table
from ..rows import ScoreRow

STD = "std"  # column of checkpoints that predict a distribution
COLUMNS = ("key", "width", "height", "score", "score_0_1", STD, "model", "signature", "error")
ENSEMBLE = "ensemble"  # additional column, for several checkpoints with weights
PLACES = ("percentile", "stars")  # additional columns, for checkpoints with a calibration
KINDS = dict.fromkeys(("width", "height", "stars"), int) | dict.fromkeys(
    ("score", "score_0_1", STD, ENSEMBLE, "percentile"), float
)
CONSTANTS = "constants"  # setting with the columns that have one value in all rows of a table

Settings = Mapping[str, Any]


class Row(Protocol):
    """Row of a table, a named tuple."""

    @property
    def key(self) -> str:
        """Name of the picture."""

    @property
    def error(self) -> str | None:
        """Sentence that says why values are missing; None if none is."""

    def _asdict(self) -> dict[str, Any]: ...


Rows = tuple[Row, ...]  # rows of one picture, at least one


def complete_row(rows: Iterable[Row], settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield each row by the names of its columns, with those that have one value in all rows of the table."""
    for row in rows:
        yield row._asdict() | settings.get(CONSTANTS, {})


@dataclass(frozen=True)
class TableForm:
    """Form of the tables of one command, and of the rows in its journals.

    Attributes:
        command: Command that makes them, such as "musiq score".
        row: Class of the rows, a named tuple with `key` and `error`; its values are those that JSON has.
        columns: Function from the settings of a run to the names of the columns and the kinds of their values.
        complete: Function from the rows of a picture and the settings to the values of each row by column.
    """

    command: str
    row: Callable[..., Any]
    columns: Callable[[Settings], Mapping[str, type]]
    complete: Callable[[Any, Settings], Iterator[dict[str, Any]]] = complete_row

    def write(self, path: Path, suffix: str, entries: Iterable[Rows], settings: Settings) -> None:
        """Write a table to a file that must not exist yet.

        Args:
            path: File to write.
            suffix: Ending that names the format, in any case; that of the file may be another one.
            entries: Rows of each picture.
            settings: Settings of the run.
        """
        columns = self.columns(settings)
        rows = (row for entry in entries for row in self.complete(entry, settings))
        write_table(path, columns, (tuple(map(row.get, columns)) for row in rows), suffix=suffix)


def name_columns(*, std: bool, weights: Sequence[float] | None, percentile: bool) -> tuple[str, ...]:
    """Return the columns of a table, with or without standard deviations, an ensemble and percentiles."""
    columns = (name for name in COLUMNS if std or name != STD)
    return (*columns, *((ENSEMBLE,) if weights else ()), *(PLACES if percentile else ()))


def find_kinds(columns: Iterable[str]) -> dict[str, type]:
    """Return the kinds of values in columns of a table of scores."""
    return {name: KINDS.get(name, str) for name in columns}


def _list_columns(settings: Settings) -> dict[str, type]:
    percentile = bool(settings.get("percentile"))
    return find_kinds(name_columns(std=settings[STD], weights=settings["weights"], percentile=percentile))


def _complete_scores(entry: Sequence[ScoreRow], settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield each row of a picture with its model and signature."""
    for row, model, signature in zip(entry, settings["models"], settings["signatures"], strict=True):
        yield row._asdict() | {"model": model, "signature": signature}


SCORES = TableForm("musiq score", ScoreRow, _list_columns, _complete_scores)
