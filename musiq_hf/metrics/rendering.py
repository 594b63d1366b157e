# SPDX-License-Identifier: Apache-2.0
"""Reports as Markdown: one rendering for the terminal, the files beside a report, and model cards."""

from collections.abc import Mapping, Sequence

from ..common.markdown import escape_cell, markdown_table
from .accuracy import AccuracyReport
from .bootstrap import MIN_FOR_INTERVALS
from .correlation import MEAN_OF_GROUPS, METRICS, OVERALL
from .fidelity import FidelityReport
from .reports import (
    ComparisonReport,
    CopyChanges,
    FaultSummary,
    HalfSizeScores,
    Interval,
    Metrics,
    OddScore,
    QualityReport,
    Report,
    RobustnessReport,
    RunsReport,
    RunStatistics,
    SpeedReport,
    SplitSummary,
    SrccDifference,
)

# Heads of the columns by metric, in the order of the columns.
HEADINGS = {
    "srcc": "SRCC",
    "plcc": "PLCC",
    "plcc_logistic": "PLCC after a logistic",
    "krcc": "KRCC",
    "rmse": "RMSE (MOS points)",
    "emd": "EMD",
    "accuracy_at_5": "accuracy at 5",
    "mse": "MSE",
}
NO_INTERVALS = f"Fewer than {MIN_FOR_INTERVALS} pictures are too few for intervals."
_SPLIT_TITLES = {
    "selection": "Selection split (it chose the epoch, so the figures are optimistic)",
    "validation": "Validation split",
    "test": "Test split",
}


_LAST = (RobustnessReport, SpeedReport)  # in cards, after the reports on scored pictures


def render(report: Report | ComparisonReport) -> str:
    """Write a report as Markdown, without a newline at its end."""
    match report:
        case QualityReport():
            return _render_quality(report)
        case RobustnessReport():
            return _render_robustness(report)
        case RunsReport():
            return "\n\n".join(_render_split(name, split) for name, split in report.summary.items())
        case SpeedReport():
            return _render_speed(report)
        case AccuracyReport():
            return _render_accuracy(report)
        case FidelityReport():
            return _render_fidelity(report)
        case ComparisonReport():
            return _render_comparison(report.results, report.differences or ())


def render_evaluation(reports: Mapping[str, Report] | None) -> str:
    """Write the section "Evaluation" of a card: every report below its name.

    The splits of training come first, then other reports on scored pictures.
    """
    if not reports:
        return "Not measured for these files. The paper reports results of its own in section 4."
    parts = []
    for name, report in sorted(
        reports.items(), key=lambda item: (isinstance(item[1], _LAST), item[0] not in _SPLIT_TITLES)
    ):
        is_split = isinstance(report, QualityReport)
        title = f"**{_SPLIT_TITLES.get(name, name)}**: " if is_split else f"**{name}**\n\n"
        parts.append(title + render(report))
    return "\n\n".join(parts)


def _render_quality(report: QualityReport) -> str:
    """Write a table with a row for all pictures, each group and their mean, and the intervals below it."""
    groups = sorted((report.groups or {}).items(), key=lambda item: (item[0] == MEAN_OF_GROUPS, item[0]))
    columns = [name for name in METRICS if getattr(report.overall, name) is not None]
    lines = [
        f"{report.num_pictures:,} pictures.",
        "",
        f"| pictures | {' | '.join(HEADINGS[name] for name in columns)} |",
        f"|---|{'---|' * len(columns)}",
        f"| all | {' | '.join(_write_numbers(report.overall, columns))} |",
    ]
    for group, metrics in groups:
        title = group if group == MEAN_OF_GROUPS else f"group {group}"
        lines.append(f"| {escape_cell(title)} | {' | '.join(_write_numbers(metrics, columns))} |")
    intervals = [(title, _find_interval(report, part, "srcc")) for part, title in _WITH_INTERVALS.items()]
    said = [f"{title} {ends[0]:.4f} to {ends[1]:.4f}" for title, ends in intervals if ends is not None]
    if said:
        lines += ["", f"95 % bootstrap intervals of the SRCC: {', '.join(said)}."]
    elif report.num_pictures < MIN_FOR_INTERVALS:
        lines += ["", NO_INTERVALS]
    return "\n".join(lines)


_WITH_INTERVALS = {OVERALL: "all", MEAN_OF_GROUPS: MEAN_OF_GROUPS}


def _write_numbers(metrics: Metrics, columns: Sequence[str]) -> list[str]:
    """Write the metrics of a row; one that was not measured is an empty cell."""
    values = [getattr(metrics, name) for name in columns]
    return ["" if value is None else f"{value:.4f}" for value in values]


def _find_interval(report: QualityReport, part: str, metric: str) -> Interval | None:
    intervals = (report.intervals or {}).get(part)
    return getattr(intervals, metric, None)


def _write_with_intervals(report: QualityReport, part: str, metrics: Metrics, columns: Sequence[str]) -> list[str]:
    """Write the metrics of a row, each with its interval if it has one."""
    cells = []
    for name, number in zip(columns, _write_numbers(metrics, columns), strict=True):
        ends = _find_interval(report, part, name)
        cells.append(number if ends is None else f"{number} [{ends[0]:.4f}, {ends[1]:.4f}]")
    return cells


def _render_comparison(reports: Sequence[QualityReport], differences: Sequence[SrccDifference]) -> str:
    """Write a row for each report, then differences, SRCC across data sets if there are several, and the groups."""
    columns = [name for name in HEADINGS if any(getattr(report.overall, name) is not None for report in reports)]
    heads = ["checkpoint", "data", "split", "pictures", *(HEADINGS[name] for name in columns)]
    rows = [
        [*_name_origin(report), report.split or "", f"{report.num_pictures:,}"]
        + _write_with_intervals(report, OVERALL, report.overall, columns)
        for report in reports
    ]
    few = f" {NO_INTERVALS}" if any(report.num_pictures < MIN_FOR_INTERVALS for report in reports) else ""
    parts = [f"Overall; in brackets 95 % bootstrap intervals over the pictures.{few}", markdown_table(heads, rows)]
    parts += _render_differences(differences)
    parts += [*_render_across_data_sets(reports), *_render_within_groups(reports)]
    signatures = dict.fromkeys(f"- `{own}`" for report in reports for own in report.signatures or ())
    return "\n\n".join([*parts, "Made with", "\n".join(signatures)])


def _name_origin(report: QualityReport) -> tuple[str, str]:
    return report.model or "", report.data or ""


def _render_differences(differences: Sequence[SrccDifference]) -> list[str]:
    rows = [
        [
            *(one.first, one.second, one.data, one.split),
            f"{one.difference:+.4f} [{one.interval[0]:+.4f}, {one.interval[1]:+.4f}]",
        ]
        for one in differences
    ]
    heads = ["first", "second", "data", "split", "SRCC, second minus first"]
    text = "Differences on the same pictures; in brackets 95 % intervals of the paired bootstrap."
    return [f"{text} One that holds 0 may be chance.", markdown_table(heads, rows)] if rows else []


def _render_across_data_sets(reports: Sequence[QualityReport]) -> list[str]:
    srcc = {_name_origin(report): report.overall.srcc for report in reports}
    models, data = (list(dict.fromkeys(names)) for names in zip(*srcc, strict=True))
    if len(data) < 2:
        return []
    rows = [[model, *(f"{srcc[model, name]:.4f}" for name in data)] for model in models]
    return ["SRCC across data sets.", markdown_table(["checkpoint", *data], rows)]


def _render_within_groups(reports: Sequence[QualityReport]) -> list[str]:
    rows = [
        [*_name_origin(report), group, *_write_with_intervals(report, group, metrics, METRICS)]
        for report in reports
        for group, metrics in (report.groups or {}).items()
    ]
    heads = ["checkpoint", "data", "group", *(HEADINGS[name] for name in METRICS)]
    return ["Within groups.", markdown_table(heads, rows)] if rows else []


def _render_split(name: str, split: SplitSummary) -> str:
    """Write the table of one split of repeated runs, with cells "mean ± standard deviation (median)"."""
    heads = ["pictures", "runs", *(HEADINGS[metric] for metric in METRICS)]
    rows = [
        [title, str(metrics["srcc"].num_runs), *(_write_spread(metrics.get(metric)) for metric in METRICS)]
        for title, metrics in {"all": split.overall, **(split.groups or {})}.items()
    ]
    return f"**{name}**: mean ± standard deviation (median) over runs.\n\n{markdown_table(heads, rows)}"


def _write_spread(values: RunStatistics | None) -> str:
    if values is None:
        return ""
    spread = "" if values.std is None else f" ± {values.std:.4f}"
    return f"{values.mean:.4f}{spread} ({values.median:.4f})"


def _render_robustness(report: RobustnessReport) -> str:
    """Write the figures beside their targets, the mean scores by strength, and the two sizes if there are any."""
    faults = report.faults.values()
    count = max(len(fault.levels) for fault in faults)
    means = [
        [
            f"{fault.label} ({fault.unit}: {', '.join(f'{level:g}' for level in fault.levels)})",
            *(f"{value:.1f}" for value in fault.mean_scores),
        ]
        for fault in faults
    ]
    parts = [
        f"Pristine pictures: {report.num_pictures}; degraded copies of each: "
        f"{sum(len(fault.levels) for fault in faults)}.",
        _render_figures(report),
        markdown_table(["mean score", "pristine", *(f"strength {rank}" for rank in range(1, count + 1))], means),
    ]
    parts += [_render_sizes(report.half_size)] if report.half_size else []
    parts += [_render_changes(list(report.common_sense.values()))] if report.common_sense else []
    parts += [_render_odd(list(report.odd.values()), report.num_pictures)] if report.odd else []
    return "\n\n".join(parts)


def _render_figures(report: RobustnessReport) -> str:
    columns: list[FaultSummary] = [*report.faults.values(), report.overall]
    lines = {
        "srcc": ("SRCC of strength and score, mean over pictures", "{:.3f}", "<= "),
        "srcc_with_pristine": ("the same with the pristine picture as strength 0", "{:.3f}", ""),
        "pristine_above": ("pristine picture above its degraded copy", "{:.1%}", ">= "),
        "crop_srcc": ("SRCC of whole and centre-cropped (2/3) copies", "{:.3f}", ">= "),
    }
    targets, met = report.targets.to_json(), report.overall.met.to_json()
    rows = []
    for key, (title, number, relation) in lines.items():
        asked = [f"{relation}{number.format(targets[key])}"] if key in targets else []
        asked += [f"each {relation}{number.format(targets[f'{key}_each'])}"] if f"{key}_each" in targets else []
        cells = [number.format(getattr(column, key)) for column in columns]
        rows.append([title, *cells, ", ".join(asked), _ANSWERS[met.get(key)]])
    return markdown_table(["", *(fault.label for fault in report.faults.values()), "all", "target", "met"], rows)


def _render_changes(rows: Sequence[CopyChanges]) -> str:
    """Write a row for each copy, those with a target first; files do not keep the order of a report."""
    heads = ["copy", "scored higher, of", "mean change", "median size of a change", "largest", "target", "met"]
    cells = [
        [
            row.label,
            f"{row.num_higher} of {row.num_pictures}",
            f"{row.mean_change:+.1f}",
            f"{row.median_size:.1f}",
            f"{row.largest_size:.1f}",
            row.target or "",
            _ANSWERS[row.is_met],
        ]
        for row in sorted(rows, key=lambda row: (row.target is None, row.label.lower()))
    ]
    return markdown_table(heads, cells)


def _render_odd(rows: Sequence[OddScore], num_pictures: int) -> str:
    """Write a row for each picture that is no photograph, the lowest score first."""
    heads = ["no photograph", "score", "pristine pictures at or below it, of", "target", "met"]
    cells = [
        [
            row.label,
            f"{row.score:.1f}",
            f"{row.num_below} of {num_pictures}",
            "" if row.is_met is None else "0",
            _ANSWERS[row.is_met],
        ]
        for row in sorted(rows, key=lambda row: (row.score, row.label))
    ]
    return markdown_table(heads, cells)


_ANSWERS = {True: "yes", False: "no", None: ""}


def _render_speed(report: SpeedReport) -> str:
    return (
        f"{report.pictures_per_second:.1f} pictures a second: JPEG files of {report.width}x{report.height} pixels, "
        f"{report.processor}, threads: {report.num_threads}. Median of {report.num_repeats} times "
        f"{report.num_pictures} files, without the start of the program."
    )


def _render_accuracy(report: AccuracyReport) -> str:
    rows = [[row.name, *(f"{share:.2f}" for share in row.shares)] for row in report.accuracy]
    return f"{report.pictures_per_share} pictures a share.\n\n{markdown_table(['', *report.columns], rows)}"


def _render_fidelity(report: FidelityReport) -> str:
    """Write a row for each method, and one for its gain over the first method, with a column for each scale."""
    scales = list(dict.fromkeys(row.scale for row in report.fidelity))
    methods = list(dict.fromkeys(row.method for row in report.fidelity))
    found = {(row.method, row.scale): row for row in report.fidelity}
    cells = []
    for method in methods:
        rows = [found[method, scale] for scale in scales]
        cells.append([method, *(f"{row.psnr:.2f}, {row.ssim:.4f}" for row in rows)])
        if method != methods[0]:
            cells.append([f"{method}: gain", *(f"{row.gain:+.2f} ({row.smallest_gain:+.2f})" for row in rows)])
    return (
        f"{report.num_pictures} originals, shrunk by the scale and enlarged again: PSNR in dB and SSIM of luma, "
        f"without a border as wide as the scale. Gains are of PSNR over {methods[0]}, in brackets that of the worst "
        "picture.\n\n"
        f"{markdown_table(['', *(f'x{scale:g}' for scale in scales)], cells)}"
    )


def _render_sizes(sizes: Sequence[HalfSizeScores]) -> str:
    rows = [[row.picture, f"{row.width}x{row.height}", f"{row.full:.1f}", f"{row.half:.1f}"] for row in sizes]
    return markdown_table(["large picture", "full size", "score at full size", "score at half size"], rows)
