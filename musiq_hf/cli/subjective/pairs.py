# SPDX-License-Identifier: Apache-2.0
"""Command `musiq pairs`: a scale of items from paired comparisons."""

import argparse
from typing import Any

from ...common.terminal import print_line
from ...subjective.pairs import MODELS, UNITS, read_pairs, scale_pairs

DESCRIPTION = """\
Place items on a scale by maximum likelihood, from who was preferred to whom.

musiq pairs comparisons.csv
musiq pairs comparisons.csv -o scale.csv --model thurstone --unit jod

COMPARISONS is a CSV table with columns winner,loser and perhaps count (how often) and tie (1: neither won).
Columns of OUT: image, score, standard_error, and low and high, the interval of 95 % confidence. The scores sum to 0.
"""


def add_arguments(parser: Any) -> None:
    """Add the arguments."""
    parser.add_argument("comparisons", metavar="COMPARISONS", help="CSV table of comparisons")
    parser.add_argument(
        "-o", "--output", metavar="OUT", help=".csv, .jsonl or .parquet file (default: a table on the terminal)"
    )
    parser.add_argument(
        "--model", choices=MODELS, default=MODELS[0], help="curve of the chance to win: logistic or normal (case V)"
    )
    parser.add_argument(
        "--unit", choices=UNITS, default=UNITS[0], help="of the curve, or jod: 1 means that 75 %% prefer the better"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")


def run(arguments: argparse.Namespace) -> int:
    """Compute the scale, and print or write it.

    Raises:
        ValueError: If the arguments or the comparisons are wrong.
        ImportError: If SciPy is missing.
    """
    scale = scale_pairs(read_pairs(arguments.comparisons), model=arguments.model, unit=arguments.unit)
    if arguments.output is not None:
        scale.write(arguments.output)
        print_line(f"{arguments.output}: {len(scale.items)} items")
        return 0
    print_line(" score  error  item")
    for item, score, error in zip(scale.items, scale.scores, scale.standard_errors, strict=True):
        print_line(f"{score:6.2f} {error:6.2f}  {item}")
    return 0
