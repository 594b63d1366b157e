# SPDX-License-Identifier: Apache-2.0
"""Votes of viewers, and mean opinion scores of them, after ITU-R BT.500 and ITU-T P.910 and P.913.

The recommendations were not at hand: the equations are those of public programs that follow them. `u_ji` is the vote
of viewer i on item j. A vote may be missing.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..common.checks import check_choice
from ..common.extras import require
from ..pictures.csv_rows import check_columns
from .tables import Numbers, Row, read_rows

Interval = Literal["t", "normal"]
INTERVALS = ("t", "normal")
LONG = ("subject", "item", "vote")


@dataclass(frozen=True, eq=False)
class Votes:
    """Votes of viewers on items.

    Attributes:
        values: Votes, float64, shape (num_items, num_subjects); NaN where there is none.
        items: Names of the items, such as paths of pictures.
        subjects: Names of the viewers.
    """

    values: np.ndarray
    items: tuple[str, ...]
    subjects: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raise a ValueError if the names do not fit the votes, or a vote is infinite."""
        object.__setattr__(self, "values", np.asarray(self.values, dtype=np.float64))
        object.__setattr__(self, "items", tuple(self.items))
        object.__setattr__(self, "subjects", tuple(self.subjects))
        if self.values.shape != (len(self.items), len(self.subjects)):
            raise ValueError(
                f"`values` must have a row for each of {len(self.items)} items and a column for each of "
                f"{len(self.subjects)} viewers, got shape {self.values.shape}."
            )
        if np.isinf(self.values).any():
            raise ValueError("Votes must be finite, or NaN where there is none, got infinite ones.")
        for kind, names in (("items", self.items), ("subjects", self.subjects)):
            if len(set(names)) < len(names):
                raise ValueError(f"`{kind}` must differ, got a name twice. Average several votes on an item first.")


@dataclass(frozen=True, eq=False)
class MeanOpinionScores:
    """Mean opinion scores.

    Attributes:
        items: Names of the items.
        mos: Mean of the votes on each item, NaN without votes.
        std: Standard deviation of the votes on each item, divided by n - 1; NaN with fewer than 2 votes.
        num_votes: Number of votes on each item, int64.
        half_width: Half the width of the confidence interval of `mos`; NaN with fewer than 2 votes.
    """

    items: tuple[str, ...]
    mos: np.ndarray
    std: np.ndarray
    num_votes: np.ndarray
    half_width: np.ndarray


def gather_votes(votes: Sequence[tuple[str, str, float | None]], *, source: str, keep_order: bool = False) -> Votes:
    """Make a table of single votes; several of a viewer on an item become their mean.

    Args:
        votes: Subject, item and vote, None for no vote.
        source: Name of the data in error messages.
        keep_order: Whether names keep the order in which they come; else they are sorted.

    Raises:
        ValueError: If there are fewer than 2 viewers, or an item or a viewer has no vote at all.
    """
    items = list(dict.fromkeys(item for _, item, _ in votes))
    subjects = list(dict.fromkeys(subject for subject, _, _ in votes))
    if not keep_order:
        items, subjects = sorted(items), sorted(subjects)
    rows, columns = ({name: place for place, name in enumerate(side)} for side in (items, subjects))
    sums, counts = np.zeros((len(items), len(subjects))), np.zeros((len(items), len(subjects)))
    for subject, item, vote in votes:
        if vote is not None:
            sums[rows[item], columns[subject]] += vote
            counts[rows[item], columns[subject]] += 1
    if len(subjects) < 2:
        raise ValueError(f"{source}: votes of at least 2 viewers are needed, got those of {len(subjects)}.")
    for kind, axis, side in (("item", 1, items), ("viewer", 0, subjects)):
        silent = [name for name, count in zip(side, counts.sum(axis=axis), strict=True) if not count]
        if silent:
            raise ValueError(f"{source}: the {kind} {silent[0]!r} has no vote. Leave it out, or add its votes.")
    with np.errstate(invalid="ignore"):
        return Votes(sums / counts, tuple(items), tuple(subjects))


def _read_wide(rows: Sequence[Row], names: Sequence[str], numbers: Numbers) -> list[tuple[str, str, float | None]]:
    votes: list[tuple[str, str, float | None]] = []
    seen: dict[str, str] = {}
    for where, cells in rows:
        item = cells["item"]
        if item in seen:
            raise ValueError(f"{where}: the item {item!r} stands in {seen[item]} too. Give each item one row.")
        seen[item] = where
        for name in names:
            if name != "item":
                votes.append((name, item, numbers.read(cells[name], name=name, where=where)))
    return votes


def read_votes(path: str | os.PathLike[str]) -> Votes:
    """Read the votes of a CSV table.

    Args:
        path: File with columns `subject`, `item` and `vote` and a row for each vote, or with a column `item` and a
            column for each viewer. An empty cell or nan is no vote.

    Returns:
        The votes. Names are sorted if each vote has its row, and keep the order of the table otherwise. Several votes
        of a viewer on an item become their mean.

    Raises:
        ValueError: If a column is missing, a row is too short or a vote is no finite number. Also if an item has two
            rows of one table, there are fewer than 2 viewers, or an item or a viewer has no vote.
    """
    names, rows = read_rows(path)
    numbers = Numbers(path)
    is_long = "subject" in names or "vote" in names
    expected = "subject,item,vote, or item and a column for each viewer"
    check_columns(names, LONG if is_long else ("item",), source=str(path), expected=expected)
    for where, cells in rows:
        for name in ("subject", "item") if is_long else ("item",):
            if not cells[name].strip():
                raise ValueError(f"{where}: `{name}` must be a name, got nothing.")
    if not is_long and not all(name.strip() for name in names):
        raise ValueError(f"{path}: a column has no name, so it is no viewer. Name it, or drop it if it is an index.")
    if not is_long:
        return gather_votes(_read_wide(rows, names, numbers), source=str(path), keep_order=True)
    votes = [
        (cells["subject"], cells["item"], numbers.read(cells["vote"], name="vote", where=where))
        for where, cells in rows
    ]
    return gather_votes(votes, source=str(path))


def average_votes(values: np.ndarray, axis: int) -> np.ndarray:
    """Return means that leave missing votes out, NaN where all are missing.

    Args:
        values: Votes, shape (num_items, num_subjects), NaN where there is none.
        axis: 1 averages over viewers, 0 over items.
    """
    given = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(given, values, 0).sum(axis=axis) / given.sum(axis=axis))


def interval_factors(counts: np.ndarray, *, confidence: float, interval: Interval) -> np.ndarray:
    """Return how many standard errors half an interval of confidence is wide.

    Args:
        counts: Number of votes on each item.
        confidence: Part of such intervals that hold the truth, in (0, 1).
        interval: "t" takes Student's distribution with n - 1 degrees of freedom. "normal" takes the normal one with
            two decimals, 1.96 for 95 %, as BT.500 prints it.

    Returns:
        Factors, float64; NaN for fewer than 2 votes.

    Raises:
        ValueError: If an argument is none of its choices.
        ImportError: If SciPy is missing.
    """
    check_choice("interval", interval, INTERVALS)
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie between 0 and 1, got {confidence}.")
    special, place = require("scipy.special", extra="subjective"), (1 + confidence) / 2
    several = np.where(counts > 1, counts, np.nan)
    if interval == "normal":
        return np.where(np.isfinite(several), round(float(special.ndtri(place)), 2), np.nan)
    return np.asarray(special.stdtrit(several - 1, place))


def mean_opinion_scores(votes: Votes, *, confidence: float = 0.95, interval: Interval = "t") -> MeanOpinionScores:
    """Compute mean opinion scores with their intervals of confidence.

    Args:
        votes: Votes.
        confidence: Part of such intervals that hold the truth, in (0, 1).
        interval: "t" takes Student's distribution with n - 1 degrees of freedom, "normal" the normal one, as BT.500
            does: 1.96 standard errors for 95 %.

    Raises:
        ValueError: If an argument is none of its choices.
        ImportError: If SciPy is missing.
    """
    mos = average_votes(votes.values, axis=1)
    counts = np.isfinite(votes.values).sum(axis=1)
    squares = np.where(np.isfinite(votes.values), (votes.values - mos[:, None]) ** 2, 0).sum(axis=1)
    std = np.sqrt(squares / np.where(counts > 1, counts - 1, np.nan))
    factors = interval_factors(counts, confidence=confidence, interval=interval)
    return MeanOpinionScores(votes.items, mos, std, counts, factors * std / np.sqrt(np.maximum(counts, 1)))


def keep_subjects(votes: Votes, kept: Sequence[bool] | np.ndarray) -> Votes:
    """Return the votes of some viewers.

    Args:
        votes: Votes.
        kept: Whether each viewer stays, such as the `kept` of a `Screening`.

    Raises:
        ValueError: If there is not one answer for each viewer, or nobody stays.
    """
    stay = np.asarray(kept)
    if stay.dtype != np.bool_ or stay.shape != (len(votes.subjects),):
        raise ValueError(
            f"`kept` must have True or False for each of {len(votes.subjects)} viewers, got {stay.dtype} of shape "
            f"{stay.shape}."
        )
    if not stay.any():
        raise ValueError("`kept` must keep at least one viewer, got none.")
    names = tuple(name for name, stays in zip(votes.subjects, stay, strict=True) if stays)
    return Votes(votes.values[:, stay], votes.items, names)


def measure_bias(votes: Votes) -> np.ndarray:
    """Return how much higher than the mean opinion score each viewer votes, on average over the viewer's items."""
    return average_votes(votes.values - average_votes(votes.values, axis=1)[:, None], axis=0)


def remove_bias(votes: Votes) -> Votes:
    """Subtract from each vote how much higher than others its viewer votes (after P.913, section 12.4).

    The recommendation goes on with `screen_by_kurtosis` and the means of the new votes.
    """
    return Votes(votes.values - measure_bias(votes), votes.items, votes.subjects)


def differential_votes(votes: Votes, references: Mapping[str, str], *, best: float = 5.0) -> Votes:
    """Compute votes relative to those on hidden references: u_ji - u_ri + best (ACR-HR, after P.910).

    Args:
        votes: Votes on items and references.
        references: Name of the reference of each item that is wanted.
        best: Vote for an item that is as good as its reference, in the unit of the votes.

    Returns:
        The new votes on the wanted items, in the order of `votes`. One is missing if either vote is.

    Raises:
        ValueError: If an item or a reference has no votes.
    """
    places = {name: place for place, name in enumerate(votes.items)}
    unknown = [name for pair in references.items() for name in pair if name not in places]
    if unknown:
        raise ValueError(f"`references` names {unknown[0]!r}, which nobody has voted on. Check its spelling.")
    items = tuple(name for name in votes.items if name in references)
    own = votes.values[[places[name] for name in items]]
    return Votes(own - votes.values[[places[references[name]] for name in items]] + best, items, votes.subjects)
