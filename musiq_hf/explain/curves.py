# SPDX-License-Identifier: Apache-2.0
"""Curves of a score: over degraded copies, and over aspect ratios."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..models.protocol import QualityModel, QualityProcessor
from ..pictures.degradations import FAULTS, Fault, to_rgb_picture
from ..pictures.opening import load_image
from ..scoring.engine import score_pictures
from .figures import PANEL, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Aspect ratios, width to height.
RATIOS = (1 / 2, 9 / 16, 2 / 3, 3 / 4, 1, 4 / 3, 3 / 2, 16 / 9, 2)
SCORE_LABEL = "score, MOS points"


def _score_copies(model: QualityModel, processor: QualityProcessor, pictures: Iterable[Image.Image]) -> list[float]:
    scores = []
    for row in score_pictures(pictures, model=model, processor=processor, max_megapixels=math.inf):
        if row.score is None:
            raise ValueError(f"A changed copy of the picture cannot be scored: {row.error}")
        scores.append(row.score)
    return scores


def _find_common_area(width: int, height: int, ratios: Sequence[float]) -> float:
    """Return the largest area, in pixels, that a crop of every ratio has room for."""
    return min(min(width, height * ratio) * min(height, width / ratio) for ratio in ratios)


def _crop_and_squeeze(image: Image.Image, ratio: float, area: float) -> tuple[Image.Image, Image.Image]:
    """Return a centred crop and the whole picture squeezed, both of one aspect ratio and area in pixels."""
    width = min(max(1, round(math.sqrt(area * ratio))), image.width)
    height = min(max(1, round(math.sqrt(area / ratio))), image.height)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    crop = image.crop((left, top, left + width, top + height))
    return crop, image.resize((width, height), Image.Resampling.LANCZOS)


@dataclass(frozen=True, kw_only=True)
class AspectRatioScores:
    """Scores of copies of one picture with several aspect ratios and one area, in MOS points.

    Attributes:
        ratios: Ratios of width to height, ascending.
        squeezed: Score of the whole picture, squeezed to each ratio.
        cropped: Score of the middle of the picture, cropped to each ratio.
        whole: Score of the picture itself, at its full size.
        ratio: Ratio of the picture itself.
        area: Area of the copies, in pixels.
    """

    ratios: tuple[float, ...]
    squeezed: tuple[float, ...]
    cropped: tuple[float, ...]
    whole: float
    ratio: float
    area: float


def score_aspect_ratios(
    model: QualityModel, processor: QualityProcessor, image: Any, *, ratios: Sequence[float] = RATIOS
) -> AspectRatioScores:
    """Score copies of a picture with several aspect ratios and one area.

    Args:
        model: Model in evaluation mode, on its device.
        processor: Processor that agrees with the model.
        image: One picture: path, URL or PIL image.
        ratios: Ratios of width to height, at least one, above 0.

    Raises:
        ValueError: If there is no ratio, one is not above 0, or a copy is too long and thin. Also if the picture
            cannot be used, the model is training, or model and processor disagree.
    """
    if not ratios or not all(math.isfinite(ratio) and ratio > 0 for ratio in ratios):
        raise ValueError(f"`ratios` must be one or more numbers above 0, width to height, got {tuple(ratios)}.")
    whole, ratios = to_rgb_picture(load_image(image)), sorted(ratios)
    area = _find_common_area(*whole.size, ratios)

    def make_copies() -> Iterator[Image.Image]:
        for ratio in ratios:
            yield from _crop_and_squeeze(whole, ratio, area)
        yield whole

    *scores, own = _score_copies(model, processor, make_copies())
    return AspectRatioScores(
        ratios=tuple(ratios),
        squeezed=tuple(scores[1::2]),
        cropped=tuple(scores[0::2]),
        whole=own,
        ratio=whole.width / whole.height,
        area=area,
    )


def _label_ratios(axes: Any, ratios: Sequence[float], area: float) -> None:
    axes.set_xscale("log")
    axes.set_xticks(ratios, [f"{part.numerator}:{part.denominator}" for part in map(_find_fraction, ratios)])
    axes.minorticks_off()
    side = math.sqrt(area)
    axes.set_xlabel(f"width : height of copies with the area of {side:.0f} x {side:.0f} pixels")
    axes.grid(alpha=0.3)
    axes.legend()


def plot_aspect_ratio_changes(
    changes: Mapping[str, Sequence[float]], *, ratios: Sequence[float], area: float
) -> "Figure":
    """Plot the change of the score of squeezed pictures for several models (figure 3).

    Args:
        changes: Change of the score at each ratio by the name of the model, in MOS points.
        ratios: Ratios of width to height, above 0.
        area: Area of the squeezed pictures, in pixels.

    Returns:
        Figure with a curve for each model.

    Raises:
        ImportError: If matplotlib is missing.
    """
    figure = new_figure(8.5, 5)
    axes = figure.subplots()
    for name, curve in changes.items():
        axes.plot(ratios, curve, "o-", label=name)
    axes.axhline(0, color="black", linewidth=0.8, linestyle=":")
    axes.set_ylabel("change of the score by squeezing, MOS points")
    _label_ratios(axes, ratios, area)
    return figure


def plot_aspect_ratios(
    model: QualityModel,
    processor: QualityProcessor,
    image: Any,
    *,
    ratios: Sequence[float] = RATIOS,
) -> "Figure":
    """Plot the score against the aspect ratio at one area (figure 3), for squeezed copies and for crops.

    A model that keeps aspect ratios can see the distortion of a squeezed copy. A crop is not distorted, but shows less
    of the picture.

    Args:
        model: Model in evaluation mode, on its device.
        processor: Processor that agrees with the model.
        image: One picture: path, URL or PIL image.
        ratios: Ratios of width to height, at least one, above 0.

    Returns:
        Figure with a curve for squeezed copies, one for crops, and a mark for the picture itself.

    Raises:
        ValueError: If there is no ratio, one is not above 0, or a copy is too long and thin. Also if the picture
            cannot be used, the model is training, or model and processor disagree.
        ImportError: If matplotlib is missing.
    """
    found = score_aspect_ratios(model, processor, image, ratios=ratios)
    figure = new_figure(7.5, 4.2)
    axes = figure.subplots()
    axes.plot(found.ratios, found.squeezed, "o-", label="whole picture squeezed")
    axes.plot(found.ratios, found.cropped, "s-", label="middle cropped")
    axes.plot([found.ratio], [found.whole], "k*", markersize=12, label="picture itself, full size")
    axes.set_ylabel(SCORE_LABEL)
    _label_ratios(axes, found.ratios, found.area)
    return figure


def _find_fraction(ratio: float) -> Fraction:
    return Fraction(ratio).limit_denominator(20)


def score_fault(
    model: QualityModel, processor: QualityProcessor, image: Image.Image, fault: Fault
) -> tuple[float, ...]:
    """Score copies of a picture with a fault of rising strength.

    Args:
        model: Model in evaluation mode, on its device.
        processor: Processor that agrees with the model.
        image: Picture in 8-bit RGB.
        fault: Fault that the copies have.

    Returns:
        Score of each copy, in the order of the fault's levels.

    Raises:
        ValueError: If a copy cannot be scored, the model is training, or model and processor disagree.
    """
    return tuple(_score_copies(model, processor, (fault.apply(image, level, 0) for level in fault.levels)))


def plot_degradations(model: QualityModel, processor: QualityProcessor, image: Any) -> "Figure":
    """Plot the score of the picture with blur, noise and JPEG artefacts of rising strength.

    Args:
        model: Model in evaluation mode, on its device.
        processor: Processor that agrees with the model.
        image: One picture: path, URL or PIL image.

    Returns:
        Figure with one panel for each fault, from the picture as it is to the strongest fault.

    Raises:
        ValueError: If the picture cannot be used, the model is training, or model and processor disagree.
        ImportError: If matplotlib is missing.
    """
    whole = to_rgb_picture(load_image(image))
    own = _score_copies(model, processor, [whole])[0]
    scores = [score_fault(model, processor, whole, fault) for fault in FAULTS.values()]
    figure = new_figure(PANEL * len(FAULTS) * 0.85, 3.4)
    panels = figure.subplots(1, len(FAULTS), sharey=True)
    for axes, fault, copies in zip(panels, FAULTS.values(), scores, strict=True):
        places = range(1 + len(fault.levels))
        axes.plot(places, [own, *copies], "o-")
        axes.axhline(own, color="black", linewidth=0.8, linestyle=":")
        axes.set_xticks(places, ["as it is", *(f"{level:g}" for level in fault.levels)])
        axes.set_title(fault.label, fontsize=10)
        axes.set_xlabel(fault.unit)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel(SCORE_LABEL)
    return figure
