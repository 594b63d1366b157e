# SPDX-License-Identifier: Apache-2.0
"""Command `musiq describe`: describes the content of pictures and videos in numbers."""

import argparse
from typing import Any

from ...assessment.description_table import DescriptionRow, DescriptionSettings, name_column
from ...common.arguments import positive
from .output import add_run_arguments, run_job

DESCRIPTION = f"""\
Describe the content of pictures and videos in numbers: size, detail, motion and colour, a row for each.

musiq describe photo.jpg clip.mp4
musiq describe photos clips -o content.csv

PATH is a picture, a video (.avi, .m4v, .mkv, .mov, .mp4, .webm, .y4m; needs the extra video), a folder, a pattern in
quotes, or an archive or a table of pictures as `musiq score` takes them.
Columns of OUT: {", ".join(DescriptionRow._fields)}.
si is the spatial information, the mean over frames of the standard deviation of slopes in what is seen of luma on a
display (after ITU-T P.910); ti is the temporal information, that of the differences of frames. With --legacy both
are taken on luma itself, as earlier editions and ffmpeg do, and the columns are si_legacy and ti_legacy: the two
kinds differ by a factor of about 2 and can order pictures otherwise. si_max and ti_max are the largest of the frames.
cf is the colourfulness (Hasler and Suesstrunk 2003). outside_range is the part of the luma samples outside of the
nominal range of the video.
A killed run continues with the same command, as that of `musiq score` does.
"""
EPILOG = """\
exit code: 0 all described or OUT was finished before, 1 some rows are errors, 2 a mistake in the command,
130 interrupted
"""
LAYOUT = {"width": (6, 0), "height": (6, 0), "frames": (6, 0)}
DETAIL = {"si": (9, 2), "ti": (9, 2)}


def add_arguments(parser: Any) -> None:
    """Add the arguments."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="what to describe, see above")
    parser.add_argument(
        "-o", "--output", metavar="OUT", help=".csv, .jsonl or .parquet file (default: a table on the terminal)"
    )
    parser.add_argument("--legacy", action="store_true", help="spatial and temporal information on luma itself")
    parser.add_argument(
        "--num_workers",
        type=positive,
        metavar="N",
        help="processes that measure; a file that crashes its decoder costs them its row alone (default: two threads "
        "of this process, which crash with it)",
    )
    add_run_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Describe the pictures and videos, and return the exit code.

    Raises:
        ValueError: If the arguments are wrong.
        ImportError: If a library for videos, or SciPy, is missing.
    """
    settings = DescriptionSettings(
        arguments.paths,
        output=arguments.output,
        overwrite=arguments.overwrite,
        legacy=arguments.legacy,
        num_workers=arguments.num_workers,
    )
    detail = {name_column(name, legacy=arguments.legacy): place for name, place in DETAIL.items()}
    layout = LAYOUT | detail | {"cf": (7, 2)}
    return run_job(settings.make_job(), layout, show_progress=arguments.progress, missing="numbers")
