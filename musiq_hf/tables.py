# SPDX-License-Identifier: Apache-2.0
"""Tables of results as Markdown, and reports on disk: JSON for programs, the tables beside it for people."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .metrics import METRICS, OVERALL
from .publishing import write_json, write_text

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


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, without a newline at its end."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def render_runs(summary: Mapping[str, Any]) -> str:
    """Markdown of `musiq_hf.repeated_runs.summarize_runs`: one table per split, cells "mean ± std (median)"."""
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
