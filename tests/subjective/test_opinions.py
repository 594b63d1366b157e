# SPDX-License-Identifier: Apache-2.0
import csv

import numpy as np
import pytest
from golden_subjective import made_up_panel, make_votes, reference, votes_file

from musiq_hf.subjective import (
    OpinionSettings,
    fit_subject_model,
    keep_subjects,
    mean_opinion_scores,
    read_votes,
    summarize_opinions,
)

NAN = float("nan")


def summarize(panel, **settings):
    return summarize_opinions(read_votes(votes_file(panel)), OpinionSettings(**settings))


def test_means_of_all_viewers_are_the_default_and_name_who_would_fail():
    table = summarize("planted")
    assert np.allclose([row.mos for row in table.rows], reference("planted", "mos/score"), rtol=0, atol=1e-9)
    widths = [(row.high - row.low) / 2 for row in table.rows]
    assert np.allclose(widths, reference("planted", "t95_half_width"), rtol=0, atol=1e-9)
    assert {row.votes for row in table.rows} == {20} and all(viewer.kept for viewer in table.viewers)
    assert table.notes == ("Screening by correlation would leave out v03, v07, v16; all votes are counted.",)
    assert table.threshold == 0.75 and table.num_errors == 0
    assert {viewer.bias for viewer in table.viewers} == {viewer.inconsistency for viewer in table.viewers} == {None}


def test_screening_leaves_viewers_out():
    table = summarize("planted", screen="correlation", threshold=0.5, interval="normal")
    votes = keep_subjects(read_votes(votes_file("planted")), [viewer.kept for viewer in table.viewers])
    expected = mean_opinion_scores(votes, interval="normal")
    assert [viewer.subject for viewer in table.viewers if not viewer.kept] == ["v03", "v07"]
    assert [row.mos for row in table.rows] == expected.mos.tolist()
    assert [row.high for row in table.rows] == (expected.mos + expected.half_width).tolist()
    assert table.notes == ("Screening by correlation left out v03, v07.",)


def test_bias_is_removed_before_screening_by_kurtosis():
    table = summarize("expert", estimator="bias_removed", screen="kurtosis")
    assert np.allclose([row.mos for row in table.rows], reference("expert", "p913/score"), rtol=0, atol=1e-9)
    assert np.allclose([viewer.bias for viewer in table.viewers], reference("expert", "p913/bias"), rtol=0, atol=1e-9)
    assert table.threshold is None and len(table.screening.correlations) == 10
    assert table.notes == (
        "Screening by kurtosis left out v06, v07.",
        "The votes of 8 viewers count; at least 9 are recommended.",
    )


def test_subject_models_have_normal_intervals_and_facts_about_viewers():
    votes = read_votes(votes_file("small_panel"))
    model = fit_subject_model(votes)
    table = summarize("small_panel", estimator="marginal")
    assert np.allclose([row.mos for row in table.rows], model.scores)
    widths = [(row.high - row.low) / 2 for row in table.rows]
    assert np.allclose(widths, 1.96 * model.standard_errors)
    assert np.allclose([row.std for row in table.rows], mean_opinion_scores(votes).std)
    assert np.allclose([viewer.inconsistency for viewer in table.viewers], model.inconsistency)
    alternating = summarize("small_panel", estimator="alternating")
    assert any("v08 has more than 90 % of the weight" in note for note in alternating.notes)
    screened = summarize("small_panel", estimator="marginal", screen="correlation")
    assert screened.viewers[0].bias is None and not screened.viewers[0].kept


def test_an_item_that_only_those_saw_who_went_is_a_row_with_an_error(tmp_path):
    _, values = made_up_panel(0)
    guesser = next(
        place
        for place, viewer in enumerate(
            summarize_opinions(make_votes(values), OpinionSettings()).screening.correlations
        )
        if viewer < 0.75
    )
    values[0, [place for place in range(9) if place != guesser]] = NAN
    values[1, 1:] = NAN
    for estimator in ("mean", "marginal", "alternating"):
        table = summarize_opinions(make_votes(values), OpinionSettings(screen="correlation", estimator=estimator))
        assert table.num_errors == 1 and table.rows[0][:2] == ("i0", None) and table.rows[0].low is None
        assert table.rows[0].error.startswith("No viewer who voted on it is left")
        assert table.rows[1].votes == 1 and table.rows[1].mos is not None and table.rows[1].low is None
    table.write(tmp_path / "mos.csv")
    table.write_viewers(tmp_path / "viewers.csv")
    with open(tmp_path / "mos.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "mos", "std", "votes", "low", "high", "error"]
    assert rows[0]["mos"] == "" and float(rows[2]["mos"]) == table.rows[2].mos and rows[2]["error"] == ""
    with open(tmp_path / "viewers.csv", newline="") as file:
        viewers = list(csv.DictReader(file))
    assert list(viewers[0]) == ["subject", "votes", "correlation", "kept", "bias", "inconsistency"]
    assert viewers[guesser]["kept"] == "False" and viewers[guesser]["bias"] == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"screen": "grubbs"}, "`screen` must be 'none' or 'correlation' or 'kurtosis', got 'grubbs'"),
        ({"estimator": "median"}, "`estimator` must be 'mean' or 'marginal'"),
        ({"screen": "kurtosis", "threshold": 0.5}, "`threshold` is a correlation, and screening by kurtosis has none"),
        ({"estimator": "marginal", "interval": "t"}, "`interval` belongs to means, and 'marginal' has its own"),
        ({"interval": "z"}, "`interval` must be 't' or 'normal'"),
        ({"screen": "correlation", "threshold": 1.0}, "No viewer has a correlation of 1 with the mean"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        summarize("expert", **settings)


def test_fewer_than_three_items_say_nothing_about_viewers():
    votes = make_votes([[4, 5, 4], [2, 1, 3]])
    table = summarize_opinions(votes, OpinionSettings())
    assert not any("would leave out" in note for note in table.notes)
    assert [viewer.correlation for viewer in table.viewers] == [None] * 3
    with pytest.raises(ValueError, match="needs at least 3 items, got 2"):
        summarize_opinions(votes, OpinionSettings(screen="correlation"))
