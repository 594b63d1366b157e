# SPDX-License-Identifier: Apache-2.0
"""Training of an upscaling detector on a folder of photographs, whose upscaled copies are made on the way.

python examples/training/train_upscaling_detector.py --pictures photos --output detector

Small learned upscalers are trained first; `--upscaler` adds others, checkpoints for `AutoModelForImageToImage`. The
detector is then measured on photographs that were held out. OUTPUT gets the checkpoint, metrics.json and a card.
"""

import argparse
import sys
from pathlib import Path

from musiq_hf.common.arguments import CommandParser, describe_command, parse_arguments, positive, run_command
from musiq_hf.metrics import render
from musiq_hf.upscaling import METHODS, DetectorSettings, train_and_save

COMMAND = "python examples/training/train_upscaling_detector.py"


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--pictures", type=Path, required=True, help="folder of photographs")
    add("--output", type=Path, required=True, help="folder of the checkpoint; its files are replaced")
    add("--minutes", type=float, default=20, help="time for training, without preparation (default: %(default)s)")
    add("--steps", type=positive, help="steps of training, in place of the time")
    add("--methods", nargs="+", default=list(METHODS), help="methods of the copies (default: all)")
    add("--upscaler", nargs="+", default=[], help="checkpoints of learned upscalers, in addition to small ones")
    add("--upscaler_steps", type=positive, default=150, help="steps for each small upscaler (default: %(default)s)")
    add("--num_photographs", type=positive, default=6000, help="photographs to train on (default: %(default)s)")
    add("--num_pictures", type=positive, default=18000, help="pictures made of them (default: %(default)s)")
    add("--num_measured", type=positive, default=32, help="pictures behind each share (default: %(default)s)")
    add("--ablation", type=positive, metavar="STEPS", help="train again so long without parts, and on one method")
    add("--seed", type=int, default=0, help="seed (default: %(default)s)")
    return parser


def main() -> int:
    """Train, measure and print the tables; return 2 for a mistake in the arguments or a picture."""
    parser = make_parser()
    values = vars(parse_arguments(parser))
    command = describe_command(COMMAND, parser, values)

    def run() -> None:
        output, ablation, upscalers = (values.pop(name) for name in ("output", "ablation", "upscaler"))
        settings = DetectorSettings(**values, upscalers=upscalers)
        reports = train_and_save(settings, output, command=command, ablation_steps=ablation)
        for title, report in reports.items():
            print(f"\n{title}\n\n{render(report)}")

    return run_command("train_upscaling_detector", run)


if __name__ == "__main__":
    sys.exit(main())
