# SPDX-License-Identifier: Apache-2.0
"""Training of super-resolution (MSIT) on a folder of photographs, whose small copies are made on the way.

python examples/training/train_msit.py --pictures photos --output upscaler

The network is measured on photographs that were held out, and on those of `--originals`. OUTPUT gets the checkpoint,
metrics.json and a card. `accelerate launch` trains on several devices. A training that was interrupted continues with
`--resume`.
"""

import argparse
import sys
from pathlib import Path

from musiq_hf.common.arguments import CommandParser, describe_command, parse_arguments, positive, run_command
from musiq_hf.evaluation import measure_upscaling_models
from musiq_hf.metrics import render
from musiq_hf.training import SuperResolutionSettings, train_super_resolution

COMMAND = "python examples/training/train_msit.py"


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--pictures", type=Path, required=True, help="folder of photographs")
    add("--output", type=Path, required=True, help="folder of the checkpoint; its files are replaced")
    add("--recipe", default="small", help="small, or edsr_baseline as published (default: %(default)s)")
    add("--minutes", type=float, help="time for training (default: 60 for small)")
    add("--steps", type=positive, help="steps in place of the time (default: 1,050,000 for edsr_baseline)")
    add("--batch_size", type=positive, help="crops of a step and process (default: 12, or 32 for edsr_baseline)")
    add("--rim_from", metavar="CHECKPOINT", help="second stage: freeze and refine the kernels of this checkpoint")
    add("--fold_rim", action="store_true", help="make the refined kernels plain ones at the end")
    add("--shrinking", type=float, help="shrink photographs by this first (default: 2 for small, 1 for edsr_baseline)")
    add("--num_photographs", type=positive, default=5000, help="photographs to train on (default: %(default)s)")
    add("--originals", type=Path, help="folder of pictures to measure on, beside held-out photographs")
    add("--ablation", type=positive, metavar="STEPS", help="train again so long, each time without a part")
    add("--data_description", help="what the photographs are, for the model card")
    add("--seed", type=int, default=0, help="seed (default: %(default)s)")
    add("--resume", action="store_true", help="continue a training that was interrupted")
    return parser


def main() -> int:
    """Train, measure and print the tables; return 2 for a mistake in the arguments or a picture."""
    parser = make_parser()
    values = vars(parse_arguments(parser))
    command = describe_command(COMMAND, parser, {name: value for name, value in values.items() if name != "resume"})

    def run() -> None:
        ablation, output = values.pop("ablation"), values.pop("output")
        reports = train_super_resolution(
            SuperResolutionSettings(**values, output_dir=output),
            command=command,
            measure=measure_upscaling_models,
            ablation_steps=ablation,
        )
        for title, report in reports.items():
            print(f"\n{title}\n\n{render(report)}")

    return run_command("train_msit", run)


if __name__ == "__main__":
    sys.exit(main())
