# SPDX-License-Identifier: Apache-2.0
"""Explanations of a score: quality map, attention, curves, frequencies, and a report of them."""

from .curves import (
    AspectRatioScores,
    plot_aspect_ratio_changes,
    plot_aspect_ratios,
    plot_degradations,
    score_aspect_ratios,
)
from .figures import (
    QualityMap,
    escape_formula,
    plot_clusters,
    plot_log_amplitudes,
    plot_quality_map,
    plot_spectra,
)
from .ladders import plot_ladder
from .musiq import cls_attention, plot_attention, plot_hash_similarity, plot_pyramid, quality_map
from .report import make_report
from .scatter import plot_scatter
from .viewers import plot_viewers

__all__ = [
    "AspectRatioScores",
    "QualityMap",
    "cls_attention",
    "escape_formula",
    "make_report",
    "plot_aspect_ratio_changes",
    "plot_aspect_ratios",
    "plot_attention",
    "plot_clusters",
    "plot_degradations",
    "plot_hash_similarity",
    "plot_ladder",
    "plot_log_amplitudes",
    "plot_pyramid",
    "plot_quality_map",
    "plot_scatter",
    "plot_spectra",
    "plot_viewers",
    "quality_map",
    "score_aspect_ratios",
]
