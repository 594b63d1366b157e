# SPDX-License-Identifier: Apache-2.0
"""Tables of results as Markdown, and reports on disk: JSON for programs, the tables beside it for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..common.markdown import markdown_table
from .correlation import MEAN_OF_GROUPS, METRICS, OVERALL

_SPLIT_TITLES = {
    "selection": "Selection split (it chose the epoch, so the figures are optimistic)",
    "validation": "Validation split",
    "test": "Test split",
}
_COLUMNS = {
    "srcc": "SRCC",
    "plcc": "PLCC",
    "plcc_logistic": "PLCC after a logistic",
    "krcc": "KRCC",
    "rmse": "RMSE (MOS points)",
}


HEADINGS = {
    "srcc": "SRCC",
    "plcc": "PLCC",
    "plcc_logistic": "PLCC, logistic",
    "krcc": "KRCC",
    "rmse": "RMSE",
    "emd": "EMD",
    "accuracy_at_5": "accuracy at 5",
    "mse": "MSE",
}


def render_runs(summary: Mapping[str, Any]) -> str:
    """Markdown of `musiq_hf.metrics.reports.summarize_runs`: one table per split, cells "mean ± std (median)"."""
    parts = []
    for split, tables in summary.items():
        lines = {"all": tables[OVERALL], **tables.get("groups", {})}
        heads = ["pictures", "runs", *(HEADINGS[name] for name in METRICS)]
        rows = [
            [name, str(metrics["srcc"]["num_runs"]), *(_spread(metrics.get(metric)) for metric in METRICS)]
            for name, metrics in lines.items()
        ]
        parts.append(f"**{split}**: mean ± standard deviation (median) over runs.\n\n{markdown_table(heads, rows)}")
    return "\n\n".join(parts) + "\n"


def _spread(values: Mapping[str, Any] | None) -> str:
    if values is None:
        return ""
    spread = "" if values["std"] is None else f" ± {values['std']:.4f}"
    return f"{values['mean']:.4f}{spread} ({values['median']:.4f})"


def _figures_table(report: Mapping[str, Any]) -> str:
    targets, columns = report["targets"], [*report["faults"].values(), report["overall"]]
    lines = {
        "srcc": ("SRCC of strength and score, mean over pictures", "{:.3f}", "<= "),
        "srcc_with_pristine": ("the same with the pristine picture as strength 0", "{:.3f}", ""),
        "pristine_above": ("pristine picture above its degraded copy", "{:.1%}", ">= "),
        "crop_srcc": ("SRCC of whole and centre-cropped (2/3) copies", "{:.3f}", ">= "),
    }
    rows = []
    for key, (title, number, relation) in lines.items():
        target = [relation + number.format(targets[key])] if key in targets else [""]
        met = [{True: "yes", False: "no"}[report["overall"]["met"][key]]] if key in targets else [""]
        rows.append([title, *(number.format(column[key]) for column in columns), *target, *met])
    return markdown_table(["", *(fault["label"] for fault in report["faults"].values()), "all", "target", "met"], rows)


def robustness_markdown(report: Mapping[str, Any]) -> str:
    """Tables of a report, as Markdown.

    Args:
        report: Of `measure_robustness`; under "half_size" it may hold the rows of `measure_half_size`.

    Returns:
        The figures beside their targets, the mean scores by strength, and the sizes if there are any.
    """
    faults = report["faults"].values()
    count = max(len(fault["levels"]) for fault in faults)
    means = [
        [
            f"{fault['label']} ({fault['unit']}: {', '.join(f'{level:g}' for level in fault['levels'])})",
            *(f"{value:.1f}" for value in fault["mean_scores"]),
        ]
        for fault in faults
    ]
    parts = [
        f"Pristine pictures: {report['num_pictures']}; degraded copies of each: "
        f"{sum(len(fault['levels']) for fault in faults)}.",
        _figures_table(report),
        markdown_table(["mean score", "pristine", *(f"strength {rank}" for rank in range(1, count + 1))], means),
    ]
    if "half_size" in report:
        sizes = [
            [row["picture"], f"{row['width']}x{row['height']}", f"{row['full']:.1f}", f"{row['half']:.1f}"]
            for row in report["half_size"]
        ]
        parts.append(markdown_table(["large picture", "full size", "score at full size", "score at half size"], sizes))
    return "\n\n".join(parts) + "\n"


def _with_interval(report: Mapping[str, Any], part: str, metric: str, value: float) -> str:
    interval = report["intervals"].get(part, {}).get(metric)
    return f"{value:.4f}" if interval is None else f"{value:.4f} [{interval[0]:.4f}, {interval[1]:.4f}]"


def render_evaluations(reports: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: all metrics per checkpoint and data set, SRCC across data sets if there are several, then groups.

    Args:
        reports: What `evaluate_checkpoints` returns, at least one.
    """
    metrics = [name for name in HEADINGS if any(name in report[OVERALL] for report in reports)]
    heads = ["checkpoint", "data", "split", "pictures", *(HEADINGS[name] for name in metrics)]
    rows = []
    for report in reports:
        values = report[OVERALL]
        cells = [_with_interval(report, OVERALL, name, values[name]) if name in values else "" for name in metrics]
        rows.append([report["model"], report["data"], report["split"], f"{report['num_pictures']:,}", *cells])
    parts = ["Overall; in brackets 95 % bootstrap intervals over the pictures.", markdown_table(heads, rows)]
    data = list(dict.fromkeys(report["data"] for report in reports))
    if len(data) > 1:
        models = dict.fromkeys(report["model"] for report in reports)
        srcc = {(report["model"], report["data"]): report[OVERALL]["srcc"] for report in reports}
        across = [[model, *(f"{srcc[model, name]:.4f}" for name in data)] for model in models]
        parts += ["SRCC across data sets.", markdown_table(["checkpoint", *data], across)]
    rows = []
    for report in reports:
        for group, values in report.get("groups", {}).items():
            cells = [_with_interval(report, group, name, values[name]) for name in METRICS]
            rows.append([report["model"], report["data"], group, *cells])
    if rows:
        heads = ["checkpoint", "data", "group", *(HEADINGS[name] for name in METRICS)]
        parts += ["Within groups.", markdown_table(heads, rows)]
    signatures = dict.fromkeys(f"- `{own}`" for report in reports for own in report["signatures"])
    return "\n\n".join([*parts, "Made with", "\n".join(signatures)]) + "\n"


def _row(title: str, metrics: Mapping[str, float], columns: Sequence[str]) -> str:
    return f"| {title} | " + " | ".join(f"{metrics[name]:.4f}" for name in columns) + " |"


def _interval_lines(intervals: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    said = []
    for key, title in (("overall", "all"), (MEAN_OF_GROUPS, MEAN_OF_GROUPS)):
        if "srcc" in intervals.get(key, {}):
            low, high = intervals[key]["srcc"]
            said.append(f"{title} {low:.4f} to {high:.4f}")
    return ["", f"95 % bootstrap intervals of the SRCC: {', '.join(said)}."] if said else []


def render_card_metrics(metrics: Mapping[str, Any] | None) -> str:
    """Tables of the metrics, one per split; says so if nothing was measured."""
    if not metrics:
        return "Not measured for these files. The paper reports results of its own in section 4."
    parts = []
    for split, report in sorted(metrics.items(), key=lambda item: "faults" in item[1]):  # scored pictures first
        if "faults" in report:  # of `musiq_hf.evaluation.robustness`
            parts.append(f"**{split}**\n\n{robustness_markdown(report).strip()}")
            continue
        if "summary" in report:  # of `musiq_hf.training.repeated_runs`
            parts.append(f"**{split}**\n\n{render_runs(report['summary']).strip()}")
            continue
        columns = [name for name in _COLUMNS if name in report["overall"]]
        rows = [
            f"**{_SPLIT_TITLES.get(split, split)}**: {report['num_pictures']:,} pictures.",
            "",
            "| pictures | " + " | ".join(_COLUMNS[name] for name in columns) + " |",
            "|---|" + "---|" * len(columns),
            _row("all", report["overall"], columns),
        ]
        groups = report.get("groups", {})
        for group, values in sorted(groups.items(), key=lambda item: (item[0] == MEAN_OF_GROUPS, item[0])):
            rows.append(_row(group if group == MEAN_OF_GROUPS else f"group {group}", values, columns))
        parts.append("\n".join(rows + _interval_lines(report.get("intervals", {}))))
    return "\n\n".join(parts)
