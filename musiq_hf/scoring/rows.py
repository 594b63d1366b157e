# SPDX-License-Identifier: Apache-2.0
"""Rows of a table of scores, of one checkpoint or of several that score the same pictures."""

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Unpack

import torch
from transformers.utils import logging

from ..common.devices import find_device
from ..models.auto import EMBEDDED
from ..pictures.lazy import escape_name, write_line
from ..pictures.opening import Preset
from .calibration import (
    Calibration,
    CheckpointCalibration,
    check_calibration,
    hash_calibration,
    load_calibration,
)
from .engine import PictureScore, ScoringOptions, score_with_several
from .loading import load_quality
from .signature import make_signature

logger = logging.get_logger(__name__)
DECODING_PROCESSES = 8  # largest number of them, for an accelerator
Range = tuple[float, float]  # lowest and highest score, in MOS points


class ScoreRow(NamedTuple):
    """Row of a picture and a checkpoint; see also `scoring.PictureScore`.

    Attributes:
        key: Name of the picture, Unicode text.
        width: Columns of the picture, in pixels; None if it could not be read.
        height: Rows of the picture, in pixels; None if it could not be read.
        score: Score in MOS points; None if there is an error.
        score_0_1: Position of the score in the checkpoint's range, clipped to 0..1; None if the range is unknown.
        std: Standard deviation of the predicted distribution, in MOS points; None for a checkpoint without one.
        error: Sentence that says why there is no score; None if there is one.
        ensemble: Mean position of all checkpoints' scores in their ranges, not clipped; None without weights, or if a
            score is missing.
        percentile: Percentile of the score among those of the pictures of a calibration; None without one.
        stars: Fifth of these scores that the score stands among, from 1 to 5; None without a percentile.
    """

    key: str
    width: int | None = None
    height: int | None = None
    score: float | None = None
    score_0_1: float | None = None
    std: float | None = None
    error: str | None = None
    ensemble: float | None = None
    percentile: float | None = None
    stars: int | None = None


Entry = tuple[ScoreRow, ...]  # rows of one picture, one of each checkpoint


@dataclass(frozen=True)
class Terms:
    """Facts about the checkpoints of a table, beside which only their scores are needed to write its rows.

    Attributes:
        names: Names of the checkpoints, as a table calls them.
        signatures: Signatures of their scores, in the same order.
        ranges: Lowest and highest score of each checkpoint, in MOS points; None where they are unknown.
        stored: Calibration of each checkpoint; None without percentiles.
        has_std: Whether a checkpoint predicts a distribution, so that its rows have a standard deviation.
        weights: Weight of each checkpoint in the ensemble, or None.
        has_percentiles: Whether rows have percentiles.
    """

    names: list[str]
    signatures: list[str]
    ranges: list[Range | None]
    stored: list[CheckpointCalibration | Calibration | None]
    has_std: bool
    weights: Sequence[float] | None
    has_percentiles: bool

    @property
    def calibrations(self) -> list[str | None]:
        """Hashes of the calibrations, in the order of the checkpoints; None without percentiles."""
        return [None if known is None else hash_calibration(known) for known in self.stored]

    def place(self, entry: Entry) -> Entry:
        """Return the rows of a picture with all that follows from their scores: positions, percentiles, ensemble."""
        rows = [place_row(*parts) for parts in zip(entry, self.ranges, self.stored, strict=True)]
        ensemble = None if self.weights is None else average_positions(rows, self.ranges, self.weights)
        return tuple(row._replace(ensemble=ensemble) for row in rows)

    def watch(self, entries: Iterator[Entry]) -> Generator[Entry, None, None]:
        """Yield rows, and warn at the end of scores that lie outside of the range of their checkpoint."""
        num_pictures, num_beyond = 0, [0] * len(self.names)
        for entry in entries:
            num_pictures += 1
            for index, (row, score_range) in enumerate(zip(entry, self.ranges, strict=True)):
                num_beyond[index] += is_beyond(row.score, score_range)
            yield entry
        for name, count, score_range in zip(self.names, num_beyond, self.ranges, strict=True):
            if count and score_range is not None:
                logger.warning(
                    "%s: %d of %d scores lie outside of its range, that of the opinion scores, %g to %g. They are not "
                    "clipped; score_0_1 is.",
                    *(name, count, num_pictures, *score_range),
                )


class Scorers:
    """Checkpoints on one device, all of which score a picture that is decoded once.

    Args:
        checkpoints: Folders, Hub ids or names of embedded checkpoints.
        device: Device on which the checkpoints score.
        dtype: Type of the weights of the models.
        weights: Weight of each checkpoint in the ensemble; None makes no ensemble.
        has_percentiles: Whether rows have percentiles, by the calibration of each checkpoint.
        calibration: Calibration in place of that of the one checkpoint; None takes none.
        **options: Keywords of `score_with_several`, which describes them.

    Attributes:
        terms: Names and signatures of the checkpoints, and what else follows from them.
        loaded: Model and image processor of each checkpoint, in the same order.

    Raises:
        ValueError: If a checkpoint cannot be used or has no calibration that is wanted, or an ensemble cannot be made
            of them. Also if the calibration is of other scores.
    """

    def __init__(
        self,
        checkpoints: Sequence[str],
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        weights: Sequence[float] | None = None,
        has_percentiles: bool = False,
        calibration: Calibration | None = None,
        **options: Unpack[ScoringOptions],
    ):
        names = [name_checkpoint(checkpoint) for checkpoint in checkpoints]
        self.loaded = [load_quality(checkpoint, dtype=dtype) for checkpoint in checkpoints]
        ranges: list[Range | None] = [model.config.answer_range for model, _ in self.loaded]
        if weights is not None and None in ranges:
            name = names[ranges.index(None)]
            raise ValueError(
                f"{name} does not say the range of its scores, which an ensemble needs. Fine-tune with --score_range "
                '0 100, say, or add "score_range": [0, 100] to its config.json.'
            )
        signatures: list[str] = []
        stored: list[CheckpointCalibration | Calibration | None] = []
        reading: dict[str, Any] = {name: options[name] for name in ("shorter_side", "preset") if name in options}
        for checkpoint, (model, processor) in zip(checkpoints, self.loaded, strict=True):
            model.to(device)
            signatures.append(make_signature(model, processor, checkpoint=checkpoint, **reading))
            own = load_calibration(checkpoint, model, processor, **reading) if has_percentiles else None
            stored.append(own or calibration)
        if calibration is not None:
            check_calibration(calibration, signatures[0])
        has_std = any(model.config.num_labels > 1 for model, _ in self.loaded)
        has_places = has_percentiles or calibration is not None
        self.terms = Terms(names, signatures, ranges, stored, has_std, weights, has_places)
        self._options = options

    @property
    def threads(self) -> int:
        """Number of threads that compute, which moves the last digits of scores."""
        return torch.get_num_threads()

    def score(self, sources: Iterator[tuple[str, Any]]) -> Generator[Entry, None, None]:
        """Score pictures, in order, with each checkpoint.

        Args:
            sources: Keys and pictures.

        Yields:
            Rows of one picture, in the order of the checkpoints.
        """
        for results in score_with_several(sources, self.loaded, **self._options):
            yield self.terms.place(tuple(map(make_row, results)))


@dataclass(frozen=True)
class ScorerSettings:
    """Checkpoints, and the way in which they score: plain values, which can be sent to another process.

    Attributes:
        models: Checkpoints: folders, Hub ids or names of embedded ones.
        weights: Weight of each checkpoint in the ensemble; None makes no ensemble.
        percentile: Whether rows have percentile and stars, by the calibration of each checkpoint.
        calibration: Calibration by which rows have them in place of that of the one checkpoint; None takes none.
        preset: Way in which files become pixels; see `pictures.opening`.
        shorter_side: Length to which pictures are shrunk first, in pixels; None keeps their size.
        max_megapixels: Largest size of a picture as it is scored; see `score_with_several`.
        device: Name of the device, or "auto" for a GPU if there is one.
        dtype: Type of the weights of the models, "float32" or "bfloat16".
        max_tokens: Tokens of a batch; see `score_with_several`.
        num_workers: Processes that decode. None: two threads of this process for a CPU, up to 8 processes for a GPU.
    """

    models: Sequence[str]
    weights: Sequence[float] | None = None
    percentile: bool = False
    calibration: Calibration | None = None
    preset: Preset = "default"
    shorter_side: int | None = None
    max_megapixels: float | None = None
    device: str = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_tokens: int | None = None
    num_workers: int | None = None

    def load(self, *, cores: int) -> Scorers:
        """Load the checkpoints.

        Args:
            cores: Number of cores that may be used.

        Raises:
            ValueError: If a checkpoint or the device cannot be used.
        """
        device = find_device(self.device)
        options: ScoringOptions = {
            "max_tokens": self.max_tokens,
            "shorter_side": self.shorter_side,
            "max_megapixels": self.max_megapixels,
            "preset": self.preset,
            **_choose_workers(self.num_workers, device, cores),
        }
        return Scorers(
            self.models,
            device=device,
            dtype=getattr(torch, self.dtype),
            weights=self.weights,
            has_percentiles=self.percentile,
            calibration=self.calibration,
            **options,
        )


def _choose_workers(num_workers: int | None, device: torch.device, cores: int) -> ScoringOptions:
    """Choose how many threads or processes decode for a device."""
    if num_workers is None and device.type == "cpu":
        return {"num_workers": 2, "in_processes": False}  # two threads decode faster than it scores
    return {"num_workers": num_workers or min(DECODING_PROCESSES, max(1, cores)), "in_processes": True}


def name_checkpoint(checkpoint: str) -> str:
    """Return the name of a checkpoint in a table: as it was given, or the short name of an embedded one."""
    embedded = {str(path): name for name, path in EMBEDDED.items()}
    return embedded.get(checkpoint) or escape_name(checkpoint)


def make_row(result: PictureScore) -> ScoreRow:
    """Make the row of a score of a picture, or of its error, without what `place_row` adds."""
    if result.score is not None and not math.isfinite(result.score):
        return ScoreRow(result.key, result.width, result.height, error=f"{result.key}: the score is {result.score}.")
    error = None if result.error is None else write_line(result.error)
    return ScoreRow(result.key, result.width, result.height, result.score, std=result.std, error=error)


def place_row(
    row: ScoreRow, score_range: Range | None, calibration: CheckpointCalibration | Calibration | None = None
) -> ScoreRow:
    """Return a row with the place of its score in the range, and among the scores of a calibration.

    Args:
        row: Row of a picture and a checkpoint.
        score_range: Lowest and highest score of the checkpoint, in MOS points; None if they are unknown.
        calibration: Calibration of the scores; None makes no percentile.
    """
    position = percentile = stars = None
    if row.score is not None and score_range is not None:
        position = min(max(_find_position(row.score, score_range), 0.0), 1.0)
    if row.score is not None and calibration is not None:
        percentile, stars = float(calibration.percentile(row.score)), int(calibration.stars(row.score))
    return row._replace(score_0_1=position, percentile=percentile, stars=stars)


def is_beyond(score: float | None, score_range: Range | None) -> bool:
    """Return whether a score lies outside of a range; one that does not exist, or has no range, does not."""
    return score is not None and score_range is not None and not score_range[0] <= score <= score_range[1]


def _find_position(score: float, score_range: Range) -> float:
    """Return the position of a score in a range: 0 at its low end, 1 at its high end, not clipped."""
    low, high = score_range
    return (score - low) / (high - low)


def average_positions(
    rows: Sequence[ScoreRow], ranges: Sequence[Range | None], weights: Sequence[float]
) -> float | None:
    """Compute the weighted mean of the rows' positions in their ranges.

    Scores of checkpoints may have different units, positions have none.

    Returns:
        Mean, not clipped, so that pictures beyond a range keep their order; None if a score or a range is missing.
    """
    total = 0.0
    for row, score_range, weight in zip(rows, ranges, weights, strict=True):
        if row.score is None or score_range is None:
            return None
        total += weight * _find_position(row.score, score_range)
    return total / sum(weights)
