# SPDX-License-Identifier: Apache-2.0
"""Command `musiq convert`: the converters of all families under one name."""

import argparse
from typing import Any

from ..conversion.command import add_arguments, describe, read_job, run_job


def add_parser(subparsers: Any, summary: str) -> None:
    """Add the subcommand, with the options of all converters."""
    parser = subparsers.add_parser(
        "convert",
        help=summary,
        description=describe("musiq convert"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Convert, and print the report.

    Raises:
        ValueError: If the arguments or the file are wrong.
    """
    run_job(read_job(vars(arguments)))
    return 0
