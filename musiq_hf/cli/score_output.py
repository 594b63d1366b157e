# SPDX-License-Identifier: Apache-2.0
"""Output of `musiq score`: a table on the terminal or, if a file is written, progress and result on stderr."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial

from ..common.terminal import print_line, print_text
from ..pictures.opening import has_fast_decoder
from ..scoring.job import ScoreJob, count_pictures, run_job, score_rows
from ..scoring.rows import Entry
from ..scoring.tables.forms import PLACES, STD, name_columns
from .progress import Progress, format_count, format_error, format_number, report_run

# Columns of the table before the key, and their widths; some are shown only where there is something to show.
WIDTHS = {"score": 8, "in 0..1": 7, "std": 7, "percentile": 10, "stars": 5, "size": 11}


def make_progress(job: ScoreJob, *, show: bool) -> Progress:
    """Make the progress of a job; the first process of a launch shows it for all.

    Args:
        job: Job whose pictures are counted.
        show: Whether the bar is shown even where stderr is no terminal.
    """
    is_quiet = job.share.index > 1 and job.share.is_launched
    return Progress(partial(count_pictures, job), journal=job.journal, show=show, is_quiet=is_quiet)


def _warn_of_decoder(job: ScoreJob) -> None:
    """Say that scores will not be the published ones, if a job asks for these without their decoder."""
    if job.preset == "google" and not has_fast_decoder():
        print_text(
            "musiq score: without simplejpeg, Pillow decodes JPEG files, and their scores are not the published "
            'program\'s: some differ by several points of 100. Install it with: pip install "musiq_hf[google]"',
            file=sys.stderr,
        )


def print_scores(job: ScoreJob, *, show_progress: bool) -> int:
    """Print a job's rows as a table, line by line, and return the exit code."""
    num_pictures = num_errors = 0
    with closing(score_rows(job)) as stream, make_progress(job, show=show_progress) as progress:
        _warn_of_decoder(job)
        bar = progress.start()
        columns = name_columns(std=stream.has_std, weights=job.weights, percentile=stream.has_percentiles)
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
        print_text(f"{format_count(num_pictures)}, {failed}", file=sys.stderr)
    for name, signature in zip(stream.models, stream.signatures, strict=True):
        print_line(f"made with {name}, signature {signature}", file=sys.stderr)
    return 1 if num_errors else 0


def write_scores(job: ScoreJob, *, show_progress: bool) -> int:
    """Run a job that writes a file, report the result on stderr, and return the exit code."""
    _warn_of_decoder(job)
    progress = make_progress(job, show=show_progress)
    return report_run(
        lambda on_progress: run_job(job, on_progress=on_progress), progress, table=job.table, missing="a score"
    )


def _format_line(heads: Sequence[str], cells: Mapping[str, str], key: str) -> str:
    return "  ".join([*(f"{cells.get(head, ''):>{WIDTHS[head]}}" for head in heads), key])


def _format_entry(heads: Sequence[str], entry: Entry, models: Sequence[str], *, has_ensemble: bool) -> Iterator[str]:
    """Yield the lines of a picture in the table."""
    for row, name in zip(entry, models, strict=True):
        cells = {
            "score": format_number(row.score),
            "in 0..1": format_number(row.score_0_1),
            "std": format_number(row.std),
            "percentile": format_number(row.percentile, 1),
            "stars": format_number(row.stars, 0),
            "size": "" if row.width is None else f"{row.width}x{row.height}",
        }
        key = " ".join(row.key.split())
        if row.error is not None:
            key = f"error: {format_error(row.key, row.error)}"
        yield _format_line(heads, cells, key if len(entry) == 1 else f"{name}, {key}")
    if has_ensemble:
        key = f"ensemble, {' '.join(entry[0].key.split())}"
        yield _format_line(heads, {"in 0..1": format_number(entry[0].ensemble)}, key)
