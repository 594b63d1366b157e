# SPDX-License-Identifier: Apache-2.0
"""Output of `musiq score`: a table on the terminal or, if a file is written, progress and result on stderr."""

import logging
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

from tqdm import tqdm

from ..common.arguments import INTERRUPTED
from ..common.terminal import print_line, print_text
from ..pictures.opening import has_fast_decoder
from ..scoring.job import JobResult, ScoreJob, count_pictures, run_job, score_rows
from ..scoring.journal import Totals
from ..scoring.rows import Entry
from ..scoring.tables import PLACES, STD, name_columns

# Columns of the table before the key, and their widths; some are shown only where there is something to show.
WIDTHS = {"score": 8, "in 0..1": 7, "std": 7, "percentile": 10, "stars": 5, "size": 11}


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


def print_scores(job: ScoreJob, *, show_progress: bool) -> int:
    """Print a job's rows as a table, line by line, and return the exit code."""
    num_pictures = num_errors = 0
    with closing(score_rows(job)) as stream, start_bar(job, 0, show=show_progress) as bar:
        columns = name_columns(std=stream.has_std, weights=job.weights, percentile=job.percentile)
        heads = [head for head in WIDTHS if head in columns or head not in (STD, *PLACES)]
        for entry in stream:
            bar.clear()
            if not num_pictures:
                titles = dict(zip(heads, heads, strict=True))
                print_text(_format_line(heads, titles, "key" if len(entry) == 1 else "checkpoint, key"))
            for line in _format_entry(heads, entry, stream.models, has_ensemble=job.weights is not None):
                print_line(line)
            bar.update()
            num_pictures += 1
            num_errors += any(row.error is not None for row in entry)
    if num_errors:
        failed = f"{num_errors} of them with an error instead of a score"
        print_text(f"{_format_count(num_pictures)}, {failed}", file=sys.stderr)
    for name, signature in zip(stream.models, stream.signatures, strict=True):
        print_line(f"made with {name}, signature {signature}", file=sys.stderr)
    return 1 if num_errors else 0


def write_scores(job: ScoreJob, *, show_progress: bool) -> int:
    """Run a job that writes a file, report the result on stderr, and return the exit code."""
    with JobProgress(job, show=show_progress) as progress:
        try:
            result = run_job(job, on_progress=progress)
        except KeyboardInterrupt:
            if progress.bar is None:
                raise
            progress.bar.close()
            message = f"\nStopped after {_format_count(progress.num_pictures)}. The same command continues."
            print_text(message, file=sys.stderr)
            return INTERRUPTED
    print_line(_describe_result(job, result), file=sys.stderr)
    return 1 if result.errors and result.state == "written" else 0


class JobProgress:
    """Progress of `run_job` on stderr, shown from its first call on: a line if it continues a run, and a bar."""

    def __init__(self, job: ScoreJob, *, show: bool):
        self.job, self.show = job, show
        self.bar: Any = None
        self.num_pictures = 0

    def __call__(self, totals: Totals) -> None:
        self.num_pictures = totals.pictures
        if self.bar is None:
            self.bar = start_bar(self.job, totals.pictures, show=self.show)
        else:
            self.bar.update()

    def __enter__(self) -> "JobProgress":
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()


def start_bar(job: ScoreJob, num_done: int, *, show: bool) -> Any:
    """Start a bar with pictures/s and, as soon as a thread has counted the pictures, the time left.

    Args:
        job: Job whose pictures are counted.
        num_done: Pictures that an earlier run has scored.
        show: Whether the bar is shown even where stderr is no terminal.
    """
    if job.preset == "google" and not has_fast_decoder():
        print_text(
            "musiq score: without simplejpeg, Pillow decodes JPEG files, and their scores are not the published "
            'program\'s: some differ by several points of 100. Install it with: pip install "musiq_hf[google]"',
            file=sys.stderr,
        )
    if num_done:
        print_line(f"{job.journal}: continuing after {_format_count(num_done)}.", file=sys.stderr)
    bar = tqdm(
        initial=num_done,
        unit=" pictures",
        disable=not (show or sys.stderr.isatty()) or job.share.index > 1 and job.share.is_launched,
        dynamic_ncols=True,
        smoothing=0.05,
    )

    def count() -> None:
        try:
            bar.total = count_pictures(job)
        except (OSError, ValueError):  # the run meets the same error, and reports it
            return

    if not bar.disable:
        threading.Thread(target=count, daemon=True).start()
    return bar


def _format_count(number: int) -> str:
    return f"{number} picture{'' if number == 1 else 's'}"


def _format_number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _format_line(heads: Sequence[str], cells: Mapping[str, str], key: str) -> str:
    return "  ".join([*(f"{cells.get(head, ''):>{WIDTHS[head]}}" for head in heads), key])


def _format_entry(heads: Sequence[str], entry: Entry, models: Sequence[str], *, has_ensemble: bool) -> Iterator[str]:
    """Yield the lines of a picture in the table."""
    for row, name in zip(entry, models, strict=True):
        cells = {
            "score": _format_number(row.score),
            "in 0..1": _format_number(row.score_0_1),
            "std": _format_number(row.std),
            "percentile": _format_number(row.percentile, 1),
            "stars": _format_number(row.stars, 0),
            "size": "" if row.width is None else f"{row.width}x{row.height}",
        }
        key = " ".join(row.key.split())
        if row.error is not None:
            key = f"error: {row.error}" if key in row.error else f"error: {key}: {row.error}"
        yield _format_line(heads, cells, key if len(entry) == 1 else f"{name}, {key}")
    if has_ensemble:
        key = f"ensemble, {' '.join(entry[0].key.split())}"
        yield _format_line(heads, {"in 0..1": _format_number(entry[0].ensemble)}, key)


def _describe_result(job: ScoreJob, result: JobResult) -> str:
    if result.state == "waiting" or result.pictures is None:
        return f"{job.journal}: done; the last process makes {job.table} of all parts."
    failed = f", {result.errors} of them with an error instead of a score (column `error`)" if result.errors else ""
    again = " It was finished before, with the same pictures and settings: nothing to do."
    return f"{job.table}: {_format_count(result.pictures)}{failed}.{again if result.state == 'found' else ''}"
