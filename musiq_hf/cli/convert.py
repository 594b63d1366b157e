# SPDX-License-Identifier: Apache-2.0
"""Command `musiq convert`: the converters of all families under one name."""

import argparse
from typing import Any

from ..common.arguments import run_command
from ..conversion.command import add_arguments, describe, read_job, run_job

SUMMARY = "convert a published checkpoint, and back"
EXAMPLE = "musiq convert koniq_ckpt.npz musiq-koniq"


def add_parser(subparsers: Any) -> None:
    """Add the subcommand, with the options of all converters."""
    parser = subparsers.add_parser(
        "convert",
        help=SUMMARY,
        description=describe("musiq convert"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Convert; 0, or 2 for a mistake in the arguments or the file."""
    return run_command("musiq convert", lambda: run_job(read_job(vars(arguments))), example=EXAMPLE)
