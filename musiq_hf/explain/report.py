# SPDX-License-Identifier: Apache-2.0
"""One page of HTML, figures included, about the score of one picture."""

import base64
import html
import os
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from PIL import Image

from ..models.musiq.image_processing_musiq import MusiqImageProcessor
from ..models.musiq.modeling_musiq import MusiqForImageQualityAssessment
from ..scoring.engine import PictureScore, score_pictures
from ..version import __version__
from .curves import plot_aspect_ratios, plot_degradations
from .figures import plot_quality_map
from .musiq import plot_attention, plot_hash_similarity, plot_pyramid
from .quality_map import patch_layouts, quality_map

if TYPE_CHECKING:
    from matplotlib.figure import Figure


DPI = 100
SUFFIXES = (".html", ".htm")
STYLE = (
    "body{font-family:sans-serif;max-width:75em;margin:2em auto;padding:0 1em}img{max-width:100%}"
    "td,th{text-align:left;padding:.15em 1.5em .15em 0}p{max-width:50em}"
)


class Section(NamedTuple):
    """A figure of the page.

    Attributes:
        title: Heading.
        text: What the figure shows, in a sentence or two.
        draw: Makes the figure.
    """

    title: str
    text: str
    draw: Callable[[], "Figure"]


def check_report_path(path: str | os.PathLike[str]) -> Path:
    """The path of a report, or a ValueError if no report can be written there."""
    checked = Path(path)
    if checked.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{checked}: a report is HTML. Give it a name that ends in .html.")
    if checked.is_dir():
        raise ValueError(f"{checked} is a folder. Give the report another name.")
    if not checked.parent.is_dir():
        raise ValueError(f"{checked.parent}: no such folder. Make it first, or choose another one.")
    return checked


def _sections(
    model: MusiqForImageQualityAssessment, processor: MusiqImageProcessor, image: Image.Image
) -> Iterator[Section]:
    """The figures that this checkpoint allows."""
    yield Section(
        "Quality map",
        "The score of the picture without the patches of one region, at every scale, minus the score with them: red "
        "regions lower the score, blue ones raise it. Each number is exact; they need not add up.",
        lambda: plot_quality_map(quality_map(model, processor, image), image),
    )
    yield Section(
        "Attention",
        "From where the CLS token, of which the score is made, takes what it knows: above, its attention in the last "
        "block, mean of heads; below, attention rollout through all blocks. Attention says where the model looks, not "
        "whether that raises or lowers the score.",
        lambda: plot_attention(model, processor, image),
    )
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
    yield Section(
        "Multi-scale pyramid",
        "What the model reads: the picture at every scale, cut into patches (thin lines). Gray borders are padding; "
        "patches inside of one yellow frame, numbered by row and column, share a position.",
        lambda: plot_pyramid(processor, image),
    )
    if model.config.spatial_embedding == "hash":
        yield Section(
            "Spatial embedding",
            "Cosine similarity of the vectors that stand for positions in the picture, each with all others, in its "
            "place. A property of the checkpoint, the same for every picture.",
            lambda: plot_hash_similarity(model),
        )


def _score(
    model: MusiqForImageQualityAssessment, processor: MusiqImageProcessor, image: Image.Image, name: str
) -> PictureScore:
    row = next(iter(score_pictures([(name, image)], model=model, processor=processor)))
    if row.score is None:
        raise ValueError(f"{name}: {row.error}")
    return row


def _range_of(model: MusiqForImageQualityAssessment) -> str:
    span = model.config.answer_range
    return "range not noted in the checkpoint" if span is None else f"on a scale of {span[0]:g} to {span[1]:g}"


def _facts(
    model: MusiqForImageQualityAssessment,
    processor: MusiqImageProcessor,
    row: PictureScore,
    checkpoint: str,
    signature: str,
) -> dict[str, str]:
    """What stands in the table at the head, by name."""
    assert row.width is not None and row.height is not None  # it has a score, so it could be read
    layouts = patch_layouts(row.height, row.width, processor)
    patches = (
        f"{layout.count} ({'native' if layout.is_native else f'resized to {layout.width} x {layout.height}'})"
        for layout in layouts
    )
    deviation = "" if row.std is None else f", standard deviation of the predicted distribution {row.std:.2f}"
    return {
        "Score": f"{row.score:.2f} MOS points, {_range_of(model)}{deviation}",
        "Picture": f"{row.width} x {row.height} pixels",
        "Patches": ", ".join(patches),
        "Checkpoint": checkpoint,
        "Signature": signature,
    }


def _picture_tag(figure: "Figure", title: str) -> str:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img alt="{html.escape(title)}" src="data:image/png;base64,{data}">'


def make_report(
    model: MusiqForImageQualityAssessment,
    processor: MusiqImageProcessor,
    image: Image.Image,
    *,
    name: str,
    checkpoint: str,
    signature: str,
) -> tuple[str, float]:
    """Score a picture and explain the score.

    Args:
        model: In evaluation mode, on its device.
        processor: One that agrees with the model.
        image: The picture, upright.
        name: What to call it.
        checkpoint: What to call the model.
        signature: Of scores made with it.

    Returns:
        The page, which needs no other file, and the score in MOS points.

    Raises:
        ValueError: If the picture cannot be used, the model is training, or model and processor disagree.
        ImportError: If matplotlib is missing.
    """
    with torch.inference_mode():
        row = _score(model, processor, image, name)
        sections = "\n".join(
            f"<h2>{html.escape(section.title)}</h2>\n<p>{html.escape(section.text)}</p>\n"
            f"{_picture_tag(section.draw(), section.title)}"
            for section in _sections(model, processor, image)
        )
    facts = _facts(model, processor, row, checkpoint, signature)
    table = "\n".join(
        f"<tr><th>{html.escape(key)}</th><td>{html.escape(value)}</td></tr>" for key, value in facts.items()
    )
    assert row.score is not None
    title = html.escape(f"{name}: {row.score:.2f}")
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{title}</h1>
<table>
{table}
</table>
{sections}
<p>Made by musiq_hf {__version__}.</p>
</body>
</html>
"""
    return page, row.score
