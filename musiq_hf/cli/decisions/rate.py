# SPDX-License-Identifier: Apache-2.0
"""Command `musiq rate`: puts stars into the sidecars of photographs."""

import argparse
from typing import Any

from ...decisions.rating import STATES
from ...decisions.rating_job import COLUMNS, RatingSettings
from ...decisions.sidecars import FULL, NAMES
from ...models.auto import DEFAULT_CHECKPOINT
from ...scoring.calibration import Calibration
from ..assessment.output import add_run_arguments, run_job
from ..progress import show_warnings
from ..words import read_intervals

DESCRIPTION = f"""\
Rate photographs by 1 to 5 stars, and write the stars as xmp:Rating into .xmp files beside them.

musiq rate photos
musiq rate photos --sidecars -o stars.csv

PICTURE is a picture, or a folder whose pictures are found as by `musiq score`. Without --sidecars nothing is written.
Stars are the fifth of the checkpoint's validation pictures that a score lies in. With --calibration they are the fifth
of pictures of your own, and with --intervals four scores say where 2, 3, 4 and 5 stars begin.
Pictures are never touched. Of a sidecar that is there, all other bytes stay. One that is damaged is left alone, and
its picture is a row with an error. So is one of two pictures that would share a sidecar.
A rating that a person gave stays, in a sidecar of either name or in the picture itself, and its picture is not scored.
That is any rating but 0, also -1 for rejected, that this command did not write, or that was changed since. darktable
gives new pictures one star unless its preferences say otherwise, which nothing tells from a person's.
The sidecar notes what its stars come from. So a killed run continues with the same command, and other --intervals need
no new scores.
Columns of OUT: {", ".join(COLUMNS)}.
state is one of: {", ".join(STATES)}.
"""
EPILOG = """\
exit code: 0 all rated, now or before, 1 some rows are errors, 2 a mistake in the command, 130 interrupted
"""
LAYOUT = {"score": (6, 1), "stars": (5, 0), "rating": (6, 0), "state": (11, 0)}


def add_arguments(parser: Any) -> None:
    """Add the arguments."""
    parser.add_argument("paths", nargs="+", metavar="PICTURE", help="what to rate, see above")
    parser.add_argument("--sidecars", action="store_true", help="write the stars into .xmp files beside the pictures")
    parser.add_argument(
        "--names",
        choices=NAMES,
        help=f"of sidecars: {FULL} for darktable, digiKam and most others (default); photo.xmp for Lightroom, Bridge "
        "and Capture One, which read it for RAW files",
    )
    parser.add_argument(
        "--intervals",
        type=read_intervals,
        metavar="A,B,C,D",
        help="scores from which on a picture has 2, 3, 4 and 5 stars (default: by the calibration)",
    )
    parser.add_argument(
        "--calibration",
        metavar="FILE",
        help="scores whose fifths are the stars: a table of `musiq score` of your own pictures, or what "
        "`Calibration.save` wrote (default: the checkpoint's own)",
    )
    parser.add_argument("--overwrite_ratings", action="store_true", help="replace ratings that people gave, too")
    parser.add_argument(
        "-o", "--output", metavar="OUT", help=".csv, .jsonl or .parquet file (default: a table on the terminal)"
    )
    parser.add_argument(
        "-m", "--model", default=str(DEFAULT_CHECKPOINT.name), help=f"checkpoint ({DEFAULT_CHECKPOINT.name})"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    add_run_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Choose the stars, write them, and return the exit code.

    Raises:
        ValueError: If the arguments are wrong, or there is no rule for stars.
        OSError: If a disk is full.
    """
    calibration = None if arguments.calibration is None else Calibration.load(arguments.calibration)
    settings = RatingSettings(
        arguments.paths,
        sidecars=arguments.sidecars,
        naming=arguments.names or FULL,
        intervals=arguments.intervals,
        calibration=calibration,
        overwrite_ratings=arguments.overwrite_ratings,
        model=arguments.model,
        device=arguments.device,
        output=arguments.output,
        overwrite=arguments.overwrite,
    )
    with show_warnings():
        job = settings.make_job()
    return run_job(job, LAYOUT, show_progress=arguments.progress, missing="stars", noun="picture")
