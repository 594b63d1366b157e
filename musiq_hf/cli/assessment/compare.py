# SPDX-License-Identifier: Apache-2.0
"""Command `musiq compare`: compares systems, such as upscalers, with a reference."""

import argparse
import sys
import textwrap
from collections.abc import Iterable
from typing import Any

from ...assessment.comparison_job import ComparisonSettings, SystemsComparison
from ...assessment.comparison_rows import list_columns, list_metrics
from ...assessment.comparison_tables import UNPROVEN, count_digits, format_lines, write_systems_report
from ...common.arguments import positive
from ...common.systems import BINNED, COMPARED, SCORED
from ...common.terminal import print_line
from ...models.auto import DEFAULT_CHECKPOINT
from ...pictures.video import VIDEO_SUFFIXES
from ..progress import show_warnings
from ..words import read_names
from .output import add_run_arguments, run_job

COLUMNS = ", ".join(list_columns({"metrics": COMPARED, "groups": ["the columns of --groups"]}))
DESCRIPTION = f"""\
Compare systems, such as upscalers or codecs, with a reference: PSNR, SSIM, VMAF and scores of MUSIQ side by side.

musiq compare original.png bicubic.png network.png
musiq compare originals bicubic network -o rows.csv --groups genres.csv --report report.json
musiq compare clips mine=runs/7/clips x264 -o rows.csv --metrics psnr,ssim,vmaf,musiq --bins si,ti

REFERENCE and DISTORTED are all files, or all folders. A system is named by its folder, or its file without suffix;
NAME=PATH names it otherwise. Files of folders match by their relative paths without suffix, and one without a partner
is a row with an error. Videos ({", ".join(VIDEO_SUFFIXES)}) need the extra video.

{textwrap.fill(f"Columns of OUT: {COLUMNS}.", 119)}
Those of metrics that were not asked for are left out. The key is the relative path of the reference; rows are ordered
by key, then system. PSNR is in dB and infinite for equal files (null in .jsonl). score is that of musiq score; of a
video it is the mean over every n-th frame. The _rgb columns are empty for videos, whose luma is taken as coded.

The terminal shows the mean of each system in each group, over the keys on which no system has an error. --report adds
the paired difference of each two systems with its interval and p, and with --mos the agreement of each metric with
opinion scores, in each group, so that it shows which metric to trust where.

Interrupted or killed, the same command continues, as musiq score does.
"""
EPILOG = """\
exit code: 0 all measured or OUT was finished before, 1 some rows are errors, 2 a mistake in the command,
130 interrupted
"""


def add_arguments(parser: Any) -> None:
    """Add the arguments."""
    parser.add_argument("reference", metavar="REFERENCE", help="file, or folder of pictures and videos")
    parser.add_argument("distorted", nargs="+", metavar="DISTORTED", help="what a system has made of it, or NAME=PATH")
    parser.add_argument(
        "-o", "--output", metavar="OUT", help=".csv, .jsonl or .parquet file (default: rows on the terminal)"
    )
    parser.add_argument(
        "--metrics",
        type=read_names,
        default="psnr,ssim,musiq",
        metavar="NAMES",
        help=f"of {', '.join(COMPARED)}, with commas (psnr,ssim,musiq); vmaf is of videos",
    )
    parser.add_argument(
        "--groups", metavar="FILE", help=".csv file with columns key,group, or key and several others: a table each"
    )
    parser.add_argument(
        "--bins",
        type=read_names,
        default=[],
        metavar="NAMES",
        help=f"of {', '.join(BINNED)}, with commas: group keys by thirds of these descriptors of the references",
    )
    parser.add_argument("--mos", metavar="FILE", help=".csv file with columns key,system,mos: opinion scores")
    parser.add_argument(
        "--report", metavar="FILE", help=".json file with means and differences (a .md file is written beside it)"
    )
    parser.add_argument(
        "--crop_border", type=int, default=0, metavar="N", help="pixels cut off each side for PSNR, SSIM and VMAF (0)"
    )
    parser.add_argument("--every", type=positive, metavar="N", help="score every n-th frame of a video (one a second)")
    parser.add_argument("-m", "--model", help=f"checkpoint ({DEFAULT_CHECKPOINT.name})")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    add_run_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compare the systems, and return the exit code.

    Raises:
        ValueError: If the arguments, a table or the checkpoint cannot be used.
        ImportError: If SciPy, or for videos PyAV, is missing.
    """
    settings = ComparisonSettings(
        arguments.reference,
        arguments.distorted,
        metrics=arguments.metrics,
        groups=arguments.groups,
        bins=arguments.bins,
        mos=arguments.mos,
        crop_border=arguments.crop_border,
        every=arguments.every,
        model=arguments.model,
        device=arguments.device,
        output=arguments.output,
        overwrite=arguments.overwrite,
    )
    with show_warnings():
        comparison = SystemsComparison(settings)
    for note in [*comparison.make_notes(), *([UNPROVEN] if SCORED in settings.metrics else [])]:
        print_line(note, file=sys.stderr)

    def summarize(rows: Iterable[dict[str, Any]]) -> None:
        report = comparison.report(rows)
        for line in format_lines(report):
            print_line(line)
        if arguments.report is not None:
            write_systems_report(arguments.report, report)
            print_line(f"{arguments.report}: report, and its tables as .md beside it", file=sys.stderr)

    width = max(len(system.name) for system in comparison.systems)
    layout = {metric: (max(len(metric), 8), count_digits(metric)) for metric in list_metrics(settings.metrics)}
    return run_job(
        comparison.make_job(),
        layout | {"system": (width, 0)},
        show_progress=arguments.progress,
        missing="numbers",
        noun="key",
        summarize=summarize,
    )
