# SPDX-License-Identifier: Apache-2.0
"""Command `musiq gate`: lets pictures pass by a threshold, and answers by its exit status."""

import argparse
import json
import sys
from collections import Counter
from contextlib import closing
from typing import Any

from transformers.utils import logging

from ...common.devices import count_cores
from ...common.terminal import print_line
from ...decisions import Verdict, judge_rows, make_gate
from ...decisions.gating import find_status
from ...models.auto import DEFAULT_CHECKPOINT
from ...pictures.sources.paths import check_sources, find_sources
from ...pictures.sources.tables import Columns
from ...scoring.rows import ScorerSettings
from ..progress import format_count, format_error, show_warnings

DESCRIPTION = """\
Let pictures pass whose score reaches a threshold; the exit status says whether all did.

musiq gate render.png --min 50
musiq gate renders --expect_fail_rate 0.05 --json

PATH is what `musiq score` takes: pictures, folders, patterns, archives, tables. There is one line for each picture:
pass or fail, its score, and its name; with --json an object with key, passes, score, threshold and error.
--min is a score of the checkpoint, and a picture that reaches it passes. --expect_fail_rate R takes the threshold from
the calibration of the checkpoint: the score that the share R of its validation pictures does not reach. Of pictures
like these R would fail; of your own, more or fewer may.
Where the calibration knows it, the error of the threshold is said on stderr: the share of the validation pictures on
each side of it that people rated the other way. A score is an estimate, and a gate by it is wrong that often.
"""
EPILOG = """\
exit status: 0 all pass, 1 some fail, 2 it could not run: a mistake in the command, no picture, or a picture without a
score, whatever the others are; 130 interrupted
"""


def add_arguments(parser: Any) -> None:
    """Add the arguments."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="what to judge, see above")
    parser.add_argument("--min", type=float, metavar="SCORE", help="lowest score that passes")
    parser.add_argument(
        "--expect_fail_rate", type=float, metavar="R", help="share of the validation pictures that would fail, as 0.05"
    )
    parser.add_argument(
        "-m", "--model", default=DEFAULT_CHECKPOINT.name, help=f"checkpoint ({DEFAULT_CHECKPOINT.name})"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object for each picture, one a line")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: a GPU if there is one)")


def run(arguments: argparse.Namespace) -> int:
    """Let the pictures pass or fail, and return the exit status.

    Raises:
        ValueError: If the arguments are wrong, or the checkpoint has no calibration that is needed.
    """
    logging.disable_progress_bar()
    columns, counts = Columns(), Counter[bool | None]()
    check_sources(arguments.paths, columns=columns)
    with show_warnings():
        scorers = ScorerSettings([arguments.model], device=arguments.device).load(cores=count_cores())
        gate = make_gate(arguments.model, scorers, minimum=arguments.min, expect_fail_rate=arguments.expect_fail_rate)
        with closing(scorers.score(find_sources(arguments.paths, columns=columns))) as entries:
            rows = ((row.key, row.score, row.error) for (row,) in entries)
            for verdict in judge_rows(gate, rows):
                print_line(json.dumps(verdict._asdict()) if arguments.json else _format(verdict))
                counts[verdict.passes] += 1
    parts = [
        f"{counts[passes]} {word}" for passes, word in ((True, "pass"), (False, "fail"), (None, "without a score"))
    ]
    print_line(f"{format_count(counts.total())}: {', '.join(parts)}. {gate.describe()}", file=sys.stderr)
    return find_status(counts)


def _format(verdict: Verdict) -> str:
    """Return the line of a picture."""
    if verdict.error is not None:
        return f"error: {format_error(verdict.key, verdict.error)}"
    return f"{'pass' if verdict.passes else 'fail'}  {verdict.score:6.2f}  {' '.join(verdict.key.split())}"
