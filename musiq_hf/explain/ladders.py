# SPDX-License-Identifier: Apache-2.0
"""Picture of ladders of encodings: quality against the size of the files, a line for each codec."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..common.extras import require
from .figures import PANEL, escape_formula, new_figure, shorten_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATE = "bits_per_pixel"
PANELS = {"psnr_y": "PSNR of luma, dB", "ssim_y": "SSIM of luma", "score": "score, MOS points"}


def plot_ladder(curves: Mapping[str, Mapping[str, Sequence[float]]], *, title: str) -> "Figure":
    """Plot PSNR, SSIM and score of encodings against their size.

    Args:
        curves: Curve of each codec by its name: lists of one length, by the names "bits_per_pixel", "psnr_y", "ssim_y"
            and "score".
        title: Line above the panels.

    Returns:
        Figure with a panel for each measure. The scale of the size is logarithmic.

    Raises:
        ValueError: If there is no curve.
        ImportError: If matplotlib is missing.
    """
    if not curves:
        raise ValueError("At least one curve is needed, got none. Encode a picture first.")
    ticker = require("matplotlib.ticker", extra="explain")
    figure = new_figure(PANEL * len(PANELS), PANEL)
    for axes, (name, label) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for codec, curve in curves.items():
            axes.plot(curve[RATE], curve[name], marker="o", markersize=4, linewidth=1.2, label=codec)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
        axes.set(xlabel="bits per pixel", ylabel=label)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.suptitle(escape_formula(shorten_text(title)), fontsize=10)
    return figure
