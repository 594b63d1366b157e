# SPDX-License-Identifier: Apache-2.0
"""Fine-tune MUSIQ, or train it from scratch, on your own opinion scores.

accelerate launch examples/finetune.py --data scores.csv --image_root photos --output_dir runs/mine
"""

import argparse
import sys
from typing import Any

from musiq_hf import DEFAULT_CHECKPOINT
from musiq_hf.arguments import parse_arguments, run_command
from musiq_hf.recipes import add_settings, settings_from_arguments
from musiq_hf.settings import FinetuneSettings
from musiq_hf.training import finetune

EXAMPLE = "accelerate launch examples/finetune.py --data scores.csv --image_root photos --output_dir runs/mine"


def build_parser() -> argparse.ArgumentParser:
    """Arguments, named as the fields of `FinetuneSettings`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_settings(parser, FinetuneSettings)
    return parser


def main() -> int:
    """Parse, train, print the metrics of the saved checkpoint; 2 for a mistake in the arguments or the data."""
    arguments = parse_arguments(build_parser())

    def command() -> dict[str, Any]:
        settings = settings_from_arguments(
            arguments, FinetuneSettings, model=str(DEFAULT_CHECKPOINT), output_dir="runs/finetune"
        )
        return finetune(settings)

    return run_command("finetune", command, example=EXAMPLE)


if __name__ == "__main__":
    sys.exit(main())
