# SPDX-License-Identifier: Apache-2.0
"""Reports added to the model card and metrics.json of a checkpoint that exists."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..common.files import read_json, write_json, write_text
from ..metrics.correlation import OVERALL
from ..metrics.reports import SUMMARY
from ..models.musiq.configuration_musiq import MusiqConfig
from .model_card import CheckpointCard

_CARD_KEYS = ("signatures", "num_pictures", OVERALL, "groups", "intervals", "targets", "faults", "half_size", SUMMARY)
_UNKNOWN = "Not noted with these files."


def check_card_directory(directory: str | Path) -> Path:
    """The directory of a checkpoint whose card can be updated, or a ValueError; for commands, before hours of work."""
    if not (Path(directory) / "config.json").is_file():
        raise ValueError(
            f"The card of {directory} cannot be updated: that needs a local directory with a config.json. "
            "Download the checkpoint first."
        )
    return Path(directory)


def update_card(directory: str | Path, report: Mapping[str, Any], *, title: str | None = None) -> None:
    """Add a report to metrics.json and to the "Evaluation" section of the model card; the rest of both stays.

    Args:
        directory: Of the checkpoint. Without a README.md a whole card is written.
        report: One of `evaluate_checkpoints`, or that of `measure_robustness`, or, with a title, that of
            `repeat_runs`.
        title: Name of the entry; one of the same name is replaced. None = "<data>, <split>": "validation" alone is
            what training calls its own validation split.

    Raises:
        ValueError: If the directory holds no checkpoint.
    """
    directory = check_card_directory(directory)
    readme, stored = directory / "README.md", directory / "metrics.json"
    metrics = read_json(stored) if stored.is_file() else {}
    name = title or f"{report['data']}, {report['split']}"
    metrics[name] = {key: report[key] for key in _CARD_KEYS if key in report}
    text = CheckpointCard(
        name=directory.name,
        config=MusiqConfig.from_pretrained(directory),
        source=_UNKNOWN,
        training_data=_UNKNOWN,
        recipe=_UNKNOWN,
        metrics={name: entry for name, entry in metrics.items() if _is_report(entry)},
    ).render()
    if readme.is_file():
        text = _replace_evaluation(readme.read_text(encoding="utf-8"), text)
    write_text(readme, text)
    write_json(stored, metrics)


def _is_report(entry: Any) -> bool:
    """Whether a card can show it: pre-training leaves plain numbers in metrics.json."""
    return isinstance(entry, Mapping) and (OVERALL in entry or SUMMARY in entry)


def _replace_evaluation(old: str, new: str) -> str:
    """The old card with the new one's "Evaluation" section, at the end if it had none."""
    section = re.compile(r"^## Evaluation\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    found = section.search(new)
    assert found is not None  # the template has one
    if section.search(old) is None:
        return f"{old.rstrip()}\n\n{found[0].rstrip()}\n"
    return section.sub(lambda _: found[0], old, count=1)
