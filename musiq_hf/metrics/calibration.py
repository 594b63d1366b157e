# SPDX-License-Identifier: Apache-2.0
"""Calibration of scores by those of other pictures: their place among these, and the opinion score to expect."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..common.extras import require
from ..common.files import read_json, write_json
from ..common.tables import READERS, read_table
from .json_objects import JsonObject

MAX_SCORES = 1_000_000  # whose file is still one that is read
NUM_STARS = 5

Numbers = Sequence[float] | np.ndarray


def _check_numbers(values: Numbers, name: str) -> tuple[float, ...]:
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except OverflowError:  # whole numbers of JSON have any size
        raise ValueError(f"`{name}` must be finite, got a whole number beyond all of them. Correct it.") from None
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"`{name}` must be one list of at least one number, got shape {numbers.shape}.")
    if not np.isfinite(numbers).all():
        raise ValueError(f"`{name}` must be finite, got {numbers[~np.isfinite(numbers)][0]}. Leave such pictures out.")
    return tuple(numbers.tolist())


def _check_query(scores: float | Numbers) -> np.ndarray:
    numbers = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError(f"Scores must be finite, got {numbers[~np.isfinite(numbers)][0]}. Leave such pictures out.")
    return numbers


def _read_scores(path: str) -> dict[str, Any]:
    """Read the scores in a table of `musiq score`, and their signature, as arguments of `Calibration`."""
    scores, signatures = [], set()
    try:
        rows = read_table(path)
        if "score_0_1" not in next(rows):  # tables of other commands have scores of files that they made
            raise KeyError("score_0_1")
        for row in rows:
            if row["score"] not in (None, ""):
                scores.append(float(row["score"]))
                signatures.add(row["signature"])
    except (ValueError, TypeError, KeyError) as error:  # whatever readers raise for another kind of file
        raise ValueError(f"{path} is no table of `musiq score` with scores and signatures. Name one.") from error
    if len(signatures) != 1:
        raise ValueError(f"{path} must hold scores of one checkpoint, got those of {len(signatures)}. Score with one.")
    return {"scores": tuple(scores), "signature": signatures.pop()}


@dataclass(frozen=True, kw_only=True)
class Calibration(JsonObject):
    """Scores of some pictures, among which other scores have a place; opinion scores may stand beside them.

    Attributes:
        scores: Scores of the pictures, at least one.
        opinions: Opinion scores of the same pictures; None if they are unknown.
        signature: Signature of the scores, as tables of `musiq score` have it; None if it is unknown.

    Raises:
        ValueError: If numbers are not finite, too many, or not as many as the scores.
    """

    scores: tuple[float, ...]
    opinions: tuple[float, ...] | None = None
    signature: str | None = None

    def __post_init__(self) -> None:
        for name in ("scores", "opinions"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _check_numbers(getattr(self, name), name))
        if len(self.scores) > MAX_SCORES:
            raise ValueError(f"`scores` must be at most {MAX_SCORES:,}, got {len(self.scores):,}. Draw some of them.")
        if self.opinions is not None and len(self.opinions) != len(self.scores):
            raise ValueError(
                f"Scores and opinion scores must be of the same pictures, got {len(self.scores)} and "
                f"{len(self.opinions)}. Leave out pictures that lack one of them."
            )

    @classmethod
    def fit(cls, scores: Numbers, mos: Numbers | None = None, *, signature: str | None = None) -> Self:
        """Make a calibration of the scores of some pictures.

        Args:
            scores: Scores, shape (num_pictures,), all of one checkpoint.
            mos: Opinion scores of the same pictures in the same order; None if they are unknown.
            signature: Signature of the scores, by which `musiq score` refuses them for another checkpoint; None if it
                is unknown.

        Raises:
            ValueError: If numbers are not finite, too many, or not as many as the scores.
        """
        return cls(
            scores=_check_numbers(scores, "scores"),
            opinions=None if mos is None else _check_numbers(mos, "mos"),
            signature=signature,
        )

    @cached_property
    def _ordered(self) -> np.ndarray:
        return np.sort(np.array(self.scores))

    @cached_property
    def _knots(self) -> tuple[np.ndarray, np.ndarray]:
        """Scores that differ from each other, and opinion scores that never fall with them."""
        optimize = require("scipy.optimize", extra="assessment")
        knots, places, counts = np.unique(self.scores, return_inverse=True, return_counts=True)
        means = np.bincount(places, weights=self.opinions) / counts  # equal scores have one opinion score, the mean
        return knots, optimize.isotonic_regression(means, weights=counts).x

    def percentile(self, scores: float | Numbers) -> np.ndarray:
        """Compute the percentiles of scores: 50 (number below + number not above) / number of pictures.

        Args:
            scores: Score, or scores of any shape.

        Returns:
            Percent of the pictures that score lower, float64, same shape. Those with the same score count half.

        Raises:
            ValueError: If a score is not finite.
        """
        numbers, ordered = _check_query(scores), self._ordered
        counts = np.searchsorted(ordered, numbers, side="left") + np.searchsorted(ordered, numbers, side="right")
        return np.asarray(50 * counts / len(ordered))

    def stars(self, scores: float | Numbers) -> np.ndarray:
        """Return the fifths of the pictures among which scores stand: 1 is the lowest, 5 the highest.

        Args:
            scores: Score, or scores of any shape.

        Returns:
            Whole numbers of the same shape.

        Raises:
            ValueError: If a score is not finite.
        """
        fifths = np.floor(self.percentile(scores) / (100 / NUM_STARS)).astype(np.int64)
        return np.minimum(fifths + 1, NUM_STARS)

    def mos(self, scores: float | Numbers) -> np.ndarray:
        """Compute the opinion scores to expect: those of the pictures, made to never fall with the score.

        They are linear between scores of pictures, and stay as they are below the lowest and above the highest.

        Args:
            scores: Score, or scores of any shape.

        Returns:
            Opinion scores, float64, same shape.

        Raises:
            ValueError: If there are no opinion scores, or a score is not finite.
            ImportError: If SciPy is missing.
        """
        if self.opinions is None:
            raise ValueError("The calibration has no opinion scores. Give them to `Calibration.fit`.")
        return np.asarray(np.interp(_check_query(scores), *self._knots))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the calibration as a JSON file.

        Raises:
            OSError: If the file cannot be written.
        """
        write_json(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a calibration from the file that `save` has written, or from a table of `musiq score`.

        Args:
            path: JSON file; or a table, whose scores must be of one checkpoint. Its rows with an error are left out.

        Raises:
            ValueError: If the file holds no calibration, or scores of several checkpoints.
            OSError: If there is no such file.
        """
        if not Path(path).is_file():
            raise ValueError(f"{path}: no such file. Name a table of `musiq score`, or what `Calibration.save` wrote.")
        if Path(path).suffix.lower() in READERS:
            return cls(**_read_scores(os.fspath(path)))
        content = read_json(Path(path))
        try:
            return cls.from_json(content, name="calibration")
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
