# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of MUSIQ, or training from scratch, on your own opinion scores.

accelerate launch examples/finetune.py --data scores.csv --image_root photos --output_dir runs/mine
"""

import sys
from typing import Any

from musiq_hf import DEFAULT_CHECKPOINT
from musiq_hf.training import FinetuneSettings, finetune, run_with_settings

EXAMPLE = "accelerate launch examples/finetune.py --data scores.csv --image_root photos --output_dir runs/mine"


def train(settings: FinetuneSettings) -> dict[str, Any]:
    """Train, and return the metrics of each split as JSON holds them."""
    return {split: report.to_json() for split, report in finetune(settings, command="examples/finetune.py").items()}


def main() -> int:
    """Train and print the metrics of the saved checkpoint; return 2 for a mistake in the arguments or the data."""
    return run_with_settings(
        "finetune",
        train,
        FinetuneSettings,
        description=__doc__,
        example=EXAMPLE,
        model=str(DEFAULT_CHECKPOINT),
        output_dir="runs/finetune",
    )


if __name__ == "__main__":
    sys.exit(main())
