# SPDX-License-Identifier: Apache-2.0
"""Batches of labelled pictures, mixed in pairs of one size or as they are."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image, ImageOps
from torch.nn import functional as F
from transformers.image_processing_utils import BatchFeature

from ..models.musiq.image_processing_musiq import MusiqImageProcessor
from ..pictures.augmentations import crop_at_random, draw_crop_size, rand_augment
from ..pictures.degradations import to_rgb_picture
from ..pictures.opening import open_picture
from .collators import make_padder, random_sequence


def mix_pair(pair: Sequence[Image.Image], share: float) -> list[Image.Image]:
    """Both mixtures of two RGB pictures of one size.

    Args:
        pair: First and second picture.
        share: lambda, the first picture's part in the first mixture and the second's in the second, in [0, 1].

    Returns:
        share * first + (1 - share) * second, and share * second + (1 - share) * first, in whole levels of 255.
    """
    first, second = pair
    return [Image.blend(second, first, share), Image.blend(first, second, share)]


class MixupCollator:
    """Rows of pictures and classes to training batches: crops of varying size, flips, RandAugment, mixup.

    `labels` are class probabilities, float32, shape (batch_size, num_labels). The last picture of an odd batch is not
    mixed. See the module for how pictures of different sizes are paired.

    Args:
        processor: Cuts and pads.
        num_labels: Number of classes.
        limits: At most so many random patches per scale; None keeps all (see `subset_patches`).
        min_crop_area: As in `ImageNetSettings`, like the following.
        num_operations: Of RandAugment.
        magnitude: Of RandAugment.
        mixup_alpha: Of mixup's Beta distribution; 0 mixes nothing, and every picture has a crop size of its own.
        fixed_length: Pad to one length, that of the longest sequence possible, in place of the longest of the batch.
    """

    def __init__(
        self,
        processor: MusiqImageProcessor,
        *,
        num_labels: int,
        limits: Sequence[int | None],
        min_crop_area: float,
        num_operations: int,
        magnitude: float,
        mixup_alpha: float,
        fixed_length: bool = False,
    ):
        self.processor = processor
        self.pad = make_padder(processor, limits, fixed_length=fixed_length)
        self.num_labels = num_labels
        self.limits = limits
        self.min_crop_area = min_crop_area
        self.num_operations = num_operations
        self.magnitude = magnitude
        self.mixup_alpha = mixup_alpha

    def _augment(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        picture = to_rgb_picture(crop_at_random(image, size))
        if torch.rand(()) < 0.5:
            picture = ImageOps.mirror(picture)
        return rand_augment(picture, num_operations=self.num_operations, magnitude=self.magnitude)

    def _augmented_group(self, rows: Sequence[dict[str, Any]]) -> tuple[list[Image.Image], torch.Tensor]:
        """One picture, or a mixed pair, and class probabilities (len(rows), num_labels)."""
        images = [open_picture(row["image"]) for row in rows]
        size = draw_crop_size([image.size for image in images], min_area=self.min_crop_area)
        pictures = [self._augment(image, size) for image in images]
        labels = F.one_hot(torch.tensor([row["label"] for row in rows]), self.num_labels).float()
        if len(rows) == 2:
            share = torch.distributions.Beta(self.mixup_alpha, self.mixup_alpha).sample().item()
            pictures = mix_pair(pictures, share)
            labels = share * labels + (1 - share) * labels.flip(0)
        for picture in pictures:  # errors further on should name the files
            picture.filename = " and ".join(str(image.filename) for image in images)  # type: ignore[attr-defined]
        return pictures, labels

    def __call__(self, rows: list[dict[str, Any]]) -> BatchFeature:
        step = 2 if self.mixup_alpha else 1
        groups = [self._augmented_group(rows[start : start + step]) for start in range(0, len(rows), step)]
        features = [
            random_sequence(self.processor, picture, self.limits) for pictures, _ in groups for picture in pictures
        ]
        batch = self.pad(features)
        batch["labels"] = torch.cat([labels for _, labels in groups])
        return batch


class ClassificationCollator:
    """Rows of pictures and classes to batches for evaluation: whole pictures, `labels` int64, shape (batch_size,).

    Args:
        processor: Cuts and pads.
        limits: At most so many random patches per scale; of a picture the same ones every time.
        seed: Chooses them.
    """

    def __init__(self, processor: MusiqImageProcessor, *, limits: Sequence[int | None], seed: int):
        self.processor = processor
        self.limits = limits
        self.seed = seed

    def __call__(self, rows: list[dict[str, Any]]) -> BatchFeature:
        features = []
        for row in rows:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(self.seed)  # anew, so that the rest of the batch does not matter
                features.append(random_sequence(self.processor, open_picture(row["image"]), self.limits))
        batch = self.processor.pad(features, padding="longest")
        batch["labels"] = torch.tensor([row["label"] for row in rows])
        return batch
