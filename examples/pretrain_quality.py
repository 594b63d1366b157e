# SPDX-License-Identifier: Apache-2.0
"""Pre-train MUSIQ on pictures without scores: predict made faults and rank pairs by their strength.

accelerate launch examples/pretrain_quality.py --data photos --output_dir runs/pretrained
"""

import argparse
import sys

from musiq_hf.arguments import parse_arguments, run_command
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

    def command() -> dict[str, float]:
        settings = settings_from_arguments(
            arguments, PretrainSettings, model="scratch:musiq-tiny", output_dir="runs/pretrained"
        )
        return pretrain_quality(settings)

    return run_command("pretrain_quality", command, example=EXAMPLE)


if __name__ == "__main__":
    sys.exit(main())
