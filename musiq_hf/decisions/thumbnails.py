# SPDX-License-Identifier: Apache-2.0
"""Small upright copies of pictures, and the times at which they were taken, without PyTorch."""

from contextlib import suppress
from datetime import datetime
from pathlib import Path

from PIL import ExifTags, Image, ImageOps

MAX_PIXELS = 200_000_000  # larger pictures are not decoded here
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
TIMES = (
    (ExifTags.Base.DateTimeOriginal, ExifTags.Base.SubsecTimeOriginal),
    (ExifTags.Base.DateTimeDigitized, ExifTags.Base.SubsecTimeDigitized),
)


class PictureError(ValueError):
    """Failure to read a picture; the message does not name it."""


def open_small(path: str, side: int) -> Image.Image:
    """Decode a picture to a small one in RGB, upright; JPEG files are decoded at a fraction of their size.

    Args:
        path: File.
        side: Longest side of the result, in pixels.

    Raises:
        PictureError: If it cannot be read, for any reason.
    """
    try:
        with _open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise PictureError(f"it has more than {MAX_PIXELS / 1e6:g} megapixels")
            image.draft("RGB", (2 * side, 2 * side))
            image.thumbnail((2 * side, 2 * side), Image.Resampling.BOX, reducing_gap=None)
            upright = ImageOps.exif_transpose(_to_rgb(image))
    except PictureError:
        raise
    except Exception as error:  # damaged files provoke errors of all kinds
        raise PictureError(f"it cannot be shown ({type(error).__name__})") from error
    upright.thumbnail((side, side), Image.Resampling.LANCZOS)
    return upright


def read_time(path: str) -> datetime | None:
    """Return when a photograph was taken, by its EXIF data; None if they do not say or it cannot be read."""
    try:
        with _open(path) as image:
            part = image.getexif().get_ifd(ExifTags.IFD.Exif)
    except Exception:  # damaged files provoke errors of all kinds; the picture itself is read later
        return None
    for name, fraction in TIMES:
        with suppress(KeyError, ValueError, TypeError):
            taken = datetime.strptime(str(part[name]).strip("\0 "), "%Y:%m:%d %H:%M:%S")
            digits = str(part.get(fraction, "")).strip("\0 ")
            micro = int(digits.ljust(6, "0")[:6]) if digits.isascii() and digits.isdigit() else 0
            return taken.replace(microsecond=micro)
    return None


def _open(path: str) -> Image.Image:
    if Path(path).suffix.lower() in HEIF_SUFFIXES:
        from pillow_heif import register_heif_opener

        register_heif_opener()
    return Image.open(path)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return 8 bits of each channel; of 16 bits the upper ones, as Pillow would clip them."""
    if image.mode.startswith("I"):
        image = image.convert("I").point(lambda level: level / 256).convert("L")
    return image if image.mode == "RGB" else image.convert("RGBA").convert("RGB")
