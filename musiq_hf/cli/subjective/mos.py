# SPDX-License-Identifier: Apache-2.0
"""Command `musiq mos`: opinion scores from the votes of viewers."""

import argparse
import sys
from typing import Any

from ...common.extras import require
from ...common.terminal import print_line
from ...explain.viewers import save_viewers
from ...subjective.opinions import ESTIMATORS, SCREENS, OpinionRow, OpinionSettings, summarize_opinions
from ...subjective.screening import THRESHOLD
from ...subjective.sheets import read_plan, read_sheets, votes_from_sheets
from ...subjective.votes import INTERVALS, read_votes

DESCRIPTION = f"""\
Compute opinion scores from votes: screen viewers, remove their bias or weigh them, and give intervals.

musiq mos votes.csv
musiq mos votes.csv -o mos.csv --screen correlation --viewers viewers.csv
musiq mos plan/sheets/*.csv --plan plan/plan.csv -o mos.csv

VOTES is a CSV table with columns subject,item,vote and a row for each vote, or with a column item and one for each
viewer. An empty cell is no vote. With --plan, VOTES are sheets of `musiq plan-session` that viewers have filled in.
Columns of OUT: {", ".join(OpinionRow._fields)}.
std is the standard deviation of the votes; low and high are the ends of the interval of 95 % confidence.
`musiq finetune --data OUT --image_root FOLDER` trains on it, if the items are names of pictures.
"""
EPILOG = """\
exit code: 0 all have a score, 1 some rows are errors because nobody who voted on them is left, 2 a mistake in the
command or the votes
"""


def add_arguments(parser: Any) -> None:
    """Add the arguments."""
    parser.add_argument("votes", nargs="+", metavar="VOTES", help="CSV table of votes, or sheets")
    parser.add_argument(
        "-o", "--output", metavar="OUT", help=".csv, .jsonl or .parquet file (default: a table on the terminal)"
    )
    parser.add_argument("--plan", metavar="PLAN", help="plan.csv of the test, for sheets")
    parser.add_argument("--screen", choices=SCREENS, default=SCREENS[0], help="rule that leaves viewers out (none)")
    parser.add_argument(
        "--threshold", type=float, metavar="R", help=f"lowest correlation with the mean that passes ({THRESHOLD:g})"
    )
    parser.add_argument(
        "--estimator",
        choices=ESTIMATORS,
        default=ESTIMATORS[0],
        help="mean; marginal and alternating weigh viewers by their noise; bias_removed: mean without their bias",
    )
    parser.add_argument("--interval", choices=INTERVALS, help="of a mean: by Student's t, or 1.96 errors wide (t)")
    parser.add_argument("--viewers", metavar="FILE", help=".csv, .jsonl or .parquet file with a row for each viewer")
    parser.add_argument("--figure", metavar="FILE", help=".png file with the viewers' correlations")
    parser.add_argument("--overwrite", action="store_true", help="replace the files")


def print_scores(rows: tuple[OpinionRow, ...]) -> None:
    """Print a table of scores."""
    print_line("   mos     low    high  votes  item")
    for row in rows:
        ends = [f"{'-' if end is None else format(end, '.2f'):>6}" for end in (row.mos, row.low, row.high)]
        print_line("  ".join([*ends, f"{row.votes:5}", row.image + ("" if row.error is None else f": {row.error}")]))


def run(arguments: argparse.Namespace) -> int:
    """Compute the scores, write and print them, and return the exit code.

    Raises:
        ValueError: If the arguments or the votes are wrong.
        ImportError: If SciPy, or matplotlib for a figure, is missing.
    """
    settings = OpinionSettings(
        screen=arguments.screen,
        threshold=arguments.threshold,
        estimator=arguments.estimator,
        interval=arguments.interval,
    )
    if arguments.figure is not None:
        require("matplotlib.figure", extra="explain")  # fails now, not after the tables have been written
    if arguments.plan is None:
        votes = read_votes(arguments.votes[0])
    else:
        votes = votes_from_sheets(read_sheets(arguments.votes), read_plan(arguments.plan))
    table = summarize_opinions(votes, settings)
    for note in table.notes:
        print_line(note, file=sys.stderr)
    if arguments.viewers is not None:
        table.write_viewers(arguments.viewers)
    if arguments.figure is not None:
        save_viewers(arguments.figure, table.screening, threshold=table.threshold)
    if arguments.output is None:
        print_scores(table.rows)
    else:
        table.write(arguments.output)
        print_line(f"{arguments.output}: {len(table.rows)} items, {table.num_errors} without a score")
    return 1 if table.num_errors else 0
