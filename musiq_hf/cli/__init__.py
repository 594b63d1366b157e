# SPDX-License-Identifier: Apache-2.0
"""The `musiq` command: one module of this package for each subcommand.

A module has `add_parser(subparsers)`, which sets the default `run`, and `run(arguments)`, which returns the exit code:
0 done, 1 some pictures failed, 2 a mistake.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from huggingface_hub.errors import StrictDataclassError

from ..common.arguments import one_sentence, parse_arguments
from ..version import __version__

COMMANDS = ("score", "explain", "info", "verify", "convert", "evaluate", "finetune")  # in the order of the help
INTERRUPTED = 130  # as shells say it of a program that Ctrl-C ended

DESCRIPTION = "Score the quality of pictures with MUSIQ, and see what the scores are made of."
EPILOG = """\
examples:
  musiq score photo.jpg                      print the score of one picture
  musiq score photos -o scores.csv           score a folder; killed, the same command continues
  musiq score --help                         all about one command
"""


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The command line with all subcommands, or one, whose modules are imported.

    Raises:
        ImportError: If what that one needs is not installed. Of all, it is left out.
    """
    parser = argparse.ArgumentParser(
        prog="musiq",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"musiq_hf {__version__}")
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS if only is None else (only,):
        try:
            importlib.import_module(f".{name}", __name__).add_parser(subparsers)
        except ImportError:
            if only is not None:
                raise
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code; a mistake is one sentence on stderr.

    Args:
        argv: Words of the command line after `musiq`; None reads them.

    Raises:
        SystemExit: As argparse does, after help (0) or words that it does not understand (2).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    chosen = next((name for name in words[:1] if name in COMMANDS), None)  # only its module is needed
    try:
        arguments = parse_arguments(build_parser(chosen), words)
        return int(arguments.run(arguments))
    except BrokenPipeError:  # the reader of our output, `head` say, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"musiq {chosen}: interrupted.", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, ImportError, OSError, StrictDataclassError) as error:
        print(f"musiq {chosen}: {one_sentence(error)}", file=sys.stderr)
        return 2
