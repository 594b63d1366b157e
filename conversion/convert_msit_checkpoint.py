# SPDX-License-Identifier: Apache-2.0
"""Script that runs the converter: `python -m conversion.convert_msit_checkpoint --help`."""

import sys

from musiq_hf.conversion.command import main

if __name__ == "__main__":
    sys.exit(main(door="convert_msit_checkpoint"))
