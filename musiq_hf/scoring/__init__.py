# SPDX-License-Identifier: Apache-2.0
"""Scores of pictures: loading, engine, rows, resumable jobs, signatures and self-tests."""

from .batch_scorer import BatchScorer
from .calibration import CheckpointCalibration, load_calibration, write_calibration
from .engine import PictureScore, score_pictures, score_with_several
from .job import JobResult, RowStream, ScoreJob, Share, count_pictures, run_job, score_rows
from .journal import Totals
from .loading import load_quality, load_with_head
from .pixels import QualityMetric, score_pixels
from .ray import RayScorers
from .reward import QualityReward
from .rows import ScoreRow, ScorerSettings
from .signature import make_signature

__all__ = [
    "BatchScorer",
    "CheckpointCalibration",
    "JobResult",
    "PictureScore",
    "QualityMetric",
    "QualityReward",
    "RayScorers",
    "RowStream",
    "ScoreJob",
    "ScoreRow",
    "ScorerSettings",
    "Share",
    "Totals",
    "count_pictures",
    "load_calibration",
    "load_quality",
    "load_with_head",
    "make_signature",
    "run_job",
    "score_pictures",
    "score_pixels",
    "score_rows",
    "score_with_several",
    "write_calibration",
]
