# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from golden_subjective import PANELS, make_votes, reference, votes_file

from musiq_hf.subjective import read_votes, remove_bias, screen_by_correlation, screen_by_kurtosis

NAN = float("nan")


@pytest.mark.parametrize("panel", PANELS)
def test_correlations_are_those_of_the_reference(panel):
    found = screen_by_correlation(read_votes(votes_file(panel)))
    assert np.allclose(found.correlations, reference(panel, "pearson"), rtol=0, atol=1e-9)
    assert (found.kept == (found.correlations >= 0.75)).all()
    assert found.num_high is None and found.num_low is None


def test_planted_viewers_go():
    found = screen_by_correlation(read_votes(votes_file("planted")))
    assert [name for name, kept in zip(found.subjects, found.kept, strict=True) if not kept] == ["v03", "v07", "v16"]
    everybody = screen_by_correlation(read_votes(votes_file("planted")), threshold=-1)
    assert everybody.kept.all()
    with pytest.raises(ValueError, match="`threshold` must lie within -1 and 1"):
        screen_by_correlation(read_votes(votes_file("planted")), threshold=75)


def test_constant_and_rare_viewers_agree_with_nobody():
    found = screen_by_correlation(make_votes([[1, 3, 1, 2], [2, 3, NAN, 3], [3, 3, 3, 4], [5, 3, NAN, 5]]))
    assert found.correlations[[1, 2]].tolist() == [0, 0] and found.correlations[0] > 0.9
    assert found.kept.tolist() == [True, False, False, True]
    assert screen_by_correlation(make_votes([[2, 1], [2, 3], [2, 2]])).correlations.tolist() == [0, 1]
    assert screen_by_correlation(make_votes([[1, 3], [2, 2], [3, 1]])).correlations.tolist() == [0, 0]  # equal means


@pytest.mark.parametrize("panel", PANELS)
@pytest.mark.parametrize("recommendation", ["bt500", "p913"])
def test_counts_are_those_of_the_reference_where_viewers_disagree(panel, recommendation):
    """The reference counts an item on which all agree twice for everybody, and divides by the number of items."""
    votes = read_votes(votes_file(panel))
    votes = votes if recommendation == "bt500" else remove_bias(votes)
    found = screen_by_kurtosis(votes)
    agreed = int((np.nanstd(votes.values, axis=1) == 0).sum())
    outside = found.num_high + found.num_low
    assert np.allclose(
        outside + 2 * agreed, reference(panel, f"{recommendation}/stat1") * len(votes.items), rtol=0, atol=1e-9
    )
    if not agreed:
        balance = np.abs(found.num_high - found.num_low) / np.where(outside, outside, NAN)
        expected = reference(panel, f"{recommendation}/stat2")
        assert np.allclose(balance, expected, rtol=0, atol=1e-9, equal_nan=True)
    if panel not in ("sparse", "zero_spread"):
        assert (found.kept == ~reference(panel, f"{recommendation}/rejected")).all()
    assert found.correlations is None


def test_items_on_which_all_agree_reject_nobody():
    assert reference("zero_spread", "bt500/rejected").sum() == 11
    assert screen_by_kurtosis(read_votes(votes_file("zero_spread"))).kept.all()


def test_the_number_of_a_viewers_own_votes_counts():
    found = screen_by_kurtosis(remove_bias(read_votes(votes_file("sparse"))))
    assert [name for name, kept in zip(found.subjects, found.kept, strict=True) if not kept] == ["v05", "v12"]


def test_the_other_divisor_widens_the_bounds():
    votes = read_votes(votes_file("expert"))
    narrow, wide = screen_by_kurtosis(votes), screen_by_kurtosis(votes, sample_std=True)
    assert (wide.num_high + wide.num_low).sum() < (narrow.num_high + narrow.num_low).sum()


def test_nobody_goes_if_all_would():
    item = [4, -4, 1, -1, 1, -1, 1, -1, 1, -1, 0]
    values = [[5 + vote for vote in np.roll(item, shift)] for shift in range(11)]
    found = screen_by_kurtosis(make_votes(values))
    assert found.num_high.tolist() == found.num_low.tolist() == [1] * 11 and found.kept.all()
    with_another = screen_by_kurtosis(make_votes([[*row, 5] for row in values]))
    assert with_another.kept.tolist() == [False] * 11 + [True]
