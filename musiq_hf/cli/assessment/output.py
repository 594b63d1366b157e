# SPDX-License-Identifier: Apache-2.0
"""Output of commands with a job of rows: rows on the terminal, or a file with progress and result on stderr."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ...common.arguments import INTERRUPTED
from ...common.terminal import print_line, print_text
from ...scoring.tables.row_jobs import RowJob, measure_rows, read_rows, run_rows
from ..progress import Progress, format_count, format_error, format_number, report_run, show_warnings

# Widths of the columns on the terminal, and digits after the point.
Layout = Mapping[str, tuple[int, int]]


def add_run_arguments(parser: Any) -> None:
    """Add the arguments that all commands with a job of rows share."""
    parser.add_argument("--overwrite", action="store_true", help="replace OUT, and what an unfinished run has left")
    parser.add_argument("--progress", action="store_true", help="show progress on stderr even where it is no terminal")


def run_job(
    job: RowJob,
    layout: Layout | None,
    *,
    show_progress: bool,
    missing: str,
    noun: str = "file",
    summarize: Callable[[Iterable[dict[str, Any]]], None] | None = None,
) -> int:
    """Run a job, and return the exit code.

    Args:
        job: Job whose rows are printed if it has no output, or else written.
        layout: Columns that are printed before the key; None prints a JSON object of all columns for each row.
        show_progress: Whether progress is shown even where stderr is no terminal.
        missing: Words for what a row with an error lacks, such as "numbers".
        noun: Word for an input in the count of them.
        summarize: Function that gets all rows, by the names of their columns, once they are there; those of an
            earlier run too.
    """
    progress = Progress(job.count, journal=job.journal, show=show_progress, noun=noun)
    with show_warnings():
        rows: list[dict[str, Any]] | None = None if summarize is None or job.output is not None else []
        if job.output is None:
            code = _print_rows(job, layout, progress, missing=missing, rows=rows)
        else:
            code = report_run(
                lambda on_progress: run_rows(job, on_progress=on_progress), progress, table=job.table, missing=missing
            )
            if code == 1:
                first = next(row for row in read_rows(job) if row["error"] is not None)
                print_line(f"the first: {format_error(first['key'], first['error'])}", file=sys.stderr)
        if summarize is not None and code != INTERRUPTED:
            summarize(read_rows(job) if rows is None else rows)
    return code


def _print_rows(
    job: RowJob, layout: Layout | None, progress: Progress, *, missing: str, rows: list[dict[str, Any]] | None
) -> int:
    """Print the rows as they come, keep them in a list if one is given, and return the exit code."""
    num_inputs = num_errors = 0
    with progress:
        bar = progress.start()
        for entry in measure_rows(job):
            bar.clear()
            if not num_inputs and layout is not None:
                print_line("  ".join([*(f"{name:>{width}}" for name, (width, _) in layout.items()), "key"]))
            for row in job.form.complete(entry, job.settings):
                print_line(json.dumps(row) if layout is None else _format_row(row, layout))
                if rows is not None:
                    rows.append(row)
            bar.update()
            num_inputs += 1
            num_errors += any(row.error is not None for row in entry)
    if num_errors:
        failed = f"{num_errors} of them with an error instead of {missing}"
        print_text(f"{format_count(num_inputs, progress.noun)}, {failed}", file=sys.stderr)
    return 1 if num_errors else 0


def _format_row(row: Mapping[str, Any], layout: Layout) -> str:
    """Return the line of a row; an error stands beside the key."""
    cells: Sequence[str] = [
        f"{value if isinstance(value, str) else format_number(value, digits):>{width}}"
        for value, (width, digits) in ((row.get(name), place) for name, place in layout.items())
    ]
    key, error = row["key"], row.get("error")
    return "  ".join([*cells, " ".join(key.split()) if error is None else f"error: {format_error(key, error)}"])
