# SPDX-License-Identifier: Apache-2.0
"""Conditions on rows: what passes them, ties, groups, samples, and rows without a score."""

import math

import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musiq_hf.decisions import Amount, Conditions, ScoreTable, select_rows

SCORES = st.lists(st.one_of(st.none(), st.integers(0, 9).map(float), st.just(math.nan)), max_size=30)


def make_table(scores, **columns):
    keys = [f"{'ab'[place % 2]}/{place}.jpg" for place in range(len(scores))]
    return ScoreTable(pyarrow.table({"key": keys, "score": pyarrow.array(scores, pyarrow.float64()), **columns}))


def choose(scores, **conditions):
    for name in ("top", "bottom"):
        if name in conditions:
            conditions[name] = Amount.read(conditions[name])
    return select_rows(make_table(scores), Conditions(**conditions)).chosen.tolist()


@given(SCORES, st.integers(0, 9), st.integers(0, 9))
def test_bounds_are_inclusive_and_rows_without_a_score_are_apart(scores, low, high):
    low, high = sorted((low, high))
    selection = select_rows(make_table(scores), Conditions(minimum=low, maximum=high))
    has_score = [score is not None and not math.isnan(score) for score in scores]
    wanted = [place for place, score in enumerate(scores) if has_score[place] and low <= score <= high]
    assert selection.chosen.tolist() == wanted
    assert selection.unscored.tolist() == [place for place, known in enumerate(has_score) if not known]
    assert selection.reasons.total() == has_score.count(False)


@given(SCORES, st.integers(1, 12), st.booleans())
def test_the_best_are_those_that_a_stable_sort_puts_first(scores, number, is_worst):
    chosen = choose(scores, **{"bottom" if is_worst else "top": str(number)})
    known = [place for place, score in enumerate(scores) if score is not None and not math.isnan(score)]
    ranked = sorted(known, key=lambda place: scores[place] if is_worst else -scores[place])
    assert chosen == sorted(ranked[:number])


@given(SCORES, st.integers(1, 100))
def test_a_share_is_rounded_up(scores, percent):
    known = sum(score is not None and not math.isnan(score) for score in scores)
    assert len(choose(scores, top=f"{percent}%")) == math.ceil(known * percent / 100)


def test_ties_go_to_the_first_rows():
    assert choose([5, 5, 5, 1], top="2") == choose([1, 5, 1, 9], bottom="2")[:0] + [0, 1]
    assert choose([1, 5, 1, 9], bottom="1") == [0]


def test_thresholds_come_before_ranks():
    assert choose([10, 20, 30, 40], minimum=15, bottom="1") == [1]
    assert choose([10, 20, 30, 40], maximum=35, top="50%") == [1, 2]  # a half of three, rounded up


def test_the_best_of_each_group():
    table = make_table([1, 2, 3, 4, 5], camera=["x", "x", None, "y", "y"])
    chosen = lambda per: select_rows(table, Conditions(top=Amount.read("1"), per=per)).chosen.tolist()  # noqa: E731
    assert chosen("camera") == [1, 2, 4]
    assert chosen("folder") == [3, 4]  # of the keys, whose folders are a and b
    with pytest.raises(ValueError, match="has no column 'lens'. It has key, score, camera"):
        chosen("lens")


def test_a_sample_is_even_over_the_scores_and_repeatable():
    scores = np.concatenate([np.full(900, 1.0), np.linspace(10, 100, 100)])
    chosen = choose(scores, sample=30, bins=3)
    assert chosen == choose(scores, sample=30, bins=3) and len(set(chosen)) == 30
    counts = np.histogram(scores[chosen], bins=np.linspace(1, 100, 4))[0]
    assert counts.tolist() == [10, 10, 10]
    assert chosen != choose(scores, sample=30, bins=3, seed=1)


@given(SCORES, st.integers(1, 40), st.integers(1, 5))
def test_a_sample_takes_all_where_there_are_too_few(scores, sample, bins):
    known = [place for place, score in enumerate(scores) if score is not None and not math.isnan(score)]
    chosen = choose(scores, sample=sample, bins=bins)
    assert len(chosen) == min(sample, len(known)) and set(chosen) <= set(known)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"minimum": 3, "maximum": 2}, "Exchange --min and --max"),
        ({"minimum": math.nan}, "`minimum` must be a finite number"),
        ({"top": Amount.read("1"), "bottom": Amount.read("1")}, "--top and --bottom exclude each other"),
        ({"top": Amount.read("1"), "sample": 3}, "--top and --sample exclude each other"),
        ({"per": "camera"}, "Add --top or --bottom"),
        ({"sample": 0}, "`sample` must be at least 1"),
    ],
)
def test_conditions_that_contradict_each_other_are_refused(conditions, message):
    with pytest.raises(ValueError, match=message):
        Conditions(**conditions)


@pytest.mark.parametrize("text", ["0", "0%", "101%", "-1", "1.5", "ten", "", "5 %"])
def test_amounts_that_are_none_are_refused(text):
    with pytest.raises(ValueError):
        Amount.read(text)
