# SPDX-License-Identifier: Apache-2.0
"""`ClassifierImageProcessor` turns pictures into squares of one size, as image classifiers read them.

Resizing is that of Pillow on bytes, as in the image processors of Transformers that use Pillow.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, Self, TypedDict

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature
from transformers.utils import TensorType

from .backbones_classifier import read_settings
from .checks_classifier import shorten
from .configuration_classifier import DEFAULT_SIDE, LARGEST_SIDE, ClassifierConfig
from .settings_classifier import PixelProcessor, check_sizes

LARGEST_RATIO = 100  # of the longer by the shorter side; a thinner picture would be resized to any size
TOKEN_SIZE = 32  # pixels; a unit of cost, whatever a network makes of the square
Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]


class ClassifierImageProcessorKwargs(TypedDict, total=False):
    """Settings of `ClassifierImageProcessor`; its docstring describes them."""

    image_size: int
    square_mode: Literal["stretch", "crop"]
    resized_side: int | None
    resample: Filter
    image_mean: list[float | int] | tuple[float | int, ...]
    image_std: list[float | int] | tuple[float | int, ...]
    do_convert_rgb: bool
    input_data_format: Literal["channels_first", "channels_last"] | None


class ClassifierImageProcessor(PixelProcessor, BaseImageProcessor):
    """Image processor that turns pictures of any sizes into squares for an image classifier.

    It takes PIL images in RGB or gray, arrays and tensors, one or many. uint8 is 0..255, float is 0..1 and is rounded
    to bytes. The openers of `musiq_hf` bring all other pictures to that form.

    Args:
        image_size: Side of the squares, in pixels.
        square_mode: "stretch" brings a picture to the square whatever its aspect ratio. "crop" resizes it to a shorter
            side and reads the centre.
        resized_side: Shorter side of a picture before its centre is cut out, in pixels; None = `image_size`. Only
            "crop" reads it.
        resample: Filter of Pillow, "nearest", "box", "bilinear", "hamming", "bicubic" or "lanczos".
        image_mean: Means of the three channels, of values in [0, 1].
        image_std: Standard deviations of the three channels.
        do_convert_rgb: Whether gray pictures are converted; if not, they raise.
        input_data_format: "channels_first" or "channels_last" for arrays and tensors; None infers it.

    Raises:
        ValueError: If settings contradict each other, or a picture cannot be used; the message names its size.
    """

    valid_kwargs = ClassifierImageProcessorKwargs
    model_input_names = ["pixel_values"]

    image_size = DEFAULT_SIDE
    square_mode = "stretch"
    resized_side = None
    resample = "bilinear"
    image_mean = (0.485, 0.456, 0.406)
    image_std = (0.229, 0.224, 0.225)
    do_convert_rgb = True
    input_data_format = None

    def check_settings(self) -> None:
        check_sizes(vars(self), {"image_size": LARGEST_SIDE, "resized_side": LARGEST_SIDE})
        if self.resized_side is not None and self.square_mode == "stretch":
            raise ValueError(
                f'`resized_side={self.resized_side}` has no effect on `square_mode="stretch"`. Leave it out, or '
                'choose "crop".'
            )
        if self.resized_side is not None and self.resized_side < self.image_size:
            raise ValueError(
                f"`resized_side` must be at least `image_size`, got {self.resized_side} and {self.image_size}."
            )
        for name in ("image_mean", "image_std"):
            values = getattr(self, name)
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise ValueError(f"`{name}` must be three finite numbers, got {shorten(values)}.")
        if min(self.image_std) <= 0:
            raise ValueError(f"`image_std` must be positive, got {self.image_std}.")

    @classmethod
    def from_config(cls, config: ClassifierConfig, **settings: Any) -> Self:
        """Make a processor whose squares have the size that a configuration says."""
        return cls(**{"image_size": config.side} | settings)

    @classmethod
    def from_backbone(cls, source: Any, config: ClassifierConfig, **settings: Any) -> Self:
        """Make a processor that normalises and resizes as the one that a network was trained with.

        Args:
            source: Id on the Hub or folder of the network; anything else names no settings, and defaults hold.
            config: Configuration of the model, which says the size.
            **settings: Settings that go before those of the source.
        """
        return cls.from_config(config, **{**read_settings(source), **settings})

    def check_config(self, config: Any) -> None:
        """Raise a ValueError if a `ClassifierConfig` says another size than this processor."""
        if self.image_size != config.side:
            raise ValueError(
                f"Model and image processor must agree: the network reads squares of {config.side} pixels, but "
                f"`image_size` is {self.image_size}. Build the processor with "
                "`ClassifierImageProcessor.from_config(model.config)`."
            )

    def signature_fields(self) -> dict[str, Any]:
        """Return the settings that decide what a model sees of a picture."""
        return {name: getattr(self, name) for name in self.valid_kwargs.__annotations__}

    def resized_size(self, height: int, width: int, *, margin: int = 0) -> tuple[int, int]:
        """Return height and width of a picture of this size after `resize`, in pixels.

        Args:
            height: Height of the picture, in pixels.
            width: Width of the picture, in pixels.
            margin: Pixels by which the shorter side becomes larger than usual.

        Raises:
            ValueError: If the picture is empty, or more than 100 times as long as it is wide.
        """
        short, long = min(height, width), max(height, width)
        if short < 1 or long > LARGEST_RATIO * short:
            raise ValueError(
                f"The longer side may be at most {LARGEST_RATIO} times the shorter one, got {width} x {height} "
                "pixels. Crop the picture."
            )
        side = (self.resized_side or self.image_size) + margin
        longer = side if self.square_mode == "stretch" else int(side * long / short)
        return (longer, side) if height > width else (side, longer)

    def cut(
        self, pixels: torch.Tensor, *, margin: int = 0, corner: tuple[int, int] | None = None
    ) -> dict[str, torch.Tensor]:
        """Turn one picture into its square.

        Args:
            pixels: Shape (height, width, 3), uint8, or float in [0, 1], without a gradient.
            margin: Pixels by which the picture is resized larger than usual, so that a part of it is read.
            corner: Top and left of the square on the resized picture, in pixels; None = the square in the centre.

        Returns:
            `pixel_values` (3, image_size, image_size), float32, on the device of the pixels.

        Raises:
            ValueError: If the picture is too thin, the square lies outside of it, or the pixels carry a gradient.
        """
        if pixels.requires_grad:
            raise ValueError(
                "Pictures are resized by Pillow here, through which no gradient passes. Pass `pixels.detach()`."
            )
        self.check_colour(pixels)
        if pixels.dtype != torch.uint8:
            pixels = (pixels * 255).round().clamp(0, 255).to(torch.uint8)
        height, width = self.resized_size(*pixels.shape[:2], margin=margin)
        resized = self._resize(pixels.cpu().numpy(), height, width)
        side = self.image_size
        top, left = ((height - side) // 2, (width - side) // 2) if corner is None else corner
        if not (0 <= top <= height - side and 0 <= left <= width - side):
            raise ValueError(
                f"`corner` must leave room for {side} pixels on {width} x {height}, got top {top} and left {left}."
            )
        square = torch.from_numpy(resized[top : top + side, left : left + side]).permute(2, 0, 1)
        values = square.to(pixels.device, torch.float32).div_(255)
        mean, std = (values.new_tensor(numbers).view(3, 1, 1) for numbers in (self.image_mean, self.image_std))
        return {"pixel_values": values.sub_(mean).div_(std)}

    def _resize(self, pixels: np.ndarray, height: int, width: int) -> np.ndarray:
        image = Image.fromarray(np.ascontiguousarray(pixels))
        return np.array(image.resize((width, height), Image.Resampling[self.resample.upper()]))

    def num_tokens(self, feature: dict[str, torch.Tensor]) -> int:
        """Return the cost of a square, in tiles of 32 x 32 pixels, those that begin counted whole."""
        side: int = feature["pixel_values"].shape[-1]
        return (-(-side // TOKEN_SIZE)) ** 2

    def count_tokens(self, height: int, width: int) -> int:
        """Return the cost of a picture of this size, in pixels, which is the same for every size.

        Raises:
            ValueError: If the picture is too thin.
        """
        self.resized_size(height, width)
        return (-(-self.image_size // TOKEN_SIZE)) ** 2

    def pad(
        self, features: Sequence[dict[str, torch.Tensor]], *, padding: str | None = None, max_length: int | None = None
    ) -> BatchFeature:
        """Batch features, which all have one size, so that there is nothing to pad.

        Args:
            features: Features of the pictures, as `cut` gives them.
            padding: "longest" or "max_length", which are the same here; None = "longest".
            max_length: Tokens that a feature may have at most; None = no limit.

        Raises:
            ValueError: If sizes differ, a feature is longer than `max_length`, or the padding is unknown.
        """
        if padding not in (None, "longest", "max_length"):
            raise ValueError(f'`padding` must be "longest" or "max_length", got {padding!r}.')
        squares = [feature["pixel_values"] for feature in features]
        if len({square.shape for square in squares}) != 1:
            raise ValueError(
                f"Pictures of one batch must have one size, got {sorted({tuple(square.shape) for square in squares})}."
            )
        longest = self.num_tokens(features[0])
        if max_length is not None and longest > max_length:
            raise ValueError(f"`max_length` must be at least the {longest} tokens of a picture, got {max_length}.")
        return BatchFeature(data={"pixel_values": torch.stack(squares)})

    def __call__(self, images: Any, *, return_tensors: str | TensorType | None = None) -> BatchFeature:
        """Turn one picture or many into squares; see `preprocess`."""
        return self.preprocess(images, return_tensors=return_tensors)

    def preprocess(self, images: Any, *, return_tensors: str | TensorType | None = None) -> BatchFeature:
        """Turn one picture or many into squares.

        Args:
            images: Picture, batch array, or lists of them; the docstring of the class says of which kinds.
            return_tensors: "pt" or "np"; None = "pt".

        Returns:
            `pixel_values` (batch_size, 3, image_size, image_size), float32.

        Raises:
            ValueError: If a picture cannot be used.
        """
        return self.cut_and_pad(images, return_tensors=return_tensors)


__all__ = ["ClassifierImageProcessor"]
