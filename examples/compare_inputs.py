# SPDX-License-Identifier: Apache-2.0
"""Comparison of native, aspect-preserving and square inputs on an equal small budget (Table 5 and figure 3).

python examples/compare_inputs.py --data biq2021/labels.csv --image_root biq2021/images

MUSIQ and two classifiers are trained on windows of aspect ratios 1:2 to 2:1, which have the scores of the whole
pictures. They are measured on windows, on whole square pictures and on padded ones. Runs that are finished are kept,
and several calls with other seeds may share one output directory.
"""

import argparse
import sys
from pathlib import Path

from musiq_hf.common.arguments import CommandParser, parse_arguments, positive, run_command
from musiq_hf.common.files import replace_file
from musiq_hf.studies import MODELS, Comparison, compare_inputs, plot_inputs, render_inputs

EXAMPLE = "python examples/compare_inputs.py --data labels.csv --image_root images"


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", required=True, help="labels of BIQ2021, whose pictures are square")
    add("--image_root", help="folder of its pictures")
    add("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME", help="models (default: all)")
    add("--output_dir", type=Path, default=Path("runs/inputs"), help="folder of the runs (default: %(default)s)")
    add("--figure", type=Path, help="PNG file for the curves of squeezed pictures")
    add("--epochs", type=float, default=2, help="passes over the training pictures (default: %(default)s)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of each model (default: 0 1 2)")
    add("--num_train", type=positive, help="training pictures, drawn at random (default: all)")
    add("--num_validation", type=positive, default=500, help="pictures to measure on (default: %(default)s)")
    add("--num_squeezed", type=positive, default=40, help="pictures to squeeze (default: %(default)s)")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Train and measure all models, print the tables and draw the figure."""
    found = compare_inputs(
        Comparison(
            data={"data": arguments.data, "image_root": arguments.image_root, "dataset": "biq2021"},
            output_dir=arguments.output_dir,
            names=arguments.models,
            epochs=arguments.epochs,
            seeds=arguments.seeds,
            num_train=arguments.num_train,
            num_validation=arguments.num_validation,
            num_squeezed=arguments.num_squeezed,
            command="examples/compare_inputs.py",
        )
    )
    print(render_inputs(found))
    if arguments.figure is not None:
        with replace_file(arguments.figure) as temporary:
            plot_inputs(found).savefig(temporary, dpi=80, format="png")


def main() -> int:
    """Run the comparison; return 2 for a mistake in the arguments or the data."""
    arguments = parse_arguments(make_parser())
    return run_command("compare_inputs", lambda: run(arguments), example=EXAMPLE)


if __name__ == "__main__":
    sys.exit(main())
