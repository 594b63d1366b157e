# SPDX-License-Identifier: Apache-2.0
import sys

import numpy as np
import pytest
from golden_subjective import PANELS, make_votes, reference, votes_file

from musiq_hf.subjective import (
    Votes,
    differential_votes,
    keep_subjects,
    mean_opinion_scores,
    read_votes,
    remove_bias,
)

NAN = float("nan")


@pytest.fixture
def table(tmp_path):
    def write(text):
        path = tmp_path / "votes.csv"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("panel", PANELS)
def test_means_and_intervals_are_those_of_the_reference(panel):
    votes = read_votes(votes_file(panel))
    student, normal = mean_opinion_scores(votes), mean_opinion_scores(votes, interval="normal")
    assert np.allclose(student.mos, reference(panel, "mos/score"), rtol=0, atol=1e-9)
    assert np.allclose(student.std, reference(panel, "mos/std"), rtol=0, atol=1e-9)
    assert np.allclose(student.half_width, reference(panel, "t95_half_width"), rtol=0, atol=1e-9)
    assert np.allclose(normal.half_width, 1.96 * reference(panel, "mos/score_std"), rtol=0, atol=1e-9)
    assert (student.num_votes == np.isfinite(votes.values).sum(axis=1)).all()


@pytest.mark.parametrize("panel", PANELS)
def test_means_without_bias_are_those_of_the_reference(panel):
    kept = ~reference(panel, "p913/rejected")
    found = mean_opinion_scores(keep_subjects(remove_bias(read_votes(votes_file(panel))), kept))
    assert np.allclose(found.mos, reference(panel, "p913/score"), rtol=0, atol=1e-9)


def test_differential_votes_average_to_the_reference():
    votes, places = read_votes(votes_file("nflx")), reference("nflx", "dmos/reference_of")
    names = {item: votes.items[place] for item, place in zip(votes.items, places, strict=True)}
    found = mean_opinion_scores(differential_votes(votes, names))
    assert np.allclose(found.mos, reference("nflx", "dmos/score"), rtol=0, atol=1e-9)


def test_differential_votes_are_those_of_the_wanted_items_and_lack_what_either_lacks():
    found = differential_votes(make_votes([[5, 4, NAN], [2, NAN, 3], [1, 1, 1]]), {"i1": "i0"}, best=10)
    assert found.items == ("i1",) and found.subjects == ("v0", "v1", "v2")
    assert np.array_equal(found.values, [[7, NAN, NAN]], equal_nan=True)
    with pytest.raises(ValueError, match="`references` names 'i9', which nobody has voted on"):
        differential_votes(found, {"i1": "i9"})


def test_one_vote_has_no_spread_and_no_vote_has_no_mean():
    found = mean_opinion_scores(make_votes([[4, NAN], [NAN, NAN], [1, 3]]))
    assert np.array_equal(found.mos, [4, NAN, 2], equal_nan=True)
    assert np.isnan(found.std).tolist() == np.isnan(found.half_width).tolist() == [True, True, False]
    assert found.half_width[2] == pytest.approx(12.7062047 * 1.0)  # t with 1 degree of freedom; error 1
    assert np.isnan(mean_opinion_scores(make_votes([[4, NAN]]), interval="normal").half_width[0])


def test_confidence_widens_intervals():
    votes = read_votes(votes_file("expert"))
    assert (mean_opinion_scores(votes, confidence=0.99).half_width > mean_opinion_scores(votes).half_width).all()
    with pytest.raises(ValueError, match="`confidence` must lie between 0 and 1, got 95"):
        mean_opinion_scores(votes, confidence=95)
    with pytest.raises(ValueError, match="`interval` must be 't' or 'normal', got 'z'"):
        mean_opinion_scores(votes, interval="z")


def test_long_and_wide_tables_say_the_same(table):
    long = read_votes(table("subject,item,vote\nv2,b,1\nv1,a,4\nv1,b,\nv2,a,3\nv2,a,4\n"))
    assert (long.items, long.subjects) == (("a", "b"), ("v1", "v2"))
    assert np.array_equal(long.values, [[4, 3.5], [NAN, 1]], equal_nan=True)  # two votes on one item: their mean
    wide = read_votes(table("v2;item;v1\n1;b;NaN\n3,5;a;4\n"))
    assert (wide.items, wide.subjects) == (("b", "a"), ("v2", "v1"))
    assert np.array_equal(wide.values, [[1, NAN], [3.5, 4]], equal_nan=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subject,item,vote\nv1,a,4\nv2,a,good\n", "votes.csv, line 3: `vote` must be a number, got good"),
        ("subject,item,vote\nv1,a,4\nv2,a,inf\n", "line 3: `vote` must be a number, got inf"),
        ("subject,item,score\nv1,a,4\n", r"votes.csv: columns \['vote'\] are missing, .* item and a column for each"),
        ("picture,v1,v2\na,4,5\n", r"columns \['item'\] are missing"),
        ("", r"columns \['item'\] are missing, got \[\]"),
        ("item,v1,v2\na,4\n", r"line 2: the row ends before \['v2'\]"),
        ("item,v1,v2\na,4,5,6\n", "line 2: the row has 4 cells for 3 columns"),
        ("item,v1,v1\na,4,5\n", "several columns are named 'v1'"),
        ("item,v1,v2\na,4,5\nb,1,2\na,3,3\n", "line 4: the item 'a' stands in .*line 2 too"),
        ("item,v1\na,4\n", "votes of at least 2 viewers are needed, got those of 1"),
        ("item,v1,v2\n", "votes of at least 2 viewers are needed, got those of 0"),
        ("item,v1,v2\na,4,\n", "the viewer 'v2' has no vote"),
        ("item,v1,v2\na,4,5\nb,,\n", "the item 'b' has no vote"),
        (",item,v1,v2\n0,a,4,5\n", "a column has no name, so it is no viewer"),
        ("subject,item,vote\n,a,4\n", "line 2: `subject` must be a name, got nothing"),
    ],
)
def test_wrong_tables_are_one_sentence_with_file_and_line(table, text, message):
    with pytest.raises(ValueError, match=message):
        read_votes(table(text))


def test_a_missing_scipy_is_answered_with_its_pip_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    with pytest.raises(ImportError, match=r'Install it with: pip install "musiq_hf\[subjective\]"'):
        mean_opinion_scores(make_votes([[1, 2]]))


def test_viewers_are_kept_by_answers_for_each():
    votes = make_votes([[1, 2, 3], [4, 5, 6]])
    assert keep_subjects(votes, [True, False, True]).subjects == ("v0", "v2")
    with pytest.raises(ValueError, match="True or False for each of 3 viewers, got int64 of shape"):
        keep_subjects(votes, [0, 2, 1])
    with pytest.raises(ValueError, match="at least one viewer, got none"):
        keep_subjects(votes, [False] * 3)


def test_votes_that_do_not_fit_their_names_are_refused():
    with pytest.raises(ValueError, match="a row for each of 2 items and a column for each of 1 viewers, got shape"):
        Votes(np.ones((1, 2)), ["a", "b"], ["v"])
    with pytest.raises(ValueError, match="Votes must be finite, or NaN"):
        Votes(np.array([[np.inf]]), ["a"], ["v"])
    with pytest.raises(ValueError, match="`items` must differ"):
        Votes(np.ones((2, 1)), ["a", "a"], ["v"])
