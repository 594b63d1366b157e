# SPDX-License-Identifier: Apache-2.0
"""Formats of picture files, sizes that are accepted, and the one door through which all files are opened.

The list has every raster format with an ending of its own that Pillow decodes by itself. Left out are:

- EPS and WMF, which Pillow hands to other programs, and IPTC, which opens anything that it holds.
- BUFR, GRIB, HDF5 and MPEG, of which Pillow reads no pixels.
- FITS, which holds measured data, GBR, which holds brushes, and PCD, of which Pillow reads a small copy only.
"""

import math
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from io import BytesIO
from numbers import Real
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile

SizeCheck = Callable[[tuple[int, int], str], None]  # function of width and height, and of a name, that raises or not
# The small embedded checkpoint takes under two minutes on two cores for as many. The time grows with their square.
MAX_MEGAPIXELS = 35.0
# Of models that shrink larger pictures, decoding alone needs memory, 15 bytes a pixel. Above it Pillow warns of bombs.
MAX_SHRUNK_MEGAPIXELS = 89.0
PIXELS_OF_TOKEN = 32**2  # of a patch of the published models, for which the limit in megapixels is meant
SPARE_TOKENS = 1.25  # for patches that a picture fills in part, and for resized copies
URL_PREFIXES = ("http://", "https://")
TGA = "TGA"  # has no mark of its own, so any file may look like one
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "PSD": (".psd",),
    "ICO": (".ico",),
    "CUR": (".cur",),
    "ICNS": (".icns",),
    "QOI": (".qoi",),
    "DDS": (".dds",),
    "BLP": (".blp",),
    "FTEX": (".ftc", ".ftu"),
    "SGI": (".sgi", ".rgb", ".rgba", ".bw"),
    "SUN": (".ras",),
    "PCX": (".pcx",),
    "DCX": (".dcx",),
    "FLI": (".fli", ".flc"),
    "IM": (".im",),
    "MSP": (".msp",),
    "PIXAR": (".pxr",),
    "XBM": (".xbm",),
    "XPM": (".xpm",),
    TGA: (".tga", ".icb", ".vda", ".vst"),
}  # endings by the names that Pillow gives the formats, in the order in which they are tried
HEIF_SUFFIXES = (".heic", ".heif", ".hif", ".heics", ".heifs")  # read where pillow-heif is installed
PICTURE_SUFFIXES = (*(suffix for suffixes in FORMATS.values() for suffix in suffixes), *HEIF_SUFFIXES)
RAW_SUFFIXES = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".k25", ".kdc", ".mef"),
    *(".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)
PNG_MARK = b"\x89PNG\r\n\x1a\n"
RAW = "a camera's RAW file, whose pixels are not developed yet. Develop it to TIFF, PNG or JPEG"
HEIF = 'a HEIF picture, which needs pillow-heif. Install it with: pip install "musiq_hf[heic]"'
JPEG_XL = "a JPEG XL picture, which Pillow does not read. Convert it to PNG or JPEG"
POSTSCRIPT = "a PostScript program, which is never run. Convert it to PNG or JPEG"
ARCHIVE = "a compressed archive, not a picture. Unpack it"
VIDEO = "a video, not a picture. Save the frames to score as PNG"
HTML = "a web page, not a picture. Open it in a browser: it may say why there is no picture"
SVG = "an SVG drawing, which has no pixels of its own. Draw it to PNG in the size that you want"
POINTER = "a pointer of Git LFS, not the picture. Run: git lfs pull"
DAMAGED = "a picture that is damaged or cut short. Copy or download it again"
EMPTY = "an empty file. Copy or download it again"
UNKNOWN = "not a picture that Pillow can read. Convert it to PNG or JPEG"
STRANGERS = {
    b"%!PS": POSTSCRIPT,
    b"\xc5\xd0\xd3\xc6": POSTSCRIPT,
    b"%PDF": "a PDF document, not a picture. Convert its pages to PNG",
    b"FUJIFILMCCD-RAW": RAW,
    b"IIRO": RAW,
    b"IIU\0": RAW,
    b"FOVb": RAW,
    b"\x1f\x8b": ARCHIVE,
    b"PK\x03\x04": ARCHIVE,
    b"Rar!": ARCHIVE,
    b"7z\xbc\xaf": ARCHIVE,
    b"\x1aE\xdf\xa3": VIDEO,
    b"\0\0\x01\xba": VIDEO,
    b"\xff\x0a": JPEG_XL,
    b"\0\0\0\x0cJXL ": JPEG_XL,
    b"version https://git-lfs": POINTER,
    **dict.fromkeys((b"\xff\xd8\xff", PNG_MARK, b"GIF8", b"II*\0", b"MM\0*", b"8BPS"), DAMAGED),
}  # what files that no format fits are, by their first bytes
TAGS = {b"svg": SVG, b"html": HTML, b"head": HTML, b"body": HTML}  # first tags of documents
# Behind declarations and comments; atomic groups never look back, so no file takes long.
FIRST_TAG = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*+(?:(?><\?.*?\?>|<!--.*?-->|<!doctype[^>\[]*+(?:\[.*?\])?\s*+>)\s*+)*+<(\w++)",
    re.IGNORECASE | re.DOTALL,
)
HEAD_BYTES = 4096  # of a file, to tell what it is; an SVG drawing may begin with comments
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# Tags of TIFF files.
NEW_SUBFILE_TYPE, COMPRESSION, MAKE, SUB_IFDS, DNG_VERSION = 254, 259, 271, 330, 50706
OLD_JPEG = 6  # value of COMPRESSION, which Canon's RAW files have and no TIFF file of a camera
REDUCED = 1  # bit of the first of them: a smaller copy of another picture of the file
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
TURNING_TEXTS = (b"XML:com.adobe.xmp", b"Raw profile type exif")  # keywords of texts that may hold an orientation
LONGEST_TEXT = 64 << 20  # bytes that such a text may have when it is unpacked


class RefusedPictureError(ValueError):
    """Error whose message names the picture, and says what was expected and what to do."""


class LargePictureError(RefusedPictureError):
    """Error of a picture with more pixels than a limit allows."""


class PixelRangeError(ValueError):
    """Error of float pixels outside of 0..1."""


def check_limit(max_megapixels: Any) -> None:
    """Raise a ValueError if a limit in megapixels is no number above 0; infinity is no limit, and None the default."""
    is_number = isinstance(max_megapixels, Real) and not isinstance(max_megapixels, bool)
    if max_megapixels is not None and not (is_number and max_megapixels > 0):
        raise ValueError(f"`max_megapixels` must be above 0, or inf for no limit, got {max_megapixels!r}.")


def choose_limit(max_megapixels: float | None, *processors: Any) -> float:
    """Return the limit in megapixels that holds for some image processors.

    Args:
        max_megapixels: Limit that the user gave. None: `MAX_SHRUNK_MEGAPIXELS` if larger pictures add no tokens, as
            with `max_native_side`, else `MAX_MEGAPIXELS`.
        *processors: Image processors that all read the picture.
    """
    if max_megapixels is not None:
        return max_megapixels
    side = math.isqrt(round(MAX_SHRUNK_MEGAPIXELS * 1e6))
    most = MAX_MEGAPIXELS * 1e6 / PIXELS_OF_TOKEN
    counts = [[one.count_tokens(factor * side, factor * side) for factor in (1, 2)] for one in processors]
    is_shrunk = all(count == larger <= most for count, larger in counts)
    return MAX_SHRUNK_MEGAPIXELS if is_shrunk else MAX_MEGAPIXELS


def check_megapixels(size: tuple[int, int], name: str, *, max_megapixels: float, advice: str) -> None:
    """Check the size of a picture before its pixels are decoded.

    Args:
        size: Width and height, in pixels.
        name: Name of the picture in the error message.
        max_megapixels: Largest number of pixels, in millions.
        advice: Sentence that says what to do.

    Raises:
        LargePictureError: If the picture is larger.
    """
    megapixels = size[0] * size[1] / 1e6
    if megapixels > max_megapixels:
        raise LargePictureError(
            f"{name}: {size[0]}x{size[1]} pixels are {megapixels:.4g} megapixels, and the limit is "
            f"{max_megapixels:.4g}. {advice}"
        )


def check_tokens(num_tokens: int, size: tuple[int, int], name: str, *, max_megapixels: float, advice: str) -> None:
    """Check the length of a picture in tokens, on which the time depends: small patches make many of few pixels.

    Args:
        num_tokens: Tokens of the picture.
        size: Width and height, in pixels.
        name: Name of the picture in the error message.
        max_megapixels: Limit, in millions of pixels cut into patches of 32. The default is the least that counts.
        advice: Sentence that says what to do.

    Raises:
        LargePictureError: If the picture has more tokens than one of so many megapixels.
    """
    limit = max(max_megapixels, MAX_MEGAPIXELS)
    megapixels = num_tokens * PIXELS_OF_TOKEN / 1e6
    if megapixels > limit * SPARE_TOKENS:
        raise LargePictureError(
            f"{name}: {size[0]}x{size[1]} pixels are {num_tokens:,} tokens of this model, as many as "
            f"{megapixels:.4g} megapixels have in patches of 32, and the limit is {limit:.4g}. {advice}"
        )


def accept_size(size: tuple[int, int], name: str) -> None:
    """Accept a picture of any size, as a `SizeCheck`."""


def find_suffix(name: str) -> str:
    """Return the ending of a file name or URL in lower case, with its dot."""
    path = urlsplit(name).path if name.startswith(URL_PREFIXES) else name
    return os.path.splitext(path)[1].lower()


@cache
def list_formats() -> tuple[str, ...]:
    """List the formats that are read, as Pillow names them: `FORMATS`, and HEIF if pillow-heif is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return tuple(FORMATS)
    register_heif_opener()
    return (*FORMATS, "HEIF")


def open_file(file: str | os.PathLike[str] | BytesIO, name: str) -> Image.Image:
    """Open a picture file of a known format, without decoding it. No file starts another program.

    Args:
        file: Path or bytes of the file.
        name: Name of the picture, whose ending may tell what its content does not.

    Raises:
        RefusedPictureError: If the file is no picture of a known format.
    """
    suffix = find_suffix(name)
    may_be_tga = suffix in FORMATS[TGA] or suffix not in (*PICTURE_SUFFIXES, *RAW_SUFFIXES)
    formats = [kind for kind in list_formats() if kind != TGA or may_be_tga]
    try:
        opened = Image.open(file, formats=formats)
    except UnidentifiedImageError as error:
        reason = _recognize(_read_head(file), suffix)
        raise RefusedPictureError(f"{name}: {reason}.") from error
    try:
        check_developed(opened, name)
    except RefusedPictureError:
        opened.close()
        raise
    return opened


def check_developed(opened: Any, name: str) -> None:
    """Raise a RefusedPictureError if an opened TIFF file is a camera's RAW file.

    Many of them are TIFF files, of which Pillow reads a small copy. Other formats are what they are, whatever their
    name.

    Args:
        opened: Picture, as Pillow has opened it.
        name: Name of the picture, whose ending may be one of RAW files.
    """
    if isinstance(opened, TiffImageFile) and (
        find_suffix(name) in RAW_SUFFIXES or _is_reduced(opened) or _read_opened_head(opened)[8:10] == b"CR"
    ):
        raise RefusedPictureError(f"{name}: {RAW}.")


def keep_sixteen_bits(image: Image.Image) -> Image.Image:
    """Return a decoded PGM picture of more than 8 bits with the 16 bits to which Pillow scales it; others stay.

    Pillow opens it with 32-bit integers, whose range a picture does not tell in any other format.
    """
    if not (isinstance(image, PpmImageFile) and image.mode == "I"):
        return image
    plain = Image.fromarray(np.array(image).astype(np.uint16))
    plain.filename = image.filename  # type: ignore[attr-defined]  # error messages name it
    return plain


def _read_head(file: str | os.PathLike[str] | BytesIO) -> bytes:
    if isinstance(file, BytesIO):
        return file.getvalue()[:HEAD_BYTES]
    with open(file, "rb") as opened:
        return opened.read(HEAD_BYTES)


def _read_opened_head(opened: Any) -> bytes:
    """Read the first bytes of a picture that Pillow has opened; nothing if its file is not at hand any more."""
    if opened.fp is None or getattr(opened.fp, "closed", False):
        return _read_head(opened.filename) if os.path.isfile(opened.filename) else b""
    place = opened.fp.tell()
    opened.fp.seek(0)
    head: bytes = opened.fp.read(16)
    opened.fp.seek(place)
    return head


def _recognize(head: bytes, suffix: str) -> str:
    """Say what a file is that no format fits, and what to do; its content tells more than its ending."""
    found = _recognize_content(head)
    if found is not None:
        return found
    if suffix in HEIF_SUFFIXES and "HEIF" not in list_formats():
        return HEIF
    return RAW if suffix in RAW_SUFFIXES else UNKNOWN


def _recognize_content(head: bytes) -> str | None:
    """Say what a file is by its first bytes; None if they do not tell it."""
    if not head:
        return EMPTY
    if head[4:8] == b"ftyp":
        return _recognize_brand(head[8:12])
    if head[:4] == b"RIFF":
        return DAMAGED if head[8:12] == b"WEBP" else VIDEO
    known = (reason for mark, reason in STRANGERS.items() if head.startswith(mark))
    tag = FIRST_TAG.match(head)
    return next(known, None) or (None if tag is None else TAGS.get(tag[1].lower()))


def _recognize_brand(brand: bytes) -> str:
    """Say what a file of the family of MP4 is."""
    if brand in HEIF_BRANDS:
        return DAMAGED if "HEIF" in list_formats() else HEIF
    if brand == b"crx ":
        return RAW
    return DAMAGED if brand in (b"avif", b"avis") else VIDEO


def _is_reduced(opened: Any) -> bool:
    """Return whether a TIFF file is a DNG, or its first picture is a smaller copy of one that Pillow does not read."""
    tags = opened.tag_v2
    kind, maker = tags.get(NEW_SUBFILE_TYPE, 0), tags.get(MAKE, "")
    is_copy = isinstance(kind, int) and bool(kind & REDUCED) and SUB_IFDS in tags
    is_canon = isinstance(maker, str) and maker.startswith("Canon") and tags.get(COMPRESSION) == OLD_JPEG
    return DNG_VERSION in tags or is_copy or is_canon


def drop_texts(content: bytes) -> BytesIO | None:
    """Return a PNG file without texts and colour profile; None if it is no PNG, or has none of them.

    Pillow refuses a file whose texts are large when unpacked, although its pixels are whole. A text that may say how
    to turn the picture is kept, unpacked, for which that limit does not count.
    """
    kept = []
    is_changed = False
    for kind, whole in _read_chunks(content):
        is_text = kind in PNG_TEXTS
        is_changed |= is_text
        kept.append(_unpack_text(kind, whole) if is_text else whole)
    return BytesIO(b"".join(kept)) if is_changed else None


def is_broken_off(image: Any) -> bool:
    """Return whether Pillow broke off loading a PNG picture behind its pixels, so that not all of it is read."""
    if not isinstance(image, PngImageFile) or image.tile:
        return False
    return image.fp is not None if image.is_animated else image.png is not None


def reopen(image: Any) -> BytesIO:
    """Return the bytes of the file of a picture that `is_broken_off`.

    Raises:
        ValueError: If its file is closed and has no name, or the picture is a later frame of it.
        OSError: If its file cannot be read.
    """
    if image.tell() or not (image.fp or image.filename):
        raise ValueError("what stands behind its pixels cannot be read, and its file cannot be read again")
    if image.fp:
        image.fp.seek(0)
        return BytesIO(image.fp.read())
    with open(image.filename, "rb") as file:
        return BytesIO(file.read())


def _read_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Read kind and bytes of every chunk of a PNG file; its mark, and what is no chunk, has the kind b""."""
    if not content.startswith(PNG_MARK):
        return
    yield b"", PNG_MARK
    place = len(PNG_MARK)
    while place + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        yield kind, content[place : place + length + 12]
        place += length + 12
    yield b"", content[place:]


def _unpack_text(kind: bytes, chunk: bytes) -> bytes:
    """Return the chunk of a text that may hold an orientation, unpacked if possible; nothing for any other text."""
    keyword, _, rest = chunk[8:-4].partition(b"\0")
    if keyword not in TURNING_TEXTS or kind not in (b"tEXt", b"zTXt", b"iTXt"):
        return b""
    if kind == b"zTXt":
        head, packed = keyword + b"\0", rest[1:]
    elif kind == b"iTXt" and rest[:1] != b"\0":
        language, translated, packed = (rest[2:].split(b"\0", 2) + [b"", b""])[:3]
        head = keyword + b"\0\0\0" + language + b"\0" + translated + b"\0"
    else:
        return chunk
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(packed, LONGEST_TEXT)
    except zlib.error:
        return chunk
    if inflater.unconsumed_tail:
        return chunk  # too large for Pillow too, which says so
    body = (b"tEXt" if kind == b"zTXt" else kind) + head + text
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
