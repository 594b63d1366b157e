# SPDX-License-Identifier: Apache-2.0
"""Make the sample pictures of `examples/pictures` from scikit-image's public-domain photographs.

pip install scikit-image && python examples/make_pictures.py
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from musiq_hf.arguments import parse_arguments
from musiq_hf.extras import require

BLUR_SIGMA = 2.5  # pixels
NOISE_SIGMA = 25  # gray levels of 255


def main() -> None:
    """Write each photograph sharp, blurred, and blurred and noisy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "pictures")
    output_dir: Path = parse_arguments(parser).output_dir
    output_dir.mkdir(parents=True, exist_ok=True)
    photographs = require("skimage.data", extra="pictures")
    for name in ("astronaut", "rocket"):
        sharp = Image.fromarray(getattr(photographs, name)())
        blurred = sharp.filter(ImageFilter.GaussianBlur(BLUR_SIGMA))
        noise = np.random.default_rng(0).normal(0, NOISE_SIGMA, (sharp.height, sharp.width, 3))
        noisy = Image.fromarray((np.asarray(blurred) + noise).round().clip(0, 255).astype(np.uint8))
        for label, picture in (("sharp", sharp), ("blurred", blurred), ("blurred_noisy", noisy)):
            picture.save(output_dir / f"{name}_{label}.jpg", quality=92)


if __name__ == "__main__":
    main()
