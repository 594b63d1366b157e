# SPDX-License-Identifier: Apache-2.0
"""Maker of the sample pictures in `examples/pictures`, from scikit-image's public-domain photographs.

pip install scikit-image && python examples/make_pictures.py
"""

import argparse
import sys
from pathlib import Path

from musiq_hf.common.arguments import CommandParser, parse_arguments, run_command
from musiq_hf.common.extras import require
from musiq_hf.pictures import degrade

# The package comes first: from there on Ctrl-C is a sentence.
# isort: split
from PIL import Image

BLUR_SIGMA = 1.5  # pixels
NOISE_SIGMA = 25  # gray levels of 255


def make(output_dir: Path) -> None:
    """Write each photograph three times: sharp, blurred, and blurred and noisy."""
    output_dir.mkdir(parents=True, exist_ok=True)
    photographs = require("skimage.data", extra="pictures")
    for name in ("astronaut", "rocket"):
        sharp = Image.fromarray(getattr(photographs, name)())
        blurred = degrade(sharp, blur_sigma=BLUR_SIGMA, noise_sigma=0, seed=0)
        noisy = degrade(sharp, blur_sigma=BLUR_SIGMA, noise_sigma=NOISE_SIGMA, seed=0)
        for label, picture in (("sharp", sharp), ("blurred", blurred), ("blurred_noisy", noisy)):
            picture.save(output_dir / f"{name}_{label}.jpg", quality=92)


def main() -> int:
    """Make the pictures; return 2 if a package is missing or a folder cannot be written."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "pictures")
    arguments = parse_arguments(parser)
    return run_command("make_pictures", lambda: make(arguments.output_dir))


if __name__ == "__main__":
    sys.exit(main())
