# SPDX-License-Identifier: Apache-2.0
"""Decisions by scores: which pictures to choose, copy or move, which to keep of a burst, and which to let pass."""

from .bursts import BurstSettings, add_bursts, find_bursts
from .gating import Gate, Verdict, judge_rows, make_gate
from .page import write_report
from .percentiles import add_percentiles
from .selecting import Amount, Conditions, Selection, select_rows
from .tables import ScoreTable, read_scores, write_scores
from .transferring import Plan, TransferResult, plan_transfers, transfer_files, undo_moves

__all__ = [
    "Amount",
    "BurstSettings",
    "Conditions",
    "Gate",
    "Plan",
    "ScoreTable",
    "Selection",
    "TransferResult",
    "Verdict",
    "add_bursts",
    "add_percentiles",
    "find_bursts",
    "judge_rows",
    "make_gate",
    "plan_transfers",
    "read_scores",
    "select_rows",
    "transfer_files",
    "undo_moves",
    "write_report",
    "write_scores",
]
