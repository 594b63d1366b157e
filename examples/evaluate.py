# SPDX-License-Identifier: Apache-2.0
"""Door of `musiq evaluate`: it measures checkpoints on scored pictures, or repeats training over seeds and splits.

python examples/evaluate.py --data scores.csv --image_root photos --output report.json
python examples/evaluate.py --model musiq-koniq musiq-spaq --data koniq.csv mine.csv --ensemble
accelerate launch examples/evaluate.py --runs 10 --recipe koniq --data koniq10k --output_dir runs/koniq
"""

import sys

from musiq_hf.cli import main as run_musiq


def main() -> int:
    """Run `musiq evaluate` with the words of this command line, and return its exit code."""
    return run_musiq(["evaluate", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
