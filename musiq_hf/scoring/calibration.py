# SPDX-License-Identifier: Apache-2.0
"""Calibrations of scores: of the validation pictures, stored beside the weights, or of other pictures in a file."""

import dataclasses
import hashlib
import json
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
        shorter_side: Shorter side to which the pictures were shrunk first, in pixels; None if they were not.
        preset: Way in which their files became pixels.

    Returns:
        The calibration, whose quantiles are interpolated linearly between scores.

    Raises:
        ValueError: If there are too few scores, or one is not finite.
    """
    check_count(len(scores))
    quantiles = np.quantile(np.asarray(scores, dtype=np.float64), np.linspace(0, 1, 101))
    calibration = CheckpointCalibration(
        data=data,
        num_pictures=len(scores),
        quantiles=[float(f"{quantile:.{DIGITS}g}") for quantile in quantiles],
        signature=identify_scores(model, processor, shorter_side=shorter_side, preset=preset),
    )
    write_json(Path(folder) / CALIBRATION, dataclasses.asdict(calibration))
    return calibration


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
