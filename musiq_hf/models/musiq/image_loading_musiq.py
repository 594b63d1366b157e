# SPDX-License-Identifier: Apache-2.0
"""Pixels from files, PIL images and arrays, by one policy for all of them, so that they get the same score.

EXIF orientation is applied to files and to PIL images that still carry it. Gray is repeated, and alpha is composited
on white. CMYK, palette and other colour modes become RGB. 16-bit gray pictures keep their 16 bits; Pillow opens 16-bit
colour files with 8. Only the first frame or page of a file is read. The released code reads 8-bit RGB files only and
ignores EXIF orientation.
"""

import base64
import binascii
import os
import struct
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import torch
from huggingface_hub.utils import httpx
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

CHANNEL_COUNTS = (1, 2, 3, 4)  # gray, gray and alpha, RGB, RGBA
ARRAY_DTYPES = ("uint8", "uint16", "float16", "float32", "float64")
URL_PREFIXES = ("http://", "https://")
WRONG_DTYPE = "pixels must be uint8 (0..255), uint16 (0..65535) or float (0..1)"


def _turn_upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; a picture without one, or with damaged EXIF data, is taken as it is."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, ValueError, KeyError, TypeError, OSError, struct.error):
        return image
    return ImageOps.exif_transpose(image) if orientation in range(2, 9) else image


def decode_image(file: str | os.PathLike[str] | BytesIO, name: str, *, upright: bool = True) -> Image.Image:
    """Decode a file whole.

    Args:
        file: Path or bytes of the file.
        name: Name of the picture in error messages.
        upright: Whether the EXIF orientation is applied.

    Raises:
        ValueError: If the file cannot be decoded.
    """
    try:
        with Image.open(file) as opened:
            opened.load()
            image = (_turn_upright(opened) if upright else opened).copy()  # free of the file, which is closed here
    except UnidentifiedImageError as error:
        raise ValueError(f"{name}: not a picture that Pillow can read. Convert it to PNG or JPEG.") from error
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{name}: more pixels than Pillow's safety limit allows ({error}). If you trust the file, raise "
            "`PIL.Image.MAX_IMAGE_PIXELS`."
        ) from error
    except (OSError, SyntaxError, EOFError, ValueError) as error:
        raise ValueError(f"{name}: cannot be decoded, the file is truncated or damaged ({error}).") from error
    image.filename = name  # type: ignore[attr-defined]  # later error messages name the picture by it
    return image


def download(url: str, *, timeout: float | None = None) -> BytesIO:
    """Download the bytes of an http(s) URL.

    Args:
        url: Address of the file.
        timeout: Seconds to wait; None waits forever.

    Raises:
        ValueError: If the file cannot be downloaded; the message names the URL.
    """
    try:
        response = httpx.get(url, timeout=timeout, follow_redirects=True).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ValueError(f"{url}: cannot be downloaded ({error}).") from error
    return BytesIO(response.content)


def load_image(
    source: str | os.PathLike[str] | Image.Image,
    *,
    timeout: float | None = None,
    decode: Callable[[str | BytesIO, str], Image.Image] = decode_image,
    upright: bool = True,
) -> Image.Image:
    """Open a picture, upright, in its own colour mode.

    Args:
        source: Path, http(s) URL, base64 text (with or without a `data:` header), or a PIL image.
        timeout: Seconds to wait for a URL; None waits forever.
        decode: Function from a path or bytes, and a name for them, to a picture.
        upright: Whether to apply the EXIF orientation of a PIL image; for other sources `decode` decides that.

    Returns:
        A decoded PIL image.

    Raises:
        FileNotFoundError: If a text is no file, no URL and no base64.
        ValueError: If the picture cannot be decoded; the message names the file.
        TypeError: If `source` is something else.
    """
    if isinstance(source, Image.Image):
        return _load_pil(source, upright=upright)
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"A picture must be a path, URL, base64 text or PIL image, got {type(source).__name__}.")
    name = os.fspath(source)
    if name.startswith(URL_PREFIXES):
        return decode(download(name, timeout=timeout), name)
    if os.path.isdir(name):
        raise ValueError(f"{name}: is a directory. Pass the pictures in it, one by one or as a list.")
    return decode(name, name) if os.path.exists(name) else _load_base64(name, decode)


def _load_pil(image: Image.Image, *, upright: bool) -> Image.Image:
    """Decode a PIL image, and apply its EXIF orientation if asked to."""
    try:
        image.load()
        return _turn_upright(image) if upright else image
    except OSError as error:  # Pillow opens lazily, so a damaged file shows only here
        raise ValueError(f"{_get_pil_name(image)}: cannot be decoded, truncated or damaged ({error}).") from error


def _load_base64(text: str, decode: Callable[[str | BytesIO, str], Image.Image]) -> Image.Image:
    """Decode a picture from base64 text, with or without a `data:` header."""
    has_header = text.startswith("data:image/")
    body = text.split(",", 1)[1] if has_header and "," in text else text
    try:
        content = base64.b64decode("".join(body.split()), validate=True)
        return decode(BytesIO(content), "base64 picture")
    except (binascii.Error, ValueError) as error:
        if has_header:
            raise ValueError("The base64 text is not a picture. Check that it was copied whole.") from error
        shown = text if len(text) <= 200 else text[:200] + "..."
        raise FileNotFoundError(f"{shown}: no such file, and neither a URL nor a base64 picture.") from None


def _get_pil_name(image: Image.Image) -> str:
    return getattr(image, "filename", "") or "PIL image"


def describe(image: Any) -> str:
    """Return file name and size of a picture for error messages, as far as they are known."""
    if isinstance(image, Image.Image):
        name = getattr(image, "filename", "")
        return f"{name}, {image.width}x{image.height} pixels" if name else f"{image.width}x{image.height} pixels"
    if isinstance(image, np.ndarray | torch.Tensor):
        return f"array of shape {tuple(image.shape)}"
    return os.fspath(image)[:200] if isinstance(image, str | os.PathLike) else type(image).__name__


def _read_pil_pixels(image: Image.Image) -> np.ndarray:
    """Read the pixels of a PIL image, (height, width) or (height, width, channels), in one of the supported dtypes."""
    image = load_image(image)
    if image.mode.startswith("I;16"):
        return np.array(image).astype(np.uint16)  # also converts big-endian pixels
    if image.mode == "I":  # 16-bit pictures in a 32-bit container
        pixels = np.array(image)
        if pixels.size and (pixels.min() < 0 or pixels.max() > 65535):
            raise ValueError(
                f"32-bit integer pixels must lie in 0..65535, got {pixels.min()}..{pixels.max()}. Scale them first."
            )
        return pixels.astype(np.uint16)
    if image.mode == "F":
        return np.array(image)
    if image.has_transparency_data:
        return np.array(image.convert("RGBA"))
    return np.array(image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB"))


def _make_tensor(array: np.ndarray) -> torch.Tensor:
    if array.dtype.name not in ARRAY_DTYPES:
        raise ValueError(f"{WRONG_DTYPE}, got {array.dtype}.")
    # Tensors cannot be in foreign byte order, reversed or read-only; only arrays that are so are copied.
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _order_channels_last(pixels: torch.Tensor, input_data_format: str | None, *, default: str) -> torch.Tensor:
    """View pixels of shape (height, width), HWC or CHW as HWC; if both layouts fit, `default` is taken."""
    if pixels.dim() == 2:
        return pixels[..., None]
    if pixels.dim() != 3:
        raise ValueError(f"a picture must have 2 or 3 dimensions, got shape {tuple(pixels.shape)}.")
    fits = {"channels_first": pixels.shape[0] in CHANNEL_COUNTS, "channels_last": pixels.shape[2] in CHANNEL_COUNTS}
    if not any(fits.values()):
        raise ValueError(f"a picture must have 1 to 4 channels, first or last, got shape {tuple(pixels.shape)}.")
    layout = input_data_format
    if layout is None:
        layout = default if fits[default] else next(name for name, fit in fits.items() if fit)
    if not fits[layout]:
        raise ValueError(f"`input_data_format={layout!r}` does not fit shape {tuple(pixels.shape)}: 1 to 4 channels.")
    return pixels.permute(1, 2, 0) if layout == "channels_first" else pixels


def _scale_to_unit_range(pixels: torch.Tensor) -> torch.Tensor:
    """Scale pixels to float32 in [0, 1]: uint8 is 0..255, uint16 is 0..65535, and floats must lie in 0..1 already."""
    if pixels.dtype == torch.uint8:
        return pixels.to(torch.float32) / 255
    if pixels.dtype == torch.uint16:
        return pixels.to(torch.float32) / 65535
    if not pixels.is_floating_point():
        raise ValueError(f"{WRONG_DTYPE}, got {pixels.dtype}.")
    low, high = pixels.detach().aminmax()
    if not (torch.isfinite(low) and torch.isfinite(high)):
        raise ValueError("float pixels must be finite, got NaN or infinite values. Clean the picture first.")
    if low < 0 or high > 1:
        raise ValueError(
            f"float pixels must lie in 0..1, got {low.item():.4g}..{high.item():.4g}. Divide or clip them."
        )
    return pixels.to(torch.float32, copy=True)


def to_rgb_tensor(
    image: Image.Image | np.ndarray | torch.Tensor,
    *,
    input_data_format: str | None = None,
    do_convert_rgb: bool = True,
    keep_uint8: bool = False,
) -> torch.Tensor:
    """Return the pixels of one picture as RGB; for float tensors the result is differentiable.

    Args:
        image: PIL image, array, or tensor on any device, where it stays. uint8 is 0..255, uint16 0..65535, float 0..1.
        input_data_format: "channels_first" or "channels_last". None infers it: one side must be 1 to 4 channels. If
            both fit, arrays are read as height, width, channels and tensors as channels, height, width.
        do_convert_rgb: Whether gray is repeated and alpha composited on white; if not, only RGB pictures are accepted.
        keep_uint8: Whether uint8 pixels without alpha stay uint8. They take a quarter of the memory, and may share it
            with `image`.

    Returns:
        float32, shape (height, width, 3), in [0, 1], or uint8 in 0..255.

    Raises:
        ValueError: If the picture is empty, its shape or dtype is wrong, or a value is outside of its range.
    """
    default = "channels_first" if isinstance(image, torch.Tensor) else "channels_last"
    if isinstance(image, Image.Image):
        image = _read_pil_pixels(image)
        input_data_format = None  # a PIL image has no layout to choose
    raw = image if isinstance(image, torch.Tensor) else _make_tensor(image)
    if raw.numel() == 0:
        raise ValueError(f"the picture is empty, shape {tuple(raw.shape)}.")
    pixels = _order_channels_last(raw, input_data_format, default=default)
    channels = pixels.shape[-1]
    if not (keep_uint8 and pixels.dtype == torch.uint8 and channels in (1, 3)):
        pixels = _scale_to_unit_range(pixels)
    if channels != 3 and not do_convert_rgb:
        raise ValueError(f"an RGB picture was expected, got {channels} channels. Set `do_convert_rgb=True`.")
    if channels in (2, 4):
        colour, alpha = pixels[..., :-1], pixels[..., -1:]
        pixels = colour * alpha + (1 - alpha)
    return pixels.expand(-1, -1, 3) if pixels.shape[-1] == 1 else pixels
