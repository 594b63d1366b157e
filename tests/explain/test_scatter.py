# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from musiq_hf.explain import plot_scatter
from musiq_hf.metrics import fit_logistic, logistic_curve, quality_metrics


def test_points_curve_and_correlations():
    generator = np.random.default_rng(0)
    scores = generator.uniform(10, 90, 60)
    opinions = 1 + 4 / (1 + np.exp(-(scores - 55) / 12)) + generator.normal(0, 0.3, 60)
    (axes,) = plot_scatter(scores, opinions, name="VMAF", title="costs $5 or $6").axes
    np.testing.assert_allclose(axes.collections[0].get_offsets(), np.stack([scores, opinions], axis=1))
    places, heights = axes.lines[0].get_data()
    assert (places[0], places[-1]) == (scores.min(), scores.max())
    np.testing.assert_allclose(heights, logistic_curve(places, fit_logistic(scores, opinions)))
    found = quality_metrics(scores, opinions)
    assert axes.get_title() == (f"costs \\$5 or \\$6\nSRCC {found['srcc']:.3f}, PLCC {found['plcc']:.3f}, 60 pictures")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("VMAF", "mean opinion score")


def test_few_points_have_no_curve():
    (axes,) = plot_scatter([1, 2, 4], [3, 2, 5]).axes
    assert not axes.lines and axes.get_title() == "SRCC 0.500, PLCC 0.786, 3 pictures"
    with pytest.raises(ValueError, match="3"):
        plot_scatter([1, 2], [3, 4])
