# SPDX-License-Identifier: Apache-2.0
"""Map of a picture's quality: how its score moves without the patches of one region, at every scale (section 3.2).

The map is exact, not an approximation by gradients or attention: the model reads the picture again with these patches
masked like padding. Patches are embedded once; only the Transformer runs for every region.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...models.musiq.image_processing_musiq import MusiqImageProcessor
from ...models.musiq.modeling_musiq import MusiqForImageQualityAssessment
from ...models.musiq.patching_musiq import num_patches
from ...scoring.engine import check_model, read_pixels
from ..figures import QualityMap

MAX_CELLS = 12  # largest number of cells along a side, unless the caller asks for more
MAX_TOKENS = 16_384  # patches that go through the Transformer at a time


@dataclass(frozen=True, kw_only=True)
class PatchLayout:
    """Layout of the patches of one scale on the picture.

    Attributes:
        height: Rows of the picture at this scale, in pixels.
        width: Columns of the picture at this scale, in pixels.
        rows: Rows of patches.
        cols: Columns of patches.
        patch_size: Side P of a patch, in pixels.
        count: Patches in the sequence, in raster order: fewer than `rows * cols` where `max_native_patches` cuts.
        is_native: Whether this is the native scale: the picture itself, or what `max_native_side` leaves of it.
    """

    height: int
    width: int
    rows: int
    cols: int
    patch_size: int
    count: int
    is_native: bool

    @property
    def top(self) -> int:
        """Rows of padding above the picture, in pixels."""
        return (self.rows * self.patch_size - self.height) // 2

    @property
    def left(self) -> int:
        """Columns of padding left of the picture, in pixels."""
        return (self.cols * self.patch_size - self.width) // 2

    def cells(self, rows: int, cols: int) -> np.ndarray:
        """Find the cell of a grid over the picture that holds the centre of each patch.

        Args:
            rows: Rows of the grid.
            cols: Columns of the grid.

        Returns:
            Row-major index of the cell of each patch, int64, shape (count,). A centre in the padding counts for the
            nearest cell.
        """

        def find_along(count: int, offset: int, length: int, number: int) -> np.ndarray:
            centers = (np.arange(count) + 0.5) * self.patch_size - offset
            return np.clip(np.floor(centers / length * number).astype(np.int64), 0, number - 1)

        row = find_along(self.rows, self.top, self.height, rows)
        col = find_along(self.cols, self.left, self.width, cols)
        return (row[:, None] * cols + col[None, :]).flatten()[: self.count]


def patch_layouts(height: int, width: int, processor: MusiqImageProcessor) -> list[PatchLayout]:
    """Return the layout of the patches of every scale of a picture, in the order of the sequence.

    Args:
        height: Rows of the picture, in pixels.
        width: Columns of the picture, in pixels.
        processor: Processor that cuts the picture; only its settings are used.

    Raises:
        ValueError: If a side of a resized copy rounds to 0 pixels.
    """
    layouts = []
    counts = processor.count_patches(height, width)
    for scale, (size, count) in enumerate(zip(processor.compute_sizes(height, width), counts, strict=True)):
        rows, cols = num_patches(*size, processor.patch_size)
        layouts.append(
            PatchLayout(
                height=size[0],
                width=size[1],
                rows=rows,
                cols=cols,
                patch_size=processor.patch_size,
                count=count,
                is_native=scale == len(processor.longer_side_lengths),
            )
        )
    return layouts


def make_inputs(pixels: torch.Tensor, processor: MusiqImageProcessor) -> dict[str, torch.Tensor]:
    """Make the model's inputs of pixels from `read_pixels`: a batch of one, without padding, on their device."""
    return {name: values[None] for name, values in processor.cut(pixels).items()}


def _score_without(
    model: MusiqForImageQualityAssessment, embeddings: torch.Tensor, kept: torch.Tensor, max_tokens: int
) -> list[float]:
    """Score one picture several times, each time with some of its patches left out.

    Args:
        model: Model in evaluation mode.
        embeddings: Embeddings of all patches, CLS first, shape (1, 1 + sequence_length, hidden_size).
        kept: Mask of the tokens that are read each time, bool, shape (times, 1 + sequence_length).
        max_tokens: Tokens that go through the model at a time; a picture with more goes alone.

    Returns:
        Scores in MOS points, one for each row of `kept`.
    """
    scores: list[float] = []
    for mask in kept.split(max(1, max_tokens // embeddings.shape[1])):
        states = model.musiq.encode(embeddings.expand(len(mask), -1, -1), mask.long(), cls_only=True)
        scores += model.scores_from_logits(model.head(model.musiq.pool(states, mask.long()))).tolist()
    return scores


def _choose_grid(layouts: list[PatchLayout], rows: int | None, cols: int | None) -> tuple[int, int]:
    smallest = layouts[0]
    rows = min(smallest.rows, MAX_CELLS) if rows is None else rows
    cols = min(smallest.cols, MAX_CELLS) if cols is None else cols
    return rows, cols


@torch.inference_mode()
def quality_map(
    model: MusiqForImageQualityAssessment,
    processor: MusiqImageProcessor,
    image: Any,
    *,
    rows: int | None = None,
    cols: int | None = None,
    max_tokens: int = MAX_TOKENS,
) -> QualityMap:
    """Leave out the patches of one region after the other, at every scale, and see how the score moves.

    The regions are the cells of a grid over the picture. A patch belongs to the cell that holds its centre. A cell
    that is smaller than the patches of a scale can hold none of them.

    Args:
        model: Model in evaluation mode, on its device.
        processor: Processor that agrees with the model.
        image: One picture: path, URL, PIL image, array or tensor.
        rows: Rows of the grid. None = the rows of the smallest scale's patches, so that each cell has one of them, but
            at most 12.
        cols: Columns of the grid. None = the columns of the smallest scale's patches, but at most 12.
        max_tokens: Patches that go through the Transformer at a time, over several regions. Fewer need less memory and
            give the same map.

    Returns:
        Score of the whole picture, and by how many MOS points it moves without each region.

    Raises:
        ValueError: If a number is below 1, one region holds all patches, the picture cannot be used, the model is
            training, or model and processor disagree.
    """
    for name, value in (("rows", rows), ("cols", cols), ("max_tokens", max_tokens)):
        if value is not None and value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    check_model(model, processor)
    pixels = read_pixels(image, processor).to(model.device)
    height, width = pixels.shape[:2]
    inputs = make_inputs(pixels, processor)
    layouts = patch_layouts(height, width, processor)
    rows, cols = _choose_grid(layouts, rows, cols)
    owners = torch.from_numpy(np.concatenate([layout.cells(rows, cols) for layout in layouts])).to(model.device)
    counts = owners.bincount(minlength=rows * cols)
    if int(counts.max()) == len(owners):
        raise ValueError(
            f"A map compares regions, but one of the {rows} x {cols} holds all patches of this {width}x{height} "
            "picture. Take a finer grid or a larger picture."
        )
    embeddings = model.musiq.embeddings(
        inputs["pixel_values"], inputs["spatial_position_ids"], inputs["scale_position_ids"]
    )
    occupied = counts.nonzero()[:, 0]
    # The first row is for the whole picture, as no patch belongs to cell -1; then there is one row for each region.
    left_out = torch.cat((occupied.new_full((1,), -1), occupied))
    kept = torch.nn.functional.pad(owners[None] != left_out[:, None], (1, 0), value=True)
    score, *without = _score_without(model, embeddings, kept, max_tokens)
    deltas = np.zeros(rows * cols)
    deltas[occupied.cpu().numpy()] = np.asarray(without) - score
    return QualityMap(
        score=score,
        deltas=deltas.reshape(rows, cols),
        num_patches=counts.cpu().numpy().reshape(rows, cols),
        height=height,
        width=width,
    )
