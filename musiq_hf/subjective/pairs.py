# SPDX-License-Identifier: Apache-2.0
"""Paired comparisons: a scale of items from who preferred which (Bradley and Terry 1952, Thurstone 1927, case V).

P(i beats j) = F(x_i - x_j), with F logistic (Bradley-Terry) or normal (Thurstone). The scale x is that of maximum
likelihood with the sum 0.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..common.checks import check_choice
from ..common.extras import require
from ..pictures.csv_rows import check_columns
from .tables import Numbers, read_rows, write_rows

Model = Literal["bradley_terry", "thurstone"]
Unit = Literal["natural", "jod"]
MODELS, UNITS = ("bradley_terry", "thurstone"), ("natural", "jod")
# Difference of the scale at which 75 % prefer the better item: one just objectionable difference (JOD).
JOD: Mapping[str, float] = {"bradley_terry": math.log(3), "thurstone": 0.6744897501960817}
MAX_STEPS, TOLERANCE = 200, 1e-11  # of the solution; a step is in natural units
Z_95 = 1.96  # standard errors on both sides of a score that make an interval of 95 %
WORDS = {"": 0.0, "0": 0.0, "false": 0.0, "no": 0.0, "1": 1.0, "true": 1.0, "yes": 1.0}


@dataclass(frozen=True, eq=False)
class Pairs:
    """Paired comparisons.

    Attributes:
        wins: Number of times that the item of the row beat that of the column, float64, shape (num_items, num_items).
            A tie is half a win for each.
        items: Names of the items.
    """

    wins: np.ndarray
    items: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raise a ValueError if the wins are no square table of numbers from 0 on, or an item has beaten itself."""
        object.__setattr__(self, "wins", np.asarray(self.wins, dtype=np.float64))
        object.__setattr__(self, "items", tuple(self.items))
        size = len(self.items)
        if self.wins.shape != (size, size) or not (np.isfinite(self.wins) & (self.wins >= 0)).all():
            raise ValueError(f"`wins` must be {size} x {size} numbers from 0 on, got shape {self.wins.shape}.")
        if self.wins.diagonal().any():
            raise ValueError("`wins` must have 0 on its diagonal: no item is compared with itself.")


@dataclass(frozen=True, eq=False)
class PairScale:
    """Scale of items.

    Attributes:
        items: Names of the items.
        scores: Place of each item; the sum is 0.
        standard_errors: Standard error of each score.
    """

    items: tuple[str, ...]
    scores: np.ndarray
    standard_errors: np.ndarray

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a CSV, JSON Lines or parquet table.

        Columns are `image`, `score`, `standard_error`, and the ends of 95 % intervals, `low` and `high`.
        """
        rows = zip(self.items, self.scores.tolist(), self.standard_errors.tolist(), strict=True)
        write_rows(
            path,
            {"image": str} | dict.fromkeys(("score", "standard_error", "low", "high"), float),
            [(item, score, error, score - Z_95 * error, score + Z_95 * error) for item, score, error in rows],
        )


def read_pairs(path: str | os.PathLike[str]) -> Pairs:
    """Read comparisons from a CSV table.

    Args:
        path: File with columns `winner` and `loser`, and perhaps `count` (empty: 1) and `tie` (1, true or yes: neither
            won).

    Returns:
        The comparisons, with sorted items.

    Raises:
        ValueError: If a column, a name or all rows are missing, or an item is compared with itself. Also if a count
            is no number from 0 on, or `tie` is neither yes nor no.
    """
    names, rows = read_rows(path)
    check_columns(names, ("winner", "loser"), source=str(path), expected="winner,loser, perhaps count and tie")
    numbers, found = Numbers(path), []
    for where, cells in rows:
        winner, loser, tie = cells["winner"], cells["loser"], cells.get("tie", "").strip().lower()
        if not winner.strip() or not loser.strip():
            raise ValueError(f"{where}: `winner` and `loser` must be names, got {winner!r} and {loser!r}.")
        if winner == loser:
            raise ValueError(f"{where}: {winner!r} is compared with itself. Name two items.")
        if tie not in WORDS:
            raise ValueError(f"{where}: `tie` must be 1 or 0, yes or no, true or false, got {cells['tie']!r}.")
        count = numbers.read(cells.get("count", ""), name="count", where=where, low=0)
        found.append((winner, loser, 1.0 if count is None else count, WORDS[tie]))
    if not found:
        raise ValueError(f"{path}: no rows below the header. Give the whole table.")
    items = sorted({name for winner, loser, *_ in found for name in (winner, loser)})
    places = {name: place for place, name in enumerate(items)}
    wins = np.zeros((len(items), len(items)))
    for winner, loser, times, part in found:
        wins[places[winner], places[loser]] += times * (1 - part / 2)
        wins[places[loser], places[winner]] += times * part / 2
    return Pairs(wins, tuple(items))


def _check_connected(pairs: Pairs) -> None:
    """Raise a ValueError if a group of items never lost to the others, or never won: it would be infinitely far."""
    reached = (pairs.wins > 0) | np.eye(len(pairs.items), dtype=bool)
    for middle in range(len(pairs.items)):  # Warshall's closure of "won against"
        reached |= reached[:, [middle]] & reached[middle]
    missing = np.argwhere(~reached)
    if len(missing):
        above, below = (pairs.items[place] for place in missing[0])
        raise ValueError(
            f"No chain of wins leads from {above!r} to {below!r}, so their distance has no bound. Every item needs a "
            "win and a defeat that connect it with all others: add comparisons, or leave items out."
        )


class _Likelihood:
    """Likelihood of a scale, its slope and its expected curvature."""

    def __init__(self, wins: np.ndarray, model: Model):
        self._special = require("scipy.special", extra="subjective")
        self._wins, self._counts, self._is_logistic = wins, wins + wins.T, model == "bradley_terry"

    def log_likelihood(self, scale: np.ndarray) -> float:
        """Return the logarithm of the likelihood."""
        differences = scale[:, None] - scale
        log_f = self._special.log_expit if self._is_logistic else self._special.log_ndtr
        return float((self._wins * log_f(differences)).sum())

    def slope_and_information(self, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the gradient, shape (num_items,), and the information, shape (num_items, num_items)."""
        differences = scale[:, None] - scale
        if self._is_logistic:
            chance = self._special.expit(differences)
            ratio, weight = 1 - chance, chance * (1 - chance)  # f / F, and f^2 / (F (1 - F))
        else:
            log_density = -(differences**2) / 2 - math.log(2 * math.pi) / 2
            ratio = np.exp(log_density - self._special.log_ndtr(differences))
            weight = ratio * ratio.T
        pulls, links = self._wins * ratio, self._counts * weight
        return pulls.sum(axis=1) - pulls.sum(axis=0), np.diag(links.sum(axis=1)) - links


def _maximize(likelihood: _Likelihood, num_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the best scale and the covariance of its errors, both with the sum 0 (Fisher's scoring)."""
    scale, value = np.zeros(num_items), likelihood.log_likelihood(np.zeros(num_items))
    for _ in range(MAX_STEPS):
        slope, information = likelihood.slope_and_information(scale)
        covariance = np.linalg.pinv(information, hermitian=True)  # of the differences: the sum stays 0
        step = covariance @ slope
        if np.abs(step).max() < TOLERANCE:
            break
        new = likelihood.log_likelihood(scale + step)
        while new < value - 1e-9 * abs(value):  # too far
            step = step / 2
            new = likelihood.log_likelihood(scale + step)
        scale, value = scale + step, new
    else:
        raise ValueError(f"The scale did not come to rest in {MAX_STEPS} steps. Wins are too rare: add comparisons.")
    return scale, covariance


def scale_pairs(pairs: Pairs, *, model: Model = "bradley_terry", unit: Unit = "natural") -> PairScale:
    """Place items on a scale by maximum likelihood.

    Args:
        pairs: Comparisons.
        model: "bradley_terry" (logistic) or "thurstone" (normal, case V).
        unit: "natural" is the unit of the model's curve. In "jod" a difference of 1 means that 75 % prefer the better
            item, whatever the model.

    Returns:
        Scores and their standard errors, from the inverse of the expected information on scales of sum 0.

    Raises:
        ValueError: If an argument is none of its choices, there are fewer than 2 items, or wins do not connect all
            items in both directions.
        ImportError: If SciPy is missing.
    """
    check_choice("model", model, MODELS)
    check_choice("unit", unit, UNITS)
    if len(pairs.items) < 2:
        raise ValueError(f"A scale needs at least 2 items, got {len(pairs.items)}.")
    _check_connected(pairs)
    scale, covariance = _maximize(_Likelihood(pairs.wins, model), len(pairs.items))
    size = JOD[model] if unit == "jod" else 1.0
    return PairScale(pairs.items, scale / size, np.sqrt(covariance.diagonal()) / size)
