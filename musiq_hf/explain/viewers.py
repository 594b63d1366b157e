# SPDX-License-Identifier: Apache-2.0
"""Picture of the viewers of a subjective test: how well each one agrees with all."""

import os
from typing import TYPE_CHECKING

import numpy as np

from ..subjective.screening import THRESHOLD, Screening
from .figures import PANEL, escape_formula, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VIEWER_HEIGHT = 0.22  # of a line, in inches
MAX_HEIGHT = 40.0  # inches; more viewers than fit get thinner lines


def plot_viewers(screening: Screening, *, threshold: float | None = THRESHOLD) -> "Figure":
    """Plot the correlation of each viewer with the mean opinion scores, the lowest at the top.

    Args:
        screening: Screening with correlations.
        threshold: Correlation at which a line is drawn; None draws none.

    Returns:
        Figure with a bar for each viewer: gray for those who stay, red for those who go.

    Raises:
        ValueError: If the screening has no correlations.
        ImportError: If matplotlib is missing.
    """
    if screening.correlations is None:
        raise ValueError("The screening has no correlations. Use `screen_by_correlation`.")
    order = np.argsort(screening.correlations, kind="stable")[::-1]  # bars are drawn from the bottom to the top
    figure = new_figure(1.5 * PANEL, min(1.2 + VIEWER_HEIGHT * len(order), MAX_HEIGHT))
    axes = figure.subplots()
    colors = np.where(screening.kept[order], "0.6", "tab:red")
    axes.barh(np.arange(len(order)), screening.correlations[order], color=colors)
    axes.set_yticks(np.arange(len(order)), [escape_formula(screening.subjects[place]) for place in order], fontsize=7)
    axes.set(xlim=(min(0.0, screening.correlations.min()), 1), xlabel="correlation with the mean opinion scores")
    if threshold is not None:
        axes.axvline(threshold, color="black", linewidth=0.8, linestyle=":")
    num_gone = int((~screening.kept).sum())
    axes.set_title(f"{len(order)} viewers, {num_gone} left out (red)", fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    return figure


def save_viewers(path: str | os.PathLike[str], screening: Screening, *, threshold: float | None = THRESHOLD) -> None:
    """Save what `plot_viewers` draws as a PNG file."""
    save_figure(path, plot_viewers(screening, threshold=threshold))
