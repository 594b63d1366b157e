# SPDX-License-Identifier: Apache-2.0
"""State of a training of super-resolution in its output folder, from which an interrupted one continues."""

import pickle
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from ...common.files import hide_path, replace_file
from ...metrics.report_files import METRICS_FILE
from ..trainer import num_processes
from .settings import SuperResolutionSettings

STATE_FILE = "training_state.pt"
_FREE = (
    "output_dir",
    "originals",
    "data_description",
    "fold_rim",
    "resume",
)  # settings that may change when a training continues


def _collect_fixed(settings: SuperResolutionSettings) -> dict[str, Any]:
    """Collect the settings that a continued training must share with its beginning; folders by their names alone."""
    values = {item.name: getattr(settings, item.name) for item in fields(settings) if item.name not in _FREE}
    values |= {"architecture": dict(settings.architecture), "num_processes": num_processes()}
    for name in ("pictures", "rim_from"):
        values[name] = None if values[name] is None else hide_path(values[name])
    return values


def check_state(settings: SuperResolutionSettings) -> None:
    """Check that a training begins or continues, before photographs are read, which takes minutes.

    Raises:
        ValueError: If there is a state and `resume` is not set, or the reverse with a checkpoint that is done. Also if
            the state is damaged, or of other settings.
    """
    path = settings.output_dir / STATE_FILE
    if settings.resume and not path.exists() and (settings.output_dir / METRICS_FILE).exists():
        raise ValueError(
            f"{settings.output_dir} holds a training that is done, so `--resume` has nothing to continue. Leave it "
            "out to train again, which replaces the checkpoint."
        )
    if not settings.resume and path.exists():
        raise ValueError(
            f"{path} is the state of a training that was interrupted. `--resume` continues it; for a new one give "
            "another folder, or delete the file."
        )
    read_state(settings)


def write_state(settings: SuperResolutionSettings, state: dict[str, Any]) -> None:
    """Write a state with the settings, under a temporary name first."""
    settings.output_dir.mkdir(parents=True, exist_ok=True)
    with replace_file(settings.output_dir / STATE_FILE) as temporary:
        torch.save({**state, "settings": _collect_fixed(settings)}, temporary)


def read_state(settings: SuperResolutionSettings) -> dict[str, Any] | None:
    """Read the state to continue from; None if a training begins.

    Raises:
        ValueError: If the file is damaged, or the training began with other settings.
    """
    path: Path = settings.output_dir / STATE_FILE
    if not (settings.resume and path.exists()):
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        begun = state["settings"]
    except (RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is damaged, so this training cannot continue. Delete it to begin anew.") from error
    for name, value in _collect_fixed(settings).items():
        if begun.get(name) != value:
            raise ValueError(
                f"`--resume` continues with the settings of the beginning, but `{name}` was {begun.get(name)!r} and "
                f"is {value!r} now. Give the old one, or choose another folder."
            )
    return state


def remove_state(settings: SuperResolutionSettings) -> None:
    """Remove the state of a training that is done."""
    (settings.output_dir / STATE_FILE).unlink(missing_ok=True)
