# SPDX-License-Identifier: Apache-2.0
"""Enlargement of pictures by a model for super-resolution of any scale, or by a filter of Pillow for comparison."""

import os
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image

from ..common.checks import check_choice
from ..common.devices import find_device
from ..common.enlargement import MAX_MEGAPIXELS, METHODS, MSIT, Target
from ..models.auto import UPSCALER_CHECKPOINT
from ..pictures.opening import check_megapixels, open_picture, resize_picture, to_plain_mode
from ..scoring.loading import load_with_head

Method = Literal["msit", "bicubic", "lanczos"]
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}
TILE_SIZE = 192  # pixels of the picture along the side of a tile
PROFILE = "icc_profile"
# Kind of colours that the head of a profile names, by the modes of pictures that it can describe.
COLOURS = {"L": b"GRAY", "LA": b"GRAY", "I;16": b"GRAY", "RGB": b"RGB ", "RGBA": b"RGB "}


@dataclass(frozen=True)
class Upscaler:
    """Model for super-resolution that is loaded, as `load_upscaler` gives it.

    Attributes:
        model: Model in evaluation mode.
        processor: Processor that agrees with the model.
        name: Name of its checkpoint.
    """

    model: Any
    processor: Any
    name: str


def load_upscaler(
    name: str | os.PathLike[str] = UPSCALER_CHECKPOINT, *, device: str | torch.device = "cpu"
) -> Upscaler:
    """Load a model that enlarges pictures by any scale.

    Args:
        name: Directory, Hub id or name of an embedded checkpoint; without one the embedded upscaler is loaded.
        device: Device on which it computes; "auto" is a GPU if there is one.

    Raises:
        ValueError: If there is no such checkpoint, it is damaged or enlarges no pictures, or there is no such device.
    """
    model, processor = load_with_head(os.fspath(name))
    if model.config.model_type != MSIT:
        raise ValueError(
            f"{name} holds a {type(model).__name__}, which enlarges no pictures. Give a checkpoint of the family "
            f"{MSIT}, such as {UPSCALER_CHECKPOINT.name}."
        )
    return Upscaler(model.to(find_device(str(device))), processor, os.fspath(name))


def upscale_picture(
    picture: Any,
    *,
    scale: float | None = None,
    size: tuple[int, int] | None = None,
    longer_side: int | None = None,
    model: str | os.PathLike[str] | Upscaler | None = None,
    method: Method = "msit",
    tile_size: int = TILE_SIZE,
) -> Image.Image:
    """Enlarge a picture to any size.

    >>> upscale_picture("photo.jpg", scale=2.7).save("large.png")

    One of `scale`, `size` and `longer_side` says the size; at its own size a picture keeps its pixels. Transparency
    stays, gray of 16 bits keeps them, and so does a colour profile that fits the result. Pictures are turned upright.

    Args:
        picture: Path, http(s) URL, base64 text, bytes, binary file or PIL image.
        scale: Sides of the result over those of the picture, from 1 to 64.
        size: Width and height of the result, in pixels; the picture is stretched to it.
        longer_side: Longer side of the result, in pixels.
        model: Directory, Hub id or name of a checkpoint, or what `load_upscaler` gives; None loads the embedded one.
        method: "msit" for the model, "bicubic" or "lanczos" for a filter of Pillow.
        tile_size: Side of a tile, in pixels of the picture; smaller tiles take less memory and more time.

    Raises:
        ValueError: If the picture cannot be read or converted, or a side would shrink or become too long. Also if
            the checkpoint enlarges no pictures.
        FileNotFoundError: If there is no such file.
        TypeError: If `picture` is something else.
    """
    target = Target(scale=scale, size=size, longer_side=longer_side)
    check_method(method, model)
    upscaler = None
    if method == MSIT:
        upscaler = model if isinstance(model, Upscaler) else load_upscaler(model or UPSCALER_CHECKPOINT)
    return enlarge(open_picture(picture, check_size=check_size), target, upscaler or method, tile_size=tile_size)


def check_method(method: str, model: Any) -> None:
    """Raise a ValueError if there is no such method, or a filter is given a model."""
    check_choice("method", method, METHODS)
    if model is not None and method != MSIT:
        raise ValueError(f"`model` is for the method {MSIT!r}, got {method!r} with a model. Leave one out.")


def check_size(size: tuple[int, int], name: str) -> None:
    """Raise a ValueError if a picture of this width and height, in pixels, is too large for any result."""
    check_megapixels(size, name, max_megapixels=MAX_MEGAPIXELS, advice="Cut it into parts.")


def enlarge(
    picture: Image.Image, target: Target, method: Upscaler | str, *, tile_size: int = TILE_SIZE
) -> Image.Image:
    """Enlarge a picture that is opened; see `upscale_picture`.

    Args:
        picture: Picture, upright.
        target: Size to enlarge it to.
        method: Model, or the name of a filter.
        tile_size: Side of a tile, in pixels of the picture.

    Raises:
        ValueError: If the picture cannot be converted, or its new size is out of range.
    """
    size = target.find_size(picture.size, getattr(picture, "filename", "") or "PIL image")
    if size == picture.size:
        large = to_plain_mode(picture).copy()  # a network would change what needs no change
    elif isinstance(method, Upscaler):
        large = _enlarge_by_model(picture, size, method, tile_size)
    else:
        large = resize_picture(picture, size, FILTERS[method])
    profile = picture.info.get(PROFILE)
    if isinstance(profile, bytes) and profile[16:20] == COLOURS.get(large.mode):
        large.info[PROFILE] = profile
    else:
        large.info.pop(PROFILE, None)
    return large


def _enlarge_by_model(picture: Image.Image, size: tuple[int, int], upscaler: Upscaler, tile_size: int) -> Image.Image:
    """Enlarge a picture by a model to a width and height, in pixels."""
    plain = to_plain_mode(picture)
    inputs = upscaler.processor(plain)
    pixels = inputs["pixel_values"].to(upscaler.model.device)
    outputs = upscaler.model.upscale(pixels, target_size=size[::-1], tile_size=tile_size)
    (large,) = upscaler.processor.post_process(outputs, [plain])
    return large
