# SPDX-License-Identifier: Apache-2.0
"""Enlargement of pictures by a model for super-resolution of any scale, or by a filter of Pillow for comparison."""

import os
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image

from ..common.checks import check_choice
from ..common.devices import find_device
from ..common.enlargement import MAX_MEGAPIXELS, METHODS, MSIT, Target, is_length
from ..models.auto import UPSCALER_CHECKPOINT
from ..pictures.enlarging import FILTERS, enlarge_by_model
from ..pictures.opening import check_megapixels, open_picture, resize_picture, to_plain_mode
from ..scoring.loading import load_enlarging

Method = Literal["msit", "bicubic", "lanczos"]
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
    model, processor = load_enlarging(os.fspath(name))
    return Upscaler(model.to(find_device(str(device))), processor, os.fspath(name))


def upscale_picture(
    picture: Any,
    *,
    scale: float | None = None,
    size: tuple[int, int] | None = None,
    longer_side: int | None = None,
    model: str | os.PathLike[str] | Upscaler | None = None,
    method: Method = "msit",
    tile_size: int | None = None,
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
        tile_size: Side of a tile of the model, in pixels of the picture; None = 192. Smaller tiles take less memory
            and more time.

    Raises:
        ValueError: If the picture cannot be read or converted, or a side would shrink or become too long. Also if
            the checkpoint enlarges no pictures, or a filter is given a model or tiles.
        FileNotFoundError: If there is no such file.
        TypeError: If `picture` is something else.
    """
    target = Target(scale=scale, size=size, longer_side=longer_side)
    check_method(method, model=model, tile_size=tile_size)
    upscaler = None
    if method == MSIT:
        upscaler = model if isinstance(model, Upscaler) else load_upscaler(model or UPSCALER_CHECKPOINT)
    return enlarge(open_picture(picture, check_size=check_size), target, upscaler or method, tile_size=tile_size)


def check_method(method: str, **of_models: Any) -> None:
    """Raise a ValueError if there is no such method, or it cannot use what it is given.

    Args:
        method: Name of the method.
        **of_models: Arguments that models alone use, by their names; None = not given.
    """
    check_choice("method", method, METHODS)
    for name, value in of_models.items():
        if value is not None and method != MSIT:
            raise ValueError(f"`{name}` is for the method {MSIT!r}, got {method!r} with it. Leave one out.")
    tile_size = of_models.get("tile_size")
    if tile_size is not None and not is_length(tile_size):
        raise ValueError(f"`tile_size` must be a whole number of pixels from 1, got {tile_size!r}.")


def check_size(size: tuple[int, int], name: str) -> None:
    """Raise a ValueError if a picture of this width and height, in pixels, is too large for any result."""
    check_megapixels(size, name, max_megapixels=MAX_MEGAPIXELS, advice="Cut it into parts.")


def enlarge(
    picture: Image.Image, target: Target, method: Upscaler | str, *, tile_size: int | None = None
) -> Image.Image:
    """Enlarge a picture that is opened; see `upscale_picture`.

    Args:
        picture: Picture, upright.
        target: Size to enlarge it to.
        method: Model, or the name of a filter.
        tile_size: Side of a tile of a model, in pixels of the picture; None = 192.

    Raises:
        ValueError: If the picture cannot be converted, or its new size is out of range.
    """
    size = target.find_size(picture.size, getattr(picture, "filename", "") or "PIL image")
    if size == picture.size:
        large = to_plain_mode(picture).copy()  # a network would change what needs no change
    elif isinstance(method, Upscaler):
        large = enlarge_by_model(picture, size, method.model, method.processor, tile_size=tile_size)
    else:
        large = resize_picture(picture, size, FILTERS[method])
    profile = picture.info.get(PROFILE)
    if isinstance(profile, bytes) and profile[16:20] == COLOURS.get(large.mode):
        large.info[PROFILE] = profile
    else:
        large.info.pop(PROFILE, None)
    return large
