# SPDX-License-Identifier: Apache-2.0
"""Jobs that measure any number of pictures or videos into a table, and that may be killed at any moment.

They share journals, formats and rules of `scoring.job`: the same job continues, and a finished one does nothing.
"""

import itertools
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...common.outputs import check_local_table
from ...common.stores import StoreError
from ...common.tables import read_table
from ...pictures.decoding import decode_ahead
from ...pictures.lazy import write_line
from ..job import JobResult
from ..journal import Journal, Totals, check_no_other_journal, describe_difference, name_journals, write_output
from .forms import CONSTANTS, Rows, TableForm

Inputs = Iterator[tuple[str, Any]]  # keys, and what is measured


@dataclass(frozen=True)
class RowJob:
    """Inputs to measure, and the table that is made of them.

    Attributes:
        form: Form of the table and its rows.
        settings: Settings that must be the same when a run is continued, as JSON has them. Those of "constants" are
            columns with one value in all rows.
        find: Function that finds the keys and the inputs, in the same order each time; it reads none.
        count: Function that counts the inputs, reading none; None where nobody knows.
        measure: Function that measures inputs in their order, and yields the rows of each.
        known: Function from an input to what is known of its rows before it is measured: for each row the values of
            some columns. None if only the key is.
        output: A .csv, .jsonl or .parquet file; None for rows on the terminal.
        overwrite: Whether the output is replaced if it exists.
    """

    form: TableForm
    settings: Mapping[str, Any]
    find: Callable[[], Inputs]
    count: Callable[[], int | None]
    measure: Callable[[Inputs], Generator[Rows]]
    known: Callable[[Any], Sequence[Mapping[str, Any]]] | None = None
    output: str | os.PathLike[str] | None = None
    overwrite: bool = False

    @property
    def table(self) -> Path | None:
        """File of the table; None without an output."""
        return None if self.output is None else check_local_table(self.output)

    @property
    def journal(self) -> Path | None:
        """File with the rows so far; None without an output."""
        return None if self.table is None else name_journals(self.table, 1)[0]


def measure_rows(job: RowJob) -> Generator[Rows]:
    """Yield the rows of each input of a job as soon as they are there, and write no file."""
    with closing(job.measure(job.find())) as entries:
        yield from entries


def measure_ahead(
    inputs: Inputs,
    measure: Callable[[Any, str], Any],
    *,
    num_workers: int,
    in_processes: bool = False,
    on_close: Callable[[], None] = lambda: None,
) -> Generator[tuple[str, Any, str | None]]:
    """Measure inputs in order, a few ahead; see `decode_ahead` for the arguments.

    Yields:
        Key, what was measured, and None; of an input that cannot be read, key, None and a sentence on one line.

    Raises:
        StoreError: If a remote store gives no answer: no row, for the next run may read the input.
    """
    ahead = decode_ahead(inputs, measure, num_workers=num_workers, in_processes=in_processes, on_close=on_close)
    with closing(ahead) as measured:
        for key, future in measured:
            try:
                result, error = future.result(), None
            except StoreError:
                raise
            except (ValueError, OSError) as failure:
                result, error = None, write_line(str(failure))
            yield key, result, error


def run_rows(job: RowJob, *, on_progress: Callable[[Totals], None] | None = None) -> JobResult:
    """Measure the inputs of a job into its table, or continue a run that was interrupted.

    Args:
        job: Job with `output`.
        on_progress: Function that is called with the numbers of inputs, once before the first and after each. The
            inputs of an earlier run count.

    Returns:
        State and numbers. An input that cannot be read or measured has a row with its error, and counts.

    Raises:
        ValueError: If the job has no output, or one that cannot be written. If the output exists, or a run of it is
            unfinished, with other settings or inputs, unless the job may overwrite.
    """
    table, path = job.table, job.journal
    if table is None or path is None:
        raise ValueError("`run_rows` writes a file, but the job has no `output`. Give one, or use `measure_rows`.")
    check_no_other_journal(table, [path], remove=job.overwrite)
    with closing(Journal(path, job.settings, form=job.form, renew=job.overwrite)) as journal:
        if job.overwrite and journal.find_change(job.find()) is not None:
            journal.clear(job.settings)
        if not journal.is_finished:
            if table.exists() and not job.overwrite:
                return JobResult("found", *_check_table(table, job))
            _measure_missing(journal, job, on_progress or (lambda totals: None))
    totals = write_output(table, [path], temporary=path.with_name(f"{path.name}.tmp"), form=job.form)
    return JobResult("waiting") if totals is None else JobResult("written", *totals)


def _measure_missing(journal: Journal, job: RowJob, on_progress: Callable[[Totals], None]) -> None:
    """Measure the inputs that a journal lacks."""
    on_progress(Totals(journal.pictures, journal.errors))
    inputs = job.find()
    journal.check_done(inputs)
    with closing(job.measure(inputs)) as entries:
        for entry in entries:
            journal.append(entry)
            on_progress(Totals(journal.pictures, journal.errors))
    journal.finish()


def _check_table(table: Path, job: RowJob) -> Totals:
    """Return the numbers of a table that is there, or raise a ValueError if the job would make another one.

    Nothing is measured again, so an input that was changed under its name goes unnoticed.
    """
    try:
        difference, totals = _compare(read_table(table), job)
    except (ValueError, TypeError, KeyError):  # whatever the readers raise for another kind of file
        difference, totals = f"and is no whole table of `{job.form.command}`", Totals(0, 0)
    if difference is not None:
        raise ValueError(f"{table} exists already, {difference}. Add --overwrite, choose another name, or delete it.")
    return totals


def read_rows(job: RowJob) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table that a job has written, by the names of their columns; None where there is no value.

    Raises:
        ValueError: If the table is another one.
    """
    if job.table is None:
        raise ValueError("`read_rows` reads a file, but the job has no `output`. Use `measure_rows`.")
    rows, kinds = read_table(job.table), job.form.columns(job.settings)
    next(rows)
    for row in rows:
        yield {name: _read_cell(row[name], kind) for name, kind in kinds.items()}


def _read_cell(value: Any, kind: type) -> Any:
    """Return the value of a cell, None if it is empty; a CSV table has texts alone."""
    if value is None or value == "":
        return None
    return str(value) == "True" if kind is bool else kind(value)


def _compare(rows: Iterator[dict[str, Any]], job: RowJob) -> tuple[str | None, Totals]:
    """Compare a table with what a job would make.

    Returns:
        First difference, None if there is none, and the numbers of inputs in the table.
    """
    totals = Totals(0, 0)
    difference = _find_other_column(list(next(rows, {})), list(job.form.columns(job.settings)))
    if difference is not None:
        return difference, totals
    inputs = itertools.groupby(job.find(), key=lambda source: source[0])  # one may be named twice
    for key, group in itertools.groupby(rows, key=lambda row: row["key"]):
        expected, same = next(inputs, ("nothing", iter(())))
        if key != expected:
            return f"with other inputs ({key} is there, {expected} is to be measured)", totals
        found, wanted = list(group), list(same)
        difference = _find_other_rows(found, [source for _, source in wanted], job)
        if difference is not None:
            return difference, totals
        number, has_error = len(wanted), any(row["error"] for row in found)
        totals = Totals(totals.pictures + number, totals.errors + has_error * number)
    missing = next(inputs, None)
    return None if missing is None else f"with other inputs (nothing is there for {missing[0]})", totals


def _find_other_column(found: list[str], expected: list[str]) -> str | None:
    """Return the first difference of the columns of a table; a table without rows may have none."""
    if not found or found == expected:
        return None
    if "key" not in found:
        raise ValueError("no keys")
    other = next((name for name in (*found, *expected) if (name in found) != (name in expected)), "their order")
    return f"with other columns ({other})"


def _find_other_rows(found: list[dict[str, Any]], sources: list[Any], job: RowJob) -> str | None:
    """Return the first difference of the rows of a key from what is known of them without measuring."""
    for row in found:
        difference = _find_other_setting(row, job)
        if difference is not None:
            return difference
    known = [] if job.known is None else [row for source in sources for row in job.known(source)]
    if known and len(known) != len(found):
        return f"with {len(found)} rows of {found[0]['key']}, and {len(known)} are to be made"
    for row, values in zip(found, known, strict=False):
        for name, value in values.items():
            if (row[name] or None) != value:
                return (
                    f"with other values ({name} of {row['key']}: {row[name] or 'nothing'}, now {value or 'nothing'})"
                )
    return None


def _find_other_setting(row: Mapping[str, Any], job: RowJob) -> str | None:
    """Return the first difference of a row from the columns that have one value in all rows."""
    for name, value in job.settings.get(CONSTANTS, {}).items():
        if row[name] != value:
            return f"with other settings ({name}: {describe_difference([row[name]], [value])})"
    return None
