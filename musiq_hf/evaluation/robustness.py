# SPDX-License-Identifier: Apache-2.0
"""Test of scores on degraded copies of pristine pictures, which needs no opinion scores.

It answers three questions:

- Does the score fall as a fault grows?
- Does the pristine picture score higher than its degraded copies?
- Does the middle of a picture get about the score of the whole?

The faults, their strengths and the targets are ours; the paper has no such test.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
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
from ..scoring.engine import PictureScore, ScoringOptions, score_pictures
from ..scoring.loading import load_quality

# Figures that a checkpoint worth using reaches.
MAX_SRCC_EACH, MIN_ABOVE_EACH = -0.95, 0.92
TARGETS = RobustnessTargets(
    srcc=-0.95, srcc_each=MAX_SRCC_EACH, pristine_above=0.97, pristine_above_each=MIN_ABOVE_EACH, crop_srcc=0.8
)
CROP_FRACTION = 2 / 3  # part of each side that a crop keeps
# SRCCs over five strengths are tenths, so their mean often equals a target; the rounding of the sum must not count.
ROUNDING = 1e-9

Scorer = Callable[[list[Image.Image]], list[float]]
Picture = str | os.PathLike[str] | Image.Image


def make_scorer(model: str, *, batch_size: int = 5) -> Scorer:
    """Return the scores of a checkpoint as a plain function, in float32 and without gradients.

    Args:
        model: Directory or Hub id of a checkpoint with a quality head.
        batch_size: Number of pictures scored at a time, >= 1. Fewer need less memory; the scores are the same.

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
        options: ScoringOptions = {"max_pictures": batch_size, "max_megapixels": math.inf}
        rows = list(score_pictures(pictures, model=loaded, processor=processor, **options))
        return [_read_score(row) for row in rows]

    return score


def _read_score(row: PictureScore) -> float:
    if row.score is None:
        raise ValueError(row.error)
    return row.score


def center_crop(image: Image.Image) -> Image.Image:
    """Cut out the middle of a picture, two thirds of each side."""
    width, height = (max(1, round(CROP_FRACTION * side)) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def open_named(picture: Picture, index: int) -> tuple[str, Image.Image]:
    """Open a picture, and return its name and its RGB pixels.

    The name is without folders, so that reports say nothing about a machine.
    """
    image = load_image(picture)
    name = os.path.basename(getattr(image, "filename", "") or f"picture {index}")
    return name, to_rgb_picture(image)


def compute_scores(score: Scorer, pictures: list[Image.Image], name: str) -> list[float]:
    """Compute the scores of pictures of one size, or raise a ValueError that names the picture they come from."""
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
    """Score a picture and its copies, one fault at a time, so that all pictures of one call have one size."""
    name, pristine = open_named(picture, index)
    whole, cropped = {}, {}
    for kind, fault in FAULTS.items():
        copies = [fault.apply(pristine, level, index) for level in fault.levels]
        whole[kind] = tuple(compute_scores(score, copies, name))
        cropped[kind] = tuple(compute_scores(score, [center_crop(copy) for copy in copies], name))
    return PictureScores(
        picture=name, pristine=compute_scores(score, [pristine], name)[0], whole=whole, cropped=cropped
    )


def _compute_srcc(first: Sequence[float], second: Sequence[float]) -> float:
    """Compute SRCC; 0 if a side is constant.

    `quality_metrics` would also fit a curve, which takes longer than scoring the pictures.
    """
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(require("scipy.stats", extra="train").spearmanr(first, second).statistic)


def _summarize(
    rows: Sequence[PictureScores], kinds: Sequence[str], *, max_srcc: float, min_above: float
) -> FaultSummary:
    """Summarise the scores of some faults in a few figures, and compare these with their targets.

    Args:
        rows: Scores of each picture and its copies.
        kinds: Names of the faults.
        max_srcc: Highest rank correlation of strength and score that is asked for.
        min_above: Smallest part of the pairs whose pristine picture scores higher that is asked for.
    """
    series = [(row.pristine, row.whole[kind]) for row in rows for kind in kinds]
    pairs = [pristine > value for pristine, scores in series for value in scores]
    whole = list(chain.from_iterable(row.whole[kind] for row in rows for kind in kinds))
    cropped = list(chain.from_iterable(row.cropped[kind] for row in rows for kind in kinds))
    # SRCC depends on the order of the strengths alone, so their ranks stand for them.
    srcc = float(np.mean([_compute_srcc(range(len(scores)), scores) for _, scores in series]))
    with_pristine = [_compute_srcc(range(len(scores) + 1), [pristine, *scores]) for pristine, scores in series]
    pristine_above, crop_srcc = float(np.mean(pairs)), _compute_srcc(whole, cropped)
    return FaultSummary(
        srcc=srcc,
        srcc_with_pristine=float(np.mean(with_pristine)),
        pristine_above=pristine_above,
        crop_srcc=crop_srcc,
        met=TargetsMet(
            srcc=srcc <= max_srcc + ROUNDING,
            pristine_above=pristine_above >= min_above - ROUNDING,
            crop_srcc=crop_srcc >= TARGETS.crop_srcc - ROUNDING,
        ),
    )


def _make_fault_report(rows: Sequence[PictureScores], kind: str) -> FaultReport:
    fault, summary = FAULTS[kind], _summarize(rows, [kind], max_srcc=MAX_SRCC_EACH, min_above=MIN_ABOVE_EACH)
    pristine = float(np.mean([row.pristine for row in rows]))
    return FaultReport(
        label=fault.label,
        unit=fault.unit,
        levels=tuple(fault.levels),
        mean_scores=(pristine, *np.mean([row.whole[kind] for row in rows], axis=0).tolist()),
        **vars(summary),
    )


def _summarize_all(rows: Sequence[PictureScores], faults: Sequence[FaultReport]) -> FaultSummary:
    """Summarise the scores of all faults; what is asked of each fault is met if each meets it."""
    summary = _summarize(rows, list(FAULTS), max_srcc=TARGETS.srcc, min_above=TARGETS.pristine_above)
    met = replace(
        summary.met,
        srcc=summary.met.srcc and all(fault.met.srcc for fault in faults),
        pristine_above=summary.met.pristine_above and all(fault.met.pristine_above for fault in faults),
    )
    return replace(summary, met=met)


def measure_robustness(score: Scorer, pictures: Sequence[Picture]) -> RobustnessReport:
    """Score degraded copies of pristine pictures.

    A scorer that answers a constant ranks nothing, so its correlations are 0. No pristine picture of it counts as
    above a copy, since equal scores do not count.

    Args:
        score: Function from RGB pictures to their scores, higher for better pictures.
        pictures: Pristine pictures: paths or PIL images, opened one after the other. The position of a picture is the
            seed of its noise.

    Returns:
        The report, without `half_size`.

    Raises:
        ValueError: If there is no picture, a picture cannot be read, or a score is not finite. The message names the
            picture.
        ImportError: If scipy is missing.
    """
    require("scipy.stats", extra="train")  # here, since a missing library should not show after an hour of scoring
    if not pictures:
        raise ValueError("At least one pristine picture is needed, got none.")
    rows = [_score_copies(score, picture, index) for index, picture in enumerate(tqdm(pictures, desc="degraded"))]
    faults = {kind: _make_fault_report(rows, kind) for kind in FAULTS}
    return RobustnessReport(
        num_pictures=len(rows),
        targets=TARGETS,
        overall=_summarize_all(rows, list(faults.values())),
        faults=faults,
        pictures=tuple(rows),
    )


def measure_half_size(score: Scorer, pictures: Sequence[Picture]) -> tuple[HalfSizeScores, ...]:
    """Score large pictures, and the same pictures shrunk to half of each side (Lanczos, antialiased).

    Args:
        score: Function as in `measure_robustness`. It gets one picture at a time, since they are large.
        pictures: Large pictures: paths or PIL images.

    Returns:
        Both scores of each picture, in the order of the pictures.

    Raises:
        ValueError: If there is no picture, a picture cannot be read, or a score is not finite. The message names the
            picture.
    """
    if not pictures:
        raise ValueError("At least one large picture is needed, got none.")
    rows = []
    for index, picture in enumerate(tqdm(pictures, desc="half size")):
        name, image = open_named(picture, index)
        half = image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.LANCZOS)
        (full,), (smaller,) = compute_scores(score, [image], name), compute_scores(score, [half], name)
        rows.append(HalfSizeScores(picture=name, width=image.width, height=image.height, full=full, half=smaller))
    return tuple(rows)
