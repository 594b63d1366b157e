# SPDX-License-Identifier: Apache-2.0
"""How sane scores are on degraded copies of pristine pictures, without any opinion score.

Three questions: does the score fall as a fault grows, does the pristine picture stand above its degraded copies, and
does the middle of a picture get about the score of the whole. The faults, their strengths and the targets are ours;
the paper has no such test.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm
from transformers import pipeline

from ..common.extras import require
from ..metrics.reports import PictureScores
from ..models.auto import TASK
from ..pictures.degradations import FAULTS, to_rgb_picture
from ..pictures.opening import load_image

# What a checkpoint worth using reaches, over all pictures and faults.
MAX_SRCC = -0.9  # between strength and score, mean over pictures
MIN_PRISTINE_ABOVE = 0.95  # share of pairs
MIN_CROP_SRCC = 0.8  # between the scores of whole and centre-cropped degraded copies
CROP_FRACTION = 2 / 3  # of each side
# SRCCs over five strengths are tenths, so their mean often falls on a target, but for the rounding of the sum.
ROUNDING = 1e-9

Scorer = Callable[[list[Image.Image]], list[float]]
Picture = str | os.PathLike[str] | Image.Image


def checkpoint_scorer(model: str, *, batch_size: int = 5) -> Scorer:
    """The scores of a checkpoint as a plain function, in float32 and without gradients.

    Args:
        model: Directory or Hub id of a checkpoint with a quality head.
        batch_size: Pictures scored at a time, >= 1; fewer need less memory, the scores are the same.

    Returns:
        Function from RGB pictures to their scores, in MOS points.

    Raises:
        ValueError: If `batch_size` is below 1, or `model` is no such checkpoint.
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
    try:
        scorer = pipeline(TASK, model=model, dtype=torch.float32)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise ValueError(
            f"{model}: no checkpoint that scores pictures ({reason}). Give a directory or Hub id of a MUSIQ model."
        ) from error

    def score(pictures: list[Image.Image]) -> list[float]:
        with torch.inference_mode():
            return [answer["score"] for answer in scorer(pictures, batch_size=batch_size)]

    return score


def center_crop(image: Image.Image) -> Image.Image:
    """The middle of a picture, two thirds of each side."""
    width, height = (max(1, round(CROP_FRACTION * side)) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _open(picture: Picture, index: int) -> tuple[str, Image.Image]:
    """Name without folders, so that reports say nothing about a machine, and RGB pixels."""
    image = load_image(picture)
    name = os.path.basename(getattr(image, "filename", "") or f"picture {index}")
    return name, to_rgb_picture(image)


def _scores(score: Scorer, pictures: list[Image.Image], name: str) -> list[float]:
    scores = [float(value) for value in score(pictures)]
    if len(scores) != len(pictures):
        raise ValueError(f"{name}: one score per picture was expected, got {len(scores)} for {len(pictures)}.")
    if not all(map(math.isfinite, scores)):
        raise ValueError(f"{name}: scores must be finite, got {scores}. Check the checkpoint.")
    return scores


def _score_copies(score: Scorer, picture: Picture, index: int) -> PictureScores:
    """Score a picture and its copies, one fault at a time: all pictures of one call have one size."""
    name, pristine = _open(picture, index)
    whole, cropped = {}, {}
    for kind, fault in FAULTS.items():
        copies = [fault.apply(pristine, level, index) for level in fault.levels]
        whole[kind] = _scores(score, copies, name)
        cropped[kind] = _scores(score, [center_crop(copy) for copy in copies], name)
    return PictureScores(picture=name, pristine=_scores(score, [pristine], name)[0], whole=whole, cropped=cropped)


def _srcc(first: Sequence[float], second: Sequence[float]) -> float:
    """SRCC alone: `quality_metrics` also fits a curve, which takes longer than scoring the pictures."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(require("scipy.stats", extra="train").spearmanr(first, second).statistic)


def _summary(rows: Sequence[PictureScores], kinds: Sequence[str]) -> dict[str, Any]:
    """The figures over some faults, and whether each meets its target."""
    series = [(row.pristine, row.whole[kind]) for row in rows for kind in kinds]
    pairs = [pristine > value for pristine, scores in series for value in scores]
    whole = list(chain.from_iterable(row.whole[kind] for row in rows for kind in kinds))
    cropped = list(chain.from_iterable(row.cropped[kind] for row in rows for kind in kinds))
    figures = {
        # Only the order of the strengths matters to SRCC, so their ranks stand for them.
        "srcc": float(np.mean([_srcc(range(len(scores)), scores) for _, scores in series])),
        "srcc_with_pristine": float(
            np.mean([_srcc(range(len(scores) + 1), [pristine, *scores]) for pristine, scores in series])
        ),
        "pristine_above": float(np.mean(pairs)),
        "crop_srcc": _srcc(whole, cropped),
    }
    met = {
        "srcc": figures["srcc"] <= MAX_SRCC + ROUNDING,
        "pristine_above": figures["pristine_above"] >= MIN_PRISTINE_ABOVE - ROUNDING,
        "crop_srcc": figures["crop_srcc"] >= MIN_CROP_SRCC - ROUNDING,
    }
    return figures | {"met": met}


def measure_robustness(score: Scorer, pictures: Sequence[Picture]) -> dict[str, Any]:
    """Score degraded copies of pristine pictures.

    A scorer that answers a constant ranks nothing: its correlations are 0 and no pristine picture stands above a copy,
    since equal scores do not count.

    Args:
        score: Function from RGB pictures to their scores, higher for better ones.
        pictures: Pristine ones: paths or PIL images, opened one after the other. The position of a picture is the
            seed of its noise.

    Returns:
        "num_pictures"; "targets"; "overall" and, per fault, "faults", each with "srcc" (between strength and score
        over the five strengths of one fault, mean over pictures and faults), "srcc_with_pristine" (the pristine
        picture as a sixth, strength 0), "pristine_above" (share of pairs of pristine picture and copy),
        "crop_srcc" (between whole and cropped copies of all pictures) and "met" (whether each is as good as its
        target). A fault also has "label", "unit", "levels" and "mean_scores" (the pristine pictures', then by
        strength). "pictures" holds the scores themselves, as `PictureScores`.

    Raises:
        ValueError: If there is no picture, one cannot be read, or a score is not finite; the message names it.
        ImportError: If scipy is missing.
    """
    require("scipy.stats", extra="train")  # now, not after an hour of scoring
    if not pictures:
        raise ValueError("At least one pristine picture is needed, got none.")
    rows = [_score_copies(score, picture, index) for index, picture in enumerate(tqdm(pictures, desc="degraded"))]
    pristine = float(np.mean([row.pristine for row in rows]))
    faults = {
        kind: {
            "label": fault.label,
            "unit": fault.unit,
            "levels": list(fault.levels),
            "mean_scores": [pristine, *np.mean([row.whole[kind] for row in rows], axis=0).tolist()],
            **_summary(rows, [kind]),
        }
        for kind, fault in FAULTS.items()
    }
    return {
        "num_pictures": len(rows),
        "targets": {"srcc": MAX_SRCC, "pristine_above": MIN_PRISTINE_ABOVE, "crop_srcc": MIN_CROP_SRCC},
        "overall": _summary(rows, list(FAULTS)),
        "faults": faults,
        "pictures": [asdict(row) for row in rows],
    }


def measure_half_size(score: Scorer, pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    """Scores of large pictures, and of the same pictures shrunk to half of each side (Lanczos, antialiased).

    Args:
        score: As in `measure_robustness`; called with one picture at a time, since they are large.
        pictures: Paths or PIL images.

    Returns:
        Per picture "picture", "width", "height" (pixels at full size), "full" and "half" (the scores).

    Raises:
        ValueError: If there is no picture, one cannot be read, or a score is not finite; the message names it.
    """
    if not pictures:
        raise ValueError("At least one large picture is needed, got none.")
    rows = []
    for index, picture in enumerate(tqdm(pictures, desc="half size")):
        name, image = _open(picture, index)
        half = image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.LANCZOS)
        scores = {"full": _scores(score, [image], name)[0], "half": _scores(score, [half], name)[0]}
        rows.append({"picture": name, "width": image.width, "height": image.height, **scores})
    return rows
