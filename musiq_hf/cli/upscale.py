# SPDX-License-Identifier: Apache-2.0
"""Command `musiq upscale`: enlarges pictures to any size, a copy of each in a folder."""

import argparse
from typing import Any

from ..common.arguments import positive
from ..common.enlargement import MAX_MEGAPIXELS, METHODS, MSIT, SUFFIXES, Target
from ..models.auto import UPSCALER_CHECKPOINT
from ..upscaling.enlarging_job import COLUMNS, EnlargingSettings
from .assessment.output import add_run_arguments, run_job
from .progress import show_warnings
from .words import read_size

DESCRIPTION = f"""\
Enlarge pictures to any size by a model for super-resolution, and write a copy of each.

musiq upscale photo.jpg --scale 2.7 -o large
musiq upscale photos -o large --longer_side 3840 --format jpeg --score

PICTURE is a picture, or a folder whose pictures are found as by `musiq score`. The copies of the pictures of a folder
lie in OUT as in that folder, and those of other pictures lie directly in OUT. They have the names of the pictures, and
the ending of --format.
Copies are upright, and of an animation they show the first frame. Transparency stays, gray of 16 bits keeps them, and
so does a colour profile that fits the copy. A copy says in its EXIF field Software how it was made, and of which file.
It is written under another name first, so that what is there is whole. A killed run continues with the same command,
and so does one over a folder that has more pictures now. Copies by other settings, or of pictures that have changed,
are an error; --overwrite replaces them.
A picture that cannot be read or enlarged is a row with its error. No side is shrunk, and no copy may have more than
{MAX_MEGAPIXELS:g} megapixels.
Rows with --json: {", ".join(COLUMNS)}.
score and output_score are MUSIQ's, of both files, with --score. No reference takes part in them: a copy that looks
sharper than it should may score higher than the truth.
"""
EPILOG = """\
exit code: 0 all enlarged, now or before, 1 some rows are errors, 2 a mistake in the command, 130 interrupted
"""
LAYOUT = {
    "width": (6, 0),
    "height": (6, 0),
    "output_width": (12, 0),
    "output_height": (13, 0),
    "seconds": (8, 1),
}
SCORES = {"score": (6, 1), "output_score": (12, 1)}


def add_arguments(parser: Any) -> None:
    """Add the arguments."""
    parser.add_argument("paths", nargs="+", metavar="PICTURE", help="what to enlarge, see above")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder of the copies")
    parser.add_argument("--scale", type=float, metavar="S", help="sides of a copy over those of its picture, 1 to 64")
    parser.add_argument(
        "--size", type=read_size, metavar="WxH", help="width and height of a copy, in pixels; it may be stretched"
    )
    parser.add_argument("--longer_side", type=positive, metavar="N", help="longer side of a copy, in pixels")
    parser.add_argument(
        "--method", choices=METHODS, default=MSIT, help=f"{MSIT}: the model; others: a filter, to compare with"
    )
    parser.add_argument("-m", "--model", help=f"checkpoint ({UPSCALER_CHECKPOINT.name}); a filter takes none")
    parser.add_argument(
        "--format",
        choices=tuple(SUFFIXES),
        default="png",
        help="of the copies; all but jpeg, of quality 95, lose nothing (png)",
    )
    parser.add_argument("--score", action="store_true", help="score pictures and copies by MUSIQ's default checkpoint")
    parser.add_argument("--json", action="store_true", help="print a JSON object for each picture, one a line")
    parser.add_argument(
        "--tile_size",
        type=positive,
        metavar="N",
        help="side of a tile of the model, in pixels of the picture; smaller tiles take less memory, more time (192)",
    )
    parser.add_argument("--device", help="of models: cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    add_run_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Enlarge the pictures, and return the exit code.

    Raises:
        ValueError: If the arguments are wrong.
        OSError: If a copy cannot be written.
    """
    settings = EnlargingSettings(
        arguments.paths,
        arguments.output,
        target=Target(scale=arguments.scale, size=arguments.size, longer_side=arguments.longer_side),
        method=arguments.method,
        model=arguments.model,
        format=arguments.format,
        tile_size=arguments.tile_size,
        device=arguments.device,
        score=arguments.score,
        overwrite=arguments.overwrite,
    )
    with show_warnings():
        job = settings.make_job()
    layout = None if arguments.json else LAYOUT | (SCORES if arguments.score else {})
    return run_job(job, layout, show_progress=arguments.progress, missing="a copy", noun="picture")
