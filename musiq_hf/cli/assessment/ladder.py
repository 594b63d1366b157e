# SPDX-License-Identifier: Apache-2.0
"""Command `musiq ladder`: encodes pictures by several codecs and qualities, measures and scores the files."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from ...assessment.ladder.rows import COLUMNS, LadderSettings
from ...assessment.ladder.summary import CurvePoint, LadderSummary, summarize_ladders
from ...common.codecs import CODECS, QUALITIES
from ...common.extras import require
from ...common.terminal import print_line
from ...explain.figures import save_figure
from ...explain.ladders import plot_ladder
from ...models.auto import DEFAULT_CHECKPOINT
from ..progress import format_count
from ..words import read_names, read_qualities
from .output import add_run_arguments, run_job

DESCRIPTION = f"""\
Encode pictures by several codecs at several qualities, in memory, and measure and score each file: how small may a
file be before it looks worse?

musiq ladder photo.png
musiq ladder photos -o ladder.csv --codecs jpeg,webp,avif --max_drop 2

PICTURE is a picture, a folder, a pattern in quotes, or an archive or a table of pictures as `musiq score` takes them.
Pictures are turned upright first, transparent parts lie on white, and 16 bits become 8.
Columns of OUT: {", ".join(COLUMNS)}.
psnr_y and ssim_y compare the decoded file with the pixels that were encoded. score is that of musiq score for the
file, and score_drop how much lower it is than that of the picture. PSNR is infinite where nothing is lost (null in
.jsonl).
The encoders are Pillow's, with colours at half the resolution (4:2:0): WebP of method 4, AVIF of speed 6. A quality
is a number of each encoder: equal ones are not equally good.

After the rows come, with --max_drop, the smallest file of each picture and codec whose score drops by no more. Then
BD-rates: by how many percent the size differs at the same PSNR or SSIM, the mean over pictures. A score need not rise
with the size of a file, so it has no BD-rate; the largest fall from one file to a larger one is shown instead.
--figure draws all three measures against the size, a line for each codec; of several pictures the means.
A killed run continues with the same command, as that of `musiq score` does.
"""
EPILOG = """\
exit code: 0 all measured or OUT was finished before, 1 some rows are errors, 2 a mistake in the command,
130 interrupted
"""
LAYOUT = {
    "codec": (5, 0),
    "quality": (7, 0),
    "bytes": (10, 0),
    "bits_per_pixel": (14, 3),
    "psnr_y": (6, 2),
    "ssim_y": (6, 4),
    "score": (8, 2),
    "score_drop": (10, 2),
}


def add_arguments(parser: Any) -> None:
    """Add the arguments."""
    parser.add_argument("paths", nargs="+", metavar="PICTURE", help="what to encode, see above")
    parser.add_argument(
        "-o", "--output", metavar="OUT", help=".csv, .jsonl or .parquet file (default: a table on the terminal)"
    )
    parser.add_argument(
        "--codecs",
        type=read_names,
        default=",".join(CODECS),
        metavar="NAMES",
        help=f"with commas ({','.join(CODECS)})",
    )
    qualities = ",".join(map(str, QUALITIES))
    parser.add_argument(
        "--qualities",
        type=read_qualities,
        default=qualities,
        metavar="N,N",
        help=f"from 1 to 100, with commas ({qualities})",
    )
    parser.add_argument(
        "--max_drop", type=float, metavar="POINTS", help="find the smallest files whose score drops by no more"
    )
    parser.add_argument(
        "-m", "--model", default=str(DEFAULT_CHECKPOINT.name), help=f"checkpoint ({DEFAULT_CHECKPOINT.name})"
    )
    parser.add_argument(
        "--figure", metavar="FILE", help=".png file: PSNR, SSIM and score against size, a line a codec"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    add_run_arguments(parser)


def _format_smallest(summary: LadderSummary, max_drop: float) -> Iterator[str]:
    yield f"smallest files whose score drops by {max_drop:g} points at most"
    yield "     bytes  bits/pixel  quality    drop  codec  key"
    for key, codec, row in summary.smallest:
        cells = f"{'none':>10}  {'':10}  {'':7}  {'':6}"
        if row is not None:
            cells = f"{row.bytes:10}  {row.bits_per_pixel:10.3f}  {row.quality:7}  {row.score_drop:6.2f}"
        yield f"{cells}  {codec:>5}  {' '.join(key.split())}"


def _format_rates(summary: LadderSummary) -> Iterator[str]:
    yield "BD-rates: percent by which the size differs at the same quality, mean over pictures"
    names = {"psnr_y": "PSNR", "ssim_y": "SSIM"}
    for rate in summary.rates:
        percent = "     none" if rate.percent is None else f"{rate.percent:+7.2f} %"
        left_out = ""
        if rate.num_left_out:
            left_out = f"; left out {rate.num_left_out}: too few files, a curve that falls, or no common quality"
        counted = f"{format_count(rate.num_pictures)}{left_out}"
        yield f"{percent}  {rate.codec} against {rate.reference}, {names[rate.measure]} ({counted})"


def _format_falls(summary: LadderSummary) -> Iterator[str]:
    if summary.falls:
        yield "largest fall of the score from a file to a larger one, in points"
    for codec, fall in summary.falls.items():
        place = "the score never falls"
        if fall.key is not None:
            place = f"quality {fall.smaller} to {fall.larger}, {' '.join(fall.key.split())}"
        yield f"{fall.points:9.2f}  {codec}, {place}"


def print_summary(summary: LadderSummary, *, max_drop: float | None) -> None:
    """Print smallest files, differences in rate and falls of the score."""
    parts = [] if max_drop is None else [_format_smallest(summary, max_drop)]
    if summary.rates:
        parts.append(_format_rates(summary))
    for part in [*parts, _format_falls(summary)]:
        print_line("")
        for line in part:
            print_line(line)


def save_curves(path: str, summary: LadderSummary) -> None:
    """Save the figure of the curves, or say why there is none."""
    if not summary.keys:
        print_line(f"{path}: not drawn, since no picture has numbers in all of its rows.", file=sys.stderr)
        return
    curves = {
        codec: {name: [getattr(point, name) for point in points] for name in CurvePoint._fields}
        for codec, points in summary.curves.items()
    }
    count = len(summary.keys)
    title = summary.keys[0] if count == 1 else f"mean over {count} pictures at each quality"
    save_figure(path, plot_ladder(curves, title=title))


def run(arguments: argparse.Namespace) -> int:
    """Encode, measure and score the pictures, and return the exit code.

    Raises:
        ValueError: If the arguments are wrong, or Pillow lacks an encoder.
        ImportError: If SciPy, or matplotlib for a figure, is missing.
    """
    if arguments.figure is not None:
        require("matplotlib.figure", extra="explain")  # fails now, not after the rows have been measured
    settings = LadderSettings(
        arguments.paths,
        codecs=arguments.codecs,
        qualities=arguments.qualities,
        model=arguments.model,
        device=arguments.device,
        output=arguments.output,
        overwrite=arguments.overwrite,
    )

    def summarize(rows: Iterable[dict[str, Any]]) -> None:
        summary = summarize_ladders(rows, max_drop=arguments.max_drop)
        print_summary(summary, max_drop=arguments.max_drop)
        if arguments.figure is not None:
            save_curves(arguments.figure, summary)

    return run_job(
        settings.make_job(),
        LAYOUT,
        show_progress=arguments.progress,
        missing="numbers",
        noun="picture",
        summarize=summarize,
    )
