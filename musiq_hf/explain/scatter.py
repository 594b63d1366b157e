# SPDX-License-Identifier: Apache-2.0
"""Picture of a metric against opinion scores, with the curve that maps one to the other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..metrics.correlation import check_pairs, fit_logistic, logistic_curve, quality_metrics
from .figures import PANEL, escape_formula, new_figure, shorten_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVE_POINTS = 200
MANY = 300  # points, beyond which they are drawn smaller and lighter

Numbers = Sequence[float] | np.ndarray


def plot_scatter(metric: Numbers, mos: Numbers, *, name: str = "score", title: str | None = None) -> "Figure":
    """Plot a metric against opinion scores, with the fitted logistic curve.

    Args:
        metric: Values of the metric, shape (num_pictures,), at least 3, finite.
        mos: Opinion scores of the same pictures in the same order, finite.
        name: Name of the metric.
        title: Line above the correlations; None for none.

    Returns:
        Figure with SRCC and PLCC in its title. PLCC is that of the raw metric; the curve is left out where none can be
        fitted, with fewer than 5 pictures for example.

    Raises:
        ValueError: If the lists differ in length, have fewer than 3 values, or a value is not finite.
        ImportError: If matplotlib or SciPy is missing.
    """
    found, (values, opinions) = quality_metrics(metric, mos), check_pairs(metric, mos)
    figure = new_figure(1.2 * PANEL, 1.1 * PANEL)
    axes = figure.subplots()
    is_crowded = len(values) > MANY
    axes.scatter(values, opinions, s=6 if is_crowded else 18, alpha=0.35 if is_crowded else 0.7, linewidths=0)
    parameters = fit_logistic(values, opinions)
    if parameters is not None:
        places = np.linspace(values.min(), values.max(), CURVE_POINTS)
        axes.plot(places, logistic_curve(places, parameters), color="tab:red", linewidth=1.5, label="logistic fit")
        axes.legend(fontsize=8)
    axes.set(xlabel=escape_formula(shorten_text(name)), ylabel="mean opinion score")
    lines = [] if title is None else [escape_formula(shorten_text(title))]
    lines.append(f"SRCC {found['srcc']:.3f}, PLCC {found['plcc']:.3f}, {len(values):,} pictures")
    axes.set_title("\n".join(lines), fontsize=10)
    axes.grid(alpha=0.3)
    return figure
