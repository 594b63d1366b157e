# SPDX-License-Identifier: Apache-2.0
"""Reports of comparisons as tables: for the terminal, and in Markdown."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..common.files import write_text
from ..common.markdown import markdown_table
from ..common.outputs import check_report_path
from ..metrics.correlation import MIN_PICTURES
from .comparison_report import SystemsReport
from .groups import ALL, name_thirds

HEADINGS = {
    "psnr_y": "PSNR of luma (dB)",
    "psnr_rgb": "PSNR of RGB (dB)",
    "ssim_y": "SSIM of luma",
    "ssim_rgb": "SSIM of RGB",
    "vmaf": "VMAF",
    "vmaf_harmonic_mean": "VMAF, harmonic mean",
    "vmaf_min": "VMAF, lowest frame",
    "score": "MUSIQ (MOS points)",
}
MARK = "*"  # beside the best of a group
DESCRIPTORS = {
    "si": "spatial information (mean over frames), after BT.1886 and the perceptual quantizer; not the legacy kind",
    "ti": "temporal information (mean over frames), after BT.1886 and the perceptual quantizer; not the legacy kind",
    "cf": "colourfulness (mean over frames)",
}
INFINITE = "PSNR is infinite where a file equals its reference; the best is that of the files on which no system's is."
UNPROVEN = "How well scores of MUSIQ agree with people on upscaled pictures is not measured for this checkpoint."


def write_systems_report(path: str | Path, report: SystemsReport) -> None:
    """Write a report as JSON and, beside it under the same name, as Markdown.

    Args:
        path: Name of the JSON file; its folder is made if missing.
        report: Report to write.

    Raises:
        ValueError: If the name does not end in .json, or is that of a folder.
    """
    path = check_report_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(report.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    write_text(path.with_suffix(".md"), f"{render_systems(report)}\n")


def count_digits(metric: str) -> int:
    """Return how many decimals of a metric are shown."""
    return 4 if metric.startswith("ssim") else 2


def format_value(metric: str, value: float) -> str:
    """Return a value of a metric with the decimals that are shown."""
    return f"{value:.{count_digits(metric)}f}"


def _list_cells(report: SystemsReport, group: str, system: str) -> Iterator[tuple[str, bool]]:
    """Yield the number and the means of a system within a group, each with whether it is the best of several."""
    own, best = report.groups[group][system], report.best[group]
    yield str(own.num), False
    for metric in report.metrics:
        text = format_value(metric, own.means[metric]) if metric in own.means else "-"
        yield text, best.get(metric) == system and len(report.systems) > 1


def format_lines(report: SystemsReport) -> Iterator[str]:
    """Yield the lines of the tables of a report for a terminal: means, and agreement with opinion scores."""
    rows = [["group", "system", "num ", *(f"{metric} " for metric in report.metrics)]]
    for group in report.groups:
        for system in report.systems:
            cells = _list_cells(report, group, system)
            rows.append([group, system, *(f"{text}{MARK if is_best else ' '}" for text, is_best in cells)])
    yield from _align(rows)
    if len(report.systems) > 1:
        yield f"{MARK} highest mean of the group; higher is better in all columns"
    if _has_infinite(report):
        yield INFINITE
    if report.agreements is not None:
        yield from _format_agreements(report)


def _has_infinite(report: SystemsReport) -> bool:
    """Return whether a mean is infinite."""
    means = (own.means for group in report.groups.values() for own in group.values())
    return any(math.isinf(mean) for own in means for mean in own.values())


def _format_agreements(report: SystemsReport) -> Iterator[str]:
    """Yield the lines about agreement with opinion scores, with the intervals that tell chance from more."""
    rows = list(_list_agreements(report))
    if not rows:
        yield f"agreement with opinion scores: none, a group needs {MIN_PICTURES} files that have one"
        return
    yield "agreement with opinion scores:"
    yield from _align([["group", "metric", "num ", "SRCC ", "PLCC ", "KRCC ", "95 % interval of SRCC"], *rows])


def _align(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table with two columns of names, and numbers to their right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        names, numbers = map(str.ljust, row[:2], widths), map(str.rjust, row[2:], widths[2:])
        yield "  ".join((*names, *numbers)).rstrip()


def _list_agreements(report: SystemsReport) -> Iterator[list[str]]:
    """Yield group, metric, number, correlations and interval of each agreement, the highest SRCC marked."""
    for group, metrics in (report.agreements or {}).items():
        highest = max((own.srcc for own in metrics.values()), default=None)
        for metric, own in metrics.items():
            mark = MARK if own.srcc == highest else " "
            ends = own.srcc_interval
            interval = "-" if ends is None else f"{ends[0]:.4f} to {ends[1]:.4f}"
            numbers = (f"{own.num} ", f"{own.srcc:.4f}{mark}", f"{own.plcc:.4f} ", f"{own.krcc:.4f} ")
            yield [group, metric, *numbers, interval]


def render_systems(report: SystemsReport) -> str:
    """Write a report as Markdown, without a newline at its end."""
    left_out = report.num_keys - report.num_sound
    parts = [
        "# Comparison",
        f"Systems: {', '.join(report.systems)}. Means over {report.num_sound} of {report.num_keys} keys"
        + (f"; {left_out} with an error of a system are left out for all." if left_out else ".")
        + " Higher is better in all columns, and the best of a group is bold.",
    ]
    if _has_infinite(report):
        parts.append(INFINITE)
    for title, groups in report.tables.items():
        parts += ["## All keys" if title == ALL else f"## By {title}", _render_means(report, groups)]
        parts += [
            f"{own.descriptor}: {DESCRIPTORS[own.descriptor]}. Low is up to {own.edges[0]:.4g}, middle up to "
            f"{own.edges[1]:.4g}."
            for own in report.thirds
            if title == name_thirds(own.descriptor)
        ]
    parts += [*_render_pairs(report), *_render_agreements(report)]
    if "score" in report.metrics:
        parts.append(UNPROVEN)
    return "\n\n".join([*parts, f"Made with `{report.signature}`"])


def _render_means(report: SystemsReport, groups: Sequence[str]) -> str:
    heads = ["group", "system", "keys", *(HEADINGS[metric] for metric in report.metrics)]
    rows = [
        [group, system, *(f"**{text}**" if is_best else text for text, is_best in _list_cells(report, group, system))]
        for group in groups
        for system in report.systems
    ]
    return markdown_table(heads, rows)


def _render_pairs(report: SystemsReport) -> list[str]:
    """Write a row for each difference of two systems."""
    rows = []
    for pair in report.pairs:
        own = pair.difference
        low, mean, high = (format_value(pair.metric, value) for value in (own.low, own.mean, own.high))
        counts = f"{own.wins} / {own.ties} / {own.losses}"
        names = [pair.group, pair.first, pair.second, HEADINGS[pair.metric]]
        rows.append([*names, mean, f"{low} to {high}", f"{own.p_value:.4f}", counts])
    if not rows:
        return []
    heads = ["group", "first", "second", "metric", "second minus first", "95 % interval", "p", "wins / ties / losses"]
    text = (
        "Differences on the same keys: percentile bootstrap over keys, two-sided p of changing signs. Keys with an "
        "infinite PSNR are left out, and so are pairs of fewer than 3 keys. One of twenty differences by chance has "
        "p below 0.05; with fewer than 6 keys p cannot fall below that, whatever the difference."
    )
    return ["## Differences", text, markdown_table(heads, rows)]


def _render_agreements(report: SystemsReport) -> list[str]:
    """Write a row for the agreement of each metric with the opinion scores, the highest SRCC of a group bold."""
    if report.agreements is None:
        return []
    rows = []
    for group, metric, *cells in _list_agreements(report):
        rows.append([group, HEADINGS[metric], *map(_embolden, cells)])
    heads = ["group", "metric", "files", "SRCC", "PLCC", "KRCC", "95 % interval of SRCC"]
    text = "Agreement of each metric with the opinion scores, over the files of all systems together."
    return ["## Agreement with opinion scores", text, markdown_table(heads, rows)]


def _embolden(cell: str) -> str:
    text = cell.strip().removesuffix(MARK)
    return f"**{text}**" if cell.endswith(MARK) else text
