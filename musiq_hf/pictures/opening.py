# SPDX-License-Identifier: Apache-2.0
"""Pixels of picture files, by this package's own policy or as the published program has them.

The preset `default` is the policy of `image_loading_musiq`. The preset `google` follows the published program
(google-research/musiq, run_predict_image.py with `tf.image.decode_jpeg`):

- Pictures are not turned by their EXIF orientation, except TIFF files, which Pillow turns.
- Colour JPEG files are decoded with the fast inverse cosine transform, by simplejpeg where it is installed and can do
  it. Pillow decodes all other files.
- Pictures that the program refuses are accepted, such as gray and transparent ones, WebP, TIFF and BMP.
- CMYK pictures and JPEG files of rare subsampling are not exact.
"""

import os
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL
from PIL import Image

from ..models.musiq.image_formats_musiq import (
    MAX_MEGAPIXELS,
    MAX_SHRUNK_MEGAPIXELS,
    PICTURE_SUFFIXES,
    URL_PREFIXES,
    PixelRangeError,
    SizeCheck,
    accept_size,
    check_limit,
    check_megapixels,
    check_tokens,
    choose_limit,
    find_suffix,
)
from ..models.musiq.image_loading_musiq import (
    decode_image,
    describe,
    download,
    drop_orientation,
    load_image,
    read_bytes,
    read_header,
    to_plain_mode,
    to_rgb_tensor,
)

# No other file of the package imports how pictures are opened, so those names are listed with what is made here.
__all__ = [
    "JPEG_FORMATS",
    "MAX_MEGAPIXELS",
    "MAX_SHRUNK_MEGAPIXELS",
    "PICTURE_SUFFIXES",
    "PRESETS",
    "URL_PREFIXES",
    "PixelRangeError",
    "Preset",
    "SizeCheck",
    "accept_size",
    "check_limit",
    "check_megapixels",
    "check_preset",
    "check_tokens",
    "choose_limit",
    "choose_decoder",
    "compute_shrunk_size",
    "decode_image",
    "describe",
    "describe_decoder",
    "download",
    "find_suffix",
    "has_fast_decoder",
    "load_image",
    "open_picture",
    "read_bytes",
    "read_header",
    "resize_picture",
    "resolve_cell",
    "shrink_shorter_side",
    "to_plain_mode",
    "to_rgb_tensor",
]

Preset = Literal["default", "google"]
PRESETS: tuple[Preset, ...] = ("default", "google")
JPEG_FORMATS = ("JPEG", "MPO")  # an MPO file holds several pictures, of which the first is a JPEG


@cache
def _import_fast_decoder() -> Callable[..., Any] | None:
    """Import the decoder of simplejpeg; None where it is not installed."""
    try:
        from simplejpeg import decode_jpeg
    except ImportError:
        return None
    return decode_jpeg


def has_fast_decoder() -> bool:
    """Return whether JPEG files can be decoded as the published program does."""
    return _import_fast_decoder() is not None


def describe_decoder(preset: Preset) -> str:
    """Return name and version of the libraries that decode files, for signatures."""
    pillow = f"Pillow-{PIL.__version__}"
    if preset == "google" and has_fast_decoder():
        return f"simplejpeg-{version('simplejpeg')}+{pillow}"
    return pillow


def check_preset(preset: str) -> None:
    """Raise a ValueError if there is no such preset."""
    if preset not in PRESETS:
        raise ValueError(f"`preset` must be one of {', '.join(PRESETS)}, got {preset!r}.")


def choose_decoder(preset: Preset) -> Callable[..., Image.Image]:
    """Return the function that decodes a path or bytes, with the arguments and errors of `decode_image`."""
    return decode_image if preset == "default" else _decode_published


def open_picture(
    source: Any,
    preset: Preset = "default",
    *,
    name: str | None = None,
    check_size: SizeCheck = accept_size,
) -> Image.Image:
    """Open a picture by a preset.

    Args:
        source: Path, http(s) URL, base64 text, bytes, binary file, PIL image, or undecoded cell of a data set
            ({"bytes", "path"}). A PIL image has been decoded already; the preset only decides whether it is turned.
        preset: Way in which files become pixels.
        name: Name of the picture in error messages; None takes that of its file.
        check_size: Function of width and height, and of a name, called before pixels are decoded. It raises for a
            picture that is not wanted.

    Returns:
        Picture in its own colour mode. It keeps the name of its file for error messages.

    Raises:
        ValueError: If the picture cannot be decoded, or a cell is empty.
        FileNotFoundError: If a text is neither a file, nor a URL, nor base64.
        TypeError: If `source` is something else.
    """
    decode = choose_decoder(preset)
    if source is None or isinstance(source, Mapping):
        return _open_cell(source, name, partial(decode, check_size=check_size))
    if isinstance(source, Image.Image) and preset == "google":
        return drop_orientation(load_image(source, name=name, upright=False, check_size=check_size))
    return load_image(source, name=name, decode=decode, check_size=check_size)


def resolve_cell(cell: Any, folder: str = "") -> BytesIO | str | None:
    """Return the bytes of a picture, or its path, from a cell of a table; None if the cell has neither.

    Args:
        cell: Bytes, a path, or a mapping of both as `datasets` writes it ({"bytes", "path"}), in which bytes come
            first. None and empty values count as missing.
        folder: Folder that a path starts from.
    """
    if isinstance(cell, Mapping):
        cell = cell.get("bytes") or cell.get("path")
    if not cell:
        return None
    return os.path.join(folder, cell) if isinstance(cell, str | os.PathLike) else BytesIO(cell)


def _open_cell(cell: Mapping[str, Any] | None, name: str | None, decode: Callable[..., Image.Image]) -> Image.Image:
    found = resolve_cell(cell)
    if cell is None or found is None:
        raise ValueError("A row has no picture. Leave it out, or give its file.")
    shown = name or cell.get("path") or "picture in the data set"
    if isinstance(found, str) and not os.path.exists(found):
        raise ValueError(f"{shown}: no such file.")
    return decode(found, shown)


def _decode_published(file: str | BytesIO, name: str, *, check_size: SizeCheck = accept_size) -> Image.Image:
    """Decode a file as the published program does."""
    header = read_header(file, name, check_size=check_size)  # it refuses decompression bombs
    if header.format in JPEG_FORMATS and header.mode == "RGB":
        content = file.getvalue() if isinstance(file, BytesIO) else Path(file).read_bytes()
        pixels = _decode_fast(content)
        if pixels is not None:
            image = Image.fromarray(pixels)
            image.filename = name  # type: ignore[attr-defined]  # later error messages name it
            return image
    return drop_orientation(decode_image(file, name, upright=False))


def _decode_fast(content: bytes) -> Any:
    """Decode a colour JPEG file by the fast inverse cosine transform.

    Returns:
        RGB pixels, shape (height, width, 3), uint8; None if simplejpeg is missing or cannot decode the file.
    """
    decode = _import_fast_decoder()
    if decode is None:
        return None
    try:
        return decode(content, colorspace="RGB", fastdct=True, strict=True)
    except Exception:  # strict decoding fails on warnings too: stray bytes, a file cut short, a rare kind
        pass
    try:
        decode_image(BytesIO(content), "")  # it raises for files that are cut short
        return decode(content, colorspace="RGB", fastdct=True, strict=False)
    except Exception:
        return None


def compute_shrunk_size(size: tuple[int, int], length: int) -> tuple[int, int]:
    """Return the width and height, in pixels, that `shrink_shorter_side` gives."""
    shorter = min(size)
    if shorter <= length:
        return size
    width, height = (round(side * length / shorter) for side in size)
    return width, height


def shrink_shorter_side(image: Image.Image, length: int) -> Image.Image:
    """Shrink a picture to a shorter side of `length` pixels, antialiased; a smaller one stays as it is.

    The paper does so with SPAQ's photographs (section 4.1) and does not name the filter; this one is bicubic.
    """
    image = load_image(image)
    size = compute_shrunk_size(image.size, length)
    return image if size == image.size else resize_picture(image, size, Image.Resampling.BICUBIC)


def resize_picture(image: Image.Image, size: tuple[int, int], method: Image.Resampling) -> Image.Image:
    """Resize a picture with a filter of Pillow, within the range of its values.

    Args:
        image: Picture, which is turned upright.
        size: Width and height of the result, in pixels.
        method: Filter.

    Returns:
        Picture in one of the modes of `to_plain_mode`.

    Raises:
        ValueError: If the picture cannot be decoded or converted.
    """
    plain = to_plain_mode(image)
    resized = plain.resize(size, method)
    if plain.mode == "F":  # bytes and 16 bits are clipped by Pillow
        resized = Image.fromarray(np.clip(np.array(resized), *plain.getextrema()))
    resized.filename = getattr(plain, "filename", "")  # type: ignore[attr-defined]  # error messages name it
    return resized
