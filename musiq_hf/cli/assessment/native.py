# SPDX-License-Identifier: Apache-2.0
"""Command `musiq native`: says whether pictures and clips are native or upscaled."""

import argparse
import sys
from collections.abc import Iterable
from typing import Any

from ...common.arguments import positive
from ...common.terminal import print_line
from ...upscaling.detection import DEFAULT_CHECKPOINT, NUM_FRAMES, load_detector
from ...upscaling.detection_table import KINDS, DetectionSettings
from ...upscaling.page import MAX_PICTURES, check_page, write_page
from .output import add_run_arguments, run_job

DESCRIPTION = f"""\
Say whether pictures and clips are native or upscaled, how sure that is, by which kind of method, and from which size.

musiq native photo.jpg clip.mp4
musiq native photos clips -o verdicts.csv --report verdicts.html

PATH is a picture, a video (.avi, .m4v, .mkv, .mov, .mp4, .webm, .y4m; needs the extra video), a folder, a pattern in
quotes, or an archive or a table of pictures as `musiq score` takes them.
Columns of OUT: {", ".join(KINDS)}.
probability is that of upscaling. A verdict is unsure where it lies between .4 and .6, and for flat pictures. Of a
clip, key frames at equal distances are read, the first included, and all their patches vote together; native_share,
upscaled_share and unsure_share are those of the frames alone. scale and the size of the source are read off the
spectrum, which shows linear filters only. No verdict is evidence by itself.
--report shows the patches that voted, the spectrum, and the curve in which a scale is a peak. It holds at most
{MAX_PICTURES} pictures and clips, those with the highest probability, and needs the extra explain.
A killed run continues with the same command, as that of `musiq score` does.
"""
EPILOG = """\
exit code: 0 all judged or OUT was finished before, 1 some rows are errors, 2 a mistake in the command,
130 interrupted
"""
LAYOUT = {
    "width": (6, 0),
    "height": (6, 0),
    "verdict": (8, 0),
    "probability": (11, 2),
    "method": (8, 0),
    "scale": (6, 2),
    "frames": (6, 0),
}


def add_arguments(parser: Any) -> None:
    """Add the arguments."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="what to judge, see above")
    parser.add_argument(
        "-o", "--output", metavar="OUT", help=".csv, .jsonl or .parquet file (default: a table on the terminal)"
    )
    parser.add_argument(
        "-m", "--model", default=DEFAULT_CHECKPOINT.name, help=f"checkpoint ({DEFAULT_CHECKPOINT.name})"
    )
    parser.add_argument(
        "--frames",
        type=positive,
        default=NUM_FRAMES,
        metavar="N",
        help=f"largest number of key frames of a clip ({NUM_FRAMES})",
    )
    parser.add_argument("--report", metavar="FILE", help=".html file: pictures with what the verdicts rest on")
    add_run_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Find the verdicts on pictures and clips, and return the exit code.

    Raises:
        ValueError: If the arguments are wrong.
        ImportError: If PyAV for a clip, or matplotlib for a report, is missing.
    """
    if arguments.report is not None:
        check_page(arguments.report)
    settings = DetectionSettings(
        arguments.paths,
        model=arguments.model,
        frames=arguments.frames,
        output=arguments.output,
        overwrite=arguments.overwrite,
    )
    job = settings.make_job()

    def report(rows: Iterable[dict[str, Any]]) -> None:
        write_page(arguments.report, rows, job.find(), load_detector(settings.model), frames=settings.frames)
        print_line(f"{arguments.report}: report", file=sys.stderr)

    summarize = None if arguments.report is None else report
    return run_job(job, LAYOUT, show_progress=arguments.progress, missing="a verdict", summarize=summarize)
