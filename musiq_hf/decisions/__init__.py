# SPDX-License-Identifier: Apache-2.0
"""Decisions by scores: what to choose, copy or move, to keep of a burst, to let pass, and how many stars."""

from typing import TYPE_CHECKING, Any

from .bursts import BurstSettings, add_bursts, find_bursts
from .gating import Gate, Verdict, judge_rows, make_gate
from .page import write_report
from .percentiles import add_percentiles
from .rating import RatedRow
from .selecting import Amount, Conditions, Selection, select_rows
from .sidecars import name_sidecar
from .tables import ScoreTable, read_scores, write_scores
from .transferring import Plan, TransferResult, plan_transfers, transfer_files, undo_moves

if TYPE_CHECKING:
    from .rating_job import RatingSettings

__all__ = [
    "Amount",
    "BurstSettings",
    "Conditions",
    "Gate",
    "Plan",
    "RatedRow",
    "RatingSettings",
    "ScoreTable",
    "Selection",
    "TransferResult",
    "Verdict",
    "add_bursts",
    "add_percentiles",
    "find_bursts",
    "judge_rows",
    "make_gate",
    "name_sidecar",
    "plan_transfers",
    "read_scores",
    "select_rows",
    "transfer_files",
    "undo_moves",
    "write_report",
    "write_scores",
]


def __getattr__(name: str) -> Any:
    """Import the settings of a rating when they are first asked for: tables need neither PyTorch nor a model."""
    if name != "RatingSettings":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .rating_job import RatingSettings

    globals()[name] = RatingSettings
    return RatingSettings
