# SPDX-License-Identifier: Apache-2.0
"""`musiq finetune`: train on scored pictures; its arguments are the fields of `FinetuneSettings`."""

import argparse
import sys
from typing import Any

from accelerate import PartialState

from ..common.arguments import run_command
from ..models.auto import DEFAULT_CHECKPOINT
from ..training.recipes import settings_from_arguments, settings_parser
from ..training.settings import FinetuneSettings

SUMMARY = "train on your own opinion scores"
DESCRIPTION = """\
Fine-tune MUSIQ, or train it from scratch, on your own opinion scores.

musiq finetune --data scores.csv --image_root photos --output_dir runs/mine
accelerate launch -m musiq_hf.cli finetune --recipe koniq --data koniq10k --output_dir runs/koniq
"""
EXAMPLE = "musiq finetune --data scores.csv --image_root photos --output_dir runs/mine"


def add_parser(subparsers: Any) -> None:
    """Add the subcommand, with one argument for each setting."""
    parser = subparsers.add_parser(
        "finetune",
        help=SUMMARY,
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[settings_parser(FinetuneSettings, add_help=False)],
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train and print the metrics of the saved checkpoint; 0, or 2 for a mistake in the arguments or the data."""

    def train() -> dict[str, Any]:
        from ..training.finetuning import (
            finetune,  # loads the libraries for training, which `musiq --help` does not need
        )

        defaults = {"model": str(DEFAULT_CHECKPOINT), "output_dir": "runs/finetune"}
        settings = settings_from_arguments(vars(arguments), FinetuneSettings, **defaults)
        metrics = finetune(settings)
        if PartialState().is_main_process:
            folder = settings.output_dir
            print(f"{folder}: saved. To score with it: musiq score PICTURES -m {folder}", file=sys.stderr)
        return metrics

    return run_command("musiq finetune", train, example=EXAMPLE)
