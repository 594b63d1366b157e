# SPDX-License-Identifier: Apache-2.0
"""Measurement of how a checkpoint scores copies of pristine pictures, large pictures, and odd ones such as text.

python examples/evaluate_robustness.py --pictures kodak --half_size large --model runs/mine --output robustness.json
"""

import argparse
import sys
from dataclasses import replace

from musiq_hf import DEFAULT_CHECKPOINT
from musiq_hf.common.arguments import CommandParser, parse_arguments, run_command
from musiq_hf.evaluation import (
    make_scorer,
    measure_common_sense,
    measure_half_size,
    measure_odd_pictures,
    measure_robustness,
)
from musiq_hf.hub import check_card_directory, update_card
from musiq_hf.metrics import RobustnessReport, check_report_path, render, write_report
from musiq_hf.pictures import find_pictures

# The package comes first: from there on Ctrl-C is a sentence.
# isort: split
from transformers.utils import logging

CARD_TITLE = "Degraded copies of pristine pictures that it never saw"
EXAMPLE = "python examples/evaluate_robustness.py --pictures kodak --model runs/mine --output robustness.json"


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--pictures", metavar="DIR", help="folder of pristine pictures, without losses of compression if possible")
    add("--half_size", metavar="DIR", help="folder of large pictures to score at full and half size too")
    add("--model", default=str(DEFAULT_CHECKPOINT), help=f"checkpoint (default: {DEFAULT_CHECKPOINT.name})")
    add("--batch_size", type=int, default=5, help="pictures scored at a time, up to 5 (%(default)s)")
    add("--update_card", action="store_true", help="add the results to the card of a local checkpoint")
    add("--output", default="robustness.json", help="report; its tables go beside it as .md (default: %(default)s)")
    return parser


def measure(arguments: argparse.Namespace) -> RobustnessReport:
    """Check every argument first, then score."""
    if arguments.pictures is None:
        raise ValueError("--pictures is needed: a folder of pristine pictures.")
    check_report_path(arguments.output)
    if arguments.update_card:
        check_card_directory(arguments.model)
    pictures = find_pictures(arguments.pictures)
    large = find_pictures(arguments.half_size) if arguments.half_size is not None else None
    score = make_scorer(arguments.model, batch_size=arguments.batch_size)
    report = measure_robustness(score, pictures)
    half_size = None if large is None else measure_half_size(score, large)
    return replace(
        report,
        half_size=half_size,
        common_sense=measure_common_sense(score, pictures, half_size=half_size or ()),
        odd=measure_odd_pictures(score, [row.pristine for row in report.pictures or ()]),
    )


def run(arguments: argparse.Namespace) -> None:
    """Measure, write and print."""
    report = measure(arguments)
    write_report(arguments.output, report)
    if arguments.update_card:
        update_card(arguments.model, report, title=CARD_TITLE)
    print(render(report))


def main() -> int:
    """Measure, write and print; return 2 for a mistake in arguments or pictures, 0 even if a target is missed."""
    arguments = parse_arguments(build_parser())
    logging.disable_progress_bar()  # loading the weights shows one; scoring shows its own
    return run_command("evaluate_robustness", lambda: run(arguments), example=EXAMPLE)


if __name__ == "__main__":
    sys.exit(main())
