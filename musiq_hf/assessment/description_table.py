# SPDX-License-Identifier: Apache-2.0
"""Table of the content of any number of pictures and videos."""

import os
import tempfile
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, NamedTuple

from ..common.checks import check_counts
from ..pictures.lazy import LazyPicture
from ..pictures.sources.paths import check_sources, check_video_decoder, count_sources, find_sources
from ..pictures.video import has_video_suffix
from ..scoring.tables.forms import Settings, TableForm
from ..scoring.tables.row_jobs import Inputs, RowJob, measure_ahead
from .descriptors import Description, describe, describe_video
from .pixels import check_size

DETAIL = ("si", "si_max", "ti", "ti_max")  # columns whose names tell which edition they are of
LEGACY = "legacy"
KINDS: dict[str, type] = {"key": str, "error": str, "full_range": bool} | dict.fromkeys(
    ("width", "height", "frames", "bit_depth"), int
)


class DescriptionRow(NamedTuple):
    """Row of a picture or video; see `Description` for its values, which are None where there is an error.

    Attributes:
        key: Name of the picture or video.
        width: Columns, in pixels.
        height: Rows, in pixels.
        frames: Number of frames.
        frame_rate: Frames a second; None for pictures.
        bit_depth: Bits of a sample.
        full_range: Whether luma goes from 0 to the largest sample.
        si: Mean spatial information of the frames.
        si_max: Largest spatial information.
        ti: Mean temporal information; None for pictures.
        ti_max: Largest temporal information; None for pictures.
        cf: Mean colourfulness.
        outside_range: Part of the luma samples outside of their range.
        error: Sentence that says why there are no numbers; None if there are.
    """

    key: str
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    frame_rate: float | None = None
    bit_depth: int | None = None
    full_range: bool | None = None
    si: float | None = None
    si_max: float | None = None
    ti: float | None = None
    ti_max: float | None = None
    cf: float | None = None
    outside_range: float | None = None
    error: str | None = None


def name_column(name: str, *, legacy: bool) -> str:
    """Return the name of a column: "si_legacy" for "si" of the earlier editions."""
    return f"{name.removesuffix('_max')}_legacy{'_max' * name.endswith('_max')}" if legacy and name in DETAIL else name


def _list_columns(settings: Settings) -> dict[str, type]:
    fields = DescriptionRow._fields
    return {name_column(name, legacy=settings[LEGACY]): KINDS.get(name, float) for name in fields}


def _complete(rows: Sequence[DescriptionRow], settings: Settings) -> Generator[dict[str, Any]]:
    for row in rows:
        yield {name_column(name, legacy=settings[LEGACY]): value for name, value in row._asdict().items()}


DESCRIPTIONS = TableForm("musiq describe", DescriptionRow, _list_columns, _complete)


@dataclass(frozen=True)
class DescriptionSettings:
    """Pictures and videos to describe.

    Attributes:
        paths: Pictures, videos, folders, patterns, archives and tables; see `pictures.find_sources`.
        output: A .csv, .jsonl or .parquet file; None for rows on the terminal.
        overwrite: Whether the output is replaced if it exists.
        legacy: Whether spatial and temporal information are those of earlier editions, see `describe`.
        num_workers: Processes that measure; None takes two threads of this one. A file that crashes its decoder costs
            a process its row alone.

    Raises:
        ValueError: If a number is out of range. Paths are checked when the job is made.
    """

    paths: Sequence[str]
    _: KW_ONLY
    output: str | os.PathLike[str] | None = None
    overwrite: bool = False
    legacy: bool = False
    num_workers: int | None = None

    def __post_init__(self) -> None:
        check_counts(self, "num_workers")

    def make_job(self) -> RowJob:
        """Make the job.

        Raises:
            ValueError: If a path does not exist, or cannot hold pictures.
            ImportError: If there are videos and PyAV is missing.
        """
        check_sources(self.paths, videos=True)
        check_video_decoder(self.paths)
        return RowJob(
            DESCRIPTIONS,
            settings={"paths": list(self.paths), LEGACY: self.legacy},
            find=partial(find_sources, self.paths, videos=True),
            count=partial(count_sources, self.paths, videos=True),
            measure=self._measure,
            output=self.output,
            overwrite=self.overwrite,
        )

    def _measure(self, inputs: Inputs) -> Generator[tuple[DescriptionRow]]:
        in_processes = self.num_workers is not None
        # The folder goes first at the end, and with it what threads and processes are still at work on.
        mark = tempfile.TemporaryDirectory(prefix="musiq-")
        described = measure_ahead(
            inputs,
            partial(_describe_source, legacy=self.legacy, mark=mark.name),
            num_workers=self.num_workers or 2,
            in_processes=in_processes,
            on_close=mark.cleanup,
        )
        with closing(described):
            for key, found, error in described:
                yield (_make_row(key, found) if error is None else DescriptionRow(key, error=error),)


def _describe_source(source: LazyPicture, name: str, *, legacy: bool, mark: str) -> Description:
    """Describe a picture, or a video if its name ends as those of videos do.

    A long video is given up as soon as the folder `mark` is gone: an interrupted run would wait for its end.
    """
    if not has_video_suffix(source.name):
        return describe(source.open(check_size=check_size), legacy=legacy)
    path = source.read()
    if not isinstance(path, str):
        raise ValueError(f"{name}: videos are read from files of this machine alone. Copy it here first.")
    return describe_video(path, legacy=legacy, on_frame=partial(_check_mark, mark))


def _check_mark(mark: str) -> None:
    if not os.path.isdir(mark):
        raise InterruptedError("The run has ended.")


def _make_row(key: str, found: Description) -> DescriptionRow:
    values = {name: getattr(found, name) for name in DescriptionRow._fields if hasattr(found, name)}
    return DescriptionRow(key, **(values | {"frames": found.num_frames, "outside_range": found.share_outside_range}))
