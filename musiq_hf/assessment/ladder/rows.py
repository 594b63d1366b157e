# SPDX-License-Identifier: Apache-2.0
"""Rows of `musiq ladder`: one for each codec and quality of a picture, and the job that makes them."""

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from ...common.codecs import CODECS, QUALITIES, check_ladder
from ...common.devices import find_device
from ...common.extras import require
from ...common.stores import StoreError
from ...metrics.planes import check_window, measure_error, measure_structure, split_planes, to_decibels
from ...models.auto import DEFAULT_CHECKPOINT
from ...pictures.decoding import decode_ahead
from ...pictures.encoding import check_encoders, describe_encoder, encode_pixels
from ...pictures.lazy import LazyPicture, write_line
from ...pictures.opening import open_picture
from ...pictures.sources.paths import check_sources, count_sources, find_sources
from ...scoring.journal import THREADS
from ...scoring.rows import ScoreRow, Scorers
from ...scoring.tables.forms import CONSTANTS, TableForm
from ...scoring.tables.row_jobs import Inputs, RowJob
from ..pixels import check_size, read_pixels

NUM_WORKERS = 2  # threads that encode and measure while others score


class LadderRow(NamedTuple):
    """Row of a codec and a quality of a picture.

    Attributes:
        key: Name of the picture, Unicode text.
        codec: Name of the codec; None if the picture cannot be read.
        quality: Quality as the encoder counts it; None if the picture cannot be read.
        bytes: Size of the file.
        bits_per_pixel: Size of the file in bits, for each pixel of the picture.
        psnr_y: PSNR of luma, in dB; infinite for equal pixels.
        ssim_y: SSIM of luma.
        score: Score of the file, in MOS points.
        score_drop: Score of the picture minus that of the file, in MOS points.
        error: Sentence that says why there are no numbers; None if there are.
    """

    key: str
    codec: str | None = None
    quality: int | None = None
    bytes: int | None = None
    bits_per_pixel: float | None = None
    psnr_y: float | None = None
    ssim_y: float | None = None
    score: float | None = None
    score_drop: float | None = None
    error: str | None = None


KINDS: dict[str, type] = {"key": str, "codec": str, "quality": int, "bytes": int}
COLUMNS: dict[str, type] = {
    **{name: KINDS.get(name, float) for name in LadderRow._fields if name != "error"},
    **dict.fromkeys(("model", "signature", "error"), str),
}
LADDERS = TableForm("musiq ladder", LadderRow, lambda settings: COLUMNS)


class _Encoded(NamedTuple):
    """File of a codec and a quality, which is not scored yet.

    Attributes:
        row: Row without a score.
        content: Bytes of the file; empty if there is an error.
    """

    row: LadderRow
    content: bytes = b""


@dataclass(frozen=True)
class LadderSettings:
    """Pictures to encode, and how.

    Attributes:
        paths: Pictures, folders, patterns, archives and tables; see `pictures.find_sources`.
        codecs: Codecs of "jpeg", "webp" and "avif".
        qualities: Qualities from 1 to 100, as each encoder counts them.
        model: Checkpoint: folder, Hub id or name of an embedded one.
        device: Device that scores: "cpu", "cuda", "cuda:1", "mps", or "auto" for a GPU if there is one.
        output: A .csv, .jsonl or .parquet file; None for rows on the terminal.
        overwrite: Whether the output is replaced if it exists.

    Raises:
        ValueError: If a codec is unknown, or a quality is out of range. Paths, encoders and the checkpoint are checked
            when the job is made.
    """

    paths: Sequence[str]
    _: KW_ONLY
    codecs: Sequence[str] = CODECS
    qualities: Sequence[int] = QUALITIES
    model: str = str(DEFAULT_CHECKPOINT)
    device: str = "auto"
    output: str | os.PathLike[str] | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_ladder(self.codecs, self.qualities, None)

    def make_job(self) -> RowJob:
        """Load the checkpoint, and make the job.

        Raises:
            ValueError: If a path does not exist, Pillow lacks an encoder, or the checkpoint cannot be used.
            ImportError: If SciPy is missing.
        """
        check_sources(self.paths)
        check_encoders(self.codecs)
        require("scipy.ndimage", extra="assessment")  # fails now, not in each row
        device = find_device(self.device)
        scorers = Scorers([self.model], device=device, num_workers=NUM_WORKERS, in_processes=False)
        codecs, qualities = list(self.codecs), sorted(self.qualities)
        settings: Mapping[str, Any] = {
            "paths": list(self.paths),
            CONSTANTS: {"model": scorers.terms.names[0], "signature": self._make_signature(scorers)},
            THREADS: torch.get_num_threads(),
        }
        return RowJob(
            LADDERS,
            settings,
            find=partial(find_sources, self.paths),
            count=partial(count_sources, self.paths),
            measure=partial(_measure, scorers=scorers, codecs=codecs, qualities=qualities),
            output=self.output,
            overwrite=self.overwrite,
        )

    def _make_signature(self, scorers: Scorers) -> str:
        """Write the signature of the scores, the encoders with their settings, and the qualities on one line."""
        encoders = [f"{codec}:{describe_encoder(codec)}" for codec in self.codecs]
        qualities = "+".join(map(str, sorted(self.qualities)))
        return "|".join([scorers.terms.signatures[0], *encoders, f"qualities:{qualities}"])


def _measure(
    inputs: Inputs, *, scorers: Scorers, codecs: Sequence[str], qualities: Sequence[int]
) -> Generator[tuple[LadderRow, ...]]:
    """Yield the rows of each picture; the next pictures are encoded while one is scored."""
    encode = partial(_encode_picture, codecs=codecs, qualities=qualities)
    with closing(decode_ahead(inputs, encode, num_workers=NUM_WORKERS, in_processes=False)) as encoded:
        for key, future in encoded:
            try:
                picture, files = future.result()
                yield tuple(_score(key, picture, files, scorers))
            except StoreError:  # no row, for the next run may read the picture
                raise
            except (ValueError, OSError) as error:
                yield (LadderRow(key, error=_write_error(key, error)),)


def _write_error(key: str, error: object) -> str:
    """Return the message of an error on one line that begins with the key."""
    text = write_line(str(error))
    return text if text.startswith(key) else f"{key}: {text}"


def _encode_picture(
    picture: LazyPicture, name: str, *, codecs: Sequence[str], qualities: Sequence[int]
) -> tuple[LazyPicture, list[_Encoded]]:
    """Encode a picture by each codec at each quality, and measure what is lost.

    Raises:
        ValueError: If the picture cannot be read or is too small to be measured.
    """
    pixels = read_pixels(picture.open(check_size=check_size)).round()
    luma = split_planes(pixels, "y")
    check_window(luma)
    encode = partial(_encode, name, pixels.astype(np.uint8), luma)
    return picture, [encode(codec, quality) for codec in codecs for quality in qualities]


def _encode(key: str, pixels: np.ndarray, luma: np.ndarray, codec: str, quality: int) -> _Encoded:
    """Encode pixels, and compare the luma of the file with theirs."""
    row = LadderRow(key, codec, quality)
    try:
        content = encode_pixels(pixels, codec, quality)
    except ValueError as error:
        return _Encoded(row._replace(error=_write_error(key, error)))
    decoded = split_planes(read_pixels(open_picture(content)), "y")
    height, width = pixels.shape[:2]
    return _Encoded(
        row._replace(
            bytes=len(content),
            bits_per_pixel=8 * len(content) / (height * width),
            psnr_y=to_decibels(measure_error(luma, decoded)),
            ssim_y=measure_structure(luma, decoded),
        ),
        content,
    )


def _score(key: str, picture: LazyPicture, files: Sequence[_Encoded], scorers: Scorers) -> Iterator[LadderRow]:
    """Yield the rows of a picture with scores, those of `musiq score`.

    Raises:
        ValueError: If the picture has no score.
    """
    sources = [(key, picture), *((f"{key}, {row.codec} {row.quality}", content) for row, content in files if content)]
    own, *others = (row for (row,) in scorers.score(iter(sources)))
    if own.score is None:
        raise ValueError(own.error)
    found: Iterator[ScoreRow] = iter(others)
    for row, content in files:
        yield row if not content else _add_score(row, next(found), own.score)


def _add_score(row: LadderRow, found: ScoreRow, reference: float) -> LadderRow:
    if found.score is None:
        return LadderRow(row.key, row.codec, row.quality, error=_write_error(row.key, found.error))
    return row._replace(score=found.score, score_drop=reference - found.score)
