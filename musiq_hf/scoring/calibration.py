# SPDX-License-Identifier: Apache-2.0
"""Calibrations of scores: of the validation pictures, stored beside the weights, or of other pictures in a file."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..common.files import write_json
from ..metrics.calibration import Calibration
from ..models.calibration import CALIBRATION, CheckpointCalibration
from ..models.calibration import load_calibration as load_stored_calibration
from ..models.protocol import QualityModel, QualityProcessor
from ..models.weights import identify_scores
from ..pictures.opening import Preset
from .loading import resolve_model

logger = logging.getLogger(__name__)
MIN_PICTURES = 100  # a quantile for each percent
MATCHED = ("weights", "preset", "preprocessing", "quantization", "adapters")  # parts of comparable signatures
DIGITS = 6  # significant digits of a quantile, far more than scores agree to from one machine to another


def check_count(num_pictures: int) -> None:
    """Raise a ValueError if pictures are too few to calibrate scores with."""
    if num_pictures < MIN_PICTURES:
        raise ValueError(f"At least {MIN_PICTURES} pictures are needed for percentiles, got {num_pictures}.")


def load_calibration(
    checkpoint: str,
    model: QualityModel,
    processor: QualityProcessor,
    *,
    shorter_side: int | None = None,
    preset: Preset = "default",
) -> CheckpointCalibration:
    """Load the calibration of a checkpoint, if it holds for scores that are made in some way.

    Args:
        checkpoint: Directory, Hub id or name of an embedded checkpoint, from which the model was loaded.
        model: Model with a quality head.
        processor: Processor of the model.
        shorter_side: Shorter side to which pictures are shrunk first, in pixels; None if they are not.
        preset: Way in which files become pixels.

    Raises:
        ValueError: If the checkpoint has no calibration, a damaged one or one of other scores.
    """
    return load_stored_calibration(
        resolve_model(checkpoint), model, processor, shorter_side=shorter_side, preset=preset
    )


def write_calibration(
    folder: str | Path,
    scores: Sequence[float] | np.ndarray,
    *,
    model: QualityModel,
    processor: QualityProcessor,
    data: str,
    opinions: Sequence[float] | np.ndarray | None = None,
    shorter_side: int | None = None,
    preset: Preset = "default",
) -> CheckpointCalibration:
    """Store the quantiles of a checkpoint's scores for some pictures, beside its weights.

    Args:
        folder: Folder of the checkpoint.
        scores: Scores in MOS points, at least 100.
        model: Model of the checkpoint, float32.
        processor: Processor of the model.
        data: Name of the pictures.
        opinions: Opinion scores of the same pictures, by which the error of each threshold is stored too. None leaves
            it out, and so does a unit that cannot be that of the scores, with a warning.
        shorter_side: Shorter side to which the pictures were shrunk first, in pixels; None if they were not.
        preset: Way in which their files became pixels.

    Returns:
        The calibration, whose quantiles are interpolated linearly between scores.

    Raises:
        ValueError: If there are too few scores, or one is not finite.
    """
    check_count(len(scores))
    numbers = np.asarray(scores, dtype=np.float64)
    quantiles = [_round(quantile) for quantile in np.quantile(numbers, np.linspace(0, 1, 101))]
    calibration = CheckpointCalibration(
        data=data,
        num_pictures=len(scores),
        quantiles=quantiles,
        signature=identify_scores(model, processor, shorter_side=shorter_side, preset=preset),
        **({} if opinions is None else _find_errors(numbers, np.asarray(opinions, dtype=np.float64), quantiles)),
    )
    content = {name: value for name, value in dataclasses.asdict(calibration).items() if value is not None}
    write_json(Path(folder) / CALIBRATION, content)
    return calibration


def _round(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")


def _find_errors(scores: np.ndarray, opinions: np.ndarray, thresholds: Sequence[float]) -> dict[str, list[float]]:
    """Return the shares of pictures on each side of a threshold that people rated the other way.

    Args:
        scores: Scores in MOS points, shape (num_pictures,).
        opinions: Opinion scores, same shape.
        thresholds: Thresholds in MOS points.

    Returns:
        Shares by the names of their fields; empty if the opinion scores have another unit than the scores.
    """
    if not opinions.min() <= scores.mean() <= opinions.max():
        logger.warning(
            "The opinion scores lie between %g and %g and the mean score is %g, so they have another unit. The error "
            "of thresholds is not stored.",
            *(opinions.min(), opinions.max(), scores.mean()),
        )
        return {}
    below, above = [], []
    for threshold in thresholds:
        passes, is_rated = scores >= threshold, opinions >= threshold
        below.append(_round(int(np.sum(passes & ~is_rated)) / max(1, int(passes.sum()))))
        above.append(_round(int(np.sum(~passes & is_rated)) / max(1, int(np.sum(~passes)))))
    return {"rated_below": below, "rated_above": above}


def _list_parts(signature: str) -> dict[str, str]:
    """Return those parts of a signature by name in which scores of one population must agree.

    Versions are left out: they move the last digits alone. So is the type of the weights, whose hash tells.
    """
    parts = dict(part.partition(":")[::2] for part in signature.split("|")[1:])
    return {name: parts.get(name, "none") for name in MATCHED}


def check_calibration(calibration: Calibration, signature: str) -> None:
    """Raise a ValueError if a calibration says that it is of other scores.

    Args:
        calibration: Scores of some pictures.
        signature: Signature of the scores that are to have a place among them.
    """
    if calibration.signature is None:
        return
    then, now = _list_parts(calibration.signature), _list_parts(signature)
    other = [f"{name} {then[name]}, now {now[name]}" for name in MATCHED if then[name] != now[name]]
    if other:
        raise ValueError(
            f"The calibration is of other scores ({'; '.join(other)}): of {calibration.signature.partition('|')[0]}, "
            f"to be used for {signature.partition('|')[0]}. Score its pictures in the same way, and fit it anew."
        )


def hash_calibration(calibration: CheckpointCalibration | Calibration) -> str:
    """Return eight hexadecimal digits that change with every part of a calibration."""
    content = json.dumps(dataclasses.asdict(calibration), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:8]


__all__ = [
    "CALIBRATION",
    "Calibration",
    "CheckpointCalibration",
    "check_calibration",
    "hash_calibration",
    "load_calibration",
    "write_calibration",
]
