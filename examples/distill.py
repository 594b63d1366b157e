# SPDX-License-Identifier: Apache-2.0
"""Distillation: a model learns the scores of another one, its teacher, on many views of the pictures.

accelerate launch examples/distill.py --model scratch:musiq-tiny --teacher runs/large --data scores.csv
"""

import sys
from typing import Any

from musiq_hf.training import DistillSettings, distill, run_with_settings

EXAMPLE = "accelerate launch examples/distill.py --model scratch:musiq-tiny --teacher runs/large --data scores.csv"


def train(settings: DistillSettings) -> dict[str, Any]:
    """Train, and return the metrics of each split as JSON holds them."""
    return {split: report.to_json() for split, report in distill(settings, command="examples/distill.py").items()}


def main() -> int:
    """Train and print the metrics of the saved student; return 2 for a mistake in the arguments or the data."""
    return run_with_settings(
        "distill",
        train,
        DistillSettings,
        description=__doc__,
        example=EXAMPLE,
        output_dir="runs/distilled",
    )


if __name__ == "__main__":
    sys.exit(main())
