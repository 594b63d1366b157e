# SPDX-License-Identifier: Apache-2.0
"""Sidecars: files of XMP beside photographs, and the ratings in them, ours and those of people."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ..common.files import replace_file
from .packets import EMPTY, Tag, read_tags, set_tags

FULL, STEM = NAMES = ("photo.jpg.xmp", "photo.xmp")  # how a sidecar is named
XMP = "http://ns.adobe.com/xap/1.0/"
OURS = "urn:musiq-hf:xmp:1.0/"
PREFIXES = {XMP: "xmp", OURS: "musiq"}
RATING = (XMP, "Rating")
OUR_RATING, SCORE, SIGNATURE, PICTURE = ((OURS, name) for name in ("Rating", "Score", "Signature", "Picture"))
# Ratings in the units of other programs, which they may write without the common one.
FOREIGN = (
    ("http://ns.microsoft.com/photo/1.0/", "Rating"),
    ("http://ns.microsoft.com/photo/1.0", "Rating"),
    ("http://ns.acdsee.com/iptc/1.0/", "rating"),
)
EXIF_RATING = 0x4746  # tag of Windows, in the picture itself
UNRATED = ("", "0")
MAX_BYTES = 64 * 2**20  # thousands of brush strokes need less


class Found(NamedTuple):
    """Rating that was found, and whose it is.

    Attributes:
        person: Rating that a person gave, as it stands there, "-1" for a rejected picture; None if there is none.
        ours: Tags that an earlier run wrote, if the rating is still theirs.
    """

    person: str | None = None
    ours: Mapping[Tag, str | None] | None = None


def name_sidecar(picture: str | os.PathLike[str], naming: str = FULL) -> Path:
    """Return the path of the sidecar of a picture.

    Args:
        picture: Path of the picture.
        naming: "photo.jpg.xmp" as darktable and digiKam name it, or "photo.xmp" as Lightroom does.

    Returns:
        The path. If only a file with the ending .XMP is there, it is that one.
    """
    path = os.fspath(picture) if naming == FULL else os.path.splitext(picture)[0]
    lower, upper = Path(f"{path}.xmp"), Path(f"{path}.XMP")
    return upper if os.path.lexists(upper) and not os.path.lexists(lower) else lower


def read_sidecar(path: Path) -> bytes | None:
    """Read a sidecar.

    Returns:
        Its bytes; None if there is none.

    Raises:
        ValueError: If there is something else, or it is too large.
        OSError: If it cannot be read.
    """
    if not os.path.lexists(path):
        return None
    if not path.is_file():
        raise ValueError(f"{path}: no regular file, so no sidecar can be there. Move it away.")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: a sidecar has at most {MAX_BYTES:,} bytes, this one more. It is left alone.")
    return path.read_bytes()


def find_rating(content: bytes | None, name: str) -> Found:
    """Find the rating in a sidecar, and whether it is ours.

    A rating is ours while it equals the one that we noted beside it. A rating that was changed or taken away since is
    a person's decision.

    Args:
        content: Bytes of the sidecar; None if there is none.
        name: Name of the sidecar in error messages.

    Raises:
        ValueError: If it is damaged.
    """
    if content is None:
        return Found()
    try:
        tags = read_tags(content)
    except ValueError as error:
        raise ValueError(f"{name}: {error}. The sidecar is left alone; repair it, or move it away.") from error
    if OUR_RATING in tags:
        now, noted = (_plain(tags.get(tag, "0")) for tag in (RATING, OUR_RATING))
        return Found(ours=tags) if now == noted else Found(person=now or "0")
    named = (_plain(tags[tag]) for tag in (RATING, *FOREIGN) if tag in tags)
    return Found(person=next((value for value in named if value not in UNRATED), None))


def _plain(value: str | None) -> str:
    """Return a rating as people write it: 4 for 4.0 too; one that is no plain text is unknown."""
    text = "unknown" if value is None else value.strip()
    try:
        return f"{float(text):g}"
    except ValueError:
        return text


def find_embedded_rating(picture: str | os.PathLike[str]) -> str | None:
    """Return the rating that a picture file itself holds, in XMP or EXIF; None if there is none or it is no picture.

    Cameras write a rating of 0, which is none.
    """
    try:
        with Image.open(picture) as image:
            packet, exif = image.info.get("xmp"), image.getexif().get(EXIF_RATING)
        content = packet.encode() if isinstance(packet, str) else packet
        person = find_rating(content and content.rstrip(b"\0"), os.fspath(picture)).person
    except Exception:  # damaged files provoke errors of all kinds; what decodes the picture says which
        return None
    named = person if person is not None else _plain(str(exif or 0))
    return None if named in UNRATED else named


def write_rating(path: Path, before: bytes | None, stars: int, notes: Mapping[Tag, str]) -> None:
    """Write stars into a sidecar, and beside them that they are ours.

    Args:
        path: Path of the sidecar; of a link, the file that it leads to is replaced.
        before: Bytes that were read there; None makes a sidecar.
        stars: Stars, from 1 to 5.
        notes: Tags of ours: what the stars come from.

    Raises:
        ValueError: If the sidecar is damaged, cannot hold the values, or was changed since it was read.
        OSError: If it cannot be written.
    """
    tags = {RATING: str(stars), OUR_RATING: str(stars), **notes}
    try:
        content = set_tags(EMPTY if before is None else before, tags, PREFIXES)
    except ValueError as error:
        raise ValueError(f"{path}: {error}. The sidecar is left alone; repair it, or move it away.") from error
    target = Path(os.path.realpath(path))
    with replace_file(target) as temporary:
        with open(temporary, "xb") as file:
            file.write(content)
        if before is not None:
            shutil.copymode(target, temporary)
        if read_sidecar(path) != before:
            raise ValueError(f"{path}: another program has changed it meanwhile. Run the command again.")
