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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from huggingface_hub.utils import httpx
from PIL import ExifTags, Image

from .image_formats_musiq import (
    POSTSCRIPT,
    URL_PREFIXES,
    LargePictureError,
    PixelRangeError,
    RefusedPictureError,
    SizeCheck,
    accept_size,
    check_developed,
    drop_texts,
    is_broken_off,
    keep_sixteen_bits,
    open_file,
    reopen,
)

Answer = TypeVar("Answer")
CHANNEL_COUNTS = (1, 2, 3, 4)  # gray, gray and alpha, RGB, RGBA
ARRAY_DTYPES = ("uint8", "uint16", "float16", "float32", "float64")
TURNS: dict[Any, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by EXIF orientation
LOADING = Lock()  # held where a PIL image reads its file: several threads may have been given the same one
ROUNDING = 1e-6  # beyond 0..1, which arithmetic in float32 leaves behind; it is clipped
WRONG_DTYPE = "pixels must be uint8 (0..255), uint16 (0..65535) or float (0..1)"


@contextmanager
def _name_failures(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises into a ValueError that names the picture: damaged files provoke errors of all kinds.

    Args:
        name: Name of the picture.
    """
    try:
        yield
    except RefusedPictureError:
        raise
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{name}: more pixels than Pillow's safety limit allows ({error}). If you trust the file, raise "
            "`PIL.Image.MAX_IMAGE_PIXELS`."
        ) from error
    except PermissionError as error:
        raise ValueError(f"{name}: may not be read. Change the permissions of the file, or leave it out.") from error
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{name}: cannot be decoded, the file is truncated or damaged ({reason}).") from error


def _read_orientation(image: Image.Image) -> Any:
    """Read the EXIF orientation of a picture; 1, upright, if it has none or its EXIF data are damaged."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF data provoke errors of all kinds
        return 1


def _turn_upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; a picture without one, or with damaged EXIF data, is taken as it is.

    What else the EXIF data say is dropped from a turned picture; its colour profile stays. `ImageOps.exif_transpose`
    would write them again, which fails for values that Pillow reads and cannot write.
    """
    turn = TURNS.get(_read_orientation(image))
    return image if turn is None else drop_orientation(image.transpose(turn))


def drop_orientation(image: Image.Image) -> Image.Image:
    """Return a copy of a picture without the entries that say how to turn it."""
    plain = image.copy()
    plain.info = {key: value for key, value in image.info.items() if key in ("transparency", "icc_profile")}
    plain.filename = getattr(image, "filename", "")  # type: ignore[attr-defined]  # error messages name it
    return plain


class Header(NamedTuple):
    """Head of a picture file: what is known before its pixels are decoded.

    Attributes:
        format: Name of the format, as Pillow has it.
        mode: Colour mode, as Pillow has it.
        size: Width and height, in pixels, not turned upright.
        is_turned: Whether the EXIF orientation turns it by a quarter.
    """

    format: str | None
    mode: str
    size: tuple[int, int]
    is_turned: bool


def _read_file(
    file: str | os.PathLike[str] | BytesIO,
    name: str,
    read: Callable[[Image.Image], Answer],
    check_size: SizeCheck = accept_size,
) -> Answer:
    """Open a picture file, and return what a function reads of it; a PNG file also if Pillow refuses its texts.

    Args:
        file: Path or bytes of the file.
        name: Name of the picture in error messages.
        read: Function of the opened picture.
        check_size: Check of its size, before it is read.

    Raises:
        ValueError: If the file cannot be read.
    """
    with _name_failures(name):
        try:
            with open_file(file, name) as opened:
                check_size(opened.size, name)
                return read(opened)
        except RefusedPictureError:
            raise
        except ValueError:  # what Pillow raises for texts that are large, not for damage of pixels
            content = file.getvalue() if isinstance(file, BytesIO) else Path(file).read_bytes()
            plain = drop_texts(content)
            if plain is None:
                raise
            with open_file(plain, name) as opened:
                check_size(opened.size, name)
                return read(opened)


def _read_opened_header(opened: Image.Image) -> Header:
    return Header(opened.format, opened.mode, opened.size, _read_orientation(opened) in range(5, 9))


def read_header(file: str | os.PathLike[str] | BytesIO, name: str, *, check_size: SizeCheck = accept_size) -> Header:
    """Read the head of a picture file, and leave bytes at their start.

    Args:
        file: Path or bytes of the file.
        name: Name of the picture in error messages.
        check_size: Check of its size, which raises for a picture that is not wanted.

    Raises:
        ValueError: If the file is no picture, or its head is damaged.
    """
    header = _read_file(file, name, _read_opened_header, check_size)
    if isinstance(file, BytesIO):
        file.seek(0)
    return header


def decode_image(
    file: str | os.PathLike[str] | BytesIO,
    name: str,
    *,
    upright: bool = True,
    check_size: SizeCheck = accept_size,
) -> Image.Image:
    """Decode a file whole.

    Args:
        file: Path or bytes of the file.
        name: Name of the picture in error messages.
        upright: Whether the EXIF orientation is applied.
        check_size: Check of its size before it is decoded, which raises for a picture that is not wanted.

    Raises:
        ValueError: If the file cannot be decoded.
    """

    def read(opened: Image.Image) -> Image.Image:
        opened.load()
        opened = keep_sixteen_bits(opened)
        return (_turn_upright(opened) if upright else opened).copy()  # free of the file, which is closed then

    image = _read_file(file, name, read, check_size)
    image.filename = name  # type: ignore[attr-defined]  # later error messages name the picture by it
    return image


def download(url: str, *, name: str | None = None, timeout: float | None = None) -> BytesIO:
    """Download the bytes of an http(s) URL.

    Args:
        url: Address of the file.
        name: Name of the picture in error messages; None takes the address.
        timeout: Seconds to wait; None waits forever.

    Raises:
        ValueError: If the file cannot be downloaded; the message names the picture.
    """
    try:
        response = httpx.get(url, timeout=timeout, follow_redirects=True).raise_for_status()
    except Exception as error:  # addresses that cannot be written down provoke errors of other kinds too
        raise ValueError(f"{name or url}: cannot be downloaded ({error}).") from error
    return BytesIO(response.content)


def read_bytes(source: Any) -> bytes | None:
    """Return the bytes of a picture in memory, or of an open file from its start; None for any other source.

    Raises:
        TypeError: If a file was opened as text.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if not (hasattr(source, "read") and hasattr(source, "seekable")):
        return None
    if source.seekable():
        source.seek(0)
    content = source.read()
    if not isinstance(content, bytes):
        raise TypeError(f"A picture file must be opened in binary mode, got one that reads {type(content).__name__}.")
    return content


def load_image(
    source: Any,
    *,
    name: str | None = None,
    timeout: float | None = None,
    decode: Callable[..., Image.Image] = decode_image,
    upright: bool = True,
    check_size: SizeCheck = accept_size,
) -> Image.Image:
    """Open a picture, upright, in its own colour mode.

    Args:
        source: Path, http(s) URL, base64 text (with or without a `data:` header), bytes of a file, file opened in
            binary mode (`BytesIO`, say), or PIL image.
        name: Name of the picture in error messages; None takes that of its file.
        timeout: Seconds to wait for a URL; None waits forever.
        decode: Function like `decode_image`, from a path or bytes, and a name for them, to a picture.
        upright: Whether to apply the EXIF orientation of a PIL image; for other sources `decode` decides that.
        check_size: Check of its size before it is decoded, which raises for a picture that is not wanted.

    Returns:
        A decoded PIL image.

    Raises:
        FileNotFoundError: If a text is no file, no URL and no base64.
        ValueError: If the picture cannot be decoded; the message names the file.
        TypeError: If `source` is something else.
    """
    if isinstance(source, Image.Image):
        return _load_pil(source, name or _get_pil_name(source), upright=upright, check_size=check_size)
    if (content := read_bytes(source)) is not None:
        return decode(BytesIO(content), name or _name_file(source), check_size=check_size)
    if not isinstance(source, str | os.PathLike):
        kind = type(source).__name__
        raise TypeError(f"A picture must be a path, URL, base64 text, bytes, binary file or PIL image, got {kind}.")
    path = os.fspath(source)
    shown = name or path
    if path.startswith(URL_PREFIXES):
        return decode(download(path, name=shown, timeout=timeout), shown, check_size=check_size)
    if os.path.isdir(path):
        raise ValueError(f"{shown}: is a directory. Pass the pictures in it, one by one or as a list.")
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{shown}: not a regular file.")
    if os.path.exists(path):
        return decode(path, shown, check_size=check_size)
    return _load_base64(path, name, partial(decode, check_size=check_size))


def _name_file(source: Any) -> str:
    """Return the name of an open file for error messages; what is in memory has none."""
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "picture in memory"


def _load_pil(image: Any, name: str, *, upright: bool, check_size: SizeCheck) -> Image.Image:
    """Decode a PIL image, and apply its EXIF orientation if asked to."""
    with LOADING, _name_failures(name):  # Pillow opens lazily, so a damaged file shows only here
        if image.format == "EPS" and getattr(image, "tile", None):  # decoding it would start Ghostscript
            raise RefusedPictureError(f"{name}: {POSTSCRIPT}.")
        check_developed(image, name)
        check_size(image.size, name)
        if not is_broken_off(image):
            _load_whole(image)
        if is_broken_off(image):
            return decode_image(reopen(image), name, upright=upright)
        image = keep_sixteen_bits(image)
        return _turn_upright(image) if upright else image


def _load_whole(image: Any) -> None:
    """Load a PIL image, if it is whole up to the end of its pixels; see `is_broken_off` for what follows them.

    One that fails does so each time. Without that, Pillow would take what it has got for the whole.
    """
    tiles = list(getattr(image, "tile", ()))
    try:
        image.load()
    except Exception:
        if not is_broken_off(image):
            image.tile = tiles
            raise


def _load_base64(text: str, name: str | None, decode: Callable[..., Image.Image]) -> Image.Image:
    """Decode a picture from base64 text, with or without a `data:` header."""
    has_header = text.startswith("data:image/")
    body = text.split(",", 1)[1] if has_header and "," in text else text
    try:
        content = base64.b64decode("".join(body.split()), validate=True)
        return decode(BytesIO(content), name or "base64 picture")
    except LargePictureError:
        raise
    except (binascii.Error, ValueError) as error:
        if has_header:
            raise ValueError("The base64 text is not a picture. Check that it was copied whole.") from error
        shown = name or (text if len(text) <= 200 else text[:200] + "...")
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


def to_plain_mode(image: Image.Image) -> Image.Image:
    """Convert a PIL image to a mode whose pixels can be averaged: L, RGB, RGBA, I;16 or F.

    Transparency of any kind becomes the alpha of RGBA. In 16-bit gray, which has no alpha, it becomes white.

    Returns:
        The picture, upright. One that has such a mode already is not copied.

    Raises:
        ValueError: If the picture cannot be decoded or converted, or has 32-bit integers, whose range is unknown.
    """
    image = load_image(image)
    if image.mode == "F":
        return image
    if image.mode.startswith("I"):
        plain = Image.fromarray(_read_sixteen_bits(image))
    else:
        with _name_failures(_get_pil_name(image)):
            plain = _to_eight_bits(image)
    plain.filename = getattr(image, "filename", "")  # type: ignore[attr-defined]  # error messages name it
    return plain


def _read_sixteen_bits(image: Image.Image) -> np.ndarray:
    """Read gray pixels of 16 bits in any byte order, as uint16 (height, width)."""
    if image.mode == "I":  # its 255 may be white, or nearly black
        raise ValueError("32-bit integer pixels have no known range. Scale them to uint16, 0..65535, first.")
    gray = np.array(image).astype(np.uint16)
    if "transparency" in image.info:
        gray[gray == image.info["transparency"]] = 65535
    return gray


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Convert a picture of any mode with 8 bits to L, RGB or RGBA."""
    if image.mode == "La":  # Pillow converts it to this mode only
        image = image.convert("LA")
    if not image.has_transparency_data:
        return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")
    key = image.info.get("transparency")
    if image.mode in ("1", "L", "RGB") and (scaled := _scale_key(image, key)) != key:
        image = image.copy()
        image.info["transparency"] = scaled
    return image.convert("RGBA")


def _scale_key(image: Image.Image, key: Any) -> Any:
    """Return the transparent colour in the 8 bits of the pixels; Pillow leaves it in the bits of a PNG file.

    Gray of 2 or 4 bits is known by its values, which are multiples of 85 or 17. A key of so few bits is none of these
    but 0.
    """
    if image.mode == "1":
        return 255 if key else 0  # Pillow 11 leaves the key of one bit too
    if image.mode == "RGB":
        return tuple(value >> 8 for value in key) if max(key) > 255 else key
    present = [value for value, count in enumerate(image.histogram()) if count]
    for factor in (85, 17):
        if key in range(255 // factor + 1) and not any(value % factor for value in present):
            return key * factor
    return key


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
    """Scale pixels to float32 in [0, 1]: uint8 is 0..255, uint16 is 0..65535, and floats must lie there already."""
    if pixels.dtype == torch.uint8:
        return pixels.to(torch.float32) / 255
    if pixels.dtype == torch.uint16:
        return pixels.to(torch.float32) / 65535
    if not pixels.is_floating_point():
        raise ValueError(f"{WRONG_DTYPE}, got {pixels.dtype}.")
    low, high = pixels.detach().aminmax()
    if not (torch.isfinite(low) and torch.isfinite(high)):
        raise ValueError("float pixels must be finite, got NaN or infinite values. Clean the picture first.")
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise PixelRangeError(f"float pixels must lie in 0..1, got {low:.7g}..{high:.7g}. Divide or clip them.")
    return (pixels if low >= 0 and high <= 1 else pixels.clamp(0, 1)).to(torch.float32, copy=True)


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
        image = np.array(to_plain_mode(image))
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
