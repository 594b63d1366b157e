# SPDX-License-Identifier: Apache-2.0
"""Fine-tune MUSIQ, or train it from scratch, on your own opinion scores.

accelerate launch examples/finetune.py --data scores.csv --image_root photos --output_dir runs/mine
"""

import argparse
import json
import sys

from accelerate import PartialState

from musiq_hf import DEFAULT_CHECKPOINT
from musiq_hf.arguments import parse_arguments
from musiq_hf.training import FinetuneSettings, finetune

EXAMPLE = "accelerate launch examples/finetune.py --data scores.csv --image_root photos --output_dir runs/mine"


def build_parser() -> argparse.ArgumentParser:
    """Arguments, named as the fields of `FinetuneSettings`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", help="CSV with columns image,mos[,split][,group], an imagefolder, or a data set id on the Hub")
    add("--image_root", help="directory that the paths of the CSV start from (default: the CSV's own)")
    add(
        "--model",
        default=str(DEFAULT_CHECKPOINT),
        help="checkpoint, or a directory with only a config.json to start fresh",
    )
    add("--output_dir", default="runs/finetune", help="where everything is written (default: %(default)s)")
    add("--epochs", type=float, default=FinetuneSettings.epochs, help="default: %(default)s")
    add(
        "--batch_size",
        type=int,
        default=FinetuneSettings.batch_size,
        help="pictures per step and device (%(default)s)",
    )
    add("--eval_batch_size", type=int, default=FinetuneSettings.eval_batch_size, help="likewise (%(default)s)")
    add("--learning_rate", type=float, default=FinetuneSettings.learning_rate, help="peak of the cosine (%(default)s)")
    add("--weight_decay", type=float, default=FinetuneSettings.weight_decay, help="default: %(default)s")
    add("--warmup_fraction", type=float, default=FinetuneSettings.warmup_fraction, help="default: %(default)s")
    add(
        "--native_patches",
        type=int,
        default=FinetuneSettings.native_patches,
        help="at most so many random native patches per picture and step (%(default)s)",
    )
    add("--degrade_fraction", type=float, default=0.0, help="part of the pictures blurred or made noisy (%(default)s)")
    add("--holdout_fraction", type=float, help="part of train that chooses the best epoch in place of validation")
    add("--score_range", type=float, nargs=2, metavar=("LOWEST", "HIGHEST"), help="noted in the configuration")
    add(
        "--save_dtype", choices=("float32", "float16"), default=FinetuneSettings.save_dtype, help="of the weights file"
    )
    add("--seed", type=int, default=FinetuneSettings.seed, help="default: %(default)s")
    add("--num_workers", type=int, default=FinetuneSettings.num_workers, help="decoding processes (%(default)s)")
    add("--data_description", help="what pictures and scores are, in sentences, for the model card")
    add("--resume", action="store_true", help="continue from the last checkpoint in --output_dir")
    return parser


def main() -> int:
    """Parse, train, print the metrics of the saved checkpoint; 2 for a mistake in the arguments or the data."""
    arguments = parse_arguments(build_parser())
    if arguments.data is None:
        print(f"--data is needed: pictures with opinion scores. Example: {EXAMPLE}", file=sys.stderr)
        return 2
    try:
        report = finetune(FinetuneSettings(**vars(arguments)))
    except (ValueError, ImportError, OSError) as error:
        print(f"finetune: {error}", file=sys.stderr)
        return 2
    if PartialState().is_main_process:
        print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
