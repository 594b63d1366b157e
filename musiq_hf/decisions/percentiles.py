# SPDX-License-Identifier: Apache-2.0
"""Percentiles of a table's scores, by the calibration that is stored with the checkpoint; without loading a model."""

from pathlib import Path

import numpy as np

from ..common.files import PACKAGE, read_json
from .tables import MODEL, SCORE, SIGNATURE, ScoreTable

PERCENTILE, CALIBRATION = "percentile", "calibration.json"
NUM_QUANTILES = 101


def add_percentiles(table: ScoreTable) -> ScoreTable:
    """Return a table with percentiles: its own if it has the column, else those of the checkpoint's calibration.

    Args:
        table: Rows of one checkpoint.

    Raises:
        ValueError: If it has none and the checkpoint, or its calibration, is not found or is of other scores.
    """
    if PERCENTILE in table.columns:
        return table
    if not {MODEL, SIGNATURE, SCORE} <= set(table.columns) or not len(table):
        raise ValueError(f"{table.path} does not say what made its scores. Add --percentile to musiq score.")
    name, signature = table.texts(MODEL)[0], table.texts(SIGNATURE)[0]
    quantiles = _read_quantiles(name, signature)
    scores = table.numbers(SCORE)
    known = np.isfinite(scores)
    found = np.full(len(scores), np.nan)
    found[known] = place_scores(scores[known], quantiles)
    return table.add(PERCENTILE, [round(float(value), 1) if np.isfinite(value) else None for value in found])


def place_scores(scores: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Return the percentiles of scores as `CheckpointCalibration.percentile` does, before it rounds them.

    Args:
        scores: Finite scores, shape (num_rows,).
        quantiles: Scores that 0 to 100 percent of the pictures do not exceed, shape (101,).
    """
    first = np.searchsorted(quantiles, scores, side="left")
    end = np.searchsorted(quantiles, scores, side="right")
    between = np.interp(scores, quantiles, np.arange(NUM_QUANTILES))
    return np.where(first == end, between, (first + end - 1) / 2)  # of equal quantiles the middle one


def _read_quantiles(name: str, signature: str) -> np.ndarray:
    """Read the quantiles of a checkpoint.

    Raises:
        ValueError: If it has none here, or they are of other scores.
    """
    folders = (PACKAGE / "checkpoints" / Path(name).name, Path(name))
    path = next((folder / CALIBRATION for folder in folders if (folder / CALIBRATION).is_file()), None)
    if path is None:
        raise ValueError(
            f"No {CALIBRATION} of {name} is found here, so its scores have no percentiles. Score with `musiq score "
            "--percentile`, whose column is taken."
        )
    content = read_json(path)
    quantiles = np.asarray(content.get("quantiles", ()), dtype=np.float64)
    if quantiles.shape != (NUM_QUANTILES,) or not np.isfinite(quantiles).all() or (np.diff(quantiles) < 0).any():
        raise ValueError(f"{path} is damaged. Write it anew with `musiq evaluate --write_calibration`.")
    parts = dict(part.partition(":")[::2] for part in signature.split("|")[1:])
    other = [part for part, value in dict(content.get("signature", {})).items() if parts.get(part) != value]
    if other:
        raise ValueError(
            f"{path} is of other scores: {', '.join(other)} differ. Score with `musiq score --percentile`, whose "
            "column is taken."
        )
    return quantiles
