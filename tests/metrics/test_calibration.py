# SPDX-License-Identifier: Apache-2.0
"""Percentiles, stars and expected opinion scores: golden numbers, values by hand, and the file."""

import json
import re

import numpy as np
import pytest
from golden_assessment import CALIBRATION

from musiq_hf.assessment import Calibration
from musiq_hf.common.tables import write_table


def test_percentiles_are_those_of_scipy():
    found = Calibration.fit(CALIBRATION["reference"]).percentile(CALIBRATION["query"])
    np.testing.assert_allclose(found, CALIBRATION["percentile"], rtol=0, atol=1e-9)


def test_opinion_scores_are_those_of_the_isotonic_fit_in_any_order():
    order = np.random.default_rng(0).permutation(len(CALIBRATION["score"]))
    scores, opinions = (np.array(CALIBRATION[name]) for name in ("score", "mos"))
    found = Calibration.fit(scores[order], opinions[order]).mos(scores)
    np.testing.assert_allclose(found, CALIBRATION["isotonic"], rtol=0, atol=1e-9)


def test_percentiles_and_stars_by_hand():
    calibration = Calibration.fit([30, 10, 20, 20, 50])
    queries = [9.9, 10, 15, 20, 25, 30, 40, 50, 51]
    assert calibration.percentile(queries).tolist() == [0, 10, 20, 40, 60, 70, 80, 90, 100]
    assert calibration.stars(queries).tolist() == [1, 1, 2, 3, 4, 4, 5, 5, 5]
    assert calibration.percentile(20) == 40 and calibration.stars(20) == 3
    assert calibration.stars(np.full((2, 3), 20)).shape == (2, 3)


def test_opinion_scores_by_hand():
    # Equal scores count by their mean, a fall is levelled by the number of pictures, and the ends are held.
    calibration = Calibration.fit([1, 3, 2, 2, 5], [1.0, 2.0, 3.0, 4.0, 5.0])
    assert calibration.mos([0, 1, 1.5, 2, 3, 4, 5, 9]).tolist() == [1, 1, 2, 3, 3, 4, 5, 5]


@pytest.mark.parametrize("more", [{}, {"mos": [1.5, 1 / 3, 7]}, {"signature": "a|weights:1"}])
def test_the_file_gives_back_what_was_saved(tmp_path, more):
    calibration = Calibration.fit([0.1, 1e-300, -1 / 3], **more)
    calibration.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == calibration
    assert json.loads((tmp_path / "c.json").read_text()).keys() == (
        {"scores"} | {"opinions" if name == "mos" else name for name in more}
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), r"`scores` must be one list of at least one number, got shape \(0,\)"),
        (([[1, 2]],), r"`scores` must be one list of at least one number, got shape \(1, 2\)"),
        (([1, np.nan],), "`scores` must be finite, got nan. Leave such pictures out"),
        (([1, 2], [np.inf, 1]), "`mos` must be finite, got inf"),
        (([1, 2], [1]), "must be of the same pictures, got 2 and 1. Leave out pictures that lack one"),
        ((np.zeros(1_000_001),), "at most 1,000,000, got 1,000,001. Draw some of them"),
    ],
)
def test_numbers_that_are_no_calibration_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Calibration.fit(*arguments)


@pytest.mark.parametrize("method", ["percentile", "stars", "mos"])
def test_scores_that_are_no_numbers_have_no_place(method):
    with pytest.raises(ValueError, match="Scores must be finite, got nan. Leave such pictures out"):
        getattr(Calibration.fit([1, 2], [1, 2]), method)([1, np.nan])


def test_without_opinion_scores_none_are_expected():
    with pytest.raises(ValueError, match="The calibration has no opinion scores. Give them to `Calibration.fit`"):
        Calibration.fit([1, 2]).mos([1])


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_table_of_scores_is_read(tmp_path, suffix):
    columns = {"key": str, "score": float, "score_0_1": float, "signature": str, "error": str}
    scores = [("a", 1 / 3, None), ("b", None, "broken"), ("c", 0.1, None)]
    rows = [(key, score, None, "m|weights:1", error) for key, score, error in scores]
    path = tmp_path / f"scores{suffix}"
    write_table(path, columns, rows)
    assert Calibration.load(path) == Calibration.fit([1 / 3, 0.1], signature="m|weights:1")
    path.unlink()
    write_table(path, columns, [*rows, ("c", 0.2, None, "n|weights:2", None)])
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} must hold scores of one checkpoint, got those of 2"):
        Calibration.load(path)
    path.unlink()
    compared = {"key": str, "score": float, "signature": str}  # as `musiq compare` writes them
    for others, row in (({"key": str, "score_0_1": str}, ("a", "high")), (compared, ("a", 0.5, "m|weights:1"))):
        write_table(path, others, [row])
        with pytest.raises(ValueError, match=f"{re.escape(str(path))} is no table of `musiq score`"):
            Calibration.load(path)
        path.unlink()
    with pytest.raises(ValueError, match="no such file. Name a table of `musiq score`"):
        Calibration.load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        ('{"scores": [1, "a"]}', "scores: a number was expected, got 'a'. Correct the file."),
        ('{"scores": [1], "quantiles": [2]}', "unknown key 'quantiles'; known are scores, opinions, signature"),
        ('{"signature": "a"}', "the key 'scores' is missing"),
        ('{"scores": [1, NaN]}', "`scores` must be finite, got nan"),
        ('{"scores": [1, 1' + 400 * "0" + "]}", "`scores` must be finite, got a whole number beyond"),
    ],
)
def test_a_file_that_is_no_calibration_is_named(tmp_path, content, message):
    path = tmp_path / "c.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        Calibration.load(path)
    assert str(path) in str(caught.value)
