# SPDX-License-Identifier: Apache-2.0
"""Fine-tune MUSIQ, or train it from scratch, on your own opinion scores.

accelerate launch examples/finetune.py --data scores.csv --image_root photos --output_dir runs/mine
"""

import argparse
import json
import sys

from accelerate import PartialState

from musiq_hf import DEFAULT_CHECKPOINT
from musiq_hf.arguments import parse_arguments
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
    try:
        settings = settings_from_arguments(
            arguments, FinetuneSettings, model=str(DEFAULT_CHECKPOINT), output_dir="runs/finetune"
        )
        report = finetune(settings)
    except (ValueError, ImportError, OSError) as error:
        print(f"finetune: {error}\nExample: {EXAMPLE}", file=sys.stderr)
        return 2
    if PartialState().is_main_process:
        print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
