# SPDX-License-Identifier: Apache-2.0
"""Command `musiq convert`: the converters of all families under one name."""

import argparse
from typing import Any

from ..conversion import command

DESCRIPTION = command.describe("musiq convert")


def add_arguments(parser: Any) -> None:
    """Add the arguments, with the options of all converters."""
    command.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Convert, and print the report.

    Raises:
        ValueError: If the arguments or the file are wrong.
    """
    command.run_job(command.read_job(vars(arguments)))
    return 0
