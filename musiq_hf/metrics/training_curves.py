# SPDX-License-Identifier: Apache-2.0
"""Curves of a training run: its loss, and the metric by which the epoch is chosen."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..common.extras import require
from ..common.files import replace_file

CURVES_FILE = "training.png"


def write_training_curves(path: Path, log: Sequence[Mapping[str, Any]], *, metric: str) -> None:
    """Write a picture of the loss and the validation metric of a run, by epoch.

    Args:
        path: File to write (.png).
        log: Entries as the Trainer logs them: `epoch`, and `loss` or `eval_<metric>`.
        metric: Name of the metric, "srcc" say.

    Raises:
        ImportError: If matplotlib is missing.
    """
    figure = require("matplotlib.figure", extra="explain").Figure(figsize=(9.2, 3.6), layout="constrained")
    names = {"loss": "training loss", f"eval_{metric}": f"validation {metric.upper()}"}
    for axes, (key, label) in zip(figure.subplots(1, 2), names.items(), strict=True):
        points = [(entry["epoch"], entry[key]) for entry in log if key in entry]
        axes.plot(*zip(*points, strict=True) if points else ([], []), marker="." if key != "loss" else "")
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    with replace_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
