# SPDX-License-Identifier: Apache-2.0
"""How sane scores are on degraded copies of pristine pictures, without any opinion score.

Three questions: does the score fall as a fault grows, does the pristine picture stand above its degraded copies, and
does the middle of a picture get about the score of the whole. The faults, their strengths and the targets are ours;
the paper has no such test.
"""

import math
import os
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..common.devices import find_device
from ..common.extras import require
from ..metrics.reports import (
    FaultReport,
    FaultSummary,
    HalfSizeScores,
    PictureScores,
    RobustnessReport,
    RobustnessTargets,
    TargetsMet,
)
from ..pictures.degradations import FAULTS, to_rgb_picture
from ..pictures.opening import load_image
from ..scoring.engine import PictureScore, score_pictures
from ..scoring.loading import load_quality

# What a checkpoint worth using reaches, over all pictures and faults.
TARGETS = RobustnessTargets(srcc=-0.9, pristine_above=0.95, crop_srcc=0.8)
CROP_FRACTION = 2 / 3  # of each side
# SRCCs over five strengths are tenths, so their mean often falls on a target, but for the rounding of the sum.
ROUNDING = 1e-9

Scorer = Callable[[list[Image.Image]], list[float]]
Picture = str | os.PathLike[str] | Image.Image


def make_scorer(model: str, *, batch_size: int = 5) -> Scorer:
    """Return the scores of a checkpoint as a plain function, in float32 and without gradients.

    Args:
        model: Directory or Hub id of a checkpoint with a quality head.
        batch_size: Pictures scored at a time, >= 1; fewer need less memory, the scores are the same.

    Returns:
        Function from RGB pictures to their scores, in MOS points. It raises a ValueError for a picture that cannot be
        scored.

    Raises:
        ValueError: If `batch_size` is below 1, or `model` is no such checkpoint.
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
    loaded, processor = load_quality(model)
    loaded.to(find_device("auto"))

    def score(pictures: list[Image.Image]) -> list[float]:
        rows = list(score_pictures(pictures, model=loaded, processor=processor, max_pictures=batch_size))
        return [_score_of(row) for row in rows]

    return score


def _score_of(row: PictureScore) -> float:
    if row.score is None:
        raise ValueError(row.error)
    return row.score


def center_crop(image: Image.Image) -> Image.Image:
    """Cut out the middle of a picture, two thirds of each side."""
    width, height = (max(1, round(CROP_FRACTION * side)) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _open(picture: Picture, index: int) -> tuple[str, Image.Image]:
    """Return the name without folders, so that reports say nothing about a machine, and RGB pixels."""
    image = load_image(picture)
    name = os.path.basename(getattr(image, "filename", "") or f"picture {index}")
    return name, to_rgb_picture(image)


def _scores(score: Scorer, pictures: list[Image.Image], name: str) -> list[float]:
    try:
        scores = [float(value) for value in score(pictures)]
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
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
        whole[kind] = tuple(_scores(score, copies, name))
        cropped[kind] = tuple(_scores(score, [center_crop(copy) for copy in copies], name))
    return PictureScores(picture=name, pristine=_scores(score, [pristine], name)[0], whole=whole, cropped=cropped)


def _srcc(first: Sequence[float], second: Sequence[float]) -> float:
    """Compute SRCC alone: `quality_metrics` also fits a curve, which takes longer than scoring the pictures."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(require("scipy.stats", extra="train").spearmanr(first, second).statistic)


def _summary(rows: Sequence[PictureScores], kinds: Sequence[str]) -> FaultSummary:
    """Compute the figures over some faults, and compare each with its target."""
    series = [(row.pristine, row.whole[kind]) for row in rows for kind in kinds]
    pairs = [pristine > value for pristine, scores in series for value in scores]
    whole = list(chain.from_iterable(row.whole[kind] for row in rows for kind in kinds))
    cropped = list(chain.from_iterable(row.cropped[kind] for row in rows for kind in kinds))
    # Only the order of the strengths matters to SRCC, so their ranks stand for them.
    srcc = float(np.mean([_srcc(range(len(scores)), scores) for _, scores in series]))
    with_pristine = [_srcc(range(len(scores) + 1), [pristine, *scores]) for pristine, scores in series]
    pristine_above, crop_srcc = float(np.mean(pairs)), _srcc(whole, cropped)
    return FaultSummary(
        srcc=srcc,
        srcc_with_pristine=float(np.mean(with_pristine)),
        pristine_above=pristine_above,
        crop_srcc=crop_srcc,
        met=TargetsMet(
            srcc=srcc <= TARGETS.srcc + ROUNDING,
            pristine_above=pristine_above >= TARGETS.pristine_above - ROUNDING,
            crop_srcc=crop_srcc >= TARGETS.crop_srcc - ROUNDING,
        ),
    )


def _fault_report(rows: Sequence[PictureScores], kind: str) -> FaultReport:
    fault, summary = FAULTS[kind], _summary(rows, [kind])
    pristine = float(np.mean([row.pristine for row in rows]))
    return FaultReport(
        label=fault.label,
        unit=fault.unit,
        levels=tuple(fault.levels),
        mean_scores=(pristine, *np.mean([row.whole[kind] for row in rows], axis=0).tolist()),
        **vars(summary),
    )


def measure_robustness(score: Scorer, pictures: Sequence[Picture]) -> RobustnessReport:
    """Score degraded copies of pristine pictures.

    A scorer that answers a constant ranks nothing: its correlations are 0 and no pristine picture stands above a copy,
    since equal scores do not count.

    Args:
        score: Function from RGB pictures to their scores, higher for better ones.
        pictures: Pristine ones: paths or PIL images, opened one after the other. The position of a picture is the
            seed of its noise.

    Returns:
        The report, without sizes.

    Raises:
        ValueError: If there is no picture, one cannot be read, or a score is not finite; the message names it.
        ImportError: If scipy is missing.
    """
    require("scipy.stats", extra="train")  # now, not after an hour of scoring
    if not pictures:
        raise ValueError("At least one pristine picture is needed, got none.")
    rows = [_score_copies(score, picture, index) for index, picture in enumerate(tqdm(pictures, desc="degraded"))]
    return RobustnessReport(
        num_pictures=len(rows),
        targets=TARGETS,
        overall=_summary(rows, list(FAULTS)),
        faults={kind: _fault_report(rows, kind) for kind in FAULTS},
        pictures=tuple(rows),
    )


def measure_half_size(score: Scorer, pictures: Sequence[Picture]) -> tuple[HalfSizeScores, ...]:
    """Score large pictures, and the same pictures shrunk to half of each side (Lanczos, antialiased).

    Args:
        score: Function as in `measure_robustness`; called with one picture at a time, since they are large.
        pictures: Paths or PIL images.

    Returns:
        The scores of each picture.

    Raises:
        ValueError: If there is no picture, one cannot be read, or a score is not finite; the message names it.
    """
    if not pictures:
        raise ValueError("At least one large picture is needed, got none.")
    rows = []
    for index, picture in enumerate(tqdm(pictures, desc="half size")):
        name, image = _open(picture, index)
        half = image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.LANCZOS)
        (full,), (smaller,) = _scores(score, [image], name), _scores(score, [half], name)
        rows.append(HalfSizeScores(picture=name, width=image.width, height=image.height, full=full, half=smaller))
    return tuple(rows)
