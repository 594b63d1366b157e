# SPDX-License-Identifier: Apache-2.0
"""Systems whose files are compared with those of a reference, and the metrics: as words say them, and checked.

Nothing heavy is imported for it.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .checks import check_choice

COMPARED = ("psnr", "ssim", "vmaf", "musiq")  # groups of metrics that can be asked for
SCORED = COMPARED[-1]  # the one that needs a checkpoint
BINNED = ("si", "ti", "cf")  # descriptors of references by whose thirds keys are grouped


class System(NamedTuple):
    """System, such as an upscaler or a codec.

    Attributes:
        name: Name in tables.
        path: File, or folder of files, that it has made.
    """

    name: str
    path: str


def read_system(text: str) -> System:
    """Read a path, or `NAME=PATH`; what leads to something as a whole is a path.

    Raises:
        ValueError: If the path leads to nothing, or the name is empty.
    """
    if os.path.lexists(text) or "=" not in text:
        path = Path(os.path.abspath(text))
        return System(path.name if os.path.isdir(text) else path.stem, text)
    name, _, place = text.partition("=")
    if not name.strip():
        raise ValueError(f"{text}: a system needs a name before the sign =. Write NAME=PATH, or the path alone.")
    return System(name.strip(), place)


def read_systems(reference: str, distorted: Sequence[str]) -> list[System]:
    """Read systems and check them.

    Args:
        reference: Path of the reference.
        distorted: Paths of systems, or `NAME=PATH`. A system is named by its folder, or its file without suffix.

    Returns:
        Systems, in the same order.

    Raises:
        ValueError: If two systems have one name, a path leads to nothing, or files are mixed with folders.
    """
    systems = [read_system(text) for text in distorted]
    if not systems:
        raise ValueError("At least one system is needed. Name a file or folder to compare with the reference.")
    for path in (reference, *(system.path for system in systems)):
        if not (os.path.isdir(path) or os.path.isfile(path)):
            raise ValueError(f"{path}: no such file or folder. Give files, or folders of them.")
        if os.path.isdir(path) != os.path.isdir(reference):
            kinds = ["a folder" if os.path.isdir(each) else "a file" for each in (reference, path)]
            raise ValueError(f"{reference} is {kinds[0]} and {path} is {kinds[1]}. Give all files, or all folders.")
    names = [system.name for system in systems]
    for name in names:
        if names.count(name) > 1:
            paths = [system.path for system in systems if system.name == name]
            raise ValueError(f"{paths[0]} and {paths[1]} are both named {name}. Name one otherwise: NAME={paths[1]}")
    return systems


def check_metrics(
    metrics: Sequence[str],
    *,
    bins: Sequence[str] = (),
    crop_border: int = 0,
    every: int | None = None,
    model: str | None = None,
) -> None:
    """Raise a ValueError if metrics or descriptors are unknown, or another setting says something of other metrics.

    Args:
        metrics: Metrics that were asked for.
        bins: Descriptors by whose thirds keys are grouped.
        crop_border: Number of pixels that leave each side before PSNR, SSIM and VMAF.
        every: Every n-th frame of a video is scored; None if that was not given.
        model: Checkpoint that scores; None if none was given.
    """
    _check_names("metrics", metrics, COMPARED)
    _check_names("bins", bins, BINNED)
    if not metrics:
        raise ValueError(f"At least one metric is needed: {', '.join(COMPARED)}.")
    if crop_border < 0:
        raise ValueError(f"`crop_border` must be 0 or more, got {crop_border}.")
    if crop_border and set(metrics) == {SCORED}:
        raise ValueError("`crop_border` is of PSNR, SSIM and VMAF, and none is measured. Add one, or drop it.")
    for name, setting in (("every", every), ("model", model)):
        if setting is not None and SCORED not in metrics:
            raise ValueError(f"`{name}` is of scores, which are the metric {SCORED}. Add it, or drop `{name}`.")


def _check_names(setting: str, names: Sequence[str], choices: tuple[str, ...]) -> None:
    """Raise a ValueError if a name is none of the choices, or is given twice."""
    for name in names:
        check_choice(setting, name, choices)
        if list(names).count(name) > 1:
            raise ValueError(f"`{setting}` names {name} twice. Give it once.")
