# SPDX-License-Identifier: Apache-2.0
"""Table of scores of pictures: file, size, score.

python examples/score_images.py photo.jpg folder --model musiq-koniq
"""

import argparse
import sys
from pathlib import Path

from musiq_hf import DEFAULT_CHECKPOINT
from musiq_hf.common.arguments import CommandParser, parse_arguments, run_command
from musiq_hf.pictures import find_pictures, open_picture, shrink_shorter_side

# The package comes first: from there on Ctrl-C is a sentence.
# isort: split
from transformers import pipeline
from transformers.utils import logging


def run(pictures: list[Path], model: str, shorter_side: int | None) -> int:
    """Print the table; return 1 if a picture could not be scored."""
    # 1. Load the checkpoint once.
    logging.disable_progress_bar()
    scorer = pipeline("image-quality-assessment", model=model)
    # 2. Score one picture after the other, and go on after one that cannot be read.
    failures = 0
    width = max(len(str(path)) for path in pictures)
    print(f"{'file':<{width}}  {'size':>11}  score")
    for path in pictures:
        try:
            image = open_picture(path)
            if shorter_side is not None:
                image = shrink_shorter_side(image, shorter_side)
            print(f"{path!s:<{width}}  {image.width:>5}x{image.height:<5}  {scorer(image)['score']:5.1f}")
        except (ValueError, OSError) as error:
            failures += 1
            print(error, file=sys.stderr)
    return 1 if failures else 0


def main() -> int:
    """Score pictures; return 1 if one could not be scored, 2 for a wrong checkpoint or an empty folder."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, help="pictures, or folders of pictures")
    parser.add_argument(
        "--model", default=str(DEFAULT_CHECKPOINT), help=f"checkpoint (default: {DEFAULT_CHECKPOINT.name})"
    )
    parser.add_argument(
        "--shorter_side", type=int, help="shrink pictures to this shorter side first, as SPAQ's recipe does (off)"
    )
    arguments = parse_arguments(parser)
    if arguments.shorter_side is not None and arguments.shorter_side < 1:
        parser.error(f"--shorter_side must be at least 1 pixel, got {arguments.shorter_side}")
    try:
        pictures = [file for path in arguments.paths for file in (find_pictures(path) if path.is_dir() else [path])]
    except ValueError as error:
        parser.error(str(error))
    return run_command("score_images", lambda: run(pictures, arguments.model, arguments.shorter_side))


if __name__ == "__main__":
    sys.exit(main())
