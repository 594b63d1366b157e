# SPDX-License-Identifier: Apache-2.0
"""Agreement with opinion scores: metrics, intervals, and their reports."""

from .bootstrap import bootstrap_intervals
from .correlation import (
    MEAN_OF_GROUPS,
    METRICS,
    evaluate_module_path,
    fit_logistic,
    grouped_metrics,
    logistic_curve,
    logistic_plcc,
    quality_metrics,
)
from .distributions import distribution_metrics, opinion_scores
from .reports import quality_report, summarize_runs, write_report

__all__ = [
    "MEAN_OF_GROUPS",
    "METRICS",
    "bootstrap_intervals",
    "distribution_metrics",
    "evaluate_module_path",
    "fit_logistic",
    "grouped_metrics",
    "logistic_curve",
    "logistic_plcc",
    "opinion_scores",
    "quality_metrics",
    "quality_report",
    "summarize_runs",
    "write_report",
]
