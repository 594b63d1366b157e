# SPDX-License-Identifier: Apache-2.0
"""`LodaImageProcessor` shrinks or enlarges a picture to one shorter side and cuts square crops of it.

Resizing is that of Pillow on bytes, as in the published code; other antialiased filters differ by up to 3 levels. The
published code draws its test crops at random, so its scores change from run to run. Here they follow a formula.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, Self, TypedDict

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature
from transformers.utils import TensorType

from .checks_loda import shorten
from .configuration_loda import LodaConfig
from .settings_loda import PixelProcessor, check_sizes

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
LARGEST_RATIO = 100  # of the longer by the shorter side; a thinner picture would be resized to any size
LARGEST = {"shorter_side": 2**13, "crop_size": 2**13, "patch_size": 2**10, "num_crops": 2**12}


def radical_inverse(number: int, base: int) -> tuple[int, int]:
    """Return numerator and denominator of the radical inverse of a number, its digits mirrored at the point."""
    numerator, denominator = 0, 1
    while number:
        number, digit = divmod(number, base)
        numerator, denominator = numerator * base + digit, denominator * base
    return numerator, denominator


class LodaImageProcessorKwargs(TypedDict, total=False):
    """Settings of `LodaImageProcessor`; its docstring describes them."""

    shorter_side: int
    crop_size: int
    patch_size: int
    num_crops: int
    resample: Literal["bilinear", "bicubic"]
    image_mean: list[float | int] | tuple[float | int, ...]
    image_std: list[float | int] | tuple[float | int, ...]
    do_convert_rgb: bool
    input_data_format: Literal["channels_first", "channels_last"] | None


class LodaImageProcessor(PixelProcessor, BaseImageProcessor):
    """Image processor that turns pictures of any sizes into square crops for a LoDa model.

    It takes PIL images in RGB or gray, arrays and tensors, one or many. uint8 is 0..255, float is 0..1 and is rounded
    to bytes. The openers of `musiq_hf` bring all other pictures to that form.

    Args:
        shorter_side: Shorter side to which a picture is resized, in pixels.
        crop_size: Side of a crop, in pixels, which is the `image_size` of the vision Transformer.
        patch_size: Side of a patch of the vision Transformer, in pixels; it counts tokens and changes no score.
        num_crops: Crops of a picture; more crops add to those of a smaller number.
        resample: Filter of Pillow, "bilinear" or "bicubic".
        image_mean: Means of the three channels, of values in [0, 1].
        image_std: Standard deviations of the three channels.
        do_convert_rgb: Whether gray pictures are converted; if not, they raise.
        input_data_format: "channels_first" or "channels_last" for arrays and tensors; None infers it.

    Raises:
        ValueError: If settings contradict each other, or a picture cannot be used; the message names its size.
    """

    valid_kwargs = LodaImageProcessorKwargs
    model_input_names = ["pixel_values"]

    shorter_side = 384
    crop_size = 224
    patch_size = 16
    num_crops = 15
    resample = "bilinear"
    image_mean = (0.485, 0.456, 0.406)
    image_std = (0.229, 0.224, 0.225)
    do_convert_rgb = True
    input_data_format = None

    def check_settings(self) -> None:
        check_sizes(vars(self), LARGEST)
        if self.shorter_side < self.crop_size:
            raise ValueError(
                f"`shorter_side` must be at least `crop_size`, got {self.shorter_side} and {self.crop_size}."
            )
        for name in ("image_mean", "image_std"):
            values = getattr(self, name)
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise ValueError(f"`{name}` must be three finite numbers, got {shorten(values)}.")
        if min(self.image_std) <= 0:
            raise ValueError(f"`image_std` must be positive, got {self.image_std}.")

    @classmethod
    def from_config(cls, config: LodaConfig, **settings: Any) -> Self:
        """Make a processor that agrees with a configuration; the shorter side is 12 / 7 of a crop's, as published."""
        size = config.image_size
        return cls(**{"crop_size": size, "patch_size": config.patch_size, "shorter_side": size * 12 // 7} | settings)

    def check_config(self, config: Any) -> None:
        """Raise a ValueError if a `LodaConfig` disagrees with this processor on the size of a crop or a patch."""
        pairs = {"crop_size": ("image_size", config.image_size), "patch_size": ("patch_size", config.patch_size)}
        for name, (field, value) in pairs.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"Model and image processor must agree: `{field}` of the vision Transformer is {value}, but "
                    f"`{name}` is {getattr(self, name)}. Build the processor with "
                    "`LodaImageProcessor.from_config(model.config)`."
                )

    def signature_fields(self) -> dict[str, Any]:
        """Return the settings that decide what a model sees of a picture."""
        return {name: getattr(self, name) for name in self.valid_kwargs.__annotations__.keys() - {"patch_size"}}

    def resized_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of a picture of this size after `resize`, in pixels.

        Raises:
            ValueError: If the picture is empty, or more than 100 times as long as it is wide.
        """
        short, long = min(height, width), max(height, width)
        if short < 1 or long > LARGEST_RATIO * short:
            raise ValueError(
                f"The longer side may be at most {LARGEST_RATIO} times the shorter one, got {width} x {height} "
                "pixels. Crop the picture."
            )
        longer = int(self.shorter_side * long / short)
        return (longer, self.shorter_side) if height > width else (self.shorter_side, longer)

    def resize(self, pixels: np.ndarray) -> np.ndarray:
        """Resize a picture, uint8 (height, width, 3), to the shorter side, by Pillow's filter, up or down."""
        height, width = self.resized_size(*pixels.shape[:2])
        image = Image.fromarray(np.ascontiguousarray(pixels))
        return np.array(image.resize((width, height), FILTERS[self.resample]))

    def crop_corners(self, height: int, width: int) -> torch.Tensor:
        """Return top and left of each crop of a resized picture of this size, int64 (num_crops, 2).

        They are a Halton sequence in the bases 2 and 3, in exact arithmetic, so they spread over the picture.

        Raises:
            ValueError: If the picture is smaller than a crop.
        """
        rooms = (height - self.crop_size + 1, width - self.crop_size + 1)
        if min(rooms) < 1:
            raise ValueError(f"A crop of {self.crop_size} pixels does not fit into {width} x {height} pixels.")
        numbers = range(1, self.num_crops + 1)
        places = [[radical_inverse(number, base) for base in (2, 3)] for number in numbers]
        return torch.tensor(
            [[part * room // whole for (part, whole), room in zip(place, rooms, strict=True)] for place in places]
        )

    def cut(self, pixels: torch.Tensor, *, crop_corners: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Turn one picture into its crops.

        Args:
            pixels: Shape (height, width, 3), uint8, or float in [0, 1], without a gradient.
            crop_corners: Top and left of each crop on the resized picture, int64 (num_crops, 2); None = those of the
                method `crop_corners`.

        Returns:
            `pixel_values` (num_crops, 3, crop_size, crop_size), float32, on the device of the pixels.

        Raises:
            ValueError: If the picture is too thin, a crop lies outside of it, or the pixels carry a gradient.
        """
        if pixels.requires_grad:
            raise ValueError(
                "A LoDa picture is resized by Pillow, through which no gradient passes. Pass `pixels.detach()`."
            )
        self.check_colour(pixels)
        if pixels.dtype != torch.uint8:
            pixels = (pixels * 255).round().clamp(0, 255).to(torch.uint8)
        resized = torch.from_numpy(self.resize(pixels.cpu().numpy())).permute(2, 0, 1)
        height, width = resized.shape[1:]
        corners = self.crop_corners(height, width) if crop_corners is None else torch.as_tensor(crop_corners)
        self._check_corners(corners, height, width)
        size = self.crop_size
        crops = [resized[:, top : top + size, left : left + size] for top, left in corners.tolist()]
        values = torch.stack(crops).to(pixels.device, torch.float32).div_(255)
        mean, std = (values.new_tensor(numbers).view(3, 1, 1) for numbers in (self.image_mean, self.image_std))
        return {"pixel_values": values.sub_(mean).div_(std)}

    def _check_corners(self, corners: torch.Tensor, height: int, width: int) -> None:
        if corners.dim() != 2 or corners.shape[1] != 2 or not len(corners) or corners.is_floating_point():
            raise ValueError(
                f"`crop_corners` must be whole numbers of shape (num_crops, 2), got {tuple(corners.shape)} of "
                f"{corners.dtype}."
            )
        most = torch.tensor([height - self.crop_size, width - self.crop_size])
        if bool((corners < 0).any() | (corners > most).any()):
            raise ValueError(
                f"`crop_corners` must lie between 0 and {most.tolist()}, so that crops lie within {width} x {height} "
                f"pixels, got {shorten(corners.tolist())}."
            )

    @property
    def tokens_per_crop(self) -> int:
        """Tokens of the vision Transformer for one crop, CLS and patches."""
        return 1 + (self.crop_size // self.patch_size) ** 2

    def num_tokens(self, feature: dict[str, torch.Tensor]) -> int:
        """Return the tokens of all crops of a feature."""
        return len(feature["pixel_values"]) * self.tokens_per_crop

    def count_tokens(self, height: int, width: int) -> int:
        """Return the tokens of a picture of this size, in pixels, which are the same for every size.

        Raises:
            ValueError: If the picture is too thin.
        """
        self.resized_size(height, width)
        return self.num_crops * self.tokens_per_crop

    def pad(
        self, features: Sequence[dict[str, torch.Tensor]], *, padding: str | None = None, max_length: int | None = None
    ) -> BatchFeature:
        """Batch features, which all have one length, so that there is nothing to pad.

        Args:
            features: Features of the pictures, as `cut` gives them, with one number of crops.
            padding: "longest" or "max_length", which are the same here; None = "longest".
            max_length: Tokens that a feature may have at most; None = no limit.

        Raises:
            ValueError: If numbers of crops differ, a feature is longer than `max_length`, or the padding is unknown.
        """
        if padding not in (None, "longest", "max_length"):
            raise ValueError(f'`padding` must be "longest" or "max_length", got {padding!r}.')
        counts = {len(feature["pixel_values"]) for feature in features}
        if len(counts) != 1:
            raise ValueError(f"Pictures of one batch must have one number of crops, got {sorted(counts)}.")
        longest = self.num_tokens(features[0])
        if max_length is not None and longest > max_length:
            raise ValueError(f"`max_length` must be at least the {longest} tokens of a picture, got {max_length}.")
        return BatchFeature(data={"pixel_values": torch.stack([feature["pixel_values"] for feature in features])})

    def __call__(
        self, images: Any, *, crop_corners: Any = None, return_tensors: str | TensorType | None = None
    ) -> BatchFeature:
        """Turn one picture or many into crops; see `preprocess`."""
        return self.preprocess(images, crop_corners=crop_corners, return_tensors=return_tensors)

    def preprocess(
        self, images: Any, *, crop_corners: Any = None, return_tensors: str | TensorType | None = None
    ) -> BatchFeature:
        """Turn one picture or many into crops.

        Args:
            images: Picture, batch array, or lists of them; the docstring of the class says of which kinds.
            crop_corners: Top and left of each crop on the resized picture, (num_crops, 2), for every picture; None =
                those of the method `crop_corners`.
            return_tensors: "pt" or "np"; None = "pt".

        Returns:
            `pixel_values` (batch_size, num_crops, 3, crop_size, crop_size), float32.

        Raises:
            ValueError: If a picture cannot be used.
        """
        return self.cut_and_pad(images, return_tensors=return_tensors, crop_corners=crop_corners)


__all__ = ["LodaImageProcessor"]
