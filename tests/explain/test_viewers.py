# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from golden_subjective import votes_file
from PIL import Image

from musiq_hf.explain import plot_viewers
from musiq_hf.explain.viewers import save_viewers
from musiq_hf.subjective import read_votes, screen_by_correlation, screen_by_kurtosis


def test_bars_are_the_correlations_and_those_who_go_are_red(tmp_path):
    found = screen_by_correlation(read_votes(votes_file("planted")))
    (axes,) = plot_viewers(found).axes
    order = np.argsort(-found.correlations)
    assert [bar.get_width() for bar in axes.patches] == found.correlations[order].tolist()
    assert [label.get_text() for label in axes.get_yticklabels()] == [found.subjects[place] for place in order]
    assert [bar.get_facecolor()[0] > 0.7 for bar in axes.patches] == (~found.kept[order]).tolist()
    assert axes.get_xlim()[0] < -0.5  # a viewer who votes upside down
    assert [line.get_xdata()[0] for line in axes.lines] == [0.75]
    assert not plot_viewers(found, threshold=None).axes[0].lines
    save_viewers(tmp_path / "viewers.png", found)
    with Image.open(tmp_path / "viewers.png") as image:
        assert image.format == "PNG"
    assert [path.name for path in tmp_path.iterdir()] == ["viewers.png"]


def test_a_screening_without_correlations_is_refused():
    with pytest.raises(ValueError, match="The screening has no correlations. Use `screen_by_correlation`"):
        plot_viewers(screen_by_kurtosis(read_votes(votes_file("expert"))))
