# SPDX-License-Identifier: Apache-2.0
"""Words and mistakes of all command lines.

Names of arguments have underscores, and hyphens are accepted. A mistake is reported in one sentence. Nothing here
imports PyTorch before it is needed, so that the help of a command comes at once.
"""

import argparse
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from .interrupts import stop_reporting_interrupts
from .terminal import escape_controls, print_text

INTERRUPTED = 130  # exit code of a program that Ctrl-C has ended, as shells say it
OUT_OF_MEMORY = (
    "the memory ran out. Give the program more, or let it need less: --shorter_side makes pictures smaller, "
    "--max_tokens the batches of `musiq score`. In training, lower --batch_size or --native_patches and raise "
    "--gradient_accumulation_steps; lower --eval_batch_size if it fails while measuring."
)
FLAGS = dict.fromkeys(("true", "yes", "1"), True) | dict.fromkeys(("false", "no", "0"), False)
WORKER_ERROR = re.compile(r"^Caught (\w+) in DataLoader worker process \d+\.\n", re.MULTILINE)


class CommandParser(argparse.ArgumentParser):
    """Parser that takes whole names of flags only, and shows mistakes, which repeat words, with escapes.

    A flag that a subcommand does not have is a mistake in the words of the subcommand, and its usage is shown.
    """

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, strange = super().parse_known_args(args, namespace)
        if strange:
            self.error(f"unrecognized arguments: {' '.join(strange)}")
        return found, strange

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        super().exit(status, None if message is None else escape_controls(message))


def parse_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line, with `--output-dir` read as `--output_dir`.

    Args:
        parser: Parser of the arguments.
        argv: Words of the command line; None reads those of this process.

    Returns:
        The arguments by name.

    Raises:
        SystemExit: If there is a mistake in the words; the exit code is 2.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for index, word in enumerate(words):
        if word == "--":  # the words after it are file names
            break
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            words[index] = name.replace("-", "_").replace("__", "--", 1) + equals + value
    return parser.parse_args(words)


def describe_command(command: str, parser: argparse.ArgumentParser, values: Mapping[str, Any]) -> str:
    """Write a command with the flags that differ from the defaults, for a card.

    Args:
        command: Words before the flags.
        parser: Parser of the flags.
        values: Values by the names of the flags; folders are named alone.
    """
    words = [command]
    for name, value in values.items():
        if value == parser.get_default(name):
            continue
        shown = value if isinstance(value, list) else [value.name if isinstance(value, Path) else value]
        words += [f"--{name}", *(shlex.quote(str(word)) for word in shown if word is not True)]
    return " ".join(words)


def positive(text: str) -> int:
    """Read a whole number above 0, as the type of an argument."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def read_flag(text: str) -> bool:
    """Read true or false, as the type of an argument."""
    if text.lower() not in FLAGS:
        raise argparse.ArgumentTypeError(f"must be true or false, got {text}")
    return FLAGS[text.lower()]


def one_sentence(error: BaseException) -> str:
    """Return the message of an error on one line.

    An error from a process that decodes pictures loses the traceback that PyTorch puts around it.
    """
    text = str(error)
    if WORKER_ERROR.search(text):
        text = text.strip().splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())


def print_report(report: Mapping[str, object]) -> None:
    """Print a report as JSON; of several processes only the first prints."""
    from accelerate import PartialState  # loads PyTorch

    if PartialState().is_main_process:
        print(json.dumps(report, indent=2))


def _describe(error: Exception, example: str | None) -> str | None:
    """Return the sentence to print for a mistake of the user; None for a defect of the program."""
    from huggingface_hub.errors import StrictDataclassError  # takes a tenth of a second, so only after an error

    if isinstance(error, ValueError | ImportError | OSError | StrictDataclassError):
        return one_sentence(error) + ("" if example is None else f"\nExample: {example}")
    if isinstance(error, MemoryError):
        return OUT_OF_MEMORY
    if isinstance(error, RuntimeError):
        from .devices import is_out_of_memory  # loads PyTorch

        if is_out_of_memory(error):
            return OUT_OF_MEMORY
    return None


def run_command(name: str, command: Callable[[], int | None], *, example: str | None = None) -> int:
    """Run the body of a command or script, and print a mistake as one sentence on stderr.

    Args:
        name: Name of the command, which is printed before the sentence.
        command: Body of the command. It returns the exit code; None stands for 0.
        example: Command line that would work, which is printed below the sentence; None prints none.

    Returns:
        Exit code, normally that of the body. It is 2 after a mistake in the arguments or the data, and if memory
        runs out. After Ctrl-C it is 130, and 0 if the reader of the output has gone. Other errors are defects of the
        program and keep their traceback.
    """
    try:
        stop_reporting_interrupts()
        return command() or 0
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print_text(f"{name}: interrupted.", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        sentence = _describe(error, example)
        if sentence is None:
            raise
        print_text(f"{name}: {sentence}", file=sys.stderr)
        return 2
