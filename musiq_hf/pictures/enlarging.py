# SPDX-License-Identifier: Apache-2.0
"""Enlargement of one picture that is opened, by a filter of Pillow or by a model for super-resolution."""

from typing import Any

from PIL import Image

from .opening import to_plain_mode

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}


def enlarge_by_model(
    picture: Image.Image, size: tuple[int, int], model: Any, processor: Any, *, tile_size: int | None = None
) -> Image.Image:
    """Enlarge a picture by a model for super-resolution.

    Args:
        picture: Picture of any mode, which is turned upright.
        size: Width and height of the result, in pixels.
        model: Model in evaluation mode.
        processor: Processor that agrees with the model.
        tile_size: Side of a tile, in pixels of the picture; None = that of the model.

    Raises:
        ValueError: If the picture cannot be converted, or the model answers numbers that are not finite.
    """
    plain = to_plain_mode(picture)
    pixels = processor(plain)["pixel_values"].to(model.device)
    outputs = model.upscale(pixels, target_size=size[::-1], tile_size=tile_size)
    large: Image.Image = processor.post_process(outputs, [plain])[0]
    return large


__all__ = ["FILTERS", "enlarge_by_model"]
