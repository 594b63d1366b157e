# SPDX-License-Identifier: Apache-2.0
"""The `musiq` command: one module of this package for each subcommand, imported only if it is the one that is meant.

A module has `add_parser(subparsers, summary)`, which sets the default `run`, and `run(arguments)`, which returns the
exit code: 0 done, 1 some pictures failed, 2 a mistake.
"""

import argparse
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ..common.arguments import parse_arguments, run_command
from ..version import __version__

DESCRIPTION = "Score the quality of pictures with MUSIQ, and see what the scores are made of."
EPILOG = """\
examples:
  musiq score photo.jpg                      print the score of one picture
  musiq score photos -o scores.csv           score a folder; killed, the same command continues
  musiq score --help                         all about one command
"""
AddParser = Callable[[Any, str], None]


def _score() -> AddParser:
    from .score import add_parser

    return add_parser


def _explain() -> AddParser:
    from .explain import add_parser

    return add_parser


def _info() -> AddParser:
    from .info import add_parser

    return add_parser


def _verify() -> AddParser:
    from .verify import add_parser

    return add_parser


def _convert() -> AddParser:
    from .convert import add_parser

    return add_parser


def _evaluate() -> AddParser:
    from .evaluate import add_parser

    return add_parser


def _finetune() -> AddParser:
    from .finetune import add_parser

    return add_parser


@dataclass(frozen=True)
class Command:
    """A subcommand, as much as is known of it before its module is imported.

    Attributes:
        summary: Line about it in the help of `musiq`.
        load: Function that imports its module, and returns the one there that adds its parser.
        example: Command line that would work, shown below a mistake; None shows none.
    """

    summary: str
    load: Callable[[], AddParser]
    example: str | None = None


# In the order of the help.
COMMANDS = {
    "score": Command("score pictures, folders, archives, tables and data sets", _score),
    "explain": Command("why a picture has its score: one page of HTML with figures", _explain),
    "info": Command("what a checkpoint is, and its signature", _info),
    "verify": Command("whether a checkpoint gives the numbers that it should", _verify),
    "convert": Command(
        "convert a published checkpoint, and back", _convert, "musiq convert koniq_ckpt.npz musiq-koniq"
    ),
    "evaluate": Command(
        "measure checkpoints on scored pictures",
        _evaluate,
        "musiq evaluate --data scores.csv --image_root photos --output report.json",
    ),
    "finetune": Command(
        "train on your own opinion scores",
        _finetune,
        "musiq finetune --data scores.csv --image_root photos --output_dir runs/mine",
    ),
}


def build_parser(commands: Collection[str] | None = None) -> argparse.ArgumentParser:
    """Build the command line.

    Args:
        commands: Names of the subcommands that get their arguments, for which their modules are imported. The others
            have a name and a line of help. None = all get theirs.

    Raises:
        ImportError: If something that one of these modules needs is not installed.
    """
    parser = argparse.ArgumentParser(
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
        argv: Words of the command line after `musiq`; None reads them.

    Raises:
        SystemExit: As argparse does, after help (0) or words that it does not understand (2).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    first = next((word for word in words if not word.startswith("-")), "")  # no option before it takes a value
    chosen = [first] if first in COMMANDS else []

    def run() -> int:
        arguments = parse_arguments(build_parser(chosen), words)
        from ..models.auto import register  # now that there is something to do: it loads Transformers and PyTorch

        register()
        return int(arguments.run(arguments))

    return run_command(" ".join(["musiq", *chosen]), run, example=COMMANDS[first].example if chosen else None)
