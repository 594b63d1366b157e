# SPDX-License-Identifier: Apache-2.0
"""Subjective tests: session plans, votes, screening of viewers, opinion scores, subject models, paired comparisons."""

from .opinions import OpinionRow, OpinionSettings, OpinionTable, ViewerRow, summarize_opinions
from .pairs import Pairs, PairScale, read_pairs, scale_pairs
from .planner import Cell, Presentation, cell_seconds, plan_sessions, viewing_distance
from .rendering import Clips, read_clips, render_sessions
from .screening import Screening, screen_by_correlation, screen_by_kurtosis
from .sheets import describe_plan, read_cells, read_plan, read_sheets, votes_from_sheets, write_plan
from .subject_models import SubjectModel, fit_subject_model
from .votes import (
    MeanOpinionScores,
    Votes,
    differential_votes,
    keep_subjects,
    mean_opinion_scores,
    read_votes,
    remove_bias,
)

__all__ = [
    "Cell",
    "Clips",
    "MeanOpinionScores",
    "OpinionRow",
    "OpinionSettings",
    "OpinionTable",
    "PairScale",
    "Pairs",
    "Presentation",
    "Screening",
    "SubjectModel",
    "ViewerRow",
    "Votes",
    "cell_seconds",
    "describe_plan",
    "differential_votes",
    "fit_subject_model",
    "keep_subjects",
    "mean_opinion_scores",
    "plan_sessions",
    "read_cells",
    "read_clips",
    "read_pairs",
    "read_plan",
    "read_sheets",
    "read_votes",
    "remove_bias",
    "render_sessions",
    "scale_pairs",
    "screen_by_correlation",
    "screen_by_kurtosis",
    "summarize_opinions",
    "viewing_distance",
    "votes_from_sheets",
    "write_plan",
]
