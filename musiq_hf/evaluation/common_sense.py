# SPDX-License-Identifier: Apache-2.0
"""Test of scores by common sense, on copies of pristine pictures and on pictures that are no photographs.

Some copies look as good as their pictures, and their scores should be equal. Others are clearly worse. The copies and
the targets are ours; the paper has no such test.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from ..metrics.reports import CopyChanges, HalfSizeScores, OddScore
from ..pictures.alterations import add_border, add_watermark, rotate, shuffle_blocks
from ..pictures.compression import compress_jpeg
from ..pictures.degradations import add_noise, blur
from ..pictures.synthetic import ODD_PICTURES
from .robustness import ROUNDING, Picture, Scorer, compute_scores, open_named

CROP = 3  # pixels
PRISTINE = "pristine"
BELOW_ALL = ("black", "noise")  # odd pictures that should score below every photograph
HALF_SIZE_LABEL = "half size against full size, large pictures"

Version = Callable[[Image.Image, int], Image.Image]


def _shrink(image: Image.Image, factor: int) -> Image.Image:
    size = (max(1, image.width // factor), max(1, image.height // factor))
    return image.resize(size, Image.Resampling.LANCZOS)


def _shrink_and_enlarge(image: Image.Image, factor: int) -> Image.Image:
    return _shrink(image, factor).resize(image.size, Image.Resampling.BICUBIC)


def _mark(image: Image.Image, seed: int) -> Image.Image:
    return add_watermark(image, "SAMPLE", height=0.2, opacity=0.7)


# Functions from (pristine picture, its position) to a copy. The position is the seed of noise and shuffled blocks.
VERSIONS: Mapping[str, Version] = {
    PRISTINE: lambda image, seed: image,
    "mirrored": lambda image, seed: ImageOps.mirror(image),
    "cropped": lambda image, seed: image.crop((min(CROP, image.width - 1), min(CROP, image.height - 1), *image.size)),
    "watermark": _mark,
    "border": lambda image, seed: add_border(image, max(1, round(0.05 * min(image.size)))),
    "tilted": lambda image, seed: rotate(image, 10),
    "jpeg_95": lambda image, seed: compress_jpeg(image, 95),
    "jpeg_90": lambda image, seed: compress_jpeg(image, 90),
    "jpeg_75": lambda image, seed: compress_jpeg(image, 75),
    "jpeg_12": lambda image, seed: compress_jpeg(image, 12),
    "jpeg_6": lambda image, seed: compress_jpeg(image, 6),
    "jpeg_5": lambda image, seed: compress_jpeg(image, 5),
    "noise_3": lambda image, seed: add_noise(image, 3, seed=seed),
    "noise_15": lambda image, seed: add_noise(image, 15, seed=seed),
    "shuffled": lambda image, seed: shuffle_blocks(image, 32, seed=seed),
    "resampled_2": lambda image, seed: _shrink_and_enlarge(image, 2),
    "resampled_4": lambda image, seed: _shrink_and_enlarge(image, 4),
    "blur_1": lambda image, seed: blur(image, 1),
    "blur_2": lambda image, seed: blur(image, 2),
    "blur_4": lambda image, seed: blur(image, 4),
    "half": lambda image, seed: _shrink(image, 2),
}


@dataclass(frozen=True)
class Target:
    """Bound of one figure of `CopyChanges`.

    Attributes:
        title: Name of the figure for tables.
        read: Function from the figures to the one that is bounded.
        bound: Largest value that is met.
    """

    title: str
    read: Callable[[CopyChanges], float]
    bound: float


def _largest(bound: float) -> Target:
    return Target("largest", operator.attrgetter("largest_size"), bound)


def _mean(bound: float) -> Target:
    return Target("mean change", operator.attrgetter("mean_change"), bound)


# 8 of 30; a fair coin gives 8 or fewer heads in 30 throws less than one time in a hundred.
RARELY_HIGHER = Target("part that scored higher", lambda figures: figures.num_higher / figures.num_pictures, 8 / 30)
CLOSE_SIZES = Target("median size of a change", operator.attrgetter("median_size"), 8.0)


@dataclass(frozen=True)
class Comparison:
    """Comparison of two versions of each picture.

    Attributes:
        label: Label for tables.
        copy: Name of the version that is looked at.
        reference: Name of the version whose score is subtracted.
        target: Figure asked for; None asks for nothing.
    """

    label: str
    copy: str
    reference: str = PRISTINE
    target: Target | None = None


COMPARISONS: Mapping[str, Comparison] = {
    "mirrored": Comparison("mirrored", "mirrored", target=_largest(4)),
    "cropped": Comparison(f"without {CROP} pixels at left and top", "cropped", target=_largest(4)),
    "watermark": Comparison("watermark, letters of a fifth of the shorter side", "watermark", target=RARELY_HIGHER),
    "border": Comparison("black border, a twentieth of the shorter side", "border", target=RARELY_HIGHER),
    "tilted": Comparison("rotated by 10 degrees with black corners", "tilted", target=RARELY_HIGHER),
    "jpeg_95": Comparison("JPEG 95", "jpeg_95"),
    "jpeg_90": Comparison("JPEG 90", "jpeg_90", target=RARELY_HIGHER),
    "jpeg_75": Comparison("JPEG 75", "jpeg_75"),
    "jpeg_12": Comparison("JPEG 12", "jpeg_12", target=_mean(-10)),
    "jpeg_6": Comparison("JPEG 6", "jpeg_6", target=_mean(-20)),
    "jpeg_5": Comparison("JPEG 5", "jpeg_5"),
    "jpeg_5_noise_15": Comparison("JPEG 5 against noise of sigma 15", "jpeg_5", "noise_15"),
    "noise_3": Comparison("noise of sigma 3, hardly visible", "noise_3"),
    "shuffled": Comparison("blocks of 32 pixels shuffled", "shuffled", target=_mean(-5)),
    "resampled_2": Comparison("shrunk and enlarged by 2", "resampled_2"),
    "resampled_4_2": Comparison("shrunk and enlarged by 4 against by 2", "resampled_4", "resampled_2"),
    "blur_1": Comparison("blur of sigma 1", "blur_1"),
    "blur_2_1": Comparison("blur of sigma 2 against 1", "blur_2", "blur_1"),
    "blur_4_2": Comparison("blur of sigma 4 against 2", "blur_4", "blur_2"),
    "half": Comparison("half size against full size", "half"),
}


def _summarize(label: str, changes: Sequence[float], target: Target | None) -> CopyChanges:
    figures = CopyChanges(
        label=label,
        num_pictures=len(changes),
        num_higher=sum(change > 0 for change in changes),
        mean_change=float(np.mean(changes)),
        median_size=float(np.median(np.abs(changes))),
        largest_size=float(np.max(np.abs(changes))),
        changes=tuple(changes),
    )
    if target is None:
        return figures
    said = f"{target.title} <= {target.bound:.3g}"
    return replace(figures, target=said, is_met=target.read(figures) <= target.bound + ROUNDING)


def measure_common_sense(
    score: Scorer, pictures: Sequence[Picture], *, half_size: Sequence[HalfSizeScores] = ()
) -> dict[str, CopyChanges]:
    """Score copies of pristine pictures, and compare them with the pictures or with each other.

    Args:
        score: Function from RGB pictures to their scores. It gets one picture at a time.
        pictures: Pristine pictures: paths or PIL images. The position of a picture is the seed of its copies.
        half_size: Scores of `measure_half_size`; they become one more row, if there are any.

    Returns:
        {copy: changes of the scores}, each with its target and whether it is met.

    Raises:
        ValueError: If there is no picture, a picture cannot be read, or a score is not finite. The message names the
            picture.
    """
    if not pictures:
        raise ValueError("At least one pristine picture is needed, got none.")
    scores: dict[str, list[float]] = {name: [] for name in VERSIONS}
    for index, picture in enumerate(tqdm(pictures, desc="common sense")):
        name, pristine = open_named(picture, index)
        for version, apply in VERSIONS.items():
            scores[version] += compute_scores(score, [apply(pristine, index)], name)
    report = {}
    for key, asked in COMPARISONS.items():
        pairs = zip(scores[asked.copy], scores[asked.reference], strict=True)
        report[key] = _summarize(asked.label, [copy - reference for copy, reference in pairs], asked.target)
    if half_size:
        report["half_large"] = _summarize(HALF_SIZE_LABEL, [row.half - row.full for row in half_size], CLOSE_SIZES)
    return report


def measure_odd_pictures(score: Scorer, pristine: Sequence[float]) -> dict[str, OddScore]:
    """Score pictures made by a program that are no photographs: one-coloured, noise, text, a screenshot, a drawing.

    Args:
        score: Function from RGB pictures to their scores.
        pristine: Scores of pristine photographs, with which they are compared.

    Returns:
        {picture: score}. For black and noise the report says whether all photographs score higher.

    Raises:
        ValueError: If a score is not finite. The message names the picture.
    """
    report = {}
    for name, (label, make) in ODD_PICTURES.items():
        (value,) = compute_scores(score, [make()], label)
        below = sum(other <= value for other in pristine)
        is_met = below == 0 if name in BELOW_ALL else None
        report[name] = OddScore(label=label, score=value, num_below=below, is_met=is_met)
    return report
