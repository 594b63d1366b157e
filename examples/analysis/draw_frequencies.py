# SPDX-License-Identifier: Apache-2.0
"""Figure of how much of high frequencies the feature maps of checkpoints hold, as the mean over pictures.

python examples/analysis/draw_frequencies.py photos --output frequencies.png --model musiq-tiny-biq2021 --model loda

The analysis is that of LoDa's figure 8 (Xu et al., CVPR 2024). The paper takes 128 pictures of KonIQ-10k.
"""

import argparse
import sys
from pathlib import Path

from musiq_hf import DEFAULT_CHECKPOINT
from musiq_hf.common.arguments import CommandParser, parse_arguments, run_command
from musiq_hf.common.extras import require
from musiq_hf.common.files import check_output_file, replace_file
from musiq_hf.evaluation import measure_log_amplitudes
from musiq_hf.explain import plot_log_amplitudes
from musiq_hf.pictures import find_pictures, open_picture
from musiq_hf.scoring import load_quality

# The package comes first: from there on Ctrl-C is a sentence.
# isort: split
from torch import Tensor
from transformers.utils import logging


def run(paths: list[Path], models: list[str], output: Path) -> None:
    """Measure, and write a PNG file."""
    # 1. Say what cannot work before a checkpoint is loaded.
    if output.suffix.lower() != ".png":
        raise ValueError(f"`--output` must end in .png, got {output}.")
    check_output_file(output)
    require("matplotlib.figure", extra="explain")
    pictures = [file for path in paths for file in (find_pictures(path) if path.is_dir() else [path])]
    # 2. Measure the maps of each checkpoint; its networks or scales become panels.
    logging.disable_progress_bar()
    curves: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for name in models:
        measured = measure_log_amplitudes(*load_quality(name), map(open_picture, pictures))
        curves |= {f"{name}: {part}": found for part, found in measured.items()}
    # 3. Draw them, under a temporary name first, so that no half-written file is left.
    output.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(output) as temporary:
        plot_log_amplitudes(curves).savefig(temporary, format="png", dpi=100)
    print(output)


def main() -> int:
    """Draw the figure, and print its path; return 2 for a mistake in the arguments or a picture."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("paths", nargs="+", type=Path, help="pictures, or folders of pictures")
    add("--model", action="append", help=f"checkpoint; again for several (default: {DEFAULT_CHECKPOINT.name})")
    add("--output", type=Path, required=True, help="PNG file to write; replaced")
    arguments = parse_arguments(parser)
    models = arguments.model or [DEFAULT_CHECKPOINT.name]
    return run_command("draw_frequencies", lambda: run(arguments.paths, models, arguments.output))


if __name__ == "__main__":
    sys.exit(main())
