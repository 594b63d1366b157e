# SPDX-License-Identifier: Apache-2.0
"""Reports of measurements, and their files."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.files import write_json, write_text
from .bootstrap import bootstrap_intervals
from .correlation import MEAN_OF_GROUPS, OVERALL, Values, grouped_metrics, quality_metrics

SUMMARY = "summary"  # of repeated runs, in metrics.json


@dataclass(frozen=True, kw_only=True)
class PictureScores:
    """Scores of one picture and of its degraded copies.

    Attributes:
        picture: File name.
        pristine: Score of the picture as it is.
        whole: {fault: scores of the degraded copies}, weakest first.
        cropped: Likewise of the middle of the same copies.
    """

    picture: str
    pristine: float
    whole: dict[str, list[float]]
    cropped: dict[str, list[float]]


def quality_report(
    predictions: Values, targets: Values, *, groups: Sequence[str] | None = None, num_resamples: int = 1000
) -> dict[str, Any]:
    """Everything on one set of pictures, in the form that model cards and metrics.json hold.

    Args:
        predictions: Predicted scores, shape (num_pictures,), at least 3, finite.
        targets: Opinion scores, alike.
        groups: Name of each picture's group, if there are groups.
        num_resamples: Of the bootstrap.

    Returns:
        "num_pictures", "overall" (`quality_metrics`), "groups" (`grouped_metrics`; only if given) and "intervals"
        (`bootstrap_intervals` of 95 %).

    Raises:
        ValueError: As `quality_metrics` and `grouped_metrics`.
    """
    report: dict[str, Any] = {"num_pictures": len(predictions), OVERALL: quality_metrics(predictions, targets)}
    if groups is not None:
        report["groups"] = grouped_metrics(predictions, targets, groups)
    report["intervals"] = bootstrap_intervals(predictions, targets, groups=groups, num_resamples=num_resamples)
    return report


def check_report_path(path: str | Path) -> Path:
    """The path of a report, or a ValueError if it does not end in .json; for commands, before hours of work."""
    if Path(path).suffix != ".json":
        raise ValueError(
            f"The report is a .json file (a .md file is written beside it), got {path}. Change the end of the name."
        )
    return Path(path)


def write_report(path: str | Path, content: dict[str, Any], markdown: str) -> None:
    """Write a report as JSON and, beside it under the same name, as Markdown.

    Args:
        path: Ends in .json; its folder is made if missing.
        content: What the JSON holds.
        markdown: The tables.

    Raises:
        ValueError: If the name does not end in .json.
    """
    path = check_report_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)
    write_text(path.with_suffix(".md"), markdown)


def _statistics(values: Sequence[float]) -> dict[str, Any]:
    return {
        "num_runs": len(values),
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
    }


def _summarize(measured: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    names = dict.fromkeys(name for metrics in measured for name in metrics)
    return {name: _statistics([metrics[name] for metrics in measured if name in metrics]) for name in names}


def summarize_runs(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean, standard deviation and median of every metric over runs, also within groups.

    Args:
        reports: What `musiq_hf.training.finetuning.finetune` returned for each run, at least one.

    Returns:
        {split: {"overall": {metric: statistics}, "groups": {group: {metric: statistics}}}}, where statistics are
        "num_runs" (that have this split and group), "mean" and "std" (with num_runs - 1; None for one run), which
        MUSIQ reports, "median", which LoDa reports, "min" and "max".

    Raises:
        ValueError: If there is no report.
    """
    if not reports:
        raise ValueError("At least one finished run is needed for a summary, got none.")
    summary: dict[str, Any] = {}
    for split in dict.fromkeys(split for report in reports for split in report):
        own = [report[split] for report in reports if split in report]
        summary[split] = {OVERALL: _summarize([report[OVERALL] for report in own])}
        groups = sorted({group for report in own for group in report.get("groups", {})} - {MEAN_OF_GROUPS})
        if groups:
            tables = {
                group: _summarize([report["groups"][group] for report in own if group in report.get("groups", {})])
                for group in (*groups, MEAN_OF_GROUPS)
            }
            summary[split]["groups"] = tables
    return summary
