# SPDX-License-Identifier: Apache-2.0
"""Parts of the page as HTML and SVG, which need no library to draw, fit any width and can be read aloud.

All that a client has chosen, such as the name of a file, is escaped here.
"""

import base64
import html
import math
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from ..explain.figures import QualityMap
from ..pictures.degradations import Fault, to_rgb_picture
from .service import Checkpoint, TypicalError

MAX_SHOWN = 640  # pixels along a side of a picture on the page
STRONGEST = 0.75  # opacity of the region that matters most
WIDTH, HEIGHT, LEFT, TOP = 240, 132, 34, 10  # of a curve and its margins, in units of its drawing


def escape(text: str) -> str:
    """Return a text as HTML that shows it; braces and dollars are no template to anyone either."""
    return html.escape(text).replace("{", "&#123;").replace("$", "&#36;")


def draw_error(sentence: str) -> str:
    """Return a sentence that a screen reader announces at once."""
    return f'<p class="mq-error" role="alert">{escape(sentence)}</p>'


def draw_hint(sentence: str) -> str:
    """Return a sentence that stands where something will be."""
    return f'<p class="mq-hint">{escape(sentence)}</p>'


def draw_signature(checkpoint: Checkpoint) -> str:
    """Return the line that says what the scores are made with."""
    return f'<p class="mq-signature">Made with <code>{escape(checkpoint.signature)}</code></p>'


def draw_score(row: Mapping[str, Any], checkpoint: Checkpoint) -> str:
    """Return the card of a score, or of the error in its place."""
    if row["error"] is not None:
        return draw_error(row["error"])
    score, (low, high) = row["score"], checkpoint.score_range or (math.nan, math.nan)
    has_range = checkpoint.score_range is not None
    scale = f"on a scale of {low:g} to {high:g}; higher is better" if has_range else "higher is better"
    lines = [f"{row['width']} × {row['height']} pixels", escape(checkpoint.name)]
    if row.get("std") is not None:
        lines.append(f"standard deviation of the opinions {row['std']:.1f}")
    bar = ""
    if has_range:
        bar = f'<div class="mq-bar" aria-hidden="true"><span style="width:{100 * row["score_0_1"]:.1f}%"></span></div>'
    return (
        f'<div class="mq-card" role="status"><h2>{escape(row["key"])}</h2>'
        f'<p><strong class="mq-score">{score:.1f}</strong> <span class="mq-scale">{scale}</span></p>{bar}'
        f"{_draw_place(row)}<p class='mq-facts'>{' · '.join(lines)}</p></div>"
    )


def _draw_place(row: Mapping[str, Any]) -> str:
    """Return the line with stars and percentile; nothing for a checkpoint without a calibration."""
    if row.get("percentile") is None:
        return ""
    stars = row["stars"]
    return (
        f'<p class="mq-place"><span class="mq-stars" role="img" aria-label="{stars} of 5 stars">'
        f"{'★' * stars}{'☆' * (5 - stars)}</span> better than {row['percentile']:.0f} % of the photographs on which "
        "the checkpoint was calibrated</p>"
    )


def draw_picture(image: Image.Image) -> str:
    """Return the address of a small copy of a picture, which any browser shows."""
    small = image.copy()
    small.thumbnail((MAX_SHOWN, MAX_SHOWN))
    buffer = BytesIO()
    to_rgb_picture(small).save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def draw_map(quality_map: QualityMap, image: Image.Image) -> str:
    """Return a quality map over its picture, with a number in each region.

    Args:
        quality_map: Map to draw.
        image: Picture of the map.
    """
    rows, cols = quality_map.deltas.shape
    cell = 100.0  # width of a region, in units of the drawing
    tall = cell * cols * quality_map.height / quality_map.width / rows
    largest = max(float(np.abs(quality_map.deltas).max()), 1e-6)
    cells = []
    for (row, col), delta in np.ndenumerate(quality_map.deltas):
        color = "#b2182b" if delta > 0 else "#2166ac"
        x, y = col * cell, row * tall
        cells.append(
            f'<rect x="{x:.0f}" y="{y:.1f}" width="{cell:.0f}" height="{tall:.1f}" fill="{color}" '
            f'fill-opacity="{STRONGEST * abs(delta) / largest:.2f}" stroke="#fff" stroke-width="1"/>'
            f'<text x="{x + cell / 2:.0f}" y="{y + tall / 2:.1f}">{float(delta):+z.1f}</text>'
        )
    label = f"Quality map of {rows} by {cols} regions. {_tell_extremes(quality_map.deltas)}"
    size = f"{cell * cols:.0f} {tall * rows:.1f}"
    return (
        '<section class="mq-part"><h3>Which regions count</h3>'
        f'<svg class="mq-map" viewBox="0 0 {size}" role="img" aria-label="{label}">'
        f'<image href="{draw_picture(image)}" width="{cell * cols:.0f}" height="{tall * rows:.1f}" '
        f'preserveAspectRatio="none"/>{"".join(cells)}</svg>'
        '<p class="mq-note">The score without a region minus the score with it, in points: '
        '<b class="mq-red">red</b> regions lower the score, <b class="mq-blue">blue</b> ones raise it.</p></section>'
    )


def _tell_extremes(deltas: np.ndarray) -> str:
    """Write without which regions the score moves most, for those who do not see the map."""
    told = []
    for place, way in ((int(deltas.argmax()), "highest"), (int(deltas.argmin()), "lowest")):
        row, col = np.unravel_index(place, deltas.shape)
        told.append(f"It is {way} without row {row + 1}, column {col + 1}: {deltas[row, col]:+.1f} points.")
    return " ".join(told)


def draw_faults(faults: Iterable[tuple[Fault, Sequence[float]]], size: tuple[int, int]) -> str:
    """Return curves of the score against the strength of faults, one below the other where the page is narrow.

    Args:
        faults: Faults that are done, with the score without each and those at its levels.
        size: Width and height of the picture that has the faults, in pixels.
    """
    parts = "".join(_draw_curve(fault, scores) for fault, scores in faults)
    return (
        f'<section class="mq-part"><h3>What faults would do</h3><div class="mq-curves">{parts}</div>'
        f'<p class="mq-note">Scores of copies of {size[0]} × {size[1]} pixels that are blurred, noisy or compressed, '
        "more so to the right. A picture in good order should lose points.</p></section>"
    )


def _draw_curve(fault: Fault, values: Sequence[float]) -> str:
    """Return the curve of one fault."""
    low, high = min(values), max(*values, min(values) + 1)
    step = (WIDTH - LEFT - 14) / (len(values) - 1)

    def place(index: int, value: float) -> tuple[float, float]:
        return LEFT + index * step, TOP + (HEIGHT - 54) * (high - value) / (high - low)

    points = [place(index, value) for index, value in enumerate(values)]
    names = ["as is", *(f"{level:g}" for level in fault.levels)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points)
    base = HEIGHT - 20
    ticks = "".join(
        f'<text x="{x:.1f}" y="{base}" text-anchor="middle">{name}</text>'
        for (x, _), name in zip(points, names, strict=True)
    )
    ends = "".join(
        f'<text x="{LEFT - 6}" y="{place(0, value)[1] + 4:.1f}" text-anchor="end">{value:z.0f}</text>'
        for value in (low, high)
    )
    told = ", ".join(f"{name}: {value:.1f}" for name, value in zip(names, values, strict=True))
    return (
        f'<figure><figcaption>{fault.label}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Score by {fault.label}, {fault.unit}. {told}."><polyline points="{line}"/>{dots}{ticks}{ends}'
        f'<text x="{LEFT + (WIDTH - LEFT - 14) / 2:.0f}" y="{HEIGHT - 4}" text-anchor="middle">{fault.unit}</text>'
        "</svg></figure>"
    )


def describe_difference(left: Mapping[str, Any], right: Mapping[str, Any], error: TypicalError | None) -> str:
    """Write which of two pictures scores higher, and whether that is more than the typical error of a checkpoint."""
    difference = abs(left["score"] - right["score"])
    if f"{difference:.1f}" == "0.0":
        return "Both score the same."
    higher, name = (left, "left") if left["score"] > right["score"] else (right, "right")
    start = f"The {name} one, {higher['key']}, scores higher, by {difference:.1f} points."
    if error is None:
        return f"{start} The typical error of this checkpoint is not known, so take small differences for none."
    more = "more" if difference > error.points else "no more"
    return (
        f"{start} That is {more} than the typical error of this checkpoint: {error.points:.1f} points, the root mean "
        f"square error on the {error.num_pictures:,} pictures of its {error.split} split."
    )


def draw_verdict(left: Mapping[str, Any], right: Mapping[str, Any], checkpoint: Checkpoint) -> str:
    """Return both scores of a comparison, and what their difference means."""
    errors = [row["error"] for row in (left, right) if row["error"] is not None]
    if errors:
        return "".join(map(draw_error, errors))
    cards = "".join(
        f"<div><h3>{side}: {escape(row['key'])}</h3><p><strong class='mq-score'>{row['score']:.1f}</strong></p></div>"
        for side, row in (("Left", left), ("Right", right))
    )
    sentence = escape(describe_difference(left, right, checkpoint.error))
    return (
        f'<div class="mq-card" role="status"><div class="mq-pair">{cards}</div><p>{sentence}</p></div>'
        f"{draw_signature(checkpoint)}"
    )


def draw_table(rows: Sequence[Mapping[str, Any]], num_pictures: int, checkpoint: Checkpoint) -> str:
    """Return the table of many pictures, which may not be finished yet."""
    has_places = checkpoint.scorers.terms.has_percentiles
    names = ["Picture", "Score", *(["Percentile"] if has_places else [])]
    heads = "".join(f'<th scope="col">{name}</th>' for name in names) + '<th scope="col" class="mq-size">Size</th>'
    lines = "".join(_draw_line(row, has_places, len(names) + 1) for row in rows)
    num_errors = sum(row["error"] is not None for row in rows)
    told = f"{len(rows)} of {num_pictures} done" if len(rows) < num_pictures else f"{num_pictures} pictures"
    failed = f", {num_errors} with an error" if num_errors else ""
    return (
        f'<p role="status" class="mq-progress">{told}{failed}.</p><table class="mq-table"><thead><tr>'
        f"{heads}</tr></thead><tbody>{lines}</tbody></table>"
        f"{draw_signature(checkpoint)}"
    )


def _draw_line(row: Mapping[str, Any], has_places: bool, num_cells: int) -> str:
    name = f'<th scope="row">{escape(row["key"])}</th>'
    if row["error"] is not None:
        return f'<tr>{name}<td colspan="{num_cells - 1}" class="mq-error">{escape(row["error"])}</td></tr>'
    places = f"<td>{row['percentile']:.0f}</td>" if has_places else ""
    size = f"{row['width']} × {row['height']}"
    return f"<tr>{name}<td><strong>{row['score']:.1f}</strong></td>{places}<td class='mq-size'>{size}</td></tr>"
