# SPDX-License-Identifier: Apache-2.0
"""One convention for command lines: underscores in argument names, hyphens accepted."""

import argparse
import sys
from collections.abc import Sequence


def parse_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse `argv` (None = the command line), reading `--output-dir` as `--output_dir`; exits with 2 on a mistake."""
    words = []
    for word in sys.argv[1:] if argv is None else argv:
        name, equals, value = word.partition("=")
        words.append(name.replace("-", "_").replace("__", "--", 1) + equals + value if name.startswith("--") else word)
    return parser.parse_args(words)
