# SPDX-License-Identifier: Apache-2.0
"""Figures for any model: tools to draw them, the map of a picture's quality, and frequencies in feature maps.

Every function returns a matplotlib figure, to be saved or shown by the caller, and leaves pyplot and its settings
alone. The extra `explain` is needed.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from ..common.extras import require
from ..common.files import replace_file
from ..pictures.decoding import Decoder

if TYPE_CHECKING:
    from matplotlib.figure import Figure


DPI = 150  # of files
LONGEST_TEXT = 60  # characters that fit above a panel
MAX_LABELLED = 12  # largest number of cells along a side: numbers in more would cover each other
PANEL = 4.6  # width of a panel, in inches
MAX_SHOWN = 1200  # largest number of pixels along a side: more would only make the files large


@dataclass(frozen=True, kw_only=True)
class QualityMap:
    """Effect of each region of a picture on its score.

    Attributes:
        score: Score of the whole picture, in MOS points.
        deltas: Score with the region left out minus `score`, in MOS points, float64, shape (rows, cols): above 0
            where the region lowers the score. Exactly 0 where a cell holds no patch.
        num_patches: Patches that each region holds, of all scales together, int64, shape (rows, cols).
        height: Rows of the picture, in pixels, divided evenly among the rows of the grid.
        width: Columns of the picture, in pixels, divided evenly among the columns of the grid.
    """

    score: float
    deltas: np.ndarray
    num_patches: np.ndarray
    height: int
    width: int


def new_figure(width: float, height: float) -> "Figure":
    """Make an empty figure that belongs to no window; width and height are in inches."""
    return require("matplotlib.figure", extra="explain").Figure(figsize=(width, height), layout="constrained")


def save_figure(path: str | os.PathLike[str], figure: "Figure") -> None:
    """Save a figure as a PNG file, in a folder that is made if it is missing."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with replace_file(Path(path)) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)


def escape_formula(text: str) -> str:
    """Return a text in which no dollar sign begins a formula."""
    return text.replace("$", r"\$")


def shorten_text(text: str) -> str:
    """Return a text on one line; of a long one the middle is left out."""
    line = " ".join(text.split())
    half = LONGEST_TEXT // 2
    return line if len(line) <= LONGEST_TEXT else f"{line[: half - 1]}…{line[-half:]}"


def shrink_pixels(pixels: torch.Tensor) -> np.ndarray:
    """Return (height, width, 3) pixels as uint8, shrunk so that no side has more than `MAX_SHOWN`."""
    if pixels.dtype != torch.uint8:
        pixels = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
    image = Image.fromarray(pixels.cpu().contiguous().numpy())
    image.thumbnail((MAX_SHOWN, MAX_SHOWN))
    return np.asarray(image)


def show_gray(axes: Any, shown: np.ndarray, height: int, width: int) -> None:
    """Show the picture in pale gray as the ground of a map; the coordinates are pixels of the picture."""
    axes.imshow(shown.mean(axis=-1), cmap="gray", vmin=-80, vmax=255, extent=(0, width, height, 0))
    axes.set(xticks=[], yticks=[])


def choose_panel_height(height: int, width: int) -> float:
    """Return the height, in inches, of a panel as wide as `PANEL`, limited for long and thin pictures."""
    return min(max(PANEL * height / width, 1.5), 2 * PANEL)


def plot_quality_map(quality_map: QualityMap, image: Any) -> "Figure":
    """Plot a quality map over its picture, beside the picture.

    Args:
        quality_map: Map to draw.
        image: The same picture: path, URL, PIL image, array or tensor.

    Returns:
        Figure that is red where a region lowers the score and blue where it raises it, with numbers where they fit.

    Raises:
        ValueError: If the picture has another size than that of the map, or cannot be used.
        ImportError: If matplotlib is missing.
    """
    pixels = Decoder(max_megapixels=math.inf)(image)
    height, width, (rows, cols) = quality_map.height, quality_map.width, quality_map.deltas.shape
    if pixels.shape[:2] != (height, width):
        raise ValueError(
            f"The map belongs to a picture of {width}x{height} pixels, got one of {pixels.shape[1]}x{pixels.shape[0]}."
        )
    figure = new_figure(2 * PANEL * 1.3 + 0.6, 1.3 * choose_panel_height(height, width) + 0.5)
    left, right = figure.subplots(1, 2)
    shown = shrink_pixels(pixels)
    left.imshow(shown)
    left.set(xticks=[], yticks=[])
    left.set_title(f"score {quality_map.score:.2f}", fontsize=10)
    show_gray(right, shown, height, width)
    largest = max(float(np.abs(quality_map.deltas).max()), 1e-6)
    drawn = right.imshow(
        quality_map.deltas,
        cmap="RdBu_r",
        vmin=-largest,
        vmax=largest,
        alpha=0.65,
        extent=(0, width, height, 0),
        interpolation="nearest",
    )
    if max(rows, cols) <= MAX_LABELLED:
        for (row, col), delta in np.ndenumerate(quality_map.deltas):
            place = ((col + 0.5) * width / cols, (row + 0.5) * height / rows)
            box = {"facecolor": "white", "alpha": 0.7, "pad": 0.8, "linewidth": 0}
            right.text(*place, f"{float(delta):+z.2f}", ha="center", va="center", fontsize=7, bbox=box)
    right.set_title("score without the region minus score", fontsize=10)
    figure.colorbar(drawn, ax=right, label="MOS points; red regions lower the score", shrink=0.85)
    return figure


def plot_log_amplitudes(curves: Mapping[str, Sequence[tuple[torch.Tensor, torch.Tensor]]]) -> "Figure":
    """Plot relative log amplitudes of feature maps against the frequency (LoDa, figure 8b).

    Args:
        curves: Curves of each panel by its title, from the first map to the last. A curve is frequencies in units of
            pi and amplitudes of one length, as `musiq_hf.evaluation.measure_log_amplitudes` gives them.

    Returns:
        Figure with a panel for each title, all of one scale. The lower a curve ends, the fewer high frequencies are in
        its map. Curves of later maps are brighter.

    Raises:
        ValueError: If there is no curve to draw.
        ImportError: If matplotlib is missing.
    """
    if not curves or not all(curves.values()):
        raise ValueError("Each panel needs at least one curve, got none. Measure a picture first.")
    figure = new_figure(PANEL * max(len(curves), 1.5), PANEL)
    colors = require("matplotlib", extra="explain").colormaps["plasma"]
    panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for axes, (title, family) in zip(panels, curves.items(), strict=True):
        for number, (frequencies, amplitudes) in enumerate(family, start=1):
            color = colors(0.9 * (number - 1) / max(len(family) - 1, 1))
            axes.plot(frequencies.numpy(), amplitudes.numpy(), color=color, label=str(number))
        axes.set_title(title, fontsize=10)
        axes.set(xlabel="frequency, units of pi", xlim=(0, 1))
        axes.grid(alpha=0.3)
        axes.legend(title="map", fontsize=7, ncols=2)
    panels[0].set_ylabel("log amplitude, relative to frequency 0")
    return figure


def plot_clusters(points: np.ndarray, labels: Sequence[str]) -> "Figure":
    """Plot a map of features with a colour for each class of pictures.

    Args:
        points: Places, shape (N, 2), as `musiq_hf.evaluation.map_features` gives them.
        labels: Class of each picture, N names.

    Returns:
        Figure with a legend of the classes, in the order in which they come first.

    Raises:
        ValueError: If there is no point, or the numbers of points and labels differ.
        ImportError: If matplotlib is missing.
    """
    if not len(points) or len(points) != len(labels):
        raise ValueError(f"A label for each point is needed, got {len(points)} points and {len(labels)} labels.")
    figure = new_figure(1.4 * PANEL, 1.2 * PANEL)
    axes, names = figure.subplots(), list(dict.fromkeys(labels))
    colors = require("matplotlib", extra="explain").colormaps["tab10" if len(names) <= 10 else "tab20"]
    for number, name in enumerate(names):
        own = np.asarray(points)[[label == name for label in labels]]
        axes.scatter(own[:, 0], own[:, 1], s=8, alpha=0.7, linewidths=0, color=colors(number % 20), label=name)
    axes.set(xticks=[], yticks=[])
    axes.legend(fontsize=8, markerscale=2, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _find_edges(length: int) -> tuple[float, float]:
    """Return the outer edges of the cells of a spectrum, in units of pi; the middle of one cell is frequency 0."""
    return (-2 * (length // 2) - 1) / length, (2 * (length - 1 - length // 2) + 1) / length


def plot_spectra(spectra: Mapping[str, torch.Tensor]) -> "Figure":
    """Plot log amplitudes of Fourier transforms as pictures of one scale, with frequency 0 in the middle.

    Args:
        spectra: Spectrum of each panel by its title, as `musiq_hf.evaluation.fourier_spectrum` gives it.

    Returns:
        Figure with a panel for each title, relative to frequency 0.

    Raises:
        ValueError: If there is no spectrum to draw.
        ImportError: If matplotlib is missing.
    """
    if not spectra:
        raise ValueError("At least one spectrum is needed, got none.")
    shown = {
        title: (found - found[found.shape[0] // 2, found.shape[1] // 2]).numpy() for title, found in spectra.items()
    }
    low = min(float(values.min()) for values in shown.values())
    figure = new_figure(0.7 * PANEL * max(len(shown), 2), 0.8 * PANEL)
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (title, values) in zip(panels, shown.items(), strict=True):
        (top, bottom), (left, right) = (_find_edges(length) for length in values.shape)
        extent = (left, right, bottom, top)
        drawn = axes.imshow(values, cmap="magma", vmin=low, vmax=0, extent=extent, aspect="auto")
        axes.set_title(title, fontsize=10)
        axes.set(xlabel="frequency, units of pi")
    panels[0].set_ylabel("frequency, units of pi")
    figure.colorbar(drawn, ax=panels[-1], label="log amplitude, relative to frequency 0", shrink=0.85)
    return figure
