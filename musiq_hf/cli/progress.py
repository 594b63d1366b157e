# SPDX-License-Identifier: Apache-2.0
"""Progress and result of runs that write tables, on stderr."""

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..common.arguments import INTERRUPTED
from ..common.terminal import print_line, print_text
from ..scoring.job import JobResult
from ..scoring.journal import Totals


class _WarningLines(logging.Handler):
    """Handler that shows warnings as lines on stderr, above a bar of progress."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one warning."""
        with tqdm.external_write_mode(file=sys.stderr):
            print_line(record.getMessage(), file=sys.stderr)


@contextmanager
def show_warnings() -> Iterator[None]:
    """Show what this package logs as warnings while a job runs, such as how many files were left out."""
    logger, handler = logging.getLogger(__name__.partition(".")[0]), _WarningLines(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def format_count(number: int, noun: str = "picture") -> str:
    """Return a number of pictures, or of something else, in words."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def format_number(value: float | None, digits: int = 2) -> str:
    """Return a number of a table on the terminal; empty for None."""
    return "" if value is None else f"{value:.{digits}f}"


def format_error(key: str, error: str) -> str:
    """Return the error of a row on the terminal, with its key unless the error names it."""
    shown = " ".join(key.split())
    return error if shown in error else f"{shown}: {error}"


class Progress:
    """Progress of a run, shown from its first call on: a line if it continues another run, and a bar.

    Args:
        count: Function that counts all pictures of the run, reading none; None where nobody knows.
        journal: File or URL with the rows so far; None for a run without one.
        show: Whether the bar is shown even where stderr is no terminal.
        is_quiet: Whether it is never shown, because another process shows it.
        noun: Word for one of what is counted.
    """

    def __init__(
        self,
        count: Callable[[], int | None],
        *,
        journal: Path | str | None,
        show: bool,
        is_quiet: bool = False,
        noun: str = "picture",
    ):
        self.count, self.journal, self.noun = count, journal, noun
        self.is_shown = (show or sys.stderr.isatty()) and not is_quiet
        self.bar: Any = None
        self.num_pictures = 0

    def __call__(self, totals: Totals) -> None:
        self.num_pictures = totals.pictures
        if self.bar is None:
            self.start(totals.pictures)
        else:
            self.bar.update()

    def start(self, num_done: int = 0) -> Any:
        """Start the bar, with pictures/s and, as soon as a thread has counted the pictures, the time left.

        Args:
            num_done: Pictures that an earlier run has done.
        """
        if num_done:
            print_line(f"{self.journal}: continuing after {format_count(num_done, self.noun)}.", file=sys.stderr)
        self.bar = tqdm(
            initial=num_done, unit=f" {self.noun}s", disable=not self.is_shown, dynamic_ncols=True, smoothing=0.05
        )
        if not self.bar.disable:
            threading.Thread(target=self._set_total, daemon=True).start()
        return self.bar

    def _set_total(self) -> None:
        try:
            self.bar.total = self.count()
        except (OSError, ValueError):  # the run meets the same error, and reports it
            return

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()


def report_run(
    run: Callable[[Progress], JobResult],
    progress: Progress,
    *,
    table: Path | str | None,
    missing: str,
) -> int:
    """Run a job that writes a table, report the result on stderr, and return the exit code.

    Args:
        run: Function that runs the job, and calls what it is given with the numbers of pictures so far.
        progress: Progress of the run.
        table: Table that is written.
        missing: Word for what a row with an error lacks, such as "a score".
    """
    with progress:
        try:
            result = run(progress)
        except KeyboardInterrupt:
            if progress.bar is None:
                raise
            progress.bar.close()
            message = (
                f"\nStopped after {format_count(progress.num_pictures, progress.noun)}. The same command continues."
            )
            print_text(message, file=sys.stderr)
            return INTERRUPTED
    if result.state == "waiting" or result.pictures is None:
        sentence = f"{progress.journal}: done; the last process makes {table} of all parts."
    else:
        failed = f", {result.errors} of them with an error instead of {missing} (column `error`)"
        again = f" It was finished before, with the same {progress.noun}s and settings: nothing to do."
        sentence = f"{table}: {format_count(result.pictures, progress.noun)}{failed if result.errors else ''}."
        sentence += again if result.state == "found" else ""
    print_line(sentence, file=sys.stderr)
    return 1 if result.errors and result.state == "written" else 0
