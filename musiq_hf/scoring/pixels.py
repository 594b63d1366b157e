# SPDX-License-Identifier: Apache-2.0
"""Scores as a loss, and as a metric over many pictures: for generators, restoration and video.

The numbers are those of image processor and model, and gradients flow to the pixels. The model learns nothing here:
`model.requires_grad_(False)` spares the gradients of its weights.
"""

from collections.abc import Sequence
from typing import Any

import torch

from ..models.musiq.image_processing_musiq import MusiqImageProcessor
from ..models.musiq.modeling_musiq import MusiqForImageQualityAssessment


def _check_model(model: MusiqForImageQualityAssessment, processor: MusiqImageProcessor) -> None:
    processor.check_config(model.config)
    if model.training:
        raise ValueError("A model in evaluation mode is needed: dropout changes scores. Call `model.eval()` first.")


def _score(
    model: MusiqForImageQualityAssessment, processor: MusiqImageProcessor, pictures: Sequence[Any], **kwargs: Any
) -> torch.Tensor:
    batch = processor(pictures, padding="longest", return_tensors="pt", **kwargs)
    return model(**batch.to(model.device)).scores


def _as_list(images: torch.Tensor | Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Single pictures (3, height, width) of a batch or a list, checked."""
    if isinstance(images, torch.Tensor) and images.dim() != 4:
        images = [images]
    pictures = list(images)
    for picture in pictures:
        shape = tuple(picture.shape)
        if len(shape) != 3 or shape[0] != 3:
            what = f"(batch, 3, height, width), or a list of (3, height, width), got a picture of shape {shape}"
            raise ValueError(f"`images` must have shape {what}.")
        if not picture.is_floating_point():
            raise ValueError(f"`images` must be float in 0..1, got {picture.dtype}. Divide bytes by 255.")
    return pictures


def score_pixels(
    model: MusiqForImageQualityAssessment,
    processor: MusiqImageProcessor,
    images: torch.Tensor | Sequence[torch.Tensor],
) -> torch.Tensor:
    """Scores of pictures, differentiable in their pixels.

    >>> loss = -score_pixels(model, processor, generator(noise)).mean()

    Args:
        model: In evaluation mode.
        processor: Of the model.
        images: Float, shape (batch, 3, height, width), or a list of (3, height, width) of any sizes; RGB in 0..1.

    Returns:
        Scores in MOS points, shape (batch,), float32, on the model's device: those of the same pictures from files,
        up to 1e-5 of the range of scores.

    Raises:
        ValueError: If pixels have a wrong shape or type or leave 0..1, or the model is in training mode.
    """
    _check_model(model, processor)
    return _score(model, processor, _as_list(images), input_data_format="channels_first")


class QualityMetric:
    """Mean score over pictures or video frames that come in batches, used as a metric of torchmetrics.

    >>> metric = QualityMetric(model, processor)
    >>> for frames in video:
    ...     metric.update(frames)
    >>> metric.compute()
    tensor(63.2)

    Gradients flow from `compute` to pictures that ask for them; of others nothing but their score is kept.

    Args:
        model: In evaluation mode, on its device.
        processor: Of the model.
        batch_size: Pictures that are scored at a time.

    Raises:
        ValueError: If model and processor disagree, the model is in training mode, or `batch_size` is below 1.
    """

    def __init__(
        self, model: MusiqForImageQualityAssessment, processor: MusiqImageProcessor, *, batch_size: int = 8
    ) -> None:
        _check_model(model, processor)
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        self.model, self.processor, self.batch_size = model, processor, batch_size
        self._scores: list[torch.Tensor] = []

    def update(self, images: Any) -> None:
        """Score more pictures.

        Args:
            images: A picture, a list of pictures of any sizes, or an array or tensor with four axes, frames first:
                whatever the image processor takes.

        Raises:
            ValueError: If a picture cannot be used, or the model has been put into training mode; nothing is added.
        """
        _check_model(self.model, self.processor)
        pictures = list(self.processor._flatten(images))
        wanted = any(isinstance(picture, torch.Tensor) and picture.requires_grad for picture in pictures)
        with torch.set_grad_enabled(wanted and torch.is_grad_enabled()):
            size = self.batch_size
            groups = [pictures[start : start + size] for start in range(0, len(pictures), size)]
            scores = [_score(self.model, self.processor, group) for group in groups]
        self._scores += scores

    def compute(self) -> torch.Tensor:
        """Mean score of all pictures since the start or the last `reset`, in MOS points, float32 without axes.

        Raises:
            ValueError: If there are none.
        """
        if not self._scores:
            raise ValueError("There is no picture to average over. Call `update` first.")
        return torch.cat(self._scores).mean()

    def reset(self) -> None:
        """Forget all pictures."""
        self._scores = []
