# SPDX-License-Identifier: Apache-2.0
"""Measure checkpoints, and the mean of their scores, on scored pictures, or repeat training over seeds and splits.

python examples/evaluate.py --data scores.csv --image_root photos --output report.json
python examples/evaluate.py --model musiq-koniq musiq-spaq --data koniq.csv mine.csv --ensemble
accelerate launch examples/evaluate.py --runs 10 --recipe koniq --data koniq10k --output_dir runs/koniq
"""

import argparse
import sys

from transformers.utils import logging

from musiq_hf.cli.evaluate import add_arguments, evaluate
from musiq_hf.common.arguments import parse_arguments, run_command

EXAMPLE = "python examples/evaluate.py --data scores.csv --image_root photos --output report.json"


def build_parser() -> argparse.ArgumentParser:
    """Arguments of both ways of use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    return parser


def main() -> int:
    """Parse, measure, print and write the tables; 2 for a mistake in the arguments or the data."""
    arguments = parse_arguments(build_parser())
    logging.disable_progress_bar()  # of loading weights; scoring has its own
    return run_command("evaluate", lambda: evaluate(arguments), example=EXAMPLE)


if __name__ == "__main__":
    sys.exit(main())
