# SPDX-License-Identifier: Apache-2.0
"""`musiq convert`: the converter of published checkpoints, under the name of the command."""

import argparse
from typing import Any

from ..conversion.convert_musiq_checkpoint import build_parser
from ..conversion.convert_musiq_checkpoint import run as convert

DESCRIPTION = """\
Convert a MUSIQ checkpoint, the original's .npz or pyiqa's .pth, to a Hugging Face directory, and back.

musiq convert koniq_ckpt.npz musiq-koniq
musiq convert koniq musiq-koniq
musiq convert musiq-koniq back.npz --to_original
"""


def add_parser(subparsers: Any, summary: str) -> None:
    """Add the subcommand, with the converter's own arguments."""
    parser = subparsers.add_parser(
        "convert",
        help=summary,
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[build_parser()],
        add_help=False,  # the parent's serves
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Convert, and print the report.

    Raises:
        ValueError: If the arguments or the file are wrong.
    """
    convert(arguments)
    return 0
