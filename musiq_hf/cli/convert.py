# SPDX-License-Identifier: Apache-2.0
"""`musiq convert`: the converter of published checkpoints, under the name of the command."""

import argparse
from typing import Any

from ..common.arguments import run_command
from ..conversion.convert_musiq_checkpoint import build_parser
from ..conversion.convert_musiq_checkpoint import run as convert

SUMMARY = "convert a published checkpoint, and back"
DESCRIPTION = """\
Convert a MUSIQ checkpoint, the original's .npz or pyiqa's .pth, to a Hugging Face directory, and back.

musiq convert koniq_ckpt.npz musiq-koniq
musiq convert koniq musiq-koniq
musiq convert musiq-koniq back.npz --to_original
"""
EXAMPLE = "musiq convert koniq_ckpt.npz musiq-koniq"


def add_parser(subparsers: Any) -> None:
    """Add the subcommand, with the converter's own arguments."""
    parser = subparsers.add_parser(
        "convert",
        help=SUMMARY,
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[build_parser()],
        add_help=False,  # the parent's serves
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Convert; 0, or 2 for a mistake in the arguments or the file."""
    return run_command("musiq convert", lambda: convert(arguments), example=EXAMPLE)
