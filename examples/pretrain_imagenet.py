# SPDX-License-Identifier: Apache-2.0
r"""Pre-train MUSIQ on classes, on ImageNet as the paper does or on any folder of pictures sorted by class.

accelerate launch examples/pretrain_imagenet.py --recipe imagenet_pretrain --data imagenet \
    --model configuration/checkpoints/musiq-imagenet --output_dir runs/imagenet
"""

import argparse
import json
import sys

from accelerate import PartialState

from musiq_hf.arguments import parse_arguments
from musiq_hf.imagenet_pretraining import ImageNetSettings, pretrain_imagenet
from musiq_hf.recipes import add_settings, settings_from_arguments


def build_parser() -> argparse.ArgumentParser:
    """Arguments, named as the fields of `ImageNetSettings`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_settings(parser, ImageNetSettings)
    return parser


def main() -> int:
    """Parse, train, print the accuracy; 2 for a mistake in the arguments or the data."""
    try:
        report = pretrain_imagenet(settings_from_arguments(parse_arguments(build_parser()), ImageNetSettings))
    except (ValueError, ImportError, OSError) as error:
        print(f"pretrain_imagenet: {error}", file=sys.stderr)
        return 2
    if PartialState().is_main_process:
        print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
