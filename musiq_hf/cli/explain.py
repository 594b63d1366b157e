# SPDX-License-Identifier: Apache-2.0
"""Command `musiq explain`: writes one page about the score of one picture."""

import argparse
import os
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ..common.arguments import positive
from ..common.extras import require
from ..common.files import write_text
from ..common.terminal import print_line
from ..explain.report import make_report
from ..models.auto import DEFAULT_CHECKPOINT
from ..pictures.lazy import escape_name
from ..pictures.opening import load_image, shrink_shorter_side
from ..scoring.loading import load_quality
from ..scoring.signature import make_signature

DESCRIPTION = """\
Score a picture and write a page that explains the score: which regions raise and lower it, where the model looks,
what it reads at which scale, and how the score takes blur, noise, compression and other aspect ratios. The page is
one file.

musiq explain photo.jpg -o report.html
musiq explain photo.jpg -o report.html -m musiq-koniq
musiq explain large.jpg -o report.html --shorter_side 1080

A large picture is scored dozens of times: --shorter_side saves time, and changes the score.
"""


def add_arguments(parser: Any) -> None:
    """Add the arguments."""
    parser.add_argument("picture", help="picture file, or URL")
    parser.add_argument("-o", "--output", required=True, metavar="REPORT.html", help="page to write; replaced")
    parser.add_argument(
        "-m", "--model", default=DEFAULT_CHECKPOINT.name, help=f"checkpoint (default: {DEFAULT_CHECKPOINT.name})"
    )
    parser.add_argument(
        "--shorter_side", type=positive, metavar="N", help="shrink the picture to this shorter side, in pixels, first"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the page and say where it is.

    Raises:
        ValueError: If the picture cannot be used, or the checkpoint scores nothing.
        ImportError: If matplotlib is missing.
    """
    path = Path(arguments.output)
    require("matplotlib.figure", extra="explain")  # fails now, not after the model has been loaded
    image = load_image(arguments.picture)
    if arguments.shorter_side is not None:
        image = shrink_shorter_side(image, arguments.shorter_side)
    logging.disable_progress_bar()
    model, processor = load_quality(arguments.model)
    is_folder = Path(arguments.model).is_dir()
    name = escape_name(os.path.basename(arguments.picture))
    page, score = make_report(
        model,
        processor,
        image,
        name=name,
        checkpoint=escape_name(Path(arguments.model).resolve().name if is_folder else arguments.model),
        signature=make_signature(model, processor, checkpoint=arguments.model, shorter_side=arguments.shorter_side),
    )
    write_text(path, page)
    print_line(f"{path}: {name} scores {score:.2f}")
    return 0
