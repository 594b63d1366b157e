# SPDX-License-Identifier: Apache-2.0
"""Pre-training on pictures without scores: a model predicts made faults and ranks pairs by their strength.

accelerate launch examples/pretrain_quality.py --data photos --output_dir runs/pretrained

With `--objective whitening` it learns equal embeddings for views of a picture instead, and no scores.
accelerate launch examples/pretrain_quality.py --recipe wmse_pretrain --data photos --output_dir runs/pretrained
"""

import sys

from musiq_hf.training import PretrainSettings, pretrain_quality, run_with_settings

EXAMPLE = "accelerate launch examples/pretrain_quality.py --data photos --output_dir runs/pretrained"


def main() -> int:
    """Train and print the held-out metrics; return 2 for a mistake in the arguments or the data."""
    return run_with_settings(
        "pretrain_quality",
        pretrain_quality,
        PretrainSettings,
        description=__doc__,
        example=EXAMPLE,
        model="scratch:musiq-tiny",
        output_dir="runs/pretrained",
    )


if __name__ == "__main__":
    sys.exit(main())
