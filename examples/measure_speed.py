# SPDX-License-Identifier: Apache-2.0
"""Measurement of how many JPEG files of 512x512 pixels `musiq score` scores in a second on this CPU.

python examples/measure_speed.py --model runs/mine
"""

import argparse
import sys

from musiq_hf import DEFAULT_CHECKPOINT
from musiq_hf.common.arguments import CommandParser, parse_arguments, positive, run_command
from musiq_hf.evaluation import measure_speed
from musiq_hf.hub import check_card_directory, update_card
from musiq_hf.metrics import render

# The package comes first: from there on Ctrl-C is a sentence.
# isort: split
from transformers.utils import logging

CARD_TITLE = "Speed of `musiq score`"


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default=str(DEFAULT_CHECKPOINT), help=f"checkpoint (default: {DEFAULT_CHECKPOINT.name})")
    add("--num_pictures", type=positive, default=64, help="files, made for this (%(default)s)")
    add("--update_card", action="store_true", help="add the result to the card of a local checkpoint")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    if arguments.update_card:
        check_card_directory(arguments.model)
    report = measure_speed(arguments.model, num_pictures=arguments.num_pictures)
    if arguments.update_card:
        update_card(arguments.model, report, title=CARD_TITLE)
    print(render(report))


def main() -> int:
    """Measure and print; return 2 for a mistake in the arguments."""
    arguments = parse_arguments(build_parser())
    logging.disable_progress_bar()
    return run_command("measure_speed", lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
