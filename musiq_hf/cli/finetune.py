# SPDX-License-Identifier: Apache-2.0
"""Command `musiq finetune`: trains on scored pictures; its arguments are the fields of `FinetuneSettings`."""

import argparse
import sys
from typing import Any

from accelerate import PartialState

from ..common.arguments import print_report
from ..common.terminal import print_line
from ..models.auto import DEFAULT_CHECKPOINT
from ..training.recipes import add_settings, settings_from_arguments
from ..training.settings import FinetuneSettings

DESCRIPTION = """\
Fine-tune MUSIQ, or train it from scratch, on your own opinion scores.

musiq finetune --data scores.csv --image_root photos --output_dir runs/mine
accelerate launch -m musiq_hf.cli finetune --recipe koniq --data koniq10k --output_dir runs/koniq
"""


def add_arguments(parser: Any) -> None:
    """Add one argument for each setting."""
    add_settings(parser, FinetuneSettings)


def run(arguments: argparse.Namespace) -> int:
    """Train, and print the metrics of the saved checkpoint.

    Raises:
        ValueError: If the arguments or the data are wrong.
    """
    from ..training.finetuning import finetune  # loads the libraries for training, which the help does not need

    defaults = {"model": str(DEFAULT_CHECKPOINT), "output_dir": "runs/finetune"}
    settings = settings_from_arguments(vars(arguments), FinetuneSettings, **defaults)
    reports = finetune(settings, command="musiq finetune")
    if PartialState().is_main_process:
        folder = settings.output_dir
        print_line(f"{folder}: saved. To score with it: musiq score PICTURES -m {folder}", file=sys.stderr)
    print_report({split: report.to_json() for split, report in reports.items()})
    return 0
