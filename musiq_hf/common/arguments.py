# SPDX-License-Identifier: Apache-2.0
"""One convention for command lines: underscores in argument names, hyphens accepted."""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from accelerate import PartialState
from huggingface_hub.errors import StrictDataclassError

from .devices import is_out_of_memory

MEMORY_ADVICE = (
    "Lower --batch_size; in training, raise --gradient_accumulation_steps or lower --native_patches, and lower "
    "--eval_batch_size if it fails while measuring."
)
WORKER_ERROR = re.compile(r"^Caught (\w+) in DataLoader worker process \d+\.\n", re.MULTILINE)


def parse_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse `argv` (None = the command line), reading `--output-dir` as `--output_dir`; exits with 2 on a mistake."""
    words = list(sys.argv[1:] if argv is None else argv)
    for index, word in enumerate(words):
        if word == "--":  # what follows are file names
            break
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            words[index] = name.replace("-", "_").replace("__", "--", 1) + equals + value
    return parser.parse_args(words)


def positive(text: str) -> int:
    """A whole number above 0, as the type of an argument."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def one_sentence(error: BaseException) -> str:
    """The message of an error; of one from a process that decodes pictures, without the traceback around it."""
    text = str(error)
    if WORKER_ERROR.search(text):
        text = text.strip().splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())


def run_command(name: str, command: Callable[[], Any], *, example: str) -> int:
    """Run the body of a script: print its report, if it returns one, as JSON, or a mistake in one sentence.

    Args:
        name: Of the script, before the sentence.
        command: Returns the report, or None if it has printed its own.
        example: Command line that would work, below the sentence.

    Returns:
        Exit code: 0, or 2 for a mistake in the arguments, the data or the size of a batch.
    """
    try:
        report = command()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        print(f"{name}: the memory is too small for such a batch. {MEMORY_ADVICE}", file=sys.stderr)
        return 2
    except (ValueError, ImportError, OSError, StrictDataclassError) as error:
        print(f"{name}: {one_sentence(error)}\nExample: {example}", file=sys.stderr)
        return 2
    if report is not None and PartialState().is_main_process:
        print(json.dumps(report, indent=2))
    return 0
