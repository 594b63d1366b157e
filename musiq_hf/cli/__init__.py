# SPDX-License-Identifier: Apache-2.0
"""The `musiq` command: one module of this package for each subcommand, imported only if that subcommand is called.

Each module has `add_parser(subparsers, summary)`, which sets the default `run`. Its `run(arguments)` returns the exit
code: 0 done, 1 some pictures failed, 2 a mistake.
"""

import argparse
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ..common.arguments import CommandParser, parse_arguments, run_command
from ..version import __version__

DESCRIPTION = "Score the quality of pictures with MUSIQ, and see what the scores are made of."
EPILOG = """\
examples:
  musiq score photo.jpg                      print the score of one picture
  musiq score photos -o scores.csv           score a folder; killed, the same command continues
  musiq score --help                         all about one command
"""
AddParser = Callable[[Any, str], None]


def _load_score() -> AddParser:
    from .score import add_parser

    return add_parser


def _load_explain() -> AddParser:
    from .explain import add_parser

    return add_parser


def _load_info() -> AddParser:
    from .info import add_parser

    return add_parser


def _load_verify() -> AddParser:
    from .verify import add_parser

    return add_parser


def _load_convert() -> AddParser:
    from .convert import add_parser

    return add_parser


def _load_evaluate() -> AddParser:
    from .evaluate import add_parser

    return add_parser


def _load_finetune() -> AddParser:
    from .finetune import add_parser

    return add_parser


@dataclass(frozen=True)
class Command:
    """Subcommand, with what is known of it before its module is imported.

    Attributes:
        summary: Line about it in the help of `musiq`.
        load: Function that imports its module, and returns the `add_parser` of that module.
        example: Command line that would work, shown below a mistake; None shows none.
    """

    summary: str
    load: Callable[[], AddParser]
    example: str | None = None


# The help lists them in this order.
COMMANDS = {
    "score": Command("score pictures, folders, archives, tables and data sets", _load_score),
    "explain": Command("why a picture has its score: one page of HTML with figures", _load_explain),
    "info": Command("what a checkpoint is, and its signature", _load_info),
    "verify": Command("whether a checkpoint gives the numbers that it should", _load_verify),
    "convert": Command(
        "convert a published checkpoint, and back", _load_convert, "musiq convert koniq_ckpt.npz musiq-koniq"
    ),
    "evaluate": Command(
        "measure checkpoints on scored pictures",
        _load_evaluate,
        "musiq evaluate --data scores.csv --image_root photos --output report.json",
    ),
    "finetune": Command(
        "train on your own opinion scores",
        _load_finetune,
        "musiq finetune --data scores.csv --image_root photos --output_dir runs/mine",
    ),
}


def build_parser(commands: Collection[str] | None = None) -> argparse.ArgumentParser:
    """Build the command line.

    Args:
        commands: Names of the subcommands that get their arguments, for which their modules are imported. The others
            have a name and a line of help. None = all subcommands get their arguments.

    Raises:
        ImportError: If something that one of these modules needs is not installed.
    """
    parser = CommandParser(
        prog="musiq",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"musiq_hf {__version__}")
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        if commands is None or name in commands:
            command.load()(subparsers, command.summary)
        else:
            subparsers.add_parser(name, help=command.summary)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code; a mistake is one sentence on stderr.

    Args:
        argv: Words of the command line after `musiq`; None reads them from `sys.argv`.

    Raises:
        SystemExit: If argparse prints the help (exit code 0), or does not understand the words (exit code 2).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # No option before the subcommand takes a value, so the first other word names it.
    first = next((word for word in words if not word.startswith("-")), "")
    chosen = [first] if first in COMMANDS else []

    def run() -> int:
        arguments = parse_arguments(build_parser(chosen), words)
        from ..models.auto import register  # it loads Transformers and PyTorch, which the help does not need

        register()
        return int(arguments.run(arguments))

    return run_command(" ".join(["musiq", *chosen]), run, example=COMMANDS[first].example if chosen else None)
