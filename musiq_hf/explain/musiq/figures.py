# SPDX-License-Identifier: Apache-2.0
"""Figures of what MUSIQ reads and attends to: patches, attention and spatial embedding."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...models.musiq.image_processing_musiq import MusiqImageProcessor
from ...models.musiq.modeling_musiq import MusiqForImageQualityAssessment
from ...models.musiq.patching_musiq import hash_positions
from ...scoring.engine import check_model, read_pixels
from ..figures import MAX_LABELLED, PANEL, choose_panel_height, new_figure, show_gray, shrink_pixels
from .quality_map import PatchLayout, make_inputs, patch_layouts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUERIES = 256  # rows of an attention matrix that are computed at a time
POSITIONED = ("hash", "sinusoid")  # spatial embeddings over the cells of the hash grid


def _name_scale(layout: PatchLayout) -> str:
    return "native" if layout.is_native else f"longer side {max(layout.height, layout.width)}"


def _assemble(patches: torch.Tensor, layout: PatchLayout) -> torch.Tensor:
    """Assemble the patches that the model reads to one padded picture, in [0, 1]; what was cut off is white."""
    size = layout.patch_size
    whole = patches.new_ones((layout.rows * layout.cols, patches.shape[-1]))
    whole[: layout.count] = patches
    # (rows * cols, P * P * 3) -> (rows, cols, P, P, 3) -> (rows * P, cols * P, 3)
    grid = whole.view(layout.rows, layout.cols, size, size, 3).transpose(1, 2)
    return (grid.reshape(layout.rows * size, layout.cols * size, 3) + 1) / 2


def _find_runs(cells: np.ndarray) -> list[tuple[int, int, int]]:
    """Return (first, end, value) of every run of equal neighbours; `end` belongs to the next run."""
    starts = [0, *(np.flatnonzero(np.diff(cells)) + 1).tolist(), len(cells)]
    return [(first, end, int(cells[first])) for first, end in zip(starts, starts[1:], strict=False)]


def _draw_hash_cells(axes: Any, layout: PatchLayout, grid_size: int) -> None:
    """Outline the patches that share a spatial embedding, and number their cell (row, column)."""
    cells = hash_positions(layout.rows, layout.cols, grid_size).view(layout.rows, layout.cols).numpy()
    rows, cols = _find_runs(cells[:, 0] // grid_size), _find_runs(cells[0] % grid_size)
    size = layout.patch_size
    style = {"colors": "yellow", "linewidth": 1.3}
    axes.hlines([first * size for first, _, _ in rows[1:]], 0, layout.cols * size, **style)
    axes.vlines([first * size for first, _, _ in cols[1:]], 0, layout.rows * size, **style)
    if max(len(rows), len(cols)) > MAX_LABELLED:
        return
    for top, bottom, row in rows:
        for left, right, col in cols:
            axes.text(
                (left + right) / 2 * size,
                (top + bottom) / 2 * size,
                f"{row},{col}",
                color="white",
                fontsize=6,
                ha="center",
                va="center",
                bbox={"facecolor": "black", "alpha": 0.5, "pad": 0.8, "linewidth": 0},
            )


def plot_pyramid(processor: MusiqImageProcessor, image: Any) -> "Figure":
    """Plot the multi-scale representation (figure 2): every scale as it is read, with its patches and hash cells.

    Args:
        processor: Processor that cuts the picture.
        image: One picture: path, URL, PIL image, array or tensor.

    Returns:
        Figure with one panel for each scale. Thin lines are patches, thick ones the cells of the hash-based spatial
        embedding, numbered by row and column. Gray borders are padding, and white is what `max_native_patches` cuts
        off.

    Raises:
        ValueError: If the picture cannot be used.
        ImportError: If matplotlib is missing.
    """
    pixels = read_pixels(image, processor)
    layouts = patch_layouts(pixels.shape[0], pixels.shape[1], processor)
    patches = make_inputs(pixels, processor)["pixel_values"][0]
    tallest = max(choose_panel_height(layout.rows, layout.cols) for layout in layouts)
    figure = new_figure(PANEL * len(layouts), tallest + 0.8)
    parts = patches.split([layout.count for layout in layouts])
    for axes, part, layout in zip(figure.subplots(1, len(layouts), squeeze=False)[0], parts, layouts, strict=True):
        size = layout.patch_size
        height, width = layout.rows * size, layout.cols * size
        axes.imshow(shrink_pixels(_assemble(part, layout)), extent=(0, width, height, 0))
        thin = {"colors": "white", "linewidth": 0.4, "alpha": 0.8}
        axes.hlines(np.arange(1, layout.rows) * size, 0, width, **thin)
        axes.vlines(np.arange(1, layout.cols) * size, 0, height, **thin)
        if processor.spatial_embedding in POSITIONED:
            _draw_hash_cells(axes, layout, processor.hash_grid_size)
        cut = f", the first {layout.count} read" if layout.count < layout.rows * layout.cols else ""
        axes.set_title(
            f"{_name_scale(layout)}: {layout.width} x {layout.height} pixels\n"
            f"{layout.cols} x {layout.rows} patches of {size} pixels{cut}",
            fontsize=10,
        )
        axes.set(xticks=[], yticks=[])
    return figure


def _attend(layer: Any, states: torch.Tensor, receivers: torch.Tensor) -> torch.Tensor:
    """Compute the attention that each token gets from some of the tokens, as the mean of the heads.

    Args:
        layer: Block of the model.
        states: Hidden states that the block reads, shape (length, hidden_size).
        receivers: Weight of the attention that each token gives, shape (length,). Rows of weight 0 are not computed.

    Returns:
        Sum of weight times attention over the tokens that give it, shape (length,).
    """
    attention = layer.attention
    normed = layer.layernorm_before(states)
    asking = receivers.nonzero()[:, 0]
    # (length, D) -> (num_heads, length, head_dim)
    keys = attention.k_proj(normed).unflatten(-1, (-1, attention.head_dim)).transpose(0, 1)
    total = receivers.new_zeros(len(states))
    for chunk in asking.split(QUERIES):
        query = attention.q_proj(normed[chunk]).unflatten(-1, (-1, attention.head_dim)).transpose(0, 1)
        products = torch.matmul(query * attention.scaling, keys.transpose(1, 2))
        weights = products.softmax(dim=-1, dtype=torch.float32).mean(dim=0)
        total += receivers[chunk] @ weights
    return total


@torch.inference_mode()
def cls_attention(
    model: MusiqForImageQualityAssessment, inputs: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute how much of CLS comes from each patch, in two ways.

    Both come from the hidden states, a few rows at a time. Neither eager attention nor memory for whole attention
    matrices is needed.

    Args:
        model: Model in evaluation mode.
        inputs: Inputs of one picture: a batch of one, without padding.

    Returns:
        Attention that CLS gives in the last block, and attention rollout (Abnar and Zuidema, 2020). Rollout is the
        product over all blocks of `(attention + identity) / 2`, where the identity stands for the residual connection.
        Attention is the mean of the heads. Both are float32, shape (1 + sequence_length,), CLS first, with the sum 1.
    """
    states = model.musiq(**inputs, output_hidden_states=True, return_dict=True).hidden_states
    rollout = torch.zeros(states[0].shape[1], device=states[0].device)
    rollout[0] = 1
    last = None
    for layer, state in zip(reversed(model.musiq.encoder.layers), reversed(states[:-1]), strict=True):
        attended = _attend(layer, state[0], rollout)
        last = attended if last is None else last
        rollout = (rollout + attended) / 2
    assert last is not None  # a model has at least one block
    return last, rollout


def _draw_attention(axes: Any, values: torch.Tensor, layout: PatchLayout, height: int, width: int) -> None:
    """Draw the attention to the patches of one scale over the picture, in coordinates of the picture's pixels."""
    flat = np.full(layout.rows * layout.cols, np.nan)
    flat[: layout.count] = values.cpu().numpy()
    size, down, across = layout.patch_size, height / layout.height, width / layout.width
    extent = (
        -layout.left * across,
        (layout.cols * size - layout.left) * across,
        (layout.rows * size - layout.top) * down,
        -layout.top * down,
    )
    grid = flat.reshape(layout.rows, layout.cols)
    # The picture shows through where attention is weak; the root keeps weak attention visible.
    cover = 0.9 * np.sqrt(np.nan_to_num(grid) / max(float(np.nanmax(grid)), 1e-12))
    axes.imshow(grid, cmap="YlOrRd", vmin=0, alpha=cover, extent=extent, interpolation="nearest")
    axes.set(xlim=(0, width), ylim=(height, 0))


def plot_attention(model: MusiqForImageQualityAssessment, processor: MusiqImageProcessor, image: Any) -> "Figure":
    """Plot the attention of CLS to the patches of each scale, over the picture (figure 4).

    Args:
        model: Model in evaluation mode, on its device.
        processor: Processor that agrees with the model.
        image: One picture: path, URL, PIL image, array or tensor.

    Returns:
        Figure with a column for the picture and one for each scale. The upper row shows attention in the last block,
        mean of the heads, as in the paper. The lower row shows attention rollout over all blocks. Red is much
        attention, no colour is none, and every panel has its own range. The title of a panel says which share of all
        attention to patches its scale gets.

    Raises:
        ValueError: If the picture cannot be used, the model is training, or model and processor disagree.
        ImportError: If matplotlib is missing.
    """
    check_model(model, processor)
    pixels = read_pixels(image, processor).to(model.device)
    height, width = pixels.shape[:2]
    layouts = patch_layouts(height, width, processor)
    kinds = zip(("last block", "rollout"), cls_attention(model, make_inputs(pixels, processor)), strict=True)
    figure = new_figure(PANEL * (1 + len(layouts)), 2 * choose_panel_height(height, width) + 0.8)
    shown = shrink_pixels(pixels)
    for panels, (name, attention) in zip(figure.subplots(2, 1 + len(layouts)), kinds, strict=True):
        panels[0].imshow(shown)
        panels[0].set(xticks=[], yticks=[])
        panels[0].set_title(f"{name}: CLS itself {attention[0].item():.0%}", fontsize=10)
        patches = attention[1:]
        parts = patches.split([layout.count for layout in layouts])
        for axes, part, layout in zip(panels[1:], parts, layouts, strict=True):
            show_gray(axes, shown, height, width)
            _draw_attention(axes, part, layout, height, width)
            share = (part.sum() / patches.sum()).item()
            axes.set_title(f"{name}, {_name_scale(layout)}: {share:.0%} of attention to patches", fontsize=10)
    return figure


def _make_mosaic(model: MusiqForImageQualityAssessment) -> np.ndarray:
    """Return the similarities of all cells with all cells, G x G panels that one empty pixel separates."""
    embedding = model.musiq.embeddings.spatial_embedding
    if model.config.spatial_embedding != "hash" or embedding is None:
        raise ValueError(
            "A model with the hash-based spatial embedding is needed, got "
            f'`spatial_embedding="{model.config.spatial_embedding}"`: it has no learned vectors of grid cells.'
        )
    size = model.config.hash_grid_size
    vectors = torch.nn.functional.normalize(embedding.weight.detach().float(), dim=-1)
    similarity = (vectors @ vectors.T).cpu().numpy().reshape(size, size, size, size)
    # (row, col, row, col) -> (row, size + 1, col, size + 1)
    mosaic = np.full((size, size + 1, size, size + 1), np.nan)
    mosaic[:, :size, :, :size] = similarity.transpose(0, 2, 1, 3)
    side = size * (size + 1)
    return mosaic.reshape(side, side)[:-1, :-1]


def plot_hash_similarity(model: MusiqForImageQualityAssessment, *others: MusiqForImageQualityAssessment) -> "Figure":
    """Plot the cosine similarity of the hash-based spatial embeddings with each other (figure 5), for any grids.

    Args:
        model: Model with a learned embedding of the cells of a G x G grid.
        *others: Further models of this kind, whose grids may have other sizes.

    Returns:
        Figure with a square for each model. It has G x G panels, one in the place of each cell: the similarity of its
        vector with all G x G vectors.

    Raises:
        ValueError: If a model has another spatial embedding.
        ImportError: If matplotlib is missing.
    """
    models = (model, *others)
    mosaics = [_make_mosaic(own) for own in models]
    figure = new_figure(1.6 + 6 * len(models), 6.8)
    panels = figure.subplots(1, len(models), squeeze=False)[0]
    for axes, own, mosaic in zip(panels, models, mosaics, strict=True):
        size = own.config.hash_grid_size
        drawn = axes.imshow(mosaic, cmap="viridis", vmax=1, interpolation="nearest")
        step = math.ceil(size / MAX_LABELLED)
        places, names = (np.arange(size) * (size + 1) + (size - 1) / 2)[::step], np.arange(size)[::step]
        axes.set_xticks(places, names)
        axes.set_yticks(places, names)
        axes.set(xlabel="column of the cell", ylabel="row of the cell", title=f"G = {size}" if others else "")
        figure.colorbar(drawn, ax=axes, label="cosine similarity", shrink=0.85 if not others else 0.6)
    return figure
