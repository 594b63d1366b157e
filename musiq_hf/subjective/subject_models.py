# SPDX-License-Identifier: Apache-2.0
"""Model of viewers: a vote is the quality of the item plus bias and noise of the viewer (after P.910, annex E).

u_ji = q_j + b_i + e with e ~ N(0, s_i^2), solved in turns for the qualities q, the biases b and the inconsistencies s.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..common.checks import check_choice
from .votes import Votes, average_votes

Estimator = Literal["marginal", "alternating"]
ESTIMATORS = ("marginal", "alternating")
PRIOR_VOTES = 2.0
TOLERANCE = 1e-8  # change of the scores, as a Euclidean norm, below which they are final
DOMINANT = 0.9  # part of the weight above which one viewer decides alone
ALTERNATING_FLOOR = 1e-8  # added to variances by the program that `alternating` follows
MARGINAL_FLOOR = 1e-16  # variance of viewers who all agree exactly


@dataclass(frozen=True, eq=False)
class SubjectModel:
    """Qualities of items, biases and inconsistencies of viewers.

    Attributes:
        items: Names of the items.
        scores: Quality of each item, in the unit of the votes; NaN without votes.
        standard_errors: Standard error of each score.
        subjects: Names of the viewers.
        bias: Bias of each viewer; the sum is 0.
        inconsistency: Standard deviation of each viewer's noise.
        num_iterations: Number of rounds.
        converged: Whether the scores came to rest.
        dominant_subject: Viewer who has more than 90 % of the weight, and whose votes are the scores; None without.
    """

    items: tuple[str, ...]
    scores: np.ndarray
    standard_errors: np.ndarray
    subjects: tuple[str, ...]
    bias: np.ndarray
    inconsistency: np.ndarray
    num_iterations: int
    converged: bool
    dominant_subject: str | None


class _Rounds:
    """State of the solution; `step` makes one round.

    Missing votes are 0 in all tables, and `given` says which those are.
    """

    def __init__(self, votes: Votes, prior_votes: float | None):
        self.given = np.isfinite(votes.values)
        self.values = np.where(self.given, votes.values, 0)
        self.num_votes, self.num_own = self.given.sum(axis=1), self.given.sum(axis=0)
        self.prior_votes = prior_votes
        self.scores = average_votes(votes.values, axis=1)
        self.bias = self._average_rests(self.scores)
        self.variances = np.zeros(len(self.scores))  # of the scores; known after the first round

    def _average_rests(self, scores: np.ndarray) -> np.ndarray:
        """Return the mean difference of each viewer's votes from the scores."""
        return np.asarray(np.where(self.given, self.values - scores[:, None], 0).sum(axis=0) / self.num_own)

    def residuals(self) -> np.ndarray:
        """Return votes without quality and bias, shape (num_items, num_subjects)."""
        return np.where(self.given, self.values - self.scores[:, None] - self.bias, 0)

    def _estimate_noise(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the variance of each viewer's noise, and the weight of each viewer."""
        rests = self.residuals()
        if self.prior_votes is None:
            means = rests.sum(axis=0) / self.num_own
            noise = np.where(self.given, (rests - means) ** 2, 0).sum(axis=0) / self.num_own
            return noise, 1 / (noise + ALTERNATING_FLOOR)
        spread = np.where(self.given, rests**2 + self.variances[:, None], 0).sum(axis=0)
        mean = spread.sum() / self.num_own.sum()
        noise = (spread + self.prior_votes * mean) / (self.num_own + self.prior_votes)
        return noise, 1 / np.maximum(noise, MARGINAL_FLOOR)

    def step(self) -> float:
        """Make a round, and return how far the scores moved."""
        self.noise, self.weights = self._estimate_noise()
        weights = self.given * self.weights
        totals = np.where(self.num_votes, weights.sum(axis=1), np.nan)
        before, self.scores = self.scores, (weights * (self.values - self.bias)).sum(axis=1) / totals
        self.variances = 1 / totals
        self.bias = self._average_rests(self.scores)
        return float(np.linalg.norm((self.scores - before)[self.num_votes > 0]))

    def standard_errors(self) -> np.ndarray:
        """Return the standard errors of the scores."""
        if self.prior_votes is not None:
            return np.sqrt(self.variances)
        rests, counts = self.residuals(), np.maximum(self.num_votes, 1)
        from_mean = np.where(self.given, rests - (rests.sum(axis=1) / counts)[:, None], 0)
        return np.where(self.num_votes, np.sqrt((from_mean**2).sum(axis=1)) / counts, np.nan)


def _check_settings(votes: Votes, estimator: Estimator, prior_votes: float, max_iterations: int) -> None:
    check_choice("estimator", estimator, ESTIMATORS)
    if not (np.isfinite(prior_votes) and prior_votes >= 0):
        raise ValueError(f"`prior_votes` must be a number from 0 on, got {prior_votes}.")
    if estimator == "alternating" and prior_votes != PRIOR_VOTES:
        raise ValueError("`prior_votes` belongs to the estimator 'marginal'. Leave it out.")
    if max_iterations < 1:
        raise ValueError(f"`max_iterations` must be at least 1, got {max_iterations}.")
    silent = ~np.isfinite(votes.values).any(axis=0)
    if silent.any():
        raise ValueError(f"The viewer {votes.subjects[int(silent.argmax())]!r} has no vote. Use `keep_subjects`.")


def fit_subject_model(
    votes: Votes,
    *,
    estimator: Estimator = "marginal",
    prior_votes: float = PRIOR_VOTES,
    max_iterations: int = 1000,
) -> SubjectModel:
    """Estimate qualities together with biases and inconsistencies of the viewers.

    `alternating` is the solution that the program sureal has for P.910, annex E. Its likelihood has no upper bound:
    the inconsistency of one viewer can shrink to 0, and that viewer's votes become the scores. In small panels it
    does so often, see `dominant_subject`. `marginal` counts that the scores themselves are uncertain, and adds some
    votes of average noise to each viewer, so that nobody takes all weight.

    Args:
        votes: Votes.
        estimator: "marginal" or "alternating".
        prior_votes: Number of votes of average noise that `marginal` adds to each viewer, from 0 on.
        max_iterations: Largest number of rounds, >= 1.

    Raises:
        ValueError: If an argument is out of its range, or a viewer has no vote.
    """
    _check_settings(votes, estimator, prior_votes, max_iterations)
    rounds = _Rounds(votes, prior_votes if estimator == "marginal" else None)
    num_iterations, change = 0, np.inf
    while change >= TOLERANCE and num_iterations < max_iterations:
        change = rounds.step()
        num_iterations += 1
    shares = rounds.weights * rounds.num_own
    shares = shares / shares.sum()
    shift = rounds.bias.mean()
    return SubjectModel(
        items=votes.items,
        scores=rounds.scores + shift,
        standard_errors=rounds.standard_errors(),
        subjects=votes.subjects,
        bias=rounds.bias - shift,
        inconsistency=np.sqrt(rounds.noise),
        num_iterations=num_iterations,
        converged=change < TOLERANCE,
        dominant_subject=votes.subjects[int(shares.argmax())] if shares.max() > DOMINANT else None,
    )
