# SPDX-License-Identifier: Apache-2.0
"""Where things are, from any test."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
