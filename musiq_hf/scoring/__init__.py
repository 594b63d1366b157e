# SPDX-License-Identifier: Apache-2.0
"""Scores of pictures: loading, engine, rows, resumable jobs, signatures and self-tests."""

from .engine import PictureScore, score_pictures, score_with_several
from .pixels import QualityMetric, score_pixels
from .signature import make_signature

__all__ = [
    "PictureScore",
    "QualityMetric",
    "make_signature",
    "score_pictures",
    "score_pixels",
    "score_with_several",
]
