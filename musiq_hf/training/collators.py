# SPDX-License-Identifier: Apache-2.0
"""Collator that turns rows of pictures and scores into augmented batches for training."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers.image_processing_utils import BatchFeature

from ..data.batches import QualityCollator, cut_picture, pad_features
from ..models.protocol import Feature, QualityProcessor, TrainingView
from ..pictures.augmentations import crop_fraction, draw_others, make_mosaic, make_view_pair, resize_mildly
from ..pictures.degradations import degrade_at_random, to_rgb_picture
from ..pictures.fault_pairs import make_fault_pair

Scored = tuple[Image.Image, Any]  # an opened picture and its score or distribution


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Changes of training pictures; the defaults change nothing.

    Attributes:
        flip: Whether to mirror a picture left to right with probability 1/2, the paper's only augmentation.
        degrade_fraction: Probability that a picture gets faults and a lowered score, in [0, 1]; see
            `musiq_hf.pictures.degradations`.
        worst_score: Lowest score of the training data, towards which degraded pictures move.
        min_crop: Smallest part of each side that a random window keeps, in (0, 1]; 1 keeps whole pictures.
        fault_pairs: Number of pictures of a batch of which a pair of faulty copies is made; see
            `musiq_hf.pictures.fault_pairs`. The copies are the entry `pairs` of the batch: copy 2i is better than
            copy 2i + 1.
        view_pairs: Number of pictures of a batch of which two views are made that look alike; see
            `musiq_hf.pictures.augmentations.make_view_pair`. They are the entry `views` of the batch: the scores of
            views 2i and 2i + 1 should be equal.
        size_fraction: Probability that a picture changes its size, in [0, 1]. Half of these become up to 1.4 times
            smaller or larger with their scores. Half become mosaics of 4 to 16 pictures with the mean score.

    Raises:
        ValueError: If a value lies outside its range.
    """

    flip: bool = False
    degrade_fraction: float = 0.0
    worst_score: float = 0.0
    min_crop: float = 1.0
    fault_pairs: int = 0
    view_pairs: int = 0
    size_fraction: float = 0.0

    def __post_init__(self) -> None:
        for name in ("degrade_fraction", "size_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must lie in [0, 1], got {getattr(self, name)}.")
        if not 0 < self.min_crop <= 1:
            raise ValueError(f"`min_crop` must lie in (0, 1], got {self.min_crop}.")


def _choose(length: int, count: int) -> set[int]:
    """Choose some of the pictures of a batch, all if it has too few; nothing is drawn for none."""
    return set(torch.randperm(length)[:count].tolist()) if count else set()


class TrainingCollator:
    """Collator of rows of pictures and scores to padded batches for training.

    Random numbers come from torch's generator, so that a resumed run repeats them.

    Args:
        processor: Image processor of the model.
        view: Part of a picture that a training step sees.
        augmentation: Changes of the pictures.
        shorter_side: Shorter side to which pictures are shrunk first, in pixels; None keeps their size.
        length: Number of tokens to which every batch is padded; None pads to its longest picture.
    """

    def __init__(
        self,
        processor: QualityProcessor,
        *,
        view: TrainingView,
        augmentation: Augmentation,
        shorter_side: int | None = None,
        length: int | None = None,
    ):
        self.processor = processor
        self.view = view
        self.augmentation = augmentation
        self.rows = QualityCollator(processor, shorter_side=shorter_side)
        self.length = length

    def _change_size(self, image: Image.Image, label: Any, batch: list[Scored]) -> tuple[Image.Image, Any]:
        """Make a mosaic of pictures of the batch, or change the size a little, which leaves the score."""
        others = [batch[index] for index in draw_others(len(batch))]
        if not others:
            return resize_mildly(to_rgb_picture(image)), label
        mosaic = make_mosaic([to_rgb_picture(picture) for picture in (image, *(picture for picture, _ in others))])
        return mosaic, np.mean([label, *(score for _, score in others)], axis=0).tolist()

    def _augment(self, image: Image.Image, label: Any) -> tuple[Image.Image, Any]:
        how = self.augmentation
        if how.degrade_fraction and torch.rand(()) < how.degrade_fraction:
            image, label = degrade_at_random(image, label, worst=how.worst_score)
        if how.min_crop < 1:
            image = crop_fraction(image, min_fraction=how.min_crop)
        if how.flip and torch.rand(()) < 0.5:
            image = ImageOps.mirror(image)
        return image, label

    def __call__(self, rows: list[dict[str, Any]]) -> BatchFeature:
        how = self.augmentation
        features, labels = [], []
        copies: dict[str, list[Feature]] = {"pairs": [], "views": []}
        view, other = self.view.for_batch(), self.view.for_batch()  # views of a picture may have fewer patches
        paired, viewed = (_choose(len(rows), count) for count in (how.fault_pairs, how.view_pairs))
        opened = [self.rows.open(row) for row in rows]  # a picture is decoded once, however many mosaics show it
        for index, (row, (image, label)) in enumerate(zip(rows, opened, strict=True)):
            if index in paired:
                pair, _ = make_fault_pair(to_rgb_picture(image))
                copies["pairs"] += [self.cut(picture, view) for picture in pair]
            if index in viewed:
                both = zip(make_view_pair(to_rgb_picture(image)), (view, other), strict=True)
                copies["views"] += [self.cut(picture, part) for picture, part in both]
            if how.size_fraction and torch.rand(()) < how.size_fraction:
                image, label = self._change_size(image, label, opened)
            image, label = self._augment(image, label)
            labels.append(label)
            # Flips and faults lose the file name, which errors further on should give.
            image.filename = row["image"]["path"] or ""  # type: ignore[attr-defined]
            features.append(self.cut(image, view))
        return self.join(features, labels, copies)

    def cut(self, image: Image.Image, view: TrainingView) -> Feature:
        """Turn an augmented picture into a feature."""
        return cut_picture(self.processor, image, view)

    def join(self, features: list[Feature], labels: list[Any], copies: dict[str, list[Feature]]) -> BatchFeature:
        """Pad the features of the pictures to a batch with their labels, and the copies to entries of it."""
        batch = pad_features(self.processor, features, length=self.length)
        batch["labels"] = torch.tensor(labels, dtype=torch.float32)
        for entry, made in copies.items():
            if made:
                batch[entry] = pad_features(self.processor, made, length=self.length)
        return batch
