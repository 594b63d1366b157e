# SPDX-License-Identifier: Apache-2.0
"""Files of reports: metrics.json beside a checkpoint, and a report as JSON for programs with its tables for people."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..common.files import read_json, write_json, write_text
from ..common.outputs import check_report_path
from .rendering import render
from .reports import ComparisonReport, Report, read_report

METRICS_FILE = "metrics.json"


@dataclass(frozen=True, kw_only=True)
class StoredMetrics:
    """Content of metrics.json.

    Attributes:
        reports: {name: report}, in the order of the file.
        numbers: {name: number} that pre-training wrote; no card shows them.
    """

    reports: Mapping[str, Report] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)


def read_metrics(directory: str | Path) -> StoredMetrics:
    """Read metrics.json of a checkpoint; the result is empty if there is no such file.

    Raises:
        ValueError: If an entry is neither a report nor a number; the message names the file and the key.
    """
    path = Path(directory) / METRICS_FILE
    reports: dict[str, Report] = {}
    numbers: dict[str, float] = {}
    for name, entry in (read_json(path) if path.is_file() else {}).items():
        if isinstance(entry, Mapping):
            reports[name] = read_report(entry, name=f"{path}, {name}")
        elif isinstance(entry, int | float):
            numbers[name] = entry
        else:
            raise ValueError(f"{path}, {name}: a report or a number was expected, got {entry!r}. Correct the file.")
    return StoredMetrics(reports=reports, numbers=numbers)


def write_metrics(directory: str | Path, metrics: StoredMetrics) -> None:
    """Write metrics.json of a checkpoint."""
    reports = {name: report.to_json() for name, report in metrics.reports.items()}
    write_json(Path(directory) / METRICS_FILE, reports | dict(metrics.numbers))


def write_report(path: str | Path, report: Report | ComparisonReport) -> None:
    """Write a report as JSON and, beside it under the same name, as Markdown.

    Args:
        path: Name of the JSON file; its folder is made if missing.
        report: Report to write.

    Raises:
        ValueError: If the name does not end in .json, or is that of a folder.
    """
    path = check_report_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, report.to_json())
    write_text(path.with_suffix(".md"), f"{render(report)}\n")
