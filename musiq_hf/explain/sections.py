# SPDX-License-Identifier: Apache-2.0
"""Sections of a report: those for any model, and the type of those that a family adds."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from ..models.protocol import QualityModel, QualityProcessor
from .curves import plot_aspect_ratios, plot_degradations
from .figures import QualityMap

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Section(NamedTuple):
    """Figure of a report.

    Attributes:
        title: Heading.
        text: One or two sentences on what the figure shows.
        draw: Function that makes the figure.
    """

    title: str
    text: str
    draw: Callable[[], "Figure"]


@dataclass(frozen=True, kw_only=True)
class Explainer:
    """Part of a report that only one family can give.

    Attributes:
        sections: Function of model, processor and picture that gives the family's sections.
        facts: Function of processor, height and width, in pixels, that gives lines of the table by name.
        quality_map: Function of model, processor and picture that gives the effect of each region on the score.
    """

    sections: Callable[[Any, Any, Image.Image], Iterator[Section]]
    facts: Callable[[Any, int, int], Mapping[str, str]]
    quality_map: Callable[[Any, Any, Image.Image], QualityMap]


def make_general_sections(model: QualityModel, processor: QualityProcessor, image: Image.Image) -> Iterator[Section]:
    """Yield the sections that any model allows: its score over degraded copies, and over aspect ratios."""
    yield Section(
        "Degradation",
        "The score of copies of this picture that are blurred, noisy or compressed, more and more so to the right: "
        "a picture in good order should lose points.",
        lambda: plot_degradations(model, processor, image),
    )
    yield Section(
        "Aspect ratio",
        "The score of the whole picture squeezed to other aspect ratios, and of crops that have them without "
        "distortion, all of one area.",
        lambda: plot_aspect_ratios(model, processor, image),
    )
