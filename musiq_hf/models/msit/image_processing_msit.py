# SPDX-License-Identifier: Apache-2.0
"""`MsitImageProcessor` brings pictures to the network and its answers back, with transparency and 16 bits."""

from collections.abc import Sequence
from typing import Any, Literal, Self, TypedDict

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature
from transformers.utils import TensorType

from .configuration_msit import MsitConfig
from .settings_msit import PixelProcessor

BITS_8, BITS_16 = 2**8 - 1, 2**16 - 1
OPAQUE = {"RGBA": "RGB", "LA": "L"}  # modes without their alpha


class MsitImageProcessorKwargs(TypedDict, total=False):
    """Settings of `MsitImageProcessor`; its docstring describes them."""

    do_convert_rgb: bool
    input_data_format: Literal["channels_first", "channels_last"] | None


def has_16_bits(picture: Any) -> bool:
    """Return whether a picture is gray of 16 bits, or an array or tensor of uint16."""
    if isinstance(picture, Image.Image):
        return picture.mode.startswith("I;16")
    return getattr(picture, "dtype", None) in (np.uint16, torch.uint16)


def split_alpha(picture: Any) -> tuple[Any, Image.Image | None]:
    """Split a picture into its colours, in a form that all image processors read, and its alpha.

    Args:
        picture: Picture of any kind.

    Returns:
        The picture, without its alpha and as floats in [0, 1] if it has 16 bits, and the alpha (mode L) or None.

    Raises:
        ValueError: If its colour mode is none that is read.
    """
    if has_16_bits(picture):
        levels = picture if isinstance(picture, torch.Tensor) else np.asarray(picture).astype(np.float32)
        return levels / BITS_16, None
    if not isinstance(picture, Image.Image):
        return picture, None
    if picture.mode in OPAQUE:
        return picture.convert(OPAQUE[picture.mode]), picture.getchannel("A")
    if picture.mode not in ("RGB", "L"):
        # Pillow's conversion cuts off what exceeds 0..255, and makes black of 0..1.
        way = "Scale it to gray of 16 bits" if picture.mode in ("F", "I") else 'Convert it by `picture.convert("RGB")`'
        raise ValueError(
            "Pictures in RGB or gray are read, also transparent ones and gray of 16 bits, got mode "
            f"{picture.mode}. {way}."
        )
    return picture, None


class MsitImageProcessor(PixelProcessor, BaseImageProcessor):
    """Image processor that brings pictures to [-1, 1], and what the network answers back to pictures.

    It takes PIL images, arrays and tensors, one or many of one size. PIL images are RGB or gray, also with alpha, or
    gray of 16 bits. In arrays uint8 is 0..255, uint16 is 0..65535 and float is 0..1. Nothing is resized.

    Args:
        do_convert_rgb: Whether gray pictures are converted; if not, they raise.
        input_data_format: "channels_first" or "channels_last" for arrays and tensors; None infers it.

    Raises:
        ValueError: If a picture cannot be used.
    """

    valid_kwargs = MsitImageProcessorKwargs
    model_input_names = ["pixel_values"]

    do_convert_rgb = True
    input_data_format = None

    @classmethod
    def from_config(cls, config: MsitConfig, **settings: Any) -> Self:
        """Make a processor that agrees with a configuration, as every one does."""
        return cls(**settings)

    def check_config(self, config: Any) -> None:
        """Raise no error: a configuration has no setting of this processor."""

    def signature_fields(self) -> dict[str, Any]:
        """Return the settings that decide what a model sees of a picture."""
        return {name: getattr(self, name) for name in self.valid_kwargs.__annotations__}

    def to_pixels(self, picture: Any) -> torch.Tensor:
        """Bring the colours of one picture to (height, width, 3), uint8 or float.

        Raises:
            ValueError: If it is of another kind, colour mode, type, shape or range.
        """
        return super().to_pixels(split_alpha(picture)[0])

    def cut(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Bring one picture to [-1, 1].

        Args:
            pixels: Shape (height, width, 3), uint8, or float in [0, 1].

        Returns:
            `pixel_values` (3, height, width), float32, on the device of the pixels.

        Raises:
            ValueError: If the pixels are of another shape, type or range.
        """
        self.check_colour(pixels)
        half = BITS_8 / 2 if pixels.dtype == torch.uint8 else 0.5
        return {"pixel_values": pixels.permute(2, 0, 1).to(torch.float32) / half - 1}

    def pad(self, features: Sequence[dict[str, torch.Tensor]], *, padding: str | None = None) -> BatchFeature:
        """Batch pictures of one size.

        Args:
            features: Pictures, as `cut` gives them.
            padding: None, since nothing is padded.

        Raises:
            ValueError: If sizes differ, or a padding is given.
        """
        if padding is not None:
            raise ValueError(f"Pictures to upscale are not padded, so `padding` must be None, got {padding!r}.")
        sizes = sorted({tuple(feature["pixel_values"].shape[1:]) for feature in features})
        if len(sizes) > 1:
            shown = ", ".join(f"{width} x {height}" for height, width in sizes)
            raise ValueError(f"Pictures of one size make a batch, got {shown}. Upscale others one by one.")
        return BatchFeature(data={"pixel_values": torch.stack([feature["pixel_values"] for feature in features])})

    def __call__(self, images: Any, *, return_tensors: str | TensorType | None = None) -> BatchFeature:
        """Bring one picture or many of one size to [-1, 1]; see `preprocess`."""
        return self.preprocess(images, return_tensors=return_tensors)

    def preprocess(self, images: Any, *, return_tensors: str | TensorType | None = None) -> BatchFeature:
        """Bring one picture or many of one size to [-1, 1].

        Args:
            images: Picture, batch array, or lists of them; the docstring of the class says of which kinds.
            return_tensors: "pt" or "np"; None = "pt".

        Returns:
            `pixel_values`, float32 (batch_size, 3, height, width). Alpha is left out: `post_process` puts it back.

        Raises:
            ValueError: If a picture cannot be used, or sizes differ.
        """
        return self.cut_and_pad(images, return_tensors=return_tensors)

    def post_process(self, outputs: Any, images: Any = None) -> list[Any]:
        """Turn what the model answers into pictures.

        Args:
            outputs: Output of the model, for whole pictures.
            images: Pictures that were upscaled, one or many; None = RGB pictures of 8 bits.

        Returns:
            A PIL picture for each, in the form of the one that was upscaled. Gray stays gray, and 16 bits stay 16
            bits. Alpha is upscaled by Pillow's Lanczos filter. Colours of 16 bits are an array of uint16, shape
            (height, width, 3), since Pillow has no such pictures.

        Raises:
            ValueError: If the output is not one of whole pictures or not finite, or the numbers of pictures differ.
        """
        values = outputs["reconstruction"]
        if values is None or values.dim() != 4:
            raise ValueError(
                "The output of a model for whole pictures is needed, with a `reconstruction` of shape (batch_size, 3, "
                "height, width). Leave out `positions`."
            )
        if not values.isfinite().all():
            raise ValueError(
                "The model answered numbers that are not finite, which make no picture. Its weights may be damaged: "
                "fetch or convert the checkpoint again, or compute in float32 in place of float16."
            )
        originals = [None] * len(values) if images is None else list(self.list_pictures(images))
        if len(originals) != len(values):
            raise ValueError(f"As many pictures as answers are needed, {len(values)}, got {len(originals)}.")
        return [self._restore(one, original) for one, original in zip(values, originals, strict=True)]

    def _restore(self, values: torch.Tensor, original: Any) -> Any:
        """Give an answer, shape (3, height, width), the form of the picture that was upscaled."""
        colours, alpha = split_alpha(original) if original is not None else (None, None)
        most = BITS_16 if has_16_bits(original) else BITS_8
        levels = (values.detach().float().clamp(-1, 1) + 1) * (most / 2)
        is_gray = getattr(colours, "mode", "") == "L" or getattr(colours, "ndim", 3) == 2
        levels = levels.mean(dim=0) if is_gray else levels.permute(1, 2, 0)
        array = levels.round().cpu().numpy().astype(np.uint16 if most == BITS_16 else np.uint8)
        if most == BITS_16 and array.ndim == 3:
            return array
        picture = Image.fromarray(array)
        if alpha is not None:
            picture.putalpha(alpha.resize(picture.size, Image.Resampling.LANCZOS))
        return picture


__all__ = ["MsitImageProcessor"]
