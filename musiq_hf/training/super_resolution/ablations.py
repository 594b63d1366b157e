# SPDX-License-Identifier: Apache-2.0
"""Shorter trainings of super-resolution without a part of the network, which show what the part is worth."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...hub.checkpoints import save_checkpoint
from .material import cut_windows
from .settings import SuperResolutionSettings
from .steps import MSIT, train_model

# Fields of the configuration that leave a part out.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "all parts": {},
    "without shift": {"use_shift": False},
    "one kernel": {"num_kernels": 1},
    "one attention kernel": {"num_attention_kernels": 1},
    "without local attention": {"use_local_attention": False},
    "without cell": {"use_cell": False},
    "without positions": {"position_encoding_scale": None},
}
SECOND_STAGE = "second stage for half of the steps"


def check_ablations(settings: SuperResolutionSettings, steps: int) -> None:
    """Raise a ValueError if no part of a training can be left out, or there are too few steps for two stages."""
    if settings.rim_from is not None:
        raise ValueError("`--ablation` trains new networks, and `rim_from` continues one. Leave one out.")
    if steps < 2:
        raise ValueError(f"`--ablation` must be at least 2 steps, one for each stage, got {steps}.")


def run_ablations(
    settings: SuperResolutionSettings,
    files: Sequence[Path],
    windows: Sequence[np.ndarray],
    *,
    steps: int,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Train for fewer steps as before, without a part, and in two stages.

    Equal steps stay equal on a machine that does other work, which equal minutes do not.

    Args:
        settings: Settings of the training that is varied, which is not a second stage.
        files: Photographs for training.
        windows: Pixels of them for the first stage.
        steps: Steps of each, at least 2.
        report: Function that is told in a sentence what begins.

    Returns:
        Models in evaluation mode by the names of their variants.
    """
    models = {}
    short = replace(settings, minutes=None, steps=steps, fold_rim=False, resume=False)

    def train(name: str, own: SuperResolutionSettings, pixels: Sequence[np.ndarray]) -> Any:
        report(f"Shorter training: {name}.")
        with tempfile.TemporaryDirectory() as folder:
            model, _ = train_model(replace(own, output_dir=Path(folder)), pixels, report=report)
        return model

    for name, fields in VARIANTS.items():
        models[name] = train(name, replace(short, architecture={**settings.architecture, **fields}), windows)
    first = train(SECOND_STAGE, replace(short, steps=steps // 2), windows)
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(first, MSIT.processor.from_config(first.config), folder, dtype="float32")
        second = replace(short, steps=steps - steps // 2, architecture={}, rim_from=folder)
        models[SECOND_STAGE] = train(SECOND_STAGE, second, cut_windows(files, second))
    return models
