# SPDX-License-Identifier: Apache-2.0
"""Decisions by scores: which pictures to choose, copy or move, and which to let pass."""

from .selecting import Amount, Conditions, Selection, select_rows
from .tables import ScoreTable, read_scores, write_scores
from .transferring import Plan, TransferResult, plan_transfers, transfer_files, undo_moves

__all__ = [
    "Amount",
    "Conditions",
    "Plan",
    "ScoreTable",
    "Selection",
    "TransferResult",
    "plan_transfers",
    "read_scores",
    "select_rows",
    "transfer_files",
    "undo_moves",
    "write_scores",
]
