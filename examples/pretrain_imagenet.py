# SPDX-License-Identifier: Apache-2.0
r"""Pre-train MUSIQ on classes, on ImageNet as the paper does or on any folder of pictures sorted by class.

accelerate launch examples/pretrain_imagenet.py --recipe imagenet_pretrain --data imagenet \
    --model scratch:musiq-imagenet --output_dir runs/imagenet
"""

import argparse
import sys

from musiq_hf.arguments import parse_arguments, run_command
from musiq_hf.imagenet_pretraining import ImageNetSettings, pretrain_imagenet
from musiq_hf.recipes import add_settings, settings_from_arguments

EXAMPLE = (
    "accelerate launch examples/pretrain_imagenet.py --recipe imagenet_pretrain --data imagenet "
    "--model scratch:musiq-imagenet"
)


def build_parser() -> argparse.ArgumentParser:
    """Arguments, named as the fields of `ImageNetSettings`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_settings(parser, ImageNetSettings)
    return parser


def main() -> int:
    """Parse, train, print the accuracy; 2 for a mistake in the arguments or the data."""
    arguments = parse_arguments(build_parser())
    return run_command(
        "pretrain_imagenet",
        lambda: pretrain_imagenet(settings_from_arguments(arguments, ImageNetSettings)),
        example=EXAMPLE,
    )


if __name__ == "__main__":
    sys.exit(main())
