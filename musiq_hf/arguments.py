# SPDX-License-Identifier: Apache-2.0
"""One convention for command lines: underscores in argument names, hyphens accepted."""

import argparse
import sys
from collections.abc import Sequence


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
