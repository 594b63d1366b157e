# SPDX-License-Identifier: Apache-2.0
"""Scores as a loss, and as a metric over many pictures: for generators, restoration and video.

The scores are those of image processor and model, and gradients flow to the pixels. The model itself is not trained
here; `model.requires_grad_(False)` saves the work for gradients of its weights.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ..models.protocol import Feature, QualityModel, QualityProcessor
from ..pictures.opening import describe, to_rgb_tensor
from .engine import check_model, read_pixels, run_model


def _read_differentiable(picture: Any, processor: QualityProcessor, input_data_format: str | None) -> torch.Tensor:
    """Return pixels (height, width, 3), through which gradients reach a float tensor."""
    if not isinstance(picture, torch.Tensor):
        return read_pixels(picture, processor)
    layout = input_data_format or getattr(processor, "input_data_format", None)
    return to_rgb_tensor(picture, input_data_format=layout, do_convert_rgb=processor.do_convert_rgb, keep_uint8=True)


def _cut_pictures(
    pictures: Sequence[Any], processor: QualityProcessor, *, first: int = 0, input_data_format: str | None = None
) -> list[Feature]:
    """Cut pictures; a ValueError names the one that cannot be used, counted from `first`."""
    features = []
    for index, picture in enumerate(pictures, start=first):
        try:
            features.append(processor.cut(_read_differentiable(picture, processor, input_data_format)))
        except ValueError as error:
            raise ValueError(f"Picture {index} ({describe(picture)}): {error}") from error
    return features


def _split_pictures(images: Any) -> Iterator[Any]:
    """Yield the single pictures of one picture, of an array or a tensor of several, or of a list of these."""
    if isinstance(images, list | tuple):
        for image in images:
            yield from _split_pictures(image)
    elif isinstance(images, np.ndarray | torch.Tensor) and images.ndim == 4:
        yield from images
    else:
        yield images


def _list_pictures(images: torch.Tensor | Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the single pictures (3, height, width) of a batch or a list, checked."""
    if isinstance(images, torch.Tensor) and images.dim() != 4:
        images = [images]
    pictures = list(images)
    for picture in pictures:
        shape = tuple(picture.shape)
        if len(shape) != 3 or shape[0] != 3:
            shapes = "(batch, 3, height, width), or a list of (3, height, width)"
            raise ValueError(f"`images` must have shape {shapes}, got a picture of shape {shape}.")
        if not picture.is_floating_point():
            raise ValueError(f"`images` must be float in 0..1, got {picture.dtype}. Divide bytes by 255.")
    if not pictures:
        raise ValueError("At least one picture is needed, got an empty list.")
    return pictures


def score_pixels(
    model: QualityModel, processor: QualityProcessor, images: torch.Tensor | Sequence[torch.Tensor]
) -> torch.Tensor:
    """Score pictures, differentiably in their pixels.

    >>> loss = -score_pixels(model, processor, generator(noise)).mean()

    Args:
        model: Model in evaluation mode.
        processor: Processor of the model.
        images: RGB pixels in 0..1, float, shape (batch, 3, height, width), or a list of (3, height, width) of any
            sizes.

    Returns:
        Scores in MOS points, shape (batch,), float32, on the model's device. They equal those of the same pictures
        from files, up to 1e-5 of the range of scores.

    Raises:
        ValueError: If pixels have a wrong shape or type or leave 0..1, or the model is in training mode.
    """
    check_model(model, processor)
    features = _cut_pictures(_list_pictures(images), processor, input_data_format="channels_first")
    return run_model(model, processor, features).scores


class QualityMetric:
    """Mean score over pictures or video frames that come in batches, used as a metric of torchmetrics.

    >>> metric = QualityMetric(model, processor)
    >>> for frames in video:
    ...     metric.update(frames)
    >>> metric.compute()
    tensor(63.2)

    Gradients flow from `compute` to pictures that require them; of others only the score is kept.

    Args:
        model: Model in evaluation mode, on its device.
        processor: Processor of the model.
        batch_size: Number of pictures that are scored at a time.

    Raises:
        ValueError: If model and processor disagree, the model is in training mode, or `batch_size` is below 1.
    """

    def __init__(self, model: QualityModel, processor: QualityProcessor, *, batch_size: int = 8) -> None:
        check_model(model, processor)
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        self.model, self.processor, self.batch_size = model, processor, batch_size
        self._scores: list[torch.Tensor] = []

    def update(self, images: Any) -> None:
        """Score more pictures.

        Args:
            images: A picture, a list of pictures of any sizes, or an array or tensor with four axes, frames first. A
                picture is a path, URL, PIL image, array or tensor.

        Raises:
            ValueError: If a picture cannot be used, or the model has been put into training mode. No picture of this
                call is added then.
        """
        check_model(self.model, self.processor)
        pictures = list(_split_pictures(images))
        if not pictures:
            raise ValueError("At least one picture is needed, got an empty list.")
        wanted = any(isinstance(picture, torch.Tensor) and picture.requires_grad for picture in pictures)
        with torch.set_grad_enabled(wanted and torch.is_grad_enabled()):
            starts = range(0, len(pictures), self.batch_size)
            scores = [self._score_batch(pictures[start : start + self.batch_size], start) for start in starts]
        self._scores += scores

    def _score_batch(self, pictures: Sequence[Any], first: int) -> torch.Tensor:
        """Score one batch, whose first picture has the number `first`."""
        return run_model(self.model, self.processor, _cut_pictures(pictures, self.processor, first=first)).scores

    def compute(self) -> torch.Tensor:
        """Return the mean score of all pictures since the start or the last `reset`.

        Returns:
            Mean in MOS points, a float32 tensor without axes.

        Raises:
            ValueError: If there is no picture.
        """
        if not self._scores:
            raise ValueError("There is no picture to average over. Call `update` first.")
        return torch.cat(self._scores).mean()

    def reset(self) -> None:
        """Forget all pictures."""
        self._scores = []
