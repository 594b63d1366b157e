# SPDX-License-Identifier: Apache-2.0
"""Pre-train MUSIQ on pictures without scores: predict made faults and rank pairs by their strength.

accelerate launch examples/pretrain_quality.py --data photos --output_dir runs/pretrained
"""

import argparse
import json
import sys

from accelerate import PartialState

from musiq_hf.arguments import parse_arguments
from musiq_hf.pretraining import PretrainSettings, pretrain_quality
from musiq_hf.recipes import add_settings, settings_from_arguments

EXAMPLE = "accelerate launch examples/pretrain_quality.py --data photos --output_dir runs/pretrained"


def build_parser() -> argparse.ArgumentParser:
    """Arguments, named as the fields of `PretrainSettings`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_settings(parser, PretrainSettings)
    return parser


def main() -> int:
    """Parse, train, print the held-out metrics; 2 for a mistake in the arguments or the data."""
    arguments = parse_arguments(build_parser())
    try:
        settings = settings_from_arguments(
            arguments, PretrainSettings, model="scratch:musiq-tiny", output_dir="runs/pretrained"
        )
        report = pretrain_quality(settings)
    except (ValueError, ImportError, OSError) as error:
        print(f"pretrain_quality: {error}\nExample: {EXAMPLE}", file=sys.stderr)
        return 2
    if PartialState().is_main_process:
        print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
