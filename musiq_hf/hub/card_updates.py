# SPDX-License-Identifier: Apache-2.0
"""Addition of results to the model card and metrics.json of a checkpoint that exists."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from transformers import AutoConfig

from ..common.files import write_text
from ..metrics.report_files import read_metrics, write_metrics
from ..metrics.reports import QualityReport, Report
from ..models.auto import find_embedded
from ..models.calibration import CALIBRATION, CheckpointCalibration
from .model_card import PERCENTILES, CheckpointCard
from .model_index import renew_head

_UNKNOWN = "Not noted with these files."
_EVALUATION, _PERCENTILES = (
    re.compile(rf"^{heading}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE) for heading in ("## Evaluation", PERCENTILES)
)


def check_card_directory(directory: str | Path) -> Path:
    """Return the directory of a checkpoint, or raise a ValueError if its card or its results cannot be updated.

    Commands call this before they measure anything.
    """
    directory = Path(find_embedded(directory))
    if not (directory / "config.json").is_file():
        raise ValueError(
            f"The card of {directory} cannot be updated: that needs a local directory with a config.json. "
            "Download the checkpoint first."
        )
    read_metrics(directory)  # says what is wrong with it
    _read_calibration(directory)
    return directory


def _read_calibration(directory: Path) -> CheckpointCalibration | None:
    path = directory / CALIBRATION
    return CheckpointCalibration.read(path) if path.is_file() else None


def update_card(directory: str | Path, report: Report, *, title: str | None = None) -> None:
    """Add a report to metrics.json, and to head and "Evaluation" section of the model card; the rest of both stays.

    Args:
        directory: Folder of the checkpoint. Without a README.md a whole card is written.
        report: Report of `measure_robustness` or `repeat_runs`, which need a title, or a result of
            `evaluate_checkpoints`.
        title: Name of the entry; one of the same name is replaced. None = "<data>, <split>", which never replaces the
            entry "validation" that training writes about its own split.

    Raises:
        ValueError: If the directory holds no checkpoint, its metrics.json is damaged, or a title is missing.
    """
    directory = check_card_directory(directory)
    stored = read_metrics(directory)
    metrics = replace(stored, reports={**stored.reports, title or _make_title(report): report.for_card()})
    _write_card(directory, metrics.reports, replace_part=_replace_evaluation)
    write_metrics(directory, metrics)


def renew_card(directory: str | Path) -> None:
    """Write percentiles of calibration.json, and the head's results, in the model card anew; the rest stays.

    Args:
        directory: Folder of the checkpoint. Without a README.md a whole card is written.

    Raises:
        ValueError: If the directory holds no checkpoint, or one of its files is damaged.
    """
    directory = check_card_directory(directory)
    _write_card(directory, read_metrics(directory).reports, replace_part=_replace_percentiles)


def _write_card(directory: Path, reports: Mapping[str, Report], *, replace_part: Callable[[str, str], str]) -> None:
    """Write the card of a checkpoint; `replace_part` puts what is new of a whole card into the one that is there."""
    readme = directory / "README.md"
    text = CheckpointCard(
        name=directory.name,
        config=AutoConfig.from_pretrained(directory, trust_remote_code=False),
        source=_UNKNOWN,
        training_data=_UNKNOWN,
        recipe=_UNKNOWN,
        metrics=reports,
        calibration=_read_calibration(directory),
    ).render()
    if readme.is_file():
        text = renew_head(replace_part(readme.read_text(encoding="utf-8"), text), directory.name, reports)
    write_text(readme, text)


def _make_title(report: Report) -> str:
    if isinstance(report, QualityReport) and report.data is not None:
        return f"{report.data}, {report.split}"
    raise ValueError("The report does not say what it was measured on. Give a `title` for the card.")


def _replace_evaluation(old: str, new: str) -> str:
    """Return the old card with the new one's "Evaluation" section, at the end if it had none."""
    found = _EVALUATION.search(new)
    assert found is not None  # the template has one
    if _EVALUATION.search(old) is None:
        return f"{old.rstrip()}\n\n{found[0].rstrip()}\n"
    return _EVALUATION.sub(lambda _: found[0], old, count=1)


def _replace_percentiles(old: str, new: str) -> str:
    """Return the old card with the new one's percentiles, at the end of its "Evaluation" section."""
    section, found = _EVALUATION.search(old), _PERCENTILES.search(new)
    if section is None:
        return _replace_evaluation(old, new)
    kept = _PERCENTILES.sub("", section[0]).rstrip()
    parts = [kept, *([] if found is None else [found[0].rstrip()]), old[section.end() :]]
    return old[: section.start()] + "\n\n".join(parts).rstrip() + "\n"
