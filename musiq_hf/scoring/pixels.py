# SPDX-License-Identifier: Apache-2.0
"""Scores as a loss, and as a metric over many pictures: for generators, restoration and video.

The scores are those of image processor and model, and gradients flow to the pixels. The model itself is not trained
here; `model.requires_grad_(False)` saves the work for gradients of its weights.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import distributed, nn

from ..models.protocol import Feature, QualityModel, QualityProcessor
from ..pictures.opening import PixelRangeError, describe, to_rgb_tensor
from .engine import check_model, read_pixels, run_model

FLOATS = ("float", "torch.float", "torch.bfloat")  # beginnings of the names of their types
LOWEST, HIGHEST = -10, 10  # an untrained generator overshoots to 3; of 0..255, only black pictures stay below


def clamp_pixels(picture: Any) -> Any:
    """Return a picture with float pixels limited to 0..1; others stay, and so do those that are not finite.

    Raises:
        ValueError: If a value lies far outside, which is another unit and no overshooting.
    """
    pixels = picture.detach() if isinstance(picture, torch.Tensor) else picture
    is_float = isinstance(pixels, np.ndarray | torch.Tensor) and str(pixels.dtype).startswith(FLOATS)
    if not is_float or 0 in pixels.shape:
        return picture
    low, high = float(pixels.min()), float(pixels.max())
    if not math.isfinite(high - low):
        return picture  # what reads it refuses it
    if low < LOWEST or high > HIGHEST:
        raise ValueError(
            f"`clamp` limits pixels in 0..1 that overshoot to {LOWEST}..{HIGHEST} at most, got {low:.4g}..{high:.4g}. "
            "Divide pixels in 0..255 by 255."
        )
    return picture.clip(0, 1)


def _read_differentiable(picture: Any, processor: QualityProcessor, input_data_format: str | None) -> torch.Tensor:
    """Return pixels (height, width, 3), through which gradients reach a float tensor."""
    if not isinstance(picture, torch.Tensor):
        return read_pixels(picture, processor)
    layout = input_data_format or getattr(processor, "input_data_format", None)
    return to_rgb_tensor(picture, input_data_format=layout, do_convert_rgb=processor.do_convert_rgb, keep_uint8=True)


def _cut_pictures(
    pictures: Sequence[Any],
    processor: QualityProcessor,
    *,
    clamp: bool,
    first: int = 0,
    input_data_format: str | None = None,
) -> list[Feature]:
    """Cut pictures; a ValueError names the one that cannot be used, counted from `first`."""
    features = []
    for index, picture in enumerate(pictures, start=first):
        try:
            limited = clamp_pixels(picture) if clamp else picture
            features.append(processor.cut(_read_differentiable(limited, processor, input_data_format)))
        except ValueError as error:
            advice = " Or set `clamp=True`." if isinstance(error, PixelRangeError) else ""
            raise ValueError(f"Picture {index} ({describe(picture)}): {error}{advice}") from error
    return features


def split_pictures(images: Any) -> Iterator[Any]:
    """Yield the single pictures of one picture, of an array or a tensor of several, or of a list of these."""
    if isinstance(images, list | tuple):
        for image in images:
            yield from split_pictures(image)
    elif isinstance(images, np.ndarray | torch.Tensor) and images.ndim == 4:
        yield from images
    else:
        yield images


def _list_pictures(images: torch.Tensor | Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the single pictures (3, height, width) of a batch or a list, checked."""
    is_batch = images.dim() == 4 if isinstance(images, torch.Tensor) else isinstance(images, list | tuple)
    pictures: list[Any] = list(images) if is_batch else [images]
    for picture in pictures:
        if not isinstance(picture, torch.Tensor):
            kind = type(picture).__name__
            raise TypeError(f"`images` must be tensors, got {kind}. `score_pictures` scores files and arrays.")
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
    model: QualityModel,
    processor: QualityProcessor,
    images: torch.Tensor | Sequence[torch.Tensor],
    *,
    clamp: bool = False,
) -> torch.Tensor:
    """Score pictures, differentiably in their pixels.

    >>> loss = -score_pixels(model, processor, generator(noise)).mean()

    Args:
        model: Model in evaluation mode.
        processor: Processor of the model.
        images: RGB pixels in 0..1, float, shape (batch, 3, height, width), or a list of (3, height, width) of any
            sizes.
        clamp: Whether values outside of 0..1 become 0 or 1, as in a saved picture, in place of an error. Their
            gradient is 0, so that no score brings them back. Values beyond -10..10 stay an error.

    Returns:
        Scores in MOS points, shape (batch,), float32, on the model's device. They equal those of the same pictures
        from files, up to 1e-5 of the range of scores.

    Raises:
        ValueError: If pixels have a wrong shape or type or leave 0..1, or the model is in training mode.
        TypeError: If a picture is no tensor.
    """
    check_model(model, processor)
    features = _cut_pictures(_list_pictures(images), processor, clamp=clamp, input_data_format="channels_first")
    return run_model(model, processor, features).scores


class QualityMetric(nn.Module):
    """Mean score over pictures or video frames that come in batches, used as a metric of torchmetrics.

    >>> metric = QualityMetric(model, processor)
    >>> for frames in video:
    ...     metric.update(frames)
    >>> metric.compute()
    tensor(63.2)

    It may be a part of another module. Its `to` moves the model too, whose type stays. The model's weights are neither
    parameters of that module nor in its `state_dict`, and `train` leaves them alone. `state_dict` holds the mean and
    the number of pictures, and a file without both is loaded too.

    Gradients flow to pictures that require them: from a call, and from `compute` to those of `update`. The others
    leave nothing but their scores behind. Copies keep no gradients.

    Args:
        model: Model in evaluation mode, on its device.
        processor: Processor of the model.
        batch_size: Number of pictures that are scored at a time.
        clamp: Whether float pixels outside of 0..1 become 0 or 1, see `score_pixels`, in place of an error.

    Raises:
        ValueError: If model and processor disagree, the model is in training mode, or `batch_size` is below 1.
    """

    def __init__(
        self, model: QualityModel, processor: QualityProcessor, *, batch_size: int = 8, clamp: bool = False
    ) -> None:
        super().__init__()
        check_model(model, processor)
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        # A module of its own would be trained, saved and put into training mode with what the metric is a part of.
        self._scorer = (model, processor)
        self.batch_size, self.clamp = batch_size, clamp
        self._mean, self._count = torch.zeros((), device=self.device), 0

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self._scorer[0].device

    def update(self, images: Any) -> None:
        """Score more pictures.

        Args:
            images: A picture, a list of pictures of any sizes, or an array or tensor with four axes, frames first. A
                picture is a path, URL, PIL image, array or tensor.

        Raises:
            ValueError: If a picture cannot be used, or the model has been put into training mode. No picture of this
                call is added then.
        """
        self._add(*self._score(images))

    def forward(self, images: Any) -> torch.Tensor:
        """Score more pictures, as `update` does, and return the mean score of these alone.

        Gradients flow from this mean, and the metric keeps none of them, so that it may be called in a training loop.

        Args:
            images: Pictures; see `update`.

        Returns:
            Mean in MOS points, a float32 tensor without axes.
        """
        mean, count = self._score(images)
        self._add(mean.detach(), count)
        return mean

    def _score(self, images: Any) -> tuple[torch.Tensor, int]:
        """Return the mean score of some pictures, and their number."""
        check_model(*self._scorer)
        pictures = list(split_pictures(images))
        if not pictures:
            raise ValueError("At least one picture is needed, got an empty list.")
        wanted = any(isinstance(picture, torch.Tensor) and picture.requires_grad for picture in pictures)
        with torch.set_grad_enabled(wanted and torch.is_grad_enabled()):
            starts = range(0, len(pictures), self.batch_size)
            scores = [self._score_batch(pictures[start : start + self.batch_size], start) for start in starts]
        return torch.cat(scores).mean(), len(pictures)

    def _add(self, mean: torch.Tensor, count: int) -> None:
        """Take the mean of more pictures into that of all; a sum of very many would lose digits."""
        self._count += count
        before = self._mean.to(mean.device)
        self._mean = before + (mean - before) * (count / self._count)

    def _score_batch(self, pictures: Sequence[Any], first: int) -> torch.Tensor:
        """Score one batch, whose first picture has the number `first`."""
        model, processor = self._scorer
        features = _cut_pictures(pictures, processor, clamp=self.clamp, first=first)
        return run_model(model, processor, features).scores

    def compute(self) -> torch.Tensor:
        """Return the mean score of all pictures since the start or the last `reset`.

        Where `torch.distributed` is initialised, the mean is that of the pictures of all processes, each of which must
        call this. Gradients flow to the pictures of the own process.

        Returns:
            Mean in MOS points, a float32 tensor without axes.

        Raises:
            ValueError: If there is no picture.
        """
        is_shared, count = distributed.is_available() and distributed.is_initialized(), self._count
        if is_shared:
            total = torch.tensor(count, device=self._mean.device)
            distributed.all_reduce(total)
            count = int(total)
        if not count:
            raise ValueError("There is no picture to average over. Call `update` first.")
        if not is_shared:
            return self._mean
        own = self._mean * (self._count / count)
        everyone = own.detach().clone()
        distributed.all_reduce(everyone)
        return own + (everyone - own.detach())

    def reset(self) -> None:
        """Forget all pictures."""
        self._mean, self._count = torch.zeros((), device=self.device), 0

    def clone(self) -> Self:
        """Return a copy with a model of its own."""
        return copy.deepcopy(self)

    def _apply(self, fn: Callable[..., torch.Tensor], recurse: bool = True) -> Self:
        """Move model and mean with the module; nothing else of what `fn` changes is taken over."""
        super()._apply(fn, recurse)
        device = fn(torch.zeros((), device=self.device)).device
        self._scorer[0].to(device)
        self._mean = self._mean.to(device)
        return self

    # Buffers would be simpler, but DDP copies those of the first process to all others.
    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}mean"] = self._mean if keep_vars else self._mean.detach()
        destination[f"{prefix}count"] = torch.tensor(self._count)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if {f"{prefix}mean", f"{prefix}count"} <= state_dict.keys():
            self._mean = state_dict.pop(f"{prefix}mean").to(self.device, copy=True)
            self._count = int(state_dict.pop(f"{prefix}count"))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mean": self._mean.detach()}
