# SPDX-License-Identifier: Apache-2.0
"""Decisions by scores: which pictures to choose, copy or move, and which to let pass."""

from .selecting import Amount, Conditions, Selection, select_rows
from .tables import ScoreTable, read_scores, write_scores

__all__ = [
    "Amount",
    "Conditions",
    "ScoreTable",
    "Selection",
    "read_scores",
    "select_rows",
    "write_scores",
]
