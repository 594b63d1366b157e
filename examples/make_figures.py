# SPDX-License-Identifier: Apache-2.0
"""Figures of README and docs/usage.md, drawn again: those that `musiq explain` shows of one sample picture.

python examples/make_figures.py
"""

import argparse
import sys
from pathlib import Path

from musiq_hf import DEFAULT_CHECKPOINT
from musiq_hf.common.arguments import CommandParser, parse_arguments, run_command
from musiq_hf.explain import plot_attention, plot_degradations, plot_quality_map, quality_map
from musiq_hf.pictures import open_picture
from musiq_hf.scoring import load_quality

# The package comes first: from there on Ctrl-C is a sentence.
# isort: split
from transformers.utils import logging

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "examples" / "pictures" / "rocket_sharp.jpg"
FOLDER = ROOT / "docs" / "figures"


def draw(folder: Path) -> list[Path]:
    """Write three PNG files, and return their paths."""
    # 1. Load a checkpoint and a picture.
    model, processor = load_quality(str(DEFAULT_CHECKPOINT))
    image = open_picture(PICTURE)
    # 2. Draw which regions raise and lower the score, where CLS looks, and how faults change the score.
    figures = {
        "quality_map": plot_quality_map(quality_map(model, processor, image), image),
        "attention": plot_attention(model, processor, image),
        "degradations": plot_degradations(model, processor, image),
    }
    # 3. Write each under a temporary name, then give it its own, so that no half-written file is left.
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        temporary = folder / f".{name}.tmp.png"
        figure.savefig(temporary, dpi=80)
        paths.append(temporary.replace(folder / f"{name}.png"))
    return paths


def main() -> int:
    """Draw the figures, and print their paths."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse_arguments(parser)  # none but --help: whatever else is given is refused
    logging.disable_progress_bar()
    return run_command("make_figures", lambda: print(*draw(FOLDER), sep="\n"))


if __name__ == "__main__":
    sys.exit(main())
