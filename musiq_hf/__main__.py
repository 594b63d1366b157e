# SPDX-License-Identifier: Apache-2.0
"""Entry of `python -m musiq_hf`, which is the `musiq` command."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
