# SPDX-License-Identifier: Apache-2.0
"""Report on the score of one picture: a page of HTML, figures included."""

import html
import math
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import TYPE_CHECKING

import torch
from PIL import Image

from ..common.pages import embed_png, make_page
from ..models.protocol import QualityModel, QualityProcessor
from ..scoring.engine import PictureScore, score_pictures
from ..version import __version__
from .musiq import EXPLAINER
from .sections import Explainer, Section, make_general_sections

if TYPE_CHECKING:
    from matplotlib.figure import Figure


DPI = 100

# Part of a report that each family adds to that of any model, by `model_type`.
EXPLAINERS: Mapping[str, Explainer] = {"musiq": EXPLAINER}


def _make_sections(model: QualityModel, processor: QualityProcessor, image: Image.Image) -> Iterator[Section]:
    """Yield the figures of the family, if it has any, then those of any model."""
    if model.config.model_type in EXPLAINERS:
        yield from EXPLAINERS[model.config.model_type].sections(model, processor, image)
    yield from make_general_sections(model, processor, image)


def _score_picture(model: QualityModel, processor: QualityProcessor, image: Image.Image, name: str) -> PictureScore:
    row = next(iter(score_pictures([(name, image)], model=model, processor=processor, max_megapixels=math.inf)))
    if row.score is None:
        raise ValueError(row.error)
    return row


def _describe_range(model: QualityModel) -> str:
    span = model.config.answer_range
    return "range not noted in the checkpoint" if span is None else f"on a scale of {span[0]:g} to {span[1]:g}"


def _list_facts(
    model: QualityModel, processor: QualityProcessor, row: PictureScore, checkpoint: str, signature: str
) -> dict[str, str]:
    """Return the lines of the table at the head of the page, by name."""
    assert row.width is not None and row.height is not None  # it has a score, so it could be read
    deviation = "" if row.std is None else f", standard deviation of the predicted distribution {row.std:.2f}"
    explainer = EXPLAINERS.get(model.config.model_type)
    return {
        "Score": f"{row.score:.2f} MOS points, {_describe_range(model)}{deviation}",
        "Picture": f"{row.width} x {row.height} pixels",
        **({} if explainer is None else explainer.facts(processor, row.height, row.width)),
        "Checkpoint": checkpoint,
        "Signature": signature,
    }


def _render_figure(figure: "Figure", title: str) -> str:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return embed_png(buffer.getvalue(), title)


def make_report(
    model: QualityModel,
    processor: QualityProcessor,
    image: Image.Image,
    *,
    name: str,
    checkpoint: str,
    signature: str,
) -> tuple[str, float]:
    """Score a picture and explain the score.

    Args:
        model: Model in evaluation mode, on its device.
        processor: Processor that agrees with the model.
        image: Picture, upright.
        name: Name of the picture on the page.
        checkpoint: Name of the model on the page.
        signature: Signature of scores made with the model.

    Returns:
        Page of HTML, which needs no other file, and the score in MOS points.

    Raises:
        ValueError: If the picture cannot be used, the model is training, or model and processor disagree.
        ImportError: If matplotlib is missing.
    """
    with torch.inference_mode():
        row = _score_picture(model, processor, image, name)
        sections = "\n".join(
            f"<h2>{html.escape(section.title)}</h2>\n<p>{html.escape(section.text)}</p>\n"
            f"{_render_figure(section.draw(), section.title)}"
            for section in _make_sections(model, processor, image)
        )
    facts = _list_facts(model, processor, row, checkpoint, signature)
    table = "\n".join(
        f"<tr><th>{html.escape(key)}</th><td>{html.escape(value)}</td></tr>" for key, value in facts.items()
    )
    assert row.score is not None
    body = f"<table>\n{table}\n</table>\n{sections}\n<p>Made by musiq_hf {__version__}.</p>"
    return make_page(f"{name}: {row.score:.2f}", body), row.score
