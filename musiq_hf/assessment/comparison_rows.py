# SPDX-License-Identifier: Apache-2.0
"""Rows of `musiq compare`: one for each file of a reference and each system, and the form of their table."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..pictures.video import has_video_suffix
from ..scoring.tables.forms import CONSTANTS, TableForm

# Columns of each group of metrics that can be asked for, and the metrics among them that reports compare.
COLUMNS_OF = {
    "psnr": ("psnr_y", "psnr_rgb"),
    "ssim": ("ssim_y", "ssim_rgb"),
    "vmaf": ("vmaf", "vmaf_harmonic_mean", "vmaf_min"),
    "musiq": ("score", "reference_score", "model"),
}
NO_METRICS = ("reference_score", "model")
MEASURED = (*COLUMNS_OF["psnr"], *COLUMNS_OF["ssim"], *COLUMNS_OF["vmaf"])  # with a reference
FRAMES, GROUPS, METRICS = "frames", "groups", "metrics"  # the last two are settings of a run


class ComparisonRow(NamedTuple):
    """Row of a file of the reference and a system; higher is better in all metrics.

    Attributes:
        key: Relative path of the reference, Unicode text.
        system: Name of the system.
        groups: Values of the columns of `--groups`; None where there is none.
        width: Columns of both, in pixels.
        height: Rows of both, in pixels.
        frames: Number of frames; 1 for pictures.
        psnr_y: PSNR of luma, in dB; infinite for equal files.
        psnr_rgb: PSNR of RGB, in dB; None for videos.
        ssim_y: SSIM of luma.
        ssim_rgb: SSIM of RGB; None for videos.
        vmaf: VMAF, mean over frames.
        vmaf_harmonic_mean: Harmonic mean of VMAF over frames.
        vmaf_min: Lowest VMAF of a frame.
        score: Score of the system's file, in MOS points; of a video the mean over every n-th frame.
        reference_score: Score of the reference, in MOS points.
        error: Sentence that says why there are no numbers; None if there are.
    """

    key: str
    system: str
    groups: Sequence[str | None] = ()
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    psnr_y: float | None = None
    psnr_rgb: float | None = None
    ssim_y: float | None = None
    ssim_rgb: float | None = None
    vmaf: float | None = None
    vmaf_harmonic_mean: float | None = None
    vmaf_min: float | None = None
    score: float | None = None
    reference_score: float | None = None
    error: str | None = None


def list_metrics(asked: Sequence[str]) -> list[str]:
    """Return the columns of the metrics that were asked for, which reports compare, in the order of the table."""
    columns = [name for group, names in COLUMNS_OF.items() if group in asked for name in names]
    return [name for name in columns if name not in NO_METRICS]


def list_columns(settings: Mapping[str, Any]) -> dict[str, type]:
    """Return the columns of a table and the kinds of their values, from the settings of a run."""
    sizes = dict.fromkeys(("width", "height", FRAMES), int)
    measured = [name for group, names in COLUMNS_OF.items() if group in settings[METRICS] for name in names]
    kinds: dict[str, type] = dict.fromkeys(("key", "system", *settings[GROUPS]), str)
    kinds |= sizes | dict.fromkeys(measured, float)
    return kinds | dict.fromkeys([name for name in measured if name == "model"] + ["signature", "error"], str)


def _complete_row(rows: Sequence[ComparisonRow], settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each row by the names of its columns, with its groups and what all rows of the table share."""
    for row in rows:
        yield row._asdict() | dict(zip(settings[GROUPS], row.groups, strict=True)) | settings[CONSTANTS]


def read_row(values: Mapping[str, Any], columns: Sequence[str]) -> ComparisonRow:
    """Make a row of the values of a table by column; a PSNR that JSON has no number for is infinite again.

    Args:
        values: Values by the names of their columns, None where there is none.
        columns: Names of the columns of groups.
    """
    own = {name: values[name] for name in ComparisonRow._fields if name in values and name != GROUPS}
    row = ComparisonRow(**own, groups=tuple(values[name] for name in columns))
    if row.error is not None:
        return row
    names = ("psnr_y",) if has_video_suffix(row.key) else COLUMNS_OF["psnr"]
    infinite: dict[str, Any] = {name: math.inf for name in names if name in values and values[name] is None}
    return row._replace(**infinite)


COMPARISONS = TableForm("musiq compare", ComparisonRow, list_columns, _complete_row)
