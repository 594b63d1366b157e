# SPDX-License-Identifier: Apache-2.0
"""Finished tables of scores, compared with the jobs that would make them.

A job that is run again, as schedulers do, has nothing to do.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..common.tables import read_table
from .journal import Totals, describe_difference
from .rows import Entry, ScoreRow, Terms
from .tables.forms import ENSEMBLE, KINDS, PLACES, name_columns

# Settings that change a part of a table, for the message.
SETTINGS = {"score_0_1": "the score range", ENSEMBLE: "--weights"} | dict.fromkeys(PLACES, "the calibration")
HINT = " (preprocessing is that of --shorter_side and of the image processor)"


class _Difference(Exception):
    """Difference of a table from what a job would make, as the end of a sentence."""


def check_finished(table: Path | str, job_sources: Iterator[tuple[str, Any]], terms: Terms) -> Totals:
    """Check that a table holds what a job would write: its pictures, checkpoints and settings.

    Scores are not computed again, so a picture that was changed under its name goes unnoticed.

    Args:
        table: Table that is there, a file or the URL of an object.
        job_sources: Keys and pictures of the job; no picture is read.
        terms: Checkpoints of the job.

    Returns:
        Numbers of pictures and errors in the table.

    Raises:
        ValueError: If the table differs; the message names the first difference.
    """
    try:
        return _compare(read_table(table), job_sources, terms)
    except _Difference as difference:
        reason = f"with {difference}"
    except (ValueError, TypeError, KeyError):  # whatever the readers raise for another kind of file
        reason = "and is no whole table of `musiq score`"
    raise ValueError(f"{table} exists already, {reason}. Add --overwrite, choose another name, or delete it.")


def _compare(rows: Iterator[dict[str, Any]], sources: Iterator[tuple[str, Any]], terms: Terms) -> Totals:
    pictures = errors = 0
    _check_columns(
        next(rows), name_columns(std=terms.has_std, weights=terms.weights, percentile=terms.has_percentiles)
    )
    while found := list(itertools.islice(rows, len(terms.names))):
        for name, expected in (("model", terms.names), ("signature", terms.signatures)):
            there = [row[name] for row in found]
            if there != expected:
                hint = HINT if name == "signature" else ""
                raise _Difference(f"other settings ({name}: {describe_difference(there, expected)}){hint}")
        entry = tuple(_to_row(row) for row in found)
        key = next(sources, (None, None))[0]
        if key is None or any(row.key != key for row in entry):
            raise _Difference(f"other pictures ({entry[0].key} is there, {key or 'nothing'} is to be scored)")
        _check_places(entry, terms)
        pictures += 1
        errors += any(row.error is not None for row in entry)
    missing = next(sources, None)
    if missing is not None:
        raise _Difference(f"other pictures (nothing is there for {missing[0]})")
    return Totals(pictures, errors)


def _check_columns(found: dict[str, Any], expected: Sequence[str]) -> None:
    """Raise a _Difference if a table of ours has other columns, and a ValueError if it is no table of ours."""
    if "signature" not in found:
        raise ValueError("no signature")
    names = [name for name in (*expected, *found) if (name in found) != (name in expected)]
    if names:
        has = "has" if names[0] in found else "lacks"
        raise _Difference(f"other settings (it {has} the column {names[0]})")


def _check_places(entry: Entry, terms: Terms) -> None:
    """Raise a _Difference if what follows from the scores is not what the job would write."""
    for row, expected in zip(entry, terms.place(entry), strict=True):
        for name, setting in SETTINGS.items():
            old, new = getattr(row, name), getattr(expected, name)
            if old != new:
                raise _Difference(f"other settings, {setting} ({name} of {row.key}: {old}, now {new})")


def _to_row(values: dict[str, Any]) -> ScoreRow:
    read: dict[str, Any] = {
        name: KINDS.get(name, str)(value) for name, value in values.items() if value not in (None, "")
    }
    return ScoreRow(**{"key": "", **{name: read[name] for name in ScoreRow._fields if name in read}})
