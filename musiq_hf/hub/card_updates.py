# SPDX-License-Identifier: Apache-2.0
"""Addition of reports to the model card and metrics.json of a checkpoint that exists."""

import re
from dataclasses import replace
from pathlib import Path

from transformers import AutoConfig

from ..common.files import write_text
from ..metrics.report_files import read_metrics, write_metrics
from ..metrics.reports import QualityReport, Report
from .model_card import CheckpointCard

_UNKNOWN = "Not noted with these files."


def check_card_directory(directory: str | Path) -> Path:
    """Return the directory of a checkpoint, or raise a ValueError if its card or metrics.json cannot be updated.

    Commands call this before they measure anything.
    """
    if not (Path(directory) / "config.json").is_file():
        raise ValueError(
            f"The card of {directory} cannot be updated: that needs a local directory with a config.json. "
            "Download the checkpoint first."
        )
    read_metrics(directory)  # says what is wrong with it
    return Path(directory)


def update_card(directory: str | Path, report: Report, *, title: str | None = None) -> None:
    """Add a report to metrics.json and to the "Evaluation" section of the model card; the rest of both stays.

    Args:
        directory: Folder of the checkpoint. Without a README.md a whole card is written.
        report: Report of `evaluate_checkpoints`, `measure_robustness` or `repeat_runs`; the latter two need a title.
        title: Name of the entry; one of the same name is replaced. None = "<data>, <split>", which never replaces the
            entry "validation" that training writes about its own split.

    Raises:
        ValueError: If the directory holds no checkpoint, its metrics.json is damaged, or a title is missing.
    """
    directory = check_card_directory(directory)
    readme, stored = directory / "README.md", read_metrics(directory)
    metrics = replace(stored, reports={**stored.reports, title or _make_title(report): report.for_card()})
    text = CheckpointCard(
        name=directory.name,
        config=AutoConfig.from_pretrained(directory, trust_remote_code=False),
        source=_UNKNOWN,
        training_data=_UNKNOWN,
        recipe=_UNKNOWN,
        metrics=metrics.reports,
    ).render()
    if readme.is_file():
        text = _replace_evaluation(readme.read_text(encoding="utf-8"), text)
    write_text(readme, text)
    write_metrics(directory, metrics)


def _make_title(report: Report) -> str:
    if isinstance(report, QualityReport) and report.data is not None:
        return f"{report.data}, {report.split}"
    raise ValueError("The report does not say what it was measured on. Give a `title` for the card.")


def _replace_evaluation(old: str, new: str) -> str:
    """Return the old card with the new one's "Evaluation" section, at the end if it had none."""
    section = re.compile(r"^## Evaluation\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    found = section.search(new)
    assert found is not None  # the template has one
    if section.search(old) is None:
        return f"{old.rstrip()}\n\n{found[0].rstrip()}\n"
    return section.sub(lambda _: found[0], old, count=1)
