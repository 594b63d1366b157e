# SPDX-License-Identifier: Apache-2.0
"""Studies: variants of a model trained on an equal budget, their costs, and tables of what the parts are worth."""

from .inputs import MODELS, Comparison, InputModel, compare_inputs, plot_inputs, render_inputs
from .results import Result, collect_results, measure_ensembles, render_results
from .running import Study, find_runs, train_variants
from .shapes import draw_rows, write_pictures
from .variants import ENSEMBLE, GRID_SIZES, MEMBERS, STUDIES, VARIANTS, Variant

__all__ = [
    "ENSEMBLE",
    "GRID_SIZES",
    "MEMBERS",
    "MODELS",
    "STUDIES",
    "VARIANTS",
    "Comparison",
    "InputModel",
    "Result",
    "Study",
    "Variant",
    "collect_results",
    "compare_inputs",
    "draw_rows",
    "find_runs",
    "measure_ensembles",
    "plot_inputs",
    "render_inputs",
    "render_results",
    "train_variants",
    "write_pictures",
]
