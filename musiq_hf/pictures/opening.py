# SPDX-License-Identifier: Apache-2.0
"""How picture files become pixels: by this package's own policy, or as the published program does it.

`default` is that of `image_loading_musiq`. `google` follows the published program (google-research/musiq,
run_predict_image.py with `tf.image.decode_jpeg`): pictures are not turned by their EXIF orientation (but TIFF files,
which Pillow turns), and colour JPEG files are decoded with the fast inverse cosine transform, by simplejpeg where it
is installed and can; the rest is Pillow's. What that program refuses, gray and transparent pictures, WebP, TIFF, BMP,
is accepted. CMYK pictures and JPEG files of rare subsampling are not exact.
"""

import os
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import PIL
from PIL import Image

from ..models.musiq.image_loading_musiq import (
    URL_PREFIXES,
    decode_image,
    describe,
    download,
    load_image,
    to_rgb_tensor,
)

# With what is made here, all that the package knows of opening: no other file imports `image_loading_musiq`.
__all__ = [
    "PRESETS",
    "URL_PREFIXES",
    "Preset",
    "check_preset",
    "decode_image",
    "decoder_name",
    "decoder_of",
    "describe",
    "download",
    "has_fast_decoder",
    "load_image",
    "open_picture",
    "shrink_shorter_side",
    "shrunk_size",
    "to_rgb_tensor",
]

Preset = Literal["default", "google"]
PRESETS: tuple[Preset, ...] = ("default", "google")
JPEG_FORMATS = ("JPEG", "MPO")  # the latter: several pictures in one file, of which the first is a JPEG


@cache
def _fast_decoder() -> Callable[..., Any] | None:
    """The decoder of simplejpeg; None where it is not installed."""
    try:
        from simplejpeg import decode_jpeg
    except ImportError:
        return None
    return decode_jpeg


def has_fast_decoder() -> bool:
    """Whether JPEG files can be decoded as the published program does."""
    return _fast_decoder() is not None


def decoder_name(preset: Preset) -> str:
    """Name and version of what decodes files, for signatures."""
    pillow = f"Pillow-{PIL.__version__}"
    if preset == "google" and has_fast_decoder():
        return f"simplejpeg-{version('simplejpeg')}+{pillow}"
    return pillow


def check_preset(preset: str) -> None:
    """Raise a ValueError if there is no such preset."""
    if preset not in PRESETS:
        raise ValueError(f"`preset` must be one of {', '.join(PRESETS)}, got {preset!r}.")


def decoder_of(preset: Preset) -> Callable[[str | BytesIO, str], Image.Image]:
    """What turns a path or bytes, and what to call them, into a picture; errors are those of `decode_image`."""
    return decode_image if preset == "default" else _decode_published


def open_picture(
    source: str | os.PathLike[str] | Image.Image | Mapping[str, Any] | None, preset: Preset = "default"
) -> Image.Image:
    """Open a picture by a preset.

    Args:
        source: What `load_image` takes, or an undecoded cell of a data set ({"bytes", "path"}). A PIL image has been
            decoded already, and a preset only decides whether it is turned.
        preset: How files become pixels.

    Returns:
        The picture, whose error messages name its file.

    Raises:
        ValueError: If the picture cannot be decoded, or a cell is empty.
        FileNotFoundError: As `load_image`.
        TypeError: As `load_image`.
    """
    decode = decoder_of(preset)
    if source is None or isinstance(source, Mapping):
        return _open_cell(source or {}, decode)
    if isinstance(source, Image.Image) and preset == "google":
        return _unturned(load_image(source, upright=False))
    return load_image(source, decode=decode)


def _open_cell(cell: Mapping[str, Any], decode: Callable[[str | BytesIO, str], Image.Image]) -> Image.Image:
    content, path = cell.get("bytes"), cell.get("path")
    if not (content or path):
        raise ValueError("A row has no picture. Leave it out, or give its file.")
    name = path or "picture in the data set"
    return decode(BytesIO(content) if content else name, name)


def _decode_published(file: str | BytesIO, name: str) -> Image.Image:
    """Decode a file as the published program does."""
    try:
        with Image.open(file) as opened:  # reads the header, and refuses decompression bombs
            is_fast = opened.format in JPEG_FORMATS and opened.mode == "RGB"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        is_fast = False  # `decode_image` says what is wrong
    if isinstance(file, BytesIO):
        file.seek(0)
    if is_fast:
        content = file.getvalue() if isinstance(file, BytesIO) else Path(file).read_bytes()
        pixels = _decode_fast(content)
        if pixels is not None:
            image = Image.fromarray(pixels)
            image.filename = name  # type: ignore[attr-defined]  # error messages further on name it
            return image
    return _unturned(decode_image(file, name, upright=False))


def _decode_fast(content: bytes) -> Any:
    """RGB pixels (height, width, 3) of a colour JPEG file by the fast inverse cosine transform; None if it cannot."""
    decode = _fast_decoder()
    if decode is None:
        return None
    try:
        return decode(content, colorspace="RGB", fastdct=True, strict=True)
    except ValueError:  # a warning, such as of stray bytes, a file cut short, or a rare kind
        pass
    try:
        decode_image(BytesIO(content), "")  # it refuses files that are cut short
        return decode(content, colorspace="RGB", fastdct=True, strict=False)
    except ValueError:
        return None


def _unturned(image: Image.Image) -> Image.Image:
    """The picture without what says how to turn it."""
    plain = image.copy()
    plain.info = {key: value for key, value in image.info.items() if key == "transparency"}
    plain.filename = getattr(image, "filename", "")  # type: ignore[attr-defined]
    return plain


def shrunk_size(size: tuple[int, int], length: int) -> tuple[int, int]:
    """Width and height after `shrink_shorter_side`."""
    shorter = min(size)
    if shorter <= length:
        return size
    width, height = (round(side * length / shorter) for side in size)
    return width, height


def shrink_shorter_side(image: Image.Image, length: int) -> Image.Image:
    """Shrink a picture to a shorter side of `length` pixels, antialiased; a smaller one stays as it is.

    The paper does so with SPAQ's photographs (section 4.1) and does not name the filter; this one is bicubic.
    """
    size = shrunk_size(image.size, length)
    if size == image.size:
        return image
    name = getattr(image, "filename", "")
    if image.mode in ("1", "P", "PA", "CMYK"):  # colours that cannot be averaged
        image = image.convert("RGBA" if image.mode != "CMYK" else "RGB")
    small = image.resize(size, Image.Resampling.BICUBIC)
    small.filename = name  # type: ignore[attr-defined]  # error messages name it
    return small
