# SPDX-License-Identifier: Apache-2.0
"""Collators of pictures and classes: for training, mixed in pairs of one size, and for evaluation, as they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image, ImageOps
from torch.nn import functional as F
from transformers.image_processing_utils import BatchFeature

from ..data.batches import cut_picture, pad_features
from ..models.protocol import QualityProcessor, TrainingView
from ..pictures.augmentations import crop_at_random, draw_crop_size, rand_augment
from ..pictures.degradations import to_rgb_picture
from ..pictures.opening import open_picture


def mix_pair(pair: Sequence[Image.Image], share: float) -> list[Image.Image]:
    """Mix two RGB pictures of one size twice, the second time with their roles swapped.

    Args:
        pair: First and second picture.
        share: Part of the first picture in the first mixture, and of the second picture in the second, in [0, 1]
            (lambda in mixup's paper).

    Returns:
        `share * first + (1 - share) * second` and `share * second + (1 - share) * first`, in whole levels of 255.
    """
    first, second = pair
    return [Image.blend(second, first, share), Image.blend(first, second, share)]


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Changes of the pictures of a batch for training on classes.

    Attributes:
        min_crop_area: Smallest part of a picture's area in a random crop, in (0, 1].
        num_operations: Number of operations of RandAugment on each picture.
        magnitude: Magnitude of RandAugment, in [0, 30].
        mixup_alpha: Parameter of mixup's Beta distribution. 0 mixes nothing, and every picture gets a crop size of
            its own.
    """

    min_crop_area: float
    num_operations: int
    magnitude: float
    mixup_alpha: float


class MixupCollator:
    """Collator of rows of pictures and classes for training: crops of varying size, flips, RandAugment, mixup.

    `labels` are class probabilities, float32, shape (batch_size, num_labels). The last picture of an odd batch is not
    mixed. `musiq_hf.training.pretraining_imagenet` says how pictures of different sizes are paired.

    Args:
        processor: Image processor of the model.
        view: Part of a picture that a training step sees.
        num_labels: Number of classes.
        mixing: Crops, RandAugment and mixup.
        length: Number of tokens to which every batch is padded; None pads to its longest picture.
    """

    def __init__(
        self,
        processor: QualityProcessor,
        *,
        view: TrainingView,
        num_labels: int,
        mixing: Mixing,
        length: int | None = None,
    ):
        self.processor = processor
        self.view = view
        self.num_labels = num_labels
        self.mixing = mixing
        self.length = length

    def _augment(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        picture = to_rgb_picture(crop_at_random(image, size))
        if torch.rand(()) < 0.5:
            picture = ImageOps.mirror(picture)
        return rand_augment(picture, num_operations=self.mixing.num_operations, magnitude=self.mixing.magnitude)

    def _augment_group(self, rows: Sequence[dict[str, Any]]) -> tuple[list[Image.Image], torch.Tensor]:
        """Make the picture of one row, or the mixed pair of two, and class probabilities (len(rows), num_labels)."""
        images = [open_picture(row["image"]) for row in rows]
        size = draw_crop_size([image.size for image in images], min_area=self.mixing.min_crop_area)
        pictures = [self._augment(image, size) for image in images]
        labels = F.one_hot(torch.tensor([row["label"] for row in rows]), self.num_labels).float()
        if len(rows) == 2:
            share = torch.distributions.Beta(self.mixing.mixup_alpha, self.mixing.mixup_alpha).sample().item()
            pictures = mix_pair(pictures, share)
            labels = share * labels + (1 - share) * labels.flip(0)
        for picture in pictures:  # a mixture has no file name, and errors further on should give those of its parts
            picture.filename = " and ".join(str(image.filename) for image in images)  # type: ignore[attr-defined]
        return pictures, labels

    def __call__(self, rows: list[dict[str, Any]]) -> BatchFeature:
        step = 2 if self.mixing.mixup_alpha else 1
        groups = [self._augment_group(rows[start : start + step]) for start in range(0, len(rows), step)]
        view = self.view.for_batch()
        features = [cut_picture(self.processor, picture, view) for pictures, _ in groups for picture in pictures]
        batch = pad_features(self.processor, features, length=self.length)
        batch["labels"] = torch.cat([labels for _, labels in groups])
        return batch


class ClassificationCollator:
    """Collator of rows of pictures and classes for evaluation; `labels` are int64, shape (batch_size,).

    Args:
        processor: Image processor of the model.
        view: Part of a picture that the model sees, the same every time.
        seed: Seed with which that part is chosen.
    """

    def __init__(self, processor: QualityProcessor, *, view: TrainingView, seed: int):
        self.processor = processor
        self.view = view
        self.seed = seed

    def __call__(self, rows: list[dict[str, Any]]) -> BatchFeature:
        features = []
        for row in rows:
            with torch.random.fork_rng(devices=[]):
                # Every row starts from the same seed, so that the rest of its batch does not matter.
                torch.default_generator.manual_seed(self.seed)
                features.append(cut_picture(self.processor, open_picture(row["image"]), self.view))
        batch = pad_features(self.processor, features)
        batch["labels"] = torch.tensor([row["label"] for row in rows])
        return batch
