# SPDX-License-Identifier: Apache-2.0
"""Enlarged copies of any number of pictures in a folder, made one after the other, by runs that may be killed."""

import os
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from PIL import ExifTags, Image
from transformers.utils import logging

from ..common.devices import find_device
from ..common.enlargement import MSIT, SUFFIXES, Target, check_copies
from ..common.files import hash_file, replace_file
from ..models.auto import UPSCALER_CHECKPOINT
from ..models.weights import identify_scores
from ..pictures.finding import find_pictures, has_picture_suffix
from ..pictures.lazy import LazyPicture, check_path, escape_name, write_line
from ..scoring.engine import score_pictures
from ..scoring.loading import load_quality
from ..scoring.tables.forms import CONSTANTS, TableForm
from ..scoring.tables.row_jobs import Inputs, RowJob
from .enlarging import PROFILE, Upscaler, check_method, check_size, enlarge, load_upscaler

Scorer = tuple[Any, Any]  # model and processor
logger = logging.get_logger(__name__)
COMMAND = "musiq upscale"
# Settings of Pillow's encoders, and the modes that they can write whole. JPEG alone loses something.
ENCODERS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "png": ({}, ("L", "LA", "RGB", "RGBA", "I;16")),
    "jpeg": ({"quality": 95, "subsampling": "4:4:4"}, ("L", "RGB")),
    "tiff": ({"compression": "tiff_adobe_deflate"}, ("L", "LA", "RGB", "RGBA", "I;16", "F")),
    "webp": ({"lossless": True, "exact": True}, ("L", "RGB", "RGBA")),
}


class EnlargedRow(NamedTuple):
    """Row of a picture; its values are None where there is an error, and scores where none were asked for.

    Attributes:
        key: Path of the picture.
        width: Columns of the picture, upright, in pixels.
        height: Rows of the picture, in pixels.
        output: Path of the enlarged copy.
        output_width: Columns of the copy, in pixels.
        output_height: Rows of the copy, in pixels.
        seconds: Time to read the picture, enlarge it and write the copy.
        score: MUSIQ's score of the picture, in MOS points.
        output_score: MUSIQ's score of the copy.
        error: Sentence that says why there is no copy; None if there is one.
    """

    key: str
    width: int | None = None
    height: int | None = None
    output: str | None = None
    output_width: int | None = None
    output_height: int | None = None
    seconds: float | None = None
    score: float | None = None
    output_score: float | None = None
    error: str | None = None


COLUMNS: dict[str, type] = {
    **dict.fromkeys(EnlargedRow._fields[:-1], int),
    **dict.fromkeys(("seconds", "score", "output_score"), float),
    **dict.fromkeys(("key", "output", "method", "made_by", "error"), str),
}
ENLARGED_ROWS = TableForm(COMMAND, EnlargedRow, lambda settings: COLUMNS)


class _Copy(NamedTuple):
    """Picture to enlarge, the place of its copy, and perhaps a sentence that says why there can be none."""

    source: str
    output: Path
    error: str | None = None


@dataclass(frozen=True)
class EnlargingSettings:
    """Pictures to enlarge, and the folder of their copies.

    Attributes:
        paths: Pictures, and folders of pictures.
        output: Folder of the copies; those of the pictures of a folder lie there as in that folder.
        target: Size to enlarge them to.
        method: "msit" for the model, "bicubic" or "lanczos" for a filter of Pillow.
        model: Checkpoint: folder, Hub id or name of an embedded one; None = the embedded upscaler.
        format: "png", "jpeg", "tiff" or "webp".
        tile_size: Side of a tile of the model, in pixels of the picture; None = 192.
        device: Device on which models compute; None = a GPU if there is one.
        score: Whether the rows have MUSIQ's scores of pictures and copies.
        overwrite: Whether files that are there, and are no copies by these settings, are replaced.

    Raises:
        ValueError: If a picture or folder does not exist, the copies cannot go there, or a number is out of range.
            Also if something for models is given where none computes.
    """

    paths: Sequence[str]
    output: str | os.PathLike[str]
    _: KW_ONLY
    target: Target
    method: str = MSIT
    model: str | None = None
    format: str = "png"
    tile_size: int | None = None
    device: str | None = None
    score: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_copies(self.output, self.paths)
        check_method(self.method, model=self.model, tile_size=self.tile_size)
        if self.device is not None and self.method != MSIT and not self.score:
            raise ValueError(f"`device` is for models, and {self.method!r} without `score` uses none. Leave it out.")

    def make_job(self) -> RowJob:
        """Load the checkpoint, find what there is to do, and make the job.

        A copy tells how it was made and of which file (EXIF field Software), so that it is known to be finished.

        Raises:
            ValueError: If there is no picture, the checkpoint enlarges none, or a file in the folder is another one.
        """
        device = find_device(self.device or "auto")
        method = (
            load_upscaler(self.model or UPSCALER_CHECKPOINT, device=device) if self.method == MSIT else self.method
        )
        maker = _name_maker(self.target, method)
        scorer = None
        if self.score:
            model, processor = load_quality()
            scorer = (model.to(device), processor)
        copies = _list_copies(self)
        missing = [copy for copy in copies if copy.error is not None or not _is_finished(copy, maker, self.overwrite)]
        if len(missing) < len(copies):
            number = len(copies) - len(missing)
            logger.warning("%s: %d of %d pictures were finished before.", self.output, number, len(copies))
        return RowJob(
            ENLARGED_ROWS,
            settings={CONSTANTS: {"method": self.method, "made_by": maker}},
            find=lambda: ((escape_name(copy.source), copy) for copy in missing),
            count=lambda: len(missing),
            measure=partial(_make_copies, settings=self, method=method, maker=maker, scorer=scorer),
        )


def _name_maker(target: Target, method: Upscaler | str) -> str:
    """Return how copies are made: all that decides their pixels, beside those of their pictures."""
    parts = {"method": method if isinstance(method, str) else MSIT}
    if isinstance(method, Upscaler):
        parts |= identify_scores(method.model, method.processor)
    return "|".join((COMMAND, str(target), *(f"{name}:{value}" for name, value in parts.items())))


def _name_copy(maker: str, source: str) -> str:
    """Return the text that the copy of a picture carries: how it is made, and of which file.

    Raises:
        OSError: If the file cannot be read.
    """
    return f"{maker}|picture:{hash_file(Path(source))[:16]}"


def _find_places(paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each picture, and its place among the copies before its ending is changed."""
    for path in paths:
        if os.path.isdir(path):
            for file in find_pictures(path):
                yield str(file), os.path.relpath(file, path)
        else:
            yield path, os.path.basename(path)


def _list_copies(settings: EnlargingSettings) -> list[_Copy]:
    """List the pictures and the places of their copies; one that is named twice counts once.

    Raises:
        ValueError: If a copy would take the place of one of the pictures.
    """
    sources: dict[Path, str] = {}
    copies = []
    for source, place in _find_places(settings.paths):
        stem = os.path.splitext(place)[0] if has_picture_suffix(place) else place
        output = Path(settings.output, stem + SUFFIXES[settings.format])
        if output not in sources:
            sources[output] = source
            copies.append(_Copy(source, output))
        elif os.path.realpath(sources[output]) != os.path.realpath(source):
            reason = f"its copy would have the name of that of {sources[output]}. Enlarge it into another folder."
            copies.append(_Copy(source, output, reason))
    originals = {os.path.realpath(copy.source) for copy in copies}
    for copy in copies:
        if os.path.realpath(copy.output) in originals:
            raise ValueError(f"{copy.output} is a picture to enlarge, and would be lost. Choose another folder.")
    return copies


def _is_finished(copy: _Copy, maker: str, overwrite: bool) -> bool:
    """Return whether a copy is there already.

    Raises:
        ValueError: If another file has its place, and may not be replaced.
        OSError: If the picture cannot be read.
    """
    if not os.path.lexists(copy.output):
        return False
    found, wanted = _read_maker(copy.output), _name_copy(maker, copy.source)
    if found == wanted or overwrite:
        return found == wanted
    difference = "and is no copy of this command"
    if found.startswith(f"{COMMAND}|"):
        old, new = found.split("|"), wanted.split("|")
        lost, gained = (
            "; ".join(part for part in one if part not in other) for one, other in ((old, new), (new, old))
        )
        difference = f"made otherwise ({lost}, now {gained})"
    raise ValueError(f"{copy.output} exists already, {difference}. Add --overwrite, or choose another folder.")


def _read_maker(path: Path) -> str:
    """Read how a copy was made; other files give another text."""
    try:
        with Image.open(path) as image:
            return str(image.getexif().get(ExifTags.Base.Software))
    except Exception:  # other files provoke errors of all kinds
        return ""


def _make_copies(
    inputs: Inputs, *, settings: EnlargingSettings, method: Upscaler | str, maker: str, scorer: Scorer | None
) -> Generator[tuple[EnlargedRow]]:
    """Enlarge pictures and write their copies, in this thread, so that Ctrl-C ends it at once."""
    for key, copy in inputs:
        try:
            row = _make_copy(copy, key, settings, method, maker)
        except ValueError as error:
            text = write_line(str(error))
            yield (EnlargedRow(key, error=text if text.startswith(key) else f"{key}: {text}"),)
            continue
        yield (row if scorer is None else _add_scores(row, copy, scorer),)


def _make_copy(copy: _Copy, key: str, settings: EnlargingSettings, method: Upscaler | str, maker: str) -> EnlargedRow:
    """Enlarge one picture, and write its copy.

    Raises:
        ValueError: If the picture cannot be read or enlarged, or the format cannot hold its copy.
        OSError: If no file can be written.
    """
    if copy.error is not None:
        raise ValueError(copy.error)
    start = time.perf_counter()
    picture = LazyPicture(key, partial(check_path, copy.source, key)).open(check_size=check_size)
    made_by = _name_copy(maker, copy.source)
    large = enlarge(picture, settings.target, method, tile_size=settings.tile_size)
    _write_copy(copy.output, large, settings.format, made_by)
    seconds = time.perf_counter() - start
    return EnlargedRow(key, *picture.size, escape_name(str(copy.output)), *large.size, seconds)


def _write_copy(path: Path, image: Image.Image, kind: str, made_by: str) -> None:
    """Write a picture, with its colour profile and how it was made."""
    options, modes = ENCODERS[kind]
    if image.mode not in modes:
        raise ValueError(
            f"a {kind} file holds pictures of the modes {', '.join(modes)}, and this one has {image.mode} "
            "(A: transparency; I;16: 16 bits). Choose another --format, such as png or tiff."
        )
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = made_by
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replace_file(path) as temporary:
            image.save(temporary, kind, exif=exif, icc_profile=image.info.get(PROFILE), **options)
    except OSError as error:
        if error.errno is not None:  # of the disk, not of the encoder
            raise
        raise ValueError(f"{image.width}x{image.height} pixels cannot be written as {kind} ({error}).") from error


def _add_scores(row: EnlargedRow, copy: _Copy, scorer: Scorer) -> EnlargedRow:
    """Return a row with the scores of both files; a warning says why one is missing."""
    model, processor = scorer
    before, after = score_pictures([copy.source, copy.output], model=model, processor=processor)
    for result in (before, after):
        if result.error is not None:
            logger.warning("%s", result.error)
    return row._replace(score=before.score, output_score=after.score)
