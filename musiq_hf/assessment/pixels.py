# SPDX-License-Identifier: Apache-2.0
"""Pixels of pictures as they are measured: RGB from 0 to 255, and their luma."""

import os
from typing import Any

import numpy as np
from PIL import Image

from ..pictures.opening import MAX_MEGAPIXELS, check_megapixels, open_picture, to_rgb_tensor
from ..pictures.video import has_video_suffix

Picture = str | os.PathLike[str] | Image.Image | np.ndarray


def check_size(size: tuple[int, int], name: str) -> None:
    """Raise a ValueError if a picture of this width and height, in pixels, is too large to be measured."""
    check_megapixels(size, name, max_megapixels=MAX_MEGAPIXELS, advice="Shrink it first.")


def refuse_video(name: str) -> None:
    """Raise a ValueError if a name ends as those of videos do."""
    if has_video_suffix(name):
        raise ValueError(f"{name} is a video, and pictures are measured here. Videos go to `describe` and `compare`.")


def read_pixels(picture: Picture) -> np.ndarray:
    """Return the pixels of a picture.

    Args:
        picture: Path, PIL image, or uint8 array of shape (height, width) or (height, width, 3). Files are opened as
            for scoring: turned upright, with what is transparent on white. Pixels of 16 bits are scaled.

    Returns:
        float64, shape (height, width, 3), in 0..255. Gray is repeated.

    Raises:
        ValueError: If a file cannot be decoded, is larger than 35 megapixels or is a video, or an array has another
            dtype or shape.
        FileNotFoundError: If there is no such file.
    """
    opened: Any = picture
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8:
            raise ValueError(f"Pixels of arrays must be uint8, got {picture.dtype}. Round them to 0..255 first.")
        if picture.ndim != 2 and (picture.ndim != 3 or picture.shape[2] != 3):
            raise ValueError(
                f"An array must have the shape (height, width) or (height, width, 3), got {picture.shape}. Put its "
                "channels last, and leave alpha out."
            )
        opened = picture if picture.ndim == 3 else picture[..., None]
    else:
        if isinstance(picture, str | os.PathLike):
            refuse_video(os.fspath(picture))
        opened = open_picture(picture, check_size=check_size)
    pixels = to_rgb_tensor(opened, input_data_format="channels_last", keep_uint8=True).numpy()
    return pixels.astype(np.float64) * (1.0 if pixels.dtype == np.uint8 else 255.0)
