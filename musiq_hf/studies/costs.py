# SPDX-License-Identifier: Apache-2.0
"""Costs of a trained checkpoint: tokens and time of a picture, and patches that share a cell of the grid."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..common.files import read_json, write_json
from ..models.protocol import Feature, QualityModel, QualityProcessor
from ..pictures.synthetic import make_picture
from ..scoring.engine import score_pictures
from ..scoring.loading import load_quality

COSTS_FILE = "costs.json"
_SIDE = 512  # of the picture, in pixels: that of BIQ2021's
_REPEATS = 7


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Costs of one picture of 512 x 512 pixels.

    Attributes:
        tokens: Number of its tokens.
        milliseconds: Median time of a score without decoding, one picture at a time.
        sharing: Share of its patches whose cell of the grid holds another patch of the same scale; None for models
            without a grid of hashed positions.
    """

    tokens: int
    milliseconds: float
    sharing: float | None


def _count_sharing(feature: Feature) -> float:
    """Return the share of patches whose position another patch of the same scale has too."""
    places = torch.stack([feature["scale_position_ids"], feature["spatial_position_ids"]])
    _, numbers, counts = places.unique(dim=1, return_inverse=True, return_counts=True)
    return (counts[numbers] > 1).double().mean().item()


def _time_score(model: QualityModel, processor: QualityProcessor, image: Image.Image) -> float:
    begin = time.perf_counter()
    list(score_pictures([image], model=model, processor=processor))
    return time.perf_counter() - begin


def measure_costs(checkpoint: str | Path) -> Costs:
    """Measure what a picture of 512 x 512 pixels costs, on the CPU.

    Args:
        checkpoint: Folder or id of a checkpoint with a quality head.

    Raises:
        ValueError: If there is no such checkpoint.
    """
    model, processor = load_quality(str(checkpoint))
    image = make_picture(seed=0, width=_SIDE, height=_SIDE)
    feature = processor.cut(torch.from_numpy(np.array(image)))
    seconds = [_time_score(model, processor, image) for _ in range(1 + _REPEATS)][1:]  # the first one warms up
    return Costs(
        tokens=processor.num_tokens(feature),
        milliseconds=1000 * statistics.median(seconds),
        sharing=_count_sharing(feature) if getattr(model.config, "spatial_embedding", None) == "hash" else None,
    )


def read_costs(folder: Path) -> Costs:
    """Read the costs of a run, or measure and store them."""
    stored = folder / COSTS_FILE
    if stored.is_file():
        known: Mapping[str, float] = read_json(stored)
        return Costs(**known)  # type: ignore[arg-type]
    costs = measure_costs(folder)
    write_json(stored, asdict(costs))
    return costs
