# SPDX-License-Identifier: Apache-2.0
"""Page of HTML about verdicts: pictures with their patches, their spectra, and the curves in which a scale shows."""

import heapq
import html
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from ..common.extras import require
from ..common.files import check_output_file, write_text
from ..common.pages import embed_png, make_page
from ..version import __version__
from .detection import NUM_FRAMES, VERDICTS, Detector, UpscalingReport, detect_upscaling, read_frames
from .scale import BLOCKS, MAX_SCALE, MIN_SCALE, measure_copies

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_PICTURES = 20  # more would make a page that browsers open slowly
MAX_SIDE = 640  # pixels of a picture on the page
DPI, FIGURE = 130, (4.6, 3.4)  # of figures, width and height in inches
COLOURS = {"native": "#1f78b4", "upscaled": "#e6550d", "unsure": "#8c8c8c"}  # also told apart by the colour-blind
STYLE = """
.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(19em,100%),1fr));gap:1em;align-items:start}
figure{margin:0}figcaption{color:var(--faint);font-size:.9em}h2{overflow-wrap:anywhere}
.mark{display:inline-block;width:.8em;height:.8em;border-radius:.15em;margin-right:.35em}
"""
CAUTION = (
    "No verdict is evidence by itself. Shrinking after upscaling hides the traces, blurred natives look upscaled, and "
    "learned upscalers that are unlike those of the training are often missed."
)


def check_page(path: str | os.PathLike[str]) -> Path:
    """Return the path of a page, or raise an error now, not after the pictures have been judged.

    Raises:
        ValueError: If no file can be written there, or its name does not end in .html.
        ImportError: If matplotlib is missing.
    """
    page = Path(path)
    if page.suffix.lower() != ".html":
        raise ValueError(f"{path}: a report is a page of HTML. Give a name that ends in .html.")
    check_output_file(page)
    require("matplotlib.figure", extra="explain")
    return page


def write_page(
    path: str | os.PathLike[str],
    rows: Iterable[Mapping[str, Any]],
    inputs: Iterable[tuple[str, Any]],
    detector: Detector,
    *,
    frames: int = NUM_FRAMES,
) -> None:
    """Write a page about rows of `musiq native`; the pictures on it are read and judged once more.

    Args:
        path: File to write (.html).
        rows: Rows by the names of their columns; `key`, `verdict`, `probability` and `error` are read.
        inputs: Keys and sources of the rows.
        detector: Detector that made the rows.
        frames: Largest number of key frames of a clip.

    Raises:
        ValueError: If the file cannot be written.
        ImportError: If matplotlib is missing.
    """
    page, counts = check_page(path), Counter[str]()
    shown = [row["key"] for row in heapq.nlargest(MAX_PICTURES, _count(rows, counts), key=_get_probability)]
    sections = dict.fromkeys(shown, "")
    for key, source in inputs:
        if sections.get(key) == "":
            sections[key] = f"<h2>{html.escape(key)}</h2>\n{_explain(source, detector, frames=frames)}"
    words = _summarize(counts, len(shown), detector.name)
    body = "\n".join([words, *sections.values(), f"<p>Made by musiq_hf {__version__}.</p>"])
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, make_page("Native or upscaled", body, style=STYLE))


def _get_probability(row: Mapping[str, Any]) -> float:
    return float(row["probability"])


def _count(rows: Iterable[Mapping[str, Any]], counts: Counter[str]) -> Iterator[Mapping[str, Any]]:
    """Yield the rows with a verdict, and count all by verdict, "error" included."""
    for row in rows:
        counts["error" if row["verdict"] is None else row["verdict"]] += 1
        if row["verdict"] is not None:
            yield row


def _summarize(counts: Counter[str], num_shown: int, name: str) -> str:
    """Return the paragraphs at the head of the page."""
    parts = [f"{counts[verdict]} {verdict}" for verdict in ("upscaled", "unsure", "native")]
    if counts["error"]:
        parts.append(f"{counts['error']} with an error instead of a verdict")
    num_judged = counts.total() - counts["error"]
    left_out = "All with a verdict are shown"
    if num_shown < num_judged:
        left_out = f"Of the {num_judged} with a verdict, {num_shown} are shown, at most {MAX_PICTURES} on a page"
    legend = ", ".join(
        f'<span class="mark" style="background:{colour}"></span>{verdict}' for verdict, colour in COLOURS.items()
    )
    return (
        f"<p>{counts.total()} pictures and clips: {', '.join(parts)}. {left_out}, the highest probability of "
        f"upscaling first. The detector is {html.escape(Path(name).name)}.</p>\n<p><strong>{CAUTION}</strong></p>\n"
        f"<p>Colours of patches: {legend}. Of a clip the first frame is shown that is not flat, and all vote.</p>"
    )


def _explain(source: Any, detector: Detector, *, frames: int) -> str:
    """Return the words and figures of one picture or clip, or the error if it cannot be read any more."""
    try:
        report = detect_upscaling(source, detector, frames=frames)
        number = 0 if report.is_flat else report.patches[0].frame
        pixels = next(islice(read_frames(source, frames=frames), number, None))
    except (ValueError, OSError) as error:
        return f"<p>{html.escape(str(error))}</p>"
    figures = "\n".join(
        f"<figure>{embed_png(content, words)}<figcaption>{html.escape(words)}</figcaption></figure>"
        for content, words in _draw_figures(pixels, report, detector, number)
    )
    return f'<p>{html.escape(_describe(report))}</p>\n<div class="panels">\n{figures}\n</div>'


def _describe(report: UpscalingReport) -> str:
    """Return the verdict in words, with the size of the picture and what the frames of a clip say alone."""
    width, height = report.size
    text = f"{str(report)[0].upper()}{str(report)[1:]}. {width} x {height} pixels."
    if len(report.frames) == 1:
        return text
    parts = [f"{report.frames.count(verdict)} {verdict}" for verdict in VERDICTS if verdict in report.frames]
    return f"{text} Of {len(report.frames)} key frames alone: {', '.join(parts)}."


def _draw_figures(
    pixels: torch.Tensor, report: UpscalingReport, detector: Detector, number: int
) -> Iterator[tuple[bytes, str]]:
    """Yield PNG files and the words below them."""
    patches = [patch for patch in report.patches if patch.frame == number]
    counts = Counter(patch.verdict for patch in patches)
    votes = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
    words = f"Patches: {votes}." if patches else "The picture is flat, and no patch is judged."
    yield _draw_patches(pixels, [(patch.box, COLOURS[patch.verdict]) for patch in patches]), words
    if patches:
        yield _draw_spectrum(pixels, detector)
        yield _draw_copies(pixels, report)


def _draw_patches(pixels: torch.Tensor, boxes: Iterable[tuple[tuple[int, ...], str]]) -> bytes:
    """Draw boxes on a picture, which is shrunk if it is large."""
    levels = pixels if pixels.dtype == torch.uint8 else (pixels * 255).round().clamp(0, 255).to(torch.uint8)
    picture = Image.fromarray(levels.numpy())
    scale = min(1.0, MAX_SIDE / max(picture.size))
    picture = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(picture, "RGBA")
    for box, colour in boxes:
        left, top, right, bottom = (round(place * scale) for place in box)
        draw.rectangle((left, top, right - 1, bottom - 1), fill=f"{colour}50", outline=colour, width=2)
    buffer = BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _draw_spectrum(pixels: torch.Tensor, detector: Detector) -> tuple[bytes, str]:
    """Draw the spectrum as the detector sees it, and the mean of its training if it has one."""
    measured = type(detector.processor)(use_spectrum=True).cut(pixels)["spectrum"].numpy().reshape(2, -1)
    axes = _make_axes()
    frequencies = np.arange(measured.shape[1]) / measured.shape[1]
    for curve, label, colour in zip(measured, ("rows", "columns"), ("#1b7837", "#762a83"), strict=True):
        axes.plot(frequencies, curve, label=label, color=colour, linewidth=1.3)
    words = "Log spectrum of the rows and columns. Interpolation weakens the high frequencies, or leaves gaps."
    norm = detector.model.spectrum_norm
    if norm is not None:
        mean = norm.running_mean.float().numpy().reshape(2, -1).mean(axis=0)
        axes.plot(frequencies, mean, "--", label="mean of the training", color="#777777", linewidth=1)
        words += " Dashed: the mean of all pictures of the training, native and upscaled."
    axes.set(xlabel="frequency, 1 = the highest", ylabel="log amplitude", xlim=(0, 1))
    axes.legend(fontsize=8)
    return _save(axes), words


def _draw_copies(pixels: torch.Tensor, report: UpscalingReport) -> tuple[bytes, str]:
    """Draw the agreement with copies for each size of a source, and mark the size that was found."""
    axes, highest = _make_axes(), 0.0
    names = zip(("width", "height"), ("#1b7837", "#762a83"), report.source_size or (None, None), strict=True)
    for curve, (name, colour, source) in zip(measure_copies(pixels), names, strict=True):
        size = len(curve)
        places = np.arange(int(size / MAX_SCALE), int(size / MIN_SCALE) + 1)
        axes.plot(places / size, curve[places], color=colour, linewidth=1, label=name)
        highest = max(highest, float(curve[places].max()))
        if source is not None:
            axes.plot(source / size, curve[source], "v", color=colour, markersize=8, label=f"{source} pixels")
    axes.grid(visible=False, axis="x")
    for part in range(1, BLOCKS):
        axes.axvline(part / BLOCKS, color="#999999", linestyle=":", linewidth=0.7, zorder=0)
    axes.set(
        xlabel="size of the source / size of the picture", ylabel="agreement o(n)", ylim=(0, 1.15 * highest + 0.02)
    )
    axes.legend(fontsize=8)
    words = "No peak that both sides share, so no scale."
    if report.source_size is not None:
        words = f"The marked peaks tell a source of {report.source_size[0]} x {report.source_size[1]} pixels."
    return _save(axes), f"Agreement of the spectrum with copies of itself. {words} JPEG has peaks at dotted lines."


def _make_axes() -> "Axes":
    figure = require("matplotlib.figure", extra="explain").Figure(figsize=FIGURE, layout="constrained")
    axes: Axes = figure.subplots()
    axes.grid(alpha=0.3)
    return axes


def _save(axes: "Axes") -> bytes:
    buffer = BytesIO()
    axes.get_figure().savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
