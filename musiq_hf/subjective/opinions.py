# SPDX-License-Identifier: Apache-2.0
"""Opinion scores of a test in one step: bias, screening, scores and intervals, as a table and a table of viewers."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from ..common.checks import check_choice
from . import subject_models
from .screening import MIN_VOTES, THRESHOLD, Screening, screen_by_correlation, screen_by_kurtosis
from .sheets import MIN_VIEWERS
from .subject_models import SubjectModel, fit_subject_model
from .tables import write_rows
from .votes import Interval, Votes, interval_factors, keep_subjects, mean_opinion_scores, measure_bias, remove_bias

SCREENS = ("none", "correlation", "kurtosis")
ESTIMATORS = ("mean", *subject_models.ESTIMATORS, "bias_removed")
CONFIDENCE = 0.95
NOBODY = "No viewer who voted on it is left. Drop the row, or keep more viewers."


@dataclass(frozen=True, kw_only=True)
class OpinionSettings:
    """Settings of `summarize_opinions`.

    Attributes:
        screen: Rule that decides which viewers stay: "none", "correlation" or "kurtosis".
        threshold: Lowest correlation of those who stay; None takes 0.75. Without screening it decides who is named.
        estimator: Kind of the scores: "mean", "marginal", "alternating", or "bias_removed" for means of votes without
            the bias of their viewers, which is removed before screening.
        interval: Interval of a mean, "t" or "normal"; None takes "t". A subject model has the normal one.
    """

    screen: Literal["none", "correlation", "kurtosis"] = "none"
    threshold: float | None = None
    estimator: Literal["mean", "marginal", "alternating", "bias_removed"] = "mean"
    interval: Interval | None = None

    def __post_init__(self) -> None:
        """Raise a ValueError if a setting is none of its choices, or does not go with another one."""
        check_choice("screen", self.screen, SCREENS)
        check_choice("estimator", self.estimator, ESTIMATORS)
        if self.threshold is not None and self.screen == "kurtosis":
            raise ValueError("`threshold` is a correlation, and screening by kurtosis has none. Leave it out.")
        if self.interval is not None and self.estimator in subject_models.ESTIMATORS:
            raise ValueError(f"`interval` belongs to means, and {self.estimator!r} has its own. Leave it out.")


class OpinionRow(NamedTuple):
    """Opinion score of an item.

    Attributes:
        image: Name of the item.
        mos: Score, in the unit of the votes; None if nobody is left who voted on it.
        std: Standard deviation of the votes; None with fewer than 2.
        votes: Number of votes that count.
        low: Lower end of the interval of 95 % confidence; None if it cannot be known.
        high: Upper end.
        error: Sentence that says why there is no score, else None.
    """

    image: str
    mos: float | None
    std: float | None
    votes: int
    low: float | None
    high: float | None
    error: str | None


class ViewerRow(NamedTuple):
    """Facts about a viewer.

    Attributes:
        subject: Name of the viewer.
        votes: Number of votes.
        correlation: Correlation with the mean opinion scores of all viewers, before screening; None if there are fewer
            than 3 items.
        kept: Whether the votes count.
        bias: Mean distance of the votes from those of all; None where the estimator asks for none.
        inconsistency: Standard deviation of the viewer's noise; None without a subject model.
    """

    subject: str
    votes: int
    correlation: float | None
    kept: bool
    bias: float | None
    inconsistency: float | None


# Kinds of the values in the columns of tables.
ROW_KINDS = dict.fromkeys(OpinionRow._fields, float) | {"image": str, "votes": int, "error": str}
VIEWER_KINDS = dict.fromkeys(ViewerRow._fields, float) | {"subject": str, "votes": int, "kept": bool}


@dataclass(frozen=True, eq=False)
class OpinionTable:
    """Opinion scores and viewers of a test.

    Attributes:
        rows: Row of each item.
        viewers: Row of each viewer.
        screening: Viewers who stay and those who go, with their correlations whatever the rule was.
        threshold: Correlation that decided who stays, or who is named in a note; None if kurtosis decided.
        notes: Sentences on what a reader of the scores should know.
    """

    rows: tuple[OpinionRow, ...]
    viewers: tuple[ViewerRow, ...]
    screening: Screening
    threshold: float | None
    notes: tuple[str, ...]

    @property
    def num_errors(self) -> int:
        """Number of items without a score."""
        return sum(row.error is not None for row in self.rows)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the rows as a CSV, JSON Lines or parquet table.

        Fine-tuning and evaluation read the columns `image` and `mos` of a CSV or parquet table.
        """
        write_rows(path, ROW_KINDS, self.rows)

    def write_viewers(self, path: str | os.PathLike[str]) -> None:
        """Write the viewers as a CSV, JSON Lines or parquet table."""
        write_rows(path, VIEWER_KINDS, self.viewers)


def _to_number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _screen(votes: Votes, settings: OpinionSettings, threshold: float) -> Screening:
    found = screen_by_correlation(votes, threshold=threshold)
    if settings.screen == "correlation" and len(votes.items) < MIN_VOTES:
        raise ValueError(
            f"Screening by correlation needs at least {MIN_VOTES} items, got {len(votes.items)}. Leave it out, or "
            "give all votes of the test."
        )
    if settings.screen == "kurtosis":
        return replace(screen_by_kurtosis(votes), correlations=found.correlations)
    if settings.screen == "correlation" and not found.kept.any():
        raise ValueError(f"No viewer has a correlation of {threshold:g} with the mean. Lower the threshold.")
    return found


def _list_notes(
    votes: Votes, failed: Sequence[str], settings: OpinionSettings, model: SubjectModel | None
) -> list[str]:
    """Return sentences about those who failed, the size of the panel, and the model."""
    notes, names = [], ", ".join(failed)
    if failed and settings.screen == "none" and len(votes.items) >= MIN_VOTES:
        notes.append(f"Screening by correlation would leave out {names}; all votes are counted.")
    elif failed and settings.screen != "none":
        notes.append(f"Screening by {settings.screen} left out {names}.")
    num_viewers = len(votes.subjects) - (len(failed) if settings.screen != "none" else 0)
    if num_viewers < MIN_VIEWERS:
        notes.append(f"The votes of {num_viewers} viewers count; at least {MIN_VIEWERS} are recommended.")
    if model is not None and model.dominant_subject is not None:
        notes.append(
            f"{model.dominant_subject} has more than 90 % of the weight, so the scores are the votes of one viewer. "
            "Take the estimator marginal."
        )
    if model is not None and not model.converged:
        notes.append(f"The scores were still moving after {model.num_iterations} rounds.")
    return notes


def _make_rows(votes: Votes, settings: OpinionSettings, model: SubjectModel | None) -> tuple[OpinionRow, ...]:
    means = mean_opinion_scores(votes, confidence=CONFIDENCE, interval=settings.interval or "t")
    scores, widths = means.mos, means.half_width
    if model is not None:
        factors = interval_factors(means.num_votes, confidence=CONFIDENCE, interval="normal")
        scores, widths = model.scores, factors * model.standard_errors
    rows = []
    for place, item in enumerate(votes.items):
        low, high = (_to_number(scores[place] + sign * widths[place]) for sign in (-1, 1))
        score, count = _to_number(scores[place]), int(means.num_votes[place])
        error = NOBODY if score is None else None
        rows.append(OpinionRow(item, score, _to_number(means.std[place]), count, low, high, error))
    return tuple(rows)


def summarize_opinions(votes: Votes, settings: OpinionSettings) -> OpinionTable:
    """Compute the opinion scores of a test.

    Args:
        votes: Votes.
        settings: Screening, and the kind of the scores.

    Raises:
        ValueError: If a setting is out of its range, or nobody passes the screening.
        ImportError: If SciPy is missing.
    """
    removed = measure_bias(votes) if settings.estimator == "bias_removed" else None
    counted = votes if removed is None else remove_bias(votes)
    threshold = THRESHOLD if settings.threshold is None else settings.threshold
    screening = _screen(counted, settings, threshold)
    failed = [name for name, stays in zip(votes.subjects, screening.kept, strict=True) if not stays]
    if settings.screen == "none":
        screening = replace(screening, kept=np.ones_like(screening.kept))
    counted = keep_subjects(counted, screening.kept)
    model = None
    if settings.estimator in ("marginal", "alternating"):
        model = fit_subject_model(counted, estimator=settings.estimator)
    return OpinionTable(
        rows=_make_rows(counted, settings, model),
        viewers=_list_viewers(votes, screening, removed, model),
        screening=screening,
        threshold=None if settings.screen == "kurtosis" else threshold,
        notes=tuple(_list_notes(votes, failed, settings, model)),
    )


def _list_viewers(
    votes: Votes, screening: Screening, removed: np.ndarray | None, model: SubjectModel | None
) -> tuple[ViewerRow, ...]:
    assert screening.correlations is not None  # whatever the rule was
    bias = {} if removed is None else dict(zip(votes.subjects, removed.tolist(), strict=True))
    noise: dict[str, float] = {}
    if model is not None:
        bias = dict(zip(model.subjects, model.bias.tolist(), strict=True))
        noise = dict(zip(model.subjects, model.inconsistency.tolist(), strict=True))
    counts = np.isfinite(votes.values).sum(axis=0)
    has_correlations = len(votes.items) >= MIN_VOTES
    return tuple(
        ViewerRow(
            name,
            int(count),
            float(correlation) if has_correlations else None,
            bool(kept),
            bias.get(name),
            noise.get(name),
        )
        for name, count, correlation, kept in zip(
            votes.subjects, counts, screening.correlations, screening.kept, strict=True
        )
    )
