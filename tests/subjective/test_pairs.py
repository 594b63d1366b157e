# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
from golden_subjective import COMPARISONS, DIRECTORY, reference

from musiq_hf.subjective import Pairs, pairs, read_pairs, scale_pairs


@pytest.fixture
def table(tmp_path):
    def write(text):
        path = tmp_path / "pairs.csv"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("model", ["bradley_terry", "thurstone"])
@pytest.mark.parametrize("name", COMPARISONS)
def test_scales_and_errors_are_those_of_the_reference(name, model):
    found = scale_pairs(read_pairs(DIRECTORY / f"{name}.csv"), model=model)
    assert np.allclose(found.scores, reference(name, f"{model}/score"), rtol=0, atol=1e-8)
    assert np.allclose(found.standard_errors, reference(name, f"{model}/score_std"), rtol=0, atol=1e-8)
    if model == "bradley_terry":
        assert np.allclose(found.scores, reference(name, "choix_bradley_terry"), rtol=0, atol=1e-8)


@pytest.mark.parametrize("model", ["bradley_terry", "thurstone"])
def test_one_jod_is_three_wins_of_four(model):
    found = scale_pairs(Pairs([[0, 75], [25, 0]], ["good", "bad"]), model=model, unit="jod")
    assert np.allclose(found.scores, [0.5, -0.5], rtol=0, atol=1e-9)
    natural = scale_pairs(Pairs([[0, 75], [25, 0]], ["good", "bad"]), model=model)
    assert np.allclose(natural.standard_errors / found.standard_errors, np.ptp(natural.scores))


def test_the_error_of_two_items_is_that_of_a_logit():
    found = scale_pairs(Pairs([[0, 60], [40, 0]], ["a", "b"]))
    assert np.ptp(found.scores) == pytest.approx(math.log(1.5))
    # The variance of a difference of two scores that sum to 0 is four times that of each.
    assert 2 * found.standard_errors[0] == pytest.approx(math.sqrt(1 / (100 * 0.6 * 0.4)))


def test_counts_and_ties_are_read(table):
    found = read_pairs(table("winner,loser,count,tie\nb,a,3,\na,b,,no\nb,c,2,yes\nc,b,1,0\n"))
    assert found.items == ("a", "b", "c")
    assert found.wins.tolist() == [[0, 1, 0], [3, 0, 1], [0, 2, 0]]
    plain = read_pairs(table("winner,loser\nb,a\nb,a\na,b\n"))
    assert plain.wins.tolist() == [[0, 1], [2, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("winner,looser\na,b\n", r"pairs.csv: columns \['loser'\] are missing"),
        ("winner,loser\na,a\n", "line 2: 'a' is compared with itself"),
        ("winner,loser,count\na,b,-1\n", r"line 2: `count` must be a number in 0..inf, got -1"),
        ("winner,loser,count\na,b,many\n", "line 2: `count` must be"),
        ("winner,loser,tie\na,b,maybe\n", "line 2: `tie` must be 1 or 0, yes or no, true or false, got 'maybe'"),
        ("winner,loser\na,\n", "line 2: `winner` and `loser` must be names, got 'a' and ''"),
        ("winner,loser\n", "no rows below the header"),
    ],
)
def test_wrong_tables_are_one_sentence(table, text, message):
    with pytest.raises(ValueError, match=message):
        read_pairs(table(text))


@pytest.mark.parametrize(
    "wins",
    [
        [[0, 3, 1], [1, 0, 2], [0, 0, 0]],  # the last one never won
        [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]],  # two groups
    ],
)
def test_items_without_a_chain_of_wins_are_named(wins):
    with pytest.raises(ValueError, match="No chain of wins leads from '[a-d]' to '[a-d]', so their distance has no"):
        scale_pairs(Pairs(wins, "abcd"[: len(wins)]))


def test_wrong_arguments_are_refused(monkeypatch):
    sound = Pairs([[0, 2], [1, 0]], ["a", "b"])
    with pytest.raises(ValueError, match="`model` must be 'bradley_terry' or 'thurstone', got 'elo'"):
        scale_pairs(sound, model="elo")
    with pytest.raises(ValueError, match="`unit` must be 'natural' or 'jod', got 'db'"):
        scale_pairs(sound, unit="db")
    with pytest.raises(ValueError, match="A scale needs at least 2 items, got 1"):
        scale_pairs(Pairs([[0]], ["a"]))
    with pytest.raises(ValueError, match="`wins` must be 2 x 2 numbers from 0 on"):
        Pairs([[0, -1], [1, 0]], ["a", "b"])
    with pytest.raises(ValueError, match="must have 0 on its diagonal"):
        Pairs([[1, 1], [1, 0]], ["a", "b"])
    monkeypatch.setattr(pairs, "MAX_STEPS", 1)
    with pytest.raises(ValueError, match="did not come to rest in 1 steps"):
        scale_pairs(sound)


@pytest.mark.parametrize("model", ["bradley_terry", "thurstone"])
def test_far_items_and_huge_counts_find_the_best_scale(model):
    strength = np.array([0.0, 2, 4, 6, 9])
    chance = 1 / (1 + np.exp(strength[None] - strength[:, None]))
    wins = 1e6 * np.where(np.eye(5, dtype=bool), 0, chance)
    found = scale_pairs(Pairs(wins, list("abcde")), model=model)
    assert (np.diff(found.scores) > 0).all() and np.isfinite(found.standard_errors).all()
    if model == "bradley_terry":
        assert np.allclose(found.scores, strength - strength.mean(), rtol=0, atol=1e-7)


def test_a_scale_is_written_with_its_intervals(tmp_path):
    found = scale_pairs(read_pairs(DIRECTORY / "pairs_complete.csv"))
    found.write(tmp_path / "new" / "scale.csv")
    lines = (tmp_path / "new" / "scale.csv").read_text().splitlines()
    assert lines[0] == "image,score,standard_error,low,high" and len(lines) == 8
    name, *numbers = lines[1].split(",")
    score, error, low, high = map(float, numbers)
    assert (name, score, error) == ("i000", found.scores[0], found.standard_errors[0])
    assert (low, high) == pytest.approx((score - 1.96 * error, score + 1.96 * error))
