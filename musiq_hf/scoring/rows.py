# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that score the same pictures: rows of a table, of each and of all together."""

import math
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from ..models.auto import DEFAULT_CHECKPOINT
from ..pictures.opening import Preset
from .engine import PictureScore, score_with_several
from .loading import load_scorer
from .signature import make_signature

Range = tuple[float, float]  # lowest and highest score, in MOS points
DECODING_PROCESSES = 8  # at most, for an accelerator


class ScoreRow(NamedTuple):
    """What differs from row to row, one for each picture and checkpoint; see also `scoring.PictureScore`.

    Attributes:
        key: Unicode text.
        width: In pixels.
        height: In pixels.
        score: In MOS points.
        score_0_1: Place of the score in the checkpoint's range, clipped to 0..1; None if the range is unknown.
        std: In MOS points.
        error: Why there is no score.
        ensemble: Mean place of all checkpoints' scores in their ranges, not clipped; None without weights, or if a
            score is missing.
    """

    key: str
    width: int | None = None
    height: int | None = None
    score: float | None = None
    score_0_1: float | None = None
    std: float | None = None
    error: str | None = None
    ensemble: float | None = None


Entry = tuple[ScoreRow, ...]  # of one picture: a row for each checkpoint


class Scorers:
    """Checkpoints on one device, which score what is decoded once.

    Args:
        checkpoints: Folders or Hub ids.
        device: Where they score.
        dtype: Of their weights.
        weights: Of each in the ensemble; None makes none.
        shorter_side: See `score_with_several`.
        preset: See `score_with_several`.
        max_tokens: See `score_with_several`.
        num_workers: Processes that decode; None: two threads for a CPU, and for an accelerator up to
            `DECODING_PROCESSES` processes, as there are cores.

    Attributes:
        names: Of the checkpoints, as they were given.
        signatures: Of their scores.

    Raises:
        ValueError: If a checkpoint cannot be used, or an ensemble cannot be made of them.
    """

    def __init__(
        self,
        checkpoints: Sequence[str],
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        weights: Sequence[float] | None = None,
        shorter_side: int | None = None,
        preset: Preset = "default",
        max_tokens: int | None = None,
        num_workers: int | None = None,
    ):
        self.names = [checkpoint_name(checkpoint) for checkpoint in checkpoints]
        self.weights = weights
        self._scorers = [load_scorer(checkpoint, dtype=dtype) for checkpoint in checkpoints]
        self._ranges: list[Range | None] = [model.config.answer_range for model, _ in self._scorers]
        if weights is not None and None in self._ranges:
            name = self.names[self._ranges.index(None)]
            raise ValueError(
                f"{name} does not say the range of its scores, which an ensemble needs. Fine-tune with --score_range "
                '0 100, say, or add "score_range": [0, 100] to its config.json.'
            )
        self.signatures: list[str] = []
        for checkpoint, (model, processor) in zip(checkpoints, self._scorers, strict=True):
            model.to(device)
            self.signatures.append(
                make_signature(model, processor, checkpoint=checkpoint, shorter_side=shorter_side, preset=preset)
            )
        self._options: Mapping[str, Any] = {
            "max_tokens": max_tokens,
            "shorter_side": shorter_side,
            "preset": preset,
            **_workers(num_workers, device),
        }

    def rows(self, sources: Iterator[tuple[str, Any]]) -> Generator[Entry, None, None]:
        """For each source, in order, a row of each checkpoint."""
        for results in score_with_several(sources, self._scorers, **self._options):
            rows = [to_row(result, span) for result, span in zip(results, self._ranges, strict=True)]
            ensemble = None if self.weights is None else mean_place(rows, self._ranges, self.weights)
            yield tuple(row._replace(ensemble=ensemble) for row in rows)


def checkpoint_name(checkpoint: str) -> str:
    """What a table calls a checkpoint: as it was given; the embedded one by its name."""
    return DEFAULT_CHECKPOINT.name if checkpoint == str(DEFAULT_CHECKPOINT) else checkpoint


def _workers(num_workers: int | None, device: torch.device) -> dict[str, Any]:
    if num_workers is None and device.type == "cpu":
        return {"num_workers": 2, "in_processes": False}  # it is not fast enough to wait for them
    if num_workers is None:
        # Of the cores that this job may use, where the system tells them, a share for each of its processes.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        num_workers = min(DECODING_PROCESSES, max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    return {"num_workers": num_workers, "in_processes": True}


def to_row(result: PictureScore, score_range: Range | None) -> ScoreRow:
    """The row of a result; `score_range` is the checkpoint's (lowest, highest) in MOS points, or None."""
    if result.score is not None and not math.isfinite(result.score):
        return ScoreRow(result.key, result.width, result.height, error=f"{result.key}: the score is {result.score}.")
    place = None
    if result.score is not None and score_range is not None:
        place = min(max(_place(result.score, score_range), 0.0), 1.0)
    error = None if result.error is None else " ".join(result.error.split())
    return ScoreRow(result.key, result.width, result.height, result.score, place, result.std, error)


def _place(score: float, score_range: Range) -> float:
    """Where a score lies in a range: 0 at its low end, 1 at its high end, beyond these outside of it."""
    low, high = score_range
    return (score - low) / (high - low)


def mean_place(rows: Sequence[ScoreRow], ranges: Sequence[Range | None], weights: Sequence[float]) -> float | None:
    """Weighted mean of the rows' places in their ranges, where checkpoints of different units meet.

    Returns:
        Not clipped, so that pictures beyond a range keep their order; None if a score is missing.
    """
    total = 0.0
    for row, score_range, weight in zip(rows, ranges, weights, strict=True):
        if row.score is None or score_range is None:
            return None
        total += weight * _place(row.score, score_range)
    return total / sum(weights)
