# SPDX-License-Identifier: Apache-2.0
"""Agreement with opinion scores: metrics, intervals, their reports, and the tables of these."""

from ..common.outputs import check_report_path
from .bootstrap import bootstrap_differences, bootstrap_intervals
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
from .rendering import render
from .report_files import StoredMetrics, read_metrics, write_metrics, write_report
from .reports import (
    ComparisonReport,
    QualityReport,
    Report,
    RobustnessReport,
    RunsReport,
    SpeedReport,
    quality_report,
    read_report,
    summarize_runs,
)

__all__ = [
    "MEAN_OF_GROUPS",
    "METRICS",
    "ComparisonReport",
    "QualityReport",
    "Report",
    "RobustnessReport",
    "RunsReport",
    "SpeedReport",
    "StoredMetrics",
    "bootstrap_differences",
    "bootstrap_intervals",
    "check_report_path",
    "distribution_metrics",
    "evaluate_module_path",
    "fit_logistic",
    "grouped_metrics",
    "logistic_curve",
    "logistic_plcc",
    "opinion_scores",
    "quality_metrics",
    "quality_report",
    "read_metrics",
    "read_report",
    "render",
    "summarize_runs",
    "write_metrics",
    "write_report",
]
