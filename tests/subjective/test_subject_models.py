# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from golden_subjective import PANELS, made_up_panel, make_votes, reference, votes_file

from musiq_hf.subjective import fit_subject_model, mean_opinion_scores, read_votes

NAN = float("nan")


@pytest.mark.parametrize("panel", PANELS)
def test_alternating_estimates_are_those_of_the_reference(panel):
    found = fit_subject_model(read_votes(votes_file(panel)), estimator="alternating")
    assert found.converged
    for name, values in (
        ("score", found.scores),
        ("score_std", found.standard_errors),
        ("bias", found.bias),
        ("inconsistency", found.inconsistency),
    ):
        assert np.allclose(values, reference(panel, f"p910/{name}"), rtol=0, atol=1e-5), name
    assert found.dominant_subject == ("v08" if panel == "small_panel" else None)


@pytest.mark.parametrize("panel", PANELS)
def test_marginal_estimates_give_nobody_all_weight(panel):
    found = fit_subject_model(read_votes(votes_file(panel)))
    assert found.converged and found.num_iterations <= 36
    assert found.dominant_subject is None and found.inconsistency.min() > 0.1
    assert found.bias.sum() == pytest.approx(0, abs=1e-9)


def test_the_viewer_who_guesses_is_the_least_consistent_and_turned_votes_too():
    found = fit_subject_model(read_votes(votes_file("planted")))
    worst = sorted(zip(found.inconsistency, found.subjects, strict=True))[-2:]
    assert {name for _, name in worst} == {"v03", "v07"}


def measure(estimator, **panel):
    """Errors of the scores of 40 panels over those of means, part of the intervals that hold, dominant viewers."""
    ratios, held, dominant = [], [], []
    for seed in range(40):
        truth, values = made_up_panel(seed, **panel)
        votes = make_votes(values)
        found, means = fit_subject_model(votes, estimator=estimator), mean_opinion_scores(votes).mos
        errors = [scores - truth - (scores - truth).mean() for scores in (found.scores, means)]
        ratios.append(np.sqrt((errors[0] ** 2).mean() / (errors[1] ** 2).mean()))
        held.append((np.abs(errors[0]) < 1.96 * found.standard_errors).mean())
        dominant.append(found.dominant_subject)
    return np.array(ratios), np.mean(held), sum(name is not None for name in dominant)


def test_marginal_scores_are_nearer_to_the_truth_than_means_and_their_intervals_hold():
    ratios, held, num_dominant = measure("marginal")
    assert np.median(ratios) <= 0.75  # 0.64
    assert np.mean(ratios > 1) <= 0.05  # none
    assert 0.90 <= held <= 0.98  # 0.951
    assert num_dominant == 0


def test_marginal_scores_are_no_worse_than_means_where_nobody_guesses():
    ratios, _, _ = measure("marginal", has_guesser=False)
    assert np.median(ratios) <= 1  # 0.97; 13 of 40 are above 1


def test_small_panels_collapse_in_the_alternating_estimate():
    ratios, _, num_dominant = measure("alternating")
    assert num_dominant >= 10 and (ratios > 1).sum() >= 10  # 17 and 16


def test_prior_votes_draw_inconsistencies_together():
    votes = make_votes(made_up_panel(0)[1])
    spreads = [np.ptp(fit_subject_model(votes, prior_votes=prior).inconsistency) for prior in (0, 2, 50)]
    assert spreads[0] > spreads[1] > spreads[2]


def test_exact_agreement_up_to_a_bias_is_found_exactly():
    quality, bias = np.array([1.0, 2, 4, 5]), np.array([0.5, -0.5, 0])
    for estimator in ("marginal", "alternating"):
        found = fit_subject_model(make_votes(quality[:, None] + bias), estimator=estimator)
        assert np.allclose(found.scores, quality) and np.allclose(found.bias, bias)
        assert np.allclose(found.inconsistency, 0, atol=1e-6) and np.isfinite(found.standard_errors).all()


@pytest.mark.parametrize("estimator", ["marginal", "alternating"])
def test_an_item_without_votes_has_no_score_and_changes_no_other(estimator):
    values = made_up_panel(3)[1]
    whole = fit_subject_model(make_votes(values), estimator=estimator)
    more = fit_subject_model(make_votes(np.vstack([values, np.full(9, NAN)])), estimator=estimator)
    assert np.isnan(more.scores[-1]) and np.isnan(more.standard_errors[-1])
    assert np.allclose(more.scores[:-1], whole.scores) and more.num_iterations == whole.num_iterations


def test_a_limit_of_rounds_is_kept_and_said():
    found = fit_subject_model(read_votes(votes_file("expert")), max_iterations=2)
    assert (found.num_iterations, found.converged) == (2, False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"estimator": "zrec"}, "`estimator` must be 'marginal' or 'alternating', got 'zrec'"),
        ({"prior_votes": -1}, "`prior_votes` must be a number from 0 on, got -1"),
        ({"prior_votes": 1.0, "estimator": "alternating"}, "`prior_votes` belongs to the estimator 'marginal'"),
        ({"max_iterations": 0}, "`max_iterations` must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        fit_subject_model(make_votes([[1, 2], [3, 4]]), **settings)


def test_a_viewer_without_votes_is_refused():
    with pytest.raises(ValueError, match="The viewer 'v1' has no vote. Use `keep_subjects`"):
        fit_subject_model(make_votes([[1, NAN], [3, NAN]]))
