# SPDX-License-Identifier: Apache-2.0
"""Selection of rows by their scores: thresholds, the best and worst, per group, and even samples."""

import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from ..common.checks import check_counts
from .percentiles import PERCENTILE
from .tables import ScoreTable

FOLDER = "folder"  # group of a picture where the table has no such column
SHARE = re.compile(r"(\d+(?:\.\d+)?)%")
NUM_BINS = 10


@dataclass(frozen=True)
class Amount:
    """Number of pictures, or share of them.

    Attributes:
        number: Number of pictures, at least 1, or percent of them, above 0 and at most 100.
        is_percent: Whether it is a share.

    Raises:
        ValueError: If the number is out of range.
    """

    number: Fraction
    is_percent: bool = False

    def __post_init__(self) -> None:
        if self.is_percent and not 0 < self.number <= 100:
            raise ValueError(f"A share must be above 0% and at most 100%, got {float(self.number):g}%.")
        if not self.is_percent and (self.number < 1 or self.number.denominator != 1):
            raise ValueError(f"A number of pictures must be whole and at least 1, got {float(self.number):g}.")

    @classmethod
    def read(cls, text: str) -> "Amount":
        """Read a number, as 100, or a share, as 10%.

        Raises:
            ValueError: If the text is neither.
        """
        share = SHARE.fullmatch(text)
        if share:
            return cls(Fraction(share[1]), is_percent=True)
        if not re.fullmatch(r"\d+", text):
            raise ValueError(f"A number as 100 or a share as 10% is needed, got {text}.")
        return cls(Fraction(int(text)))

    def of(self, total: int) -> int:
        """Return how many of a number of pictures these are; a share is rounded up."""
        return min(total, math.ceil(self.number * total / 100) if self.is_percent else int(self.number))


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Conditions on rows. Thresholds come first; what is best, worst or drawn is so among the rows that pass them.

    Attributes:
        minimum: Lowest score; None sets no bound. A score that equals a bound passes.
        maximum: Highest score; None sets no bound.
        percentile: Lowest percentile of the score, from 0 to 100; see `add_percentiles`. None sets no bound.
        top: Number or share of the best rows; None takes all.
        bottom: Number or share of the worst rows, in place of the best ones; None takes all.
        per: Column by whose values rows are grouped, for `top` and `bottom`; "folder" is the folder of the key where
            the table has no such column. None makes one group of all.
        sample: Number of rows that are drawn, about as many from each of `bins` equal ranges of scores; None draws
            none.
        bins: Number of these ranges.
        seed: Seed of the draw.

    Raises:
        ValueError: If conditions contradict each other, or a number is out of range.
    """

    minimum: float | None = None
    maximum: float | None = None
    percentile: float | None = None
    top: Amount | None = None
    bottom: Amount | None = None
    per: str | None = None
    sample: int | None = None
    bins: int = NUM_BINS
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(self, "sample", "bins")
        for name in ("minimum", "maximum"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"`{name}` must be a finite number, got {value}.")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"No score lies from {self.minimum:g} up to {self.maximum:g}. Exchange --min and --max.")
        if self.percentile is not None and not 0 <= self.percentile <= 100:
            raise ValueError(f"`percentile` must lie between 0 and 100, got {self.percentile}.")
        given = [name for name in ("top", "bottom", "sample") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"--{given[0]} and --{given[1]} exclude each other. Give one of them.")
        if self.per is not None and self.top is None and self.bottom is None:
            raise ValueError("--per says of which groups the best or worst are taken. Add --top or --bottom.")


@dataclass(frozen=True)
class Selection:
    """Rows that were chosen, and those that could not be because they have no score.

    Attributes:
        table: Table of all rows.
        chosen: Places of the chosen rows in the table, rising, int64.
        unscored: Places of the rows without a score, rising, int64.
    """

    table: ScoreTable
    chosen: np.ndarray
    unscored: np.ndarray

    @cached_property
    def reasons(self) -> Counter[str]:
        """Number of rows without a score by the reason; names of pictures at the head of a reason are left out."""
        found: Counter[str] = Counter()
        for place in self.unscored:
            key = self.table.keys[place]
            found[self.table.reasons[place].removeprefix(f"{key}: ")] += 1
        return found


def select_rows(table: ScoreTable, conditions: Conditions) -> Selection:
    """Select rows by their scores.

    Of rows with equal scores, those that come first in the table are taken first, by `top` and by `bottom`.

    Args:
        table: Rows with their scores.
        conditions: Conditions; without any, all rows with a score are chosen.

    Returns:
        Places of the rows, in the order of the table.

    Raises:
        ValueError: If the column of the groups, or that of percentiles, is missing.
    """
    scores = table.scores
    unscored = np.flatnonzero(~np.isfinite(scores))
    passing = np.isfinite(scores)
    if conditions.minimum is not None:
        passing &= scores >= conditions.minimum
    if conditions.maximum is not None:
        passing &= scores <= conditions.maximum
    if conditions.percentile is not None:
        passing &= table.numbers(PERCENTILE) >= conditions.percentile
    places = np.flatnonzero(passing)
    if conditions.sample is not None:
        places = _draw(places, scores[places], conditions)
    elif conditions.top is not None or conditions.bottom is not None:
        groups = _group(table, places, conditions.per)
        found = [_rank(group, scores[group], conditions) for group in groups]
        places = np.concatenate(found) if found else places
    return Selection(table, np.sort(places), unscored)


def name_groups(table: ScoreTable, per: str) -> np.ndarray:
    """Return the name of the group of each row, texts of shape (num_rows,).

    Args:
        table: Rows.
        per: Column whose values are the names, or "folder".

    Raises:
        ValueError: If there is no such column.
    """
    if per == FOLDER and FOLDER not in table.columns:
        return np.array([os.path.dirname(key) for key in table.keys], dtype=object)
    return table.texts(per)


def _group(table: ScoreTable, places: np.ndarray, per: str | None) -> Iterator[np.ndarray]:
    """Yield the places of each group, in the order in which the groups appear."""
    if per is None:
        yield places
        return
    numbers: dict[str, list[int]] = {}
    names = name_groups(table, per)
    for place in places:
        numbers.setdefault(names[place], []).append(int(place))
    yield from (np.array(group, dtype=np.int64) for group in numbers.values())


def _rank(places: np.ndarray, scores: np.ndarray, conditions: Conditions) -> np.ndarray:
    """Return the places of the best or worst rows of a group."""
    amount, values = conditions.top, -scores
    if amount is None:
        amount, values = conditions.bottom or Amount(Fraction(100), is_percent=True), scores
    return places[np.argsort(values, kind="stable")[: amount.of(len(places))]]


def _draw(places: np.ndarray, scores: np.ndarray, conditions: Conditions) -> np.ndarray:
    """Draw rows evenly over the scores: from each bin as many, and more from others where a bin has too few."""
    wanted = min(conditions.sample or 0, len(places))
    if not wanted:
        return places[:0]
    edges = np.linspace(scores.min(), scores.max(), conditions.bins + 1)
    bins = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, conditions.bins - 1)
    generator = np.random.default_rng(conditions.seed)
    turns = np.empty(len(places), dtype=np.int64)  # when a row is drawn from its bin
    for number in range(conditions.bins):
        members = np.flatnonzero(bins == number)
        turns[generator.permutation(members)] = np.arange(len(members))
    order = np.lexsort((generator.permutation(len(places)), turns))
    return places[order[:wanted]]
