# SPDX-License-Identifier: Apache-2.0
r"""Pre-training of MUSIQ on classes, on ImageNet as the paper does or on any folder of pictures sorted by class.

accelerate launch examples/pretrain_imagenet.py --recipe imagenet_pretrain --data imagenet \
    --model scratch:musiq-imagenet --output_dir runs/imagenet
"""

import sys

from musiq_hf.training import ImageNetSettings, pretrain_imagenet, run_with_settings

EXAMPLE = (
    "accelerate launch examples/pretrain_imagenet.py --recipe imagenet_pretrain --data imagenet "
    "--model scratch:musiq-imagenet"
)


def main() -> int:
    """Train and print the accuracy; return 2 for a mistake in the arguments or the data."""
    return run_with_settings(
        "pretrain_imagenet",
        pretrain_imagenet,
        ImageNetSettings,
        description=__doc__,
        example=EXAMPLE,
    )


if __name__ == "__main__":
    sys.exit(main())
