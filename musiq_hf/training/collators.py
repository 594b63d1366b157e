# SPDX-License-Identifier: Apache-2.0
"""From rows of pictures and scores to padded batches for training and evaluation."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from PIL import Image, ImageOps
from transformers.image_processing_utils import BatchFeature

from ..data.batches import open_row
from ..models.musiq.image_processing_musiq import MusiqImageProcessor
from ..pictures.augmentations import crop_fraction
from ..pictures.degradations import degrade_at_random, to_rgb_picture
from ..pictures.fault_pairs import make_fault_pair
from ..pictures.opening import Preset, shrink_shorter_side


def subset_patches(feature: dict[str, torch.Tensor], limits: Sequence[int | None]) -> dict[str, torch.Tensor]:
    """A random subset of the patches of every scale, in their order.

    Args:
        feature: Unpadded sequence of one picture, as the processor gives it.
        limits: At most so many patches of each scale, in the order of the scales; None keeps all.

    Returns:
        The same entries, shorter. Random numbers come from torch's generator.
    """
    kept = []
    for scale, limit in enumerate(limits):
        indices = (feature["scale_position_ids"] == scale).nonzero()[:, 0]
        kept.append(indices if limit is None else indices[torch.randperm(len(indices))[:limit]].sort().values)
    return {name: values[torch.cat(kept)] for name, values in feature.items()}


def random_sequence(
    processor: MusiqImageProcessor, image: Image.Image, limits: Sequence[int | None] | None
) -> dict[str, torch.Tensor]:
    """The unpadded sequence of one picture, or a random subset of it: see `subset_patches`; None keeps all."""
    lists = processor(image, padding="do_not_pad")
    feature = {name: values[0] for name, values in lists.items()}
    return feature if limits is None else subset_patches(feature, limits)


def make_padder(
    processor: MusiqImageProcessor, limits: Sequence[int | None] | None, *, fixed_length: bool
) -> Callable[[Sequence[dict[str, torch.Tensor]]], BatchFeature]:
    """What pads sequences to the longest of a batch or, with `fixed_length`, to the longest that `limits` leave."""
    if not fixed_length:
        return partial(processor.pad, padding="longest")
    bounded = copy.copy(processor)
    if processor.use_native_resolution:
        native = limits[-1] if limits else None
        bounds = [limit for limit in (native, processor.max_native_patches) if limit is not None]
        bounded.max_native_patches = min(bounds, default=None)  # type: ignore[assignment]
    return partial(bounded.pad, padding="max_length")


class QualityCollator:
    """Rows of pictures and scores to a padded batch.

    Args:
        processor: Cuts and pads.
        flip: Whether to mirror a picture left to right with probability 1/2, the paper's only augmentation (training).
        degrade_fraction: Probability that a picture gets faults and a lowered score (training only);
            see `musiq_hf.pictures.degradations`.
        worst_score: Lowest score of the training data, towards which degraded pictures move.
        limits: Keep a random subset of at most so many patches per scale (training only: several times cheaper, and a
            strong regulariser); see `subset_patches`. None keeps all.
        min_crop: Cut a random window whose sides are at least this part of the picture's (training only); 1 keeps the
            whole picture.
        shorter_side: Shrink pictures to this shorter side, in pixels, first; None keeps their size.
        preset: How files become pixels; see `musiq_hf.pictures.opening`.
        fault_pairs: Number of pairs of copies, of pictures of the batch, that go beside it (training only); see
            `musiq_hf.pictures.fault_pairs`. They are the entry `pairs` of a batch: sequence 2i is better than 2i + 1.
        fixed_length: Pad to the most patches that `limits` (or the processor) allow, not to the longest of the batch.
    """

    def __init__(
        self,
        processor: MusiqImageProcessor,
        *,
        flip: bool = False,
        degrade_fraction: float = 0.0,
        worst_score: float = 0.0,
        limits: Sequence[int | None] | None = None,
        min_crop: float = 1.0,
        shorter_side: int | None = None,
        preset: Preset = "default",
        fault_pairs: int = 0,
        fixed_length: bool = False,
    ):
        if not 0 <= degrade_fraction <= 1:
            raise ValueError(f"`degrade_fraction` must lie in [0, 1], got {degrade_fraction}.")
        if not 0 < min_crop <= 1:
            raise ValueError(f"`min_crop` must lie in (0, 1], got {min_crop}.")
        self.processor = processor
        self.flip = flip
        self.degrade_fraction = degrade_fraction
        self.worst_score = worst_score
        self.min_crop = min_crop
        self.limits = limits
        self.shorter_side = shorter_side
        self.preset = preset
        self.fault_pairs = fault_pairs
        self.pad = make_padder(processor, limits, fixed_length=fixed_length)

    def __call__(self, rows: list[dict[str, Any]]) -> BatchFeature:
        features, labels, copies = [], [], []
        paired = set(torch.randperm(len(rows))[: self.fault_pairs].tolist()) if self.fault_pairs else set()
        for index, row in enumerate(rows):
            image, label = open_row(row, self.preset), row["distribution"] if "distribution" in row else row["mos"]
            if self.shorter_side is not None:
                image = shrink_shorter_side(image, self.shorter_side)
            if index in paired:
                pair, _ = make_fault_pair(to_rgb_picture(image))
                copies += [random_sequence(self.processor, picture, self.limits) for picture in pair]
            if self.degrade_fraction and torch.rand(()) < self.degrade_fraction:
                image, label = degrade_at_random(image, label, worst=self.worst_score)
            labels.append(label)
            if self.min_crop < 1:
                image = crop_fraction(image, min_fraction=self.min_crop)
            if self.flip and torch.rand(()) < 0.5:
                image = ImageOps.mirror(image)
            image.filename = row["image"]["path"] or ""  # flips and faults lose it, and errors should name the file
            features.append(random_sequence(self.processor, image, self.limits))
        batch = self.pad(features)
        batch["labels"] = torch.tensor(labels, dtype=torch.float32)
        if copies:
            batch["pairs"] = self.pad(copies)
        return batch
