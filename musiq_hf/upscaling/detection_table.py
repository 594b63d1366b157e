# SPDX-License-Identifier: Apache-2.0
"""Table of verdicts on any number of pictures and clips."""

import os
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import NamedTuple

import torch

from ..common.checks import check_counts
from ..pictures.lazy import LazyPicture
from ..pictures.sources.paths import check_sources, check_video_decoder, count_sources, find_sources
from ..scoring.journal import THREADS
from ..scoring.rows import name_checkpoint
from ..scoring.signature import make_signature
from ..scoring.tables.forms import CONSTANTS, TableForm
from ..scoring.tables.row_jobs import Inputs, RowJob, measure_ahead
from .detection import (
    DEFAULT_CHECKPOINT,
    NUM_FRAMES,
    Detector,
    UpscalingReport,
    detect_upscaling,
    load_detector,
)

NUM_WORKERS = 2


class VerdictRow(NamedTuple):
    """Row of a picture or clip; see `UpscalingReport` for its values, which are None where there is an error.

    Attributes:
        key: Name of the picture or clip.
        width: Columns, in pixels.
        height: Rows, in pixels.
        verdict: "native", "upscaled" or "unsure".
        probability: Probability that it was upscaled.
        method: Most probable kind of method; None for a native or flat picture.
        method_probability: Probability of that kind.
        scale: Scale that the spectrum shows; None if it shows none.
        source_width: Columns of the source; None without a scale.
        source_height: Rows of the source; None without a scale.
        patches: Number of patches that voted.
        frames: Number of frames.
        native_share: Share of the frames that are native alone.
        upscaled_share: Share of the frames that are upscaled alone.
        unsure_share: Share of the frames without a verdict alone.
        error: Sentence that says why there is no verdict; None if there is.
    """

    key: str
    width: int | None = None
    height: int | None = None
    verdict: str | None = None
    probability: float | None = None
    method: str | None = None
    method_probability: float | None = None
    scale: float | None = None
    source_width: int | None = None
    source_height: int | None = None
    patches: int | None = None
    frames: int | None = None
    native_share: float | None = None
    upscaled_share: float | None = None
    unsure_share: float | None = None
    error: str | None = None


_WORDS = ("key", "verdict", "method", "error")
_NUMBERS = ("probability", "method_probability", "scale", "native_share", "upscaled_share", "unsure_share")
KINDS: dict[str, type] = {
    **dict.fromkeys(VerdictRow._fields[:-1], int),
    **dict.fromkeys(_NUMBERS, float),
    **dict.fromkeys(_WORDS[:-1], str),
    **dict.fromkeys(("model", "signature", "error"), str),
}
VERDICT_ROWS = TableForm("musiq native", VerdictRow, lambda settings: KINDS)


@dataclass(frozen=True)
class DetectionSettings:
    """Pictures and clips to judge.

    Attributes:
        paths: Pictures, videos, folders, patterns, archives and tables; see `pictures.find_sources`.
        model: Checkpoint: folder, Hub id or name of an embedded one.
        frames: Largest number of key frames of a clip.
        output: A .csv, .jsonl or .parquet file; None for rows on the terminal.
        overwrite: Whether the output is replaced if it exists.

    Raises:
        ValueError: If a number is out of range. Paths and the checkpoint are checked when the job is made.
    """

    paths: Sequence[str]
    _: KW_ONLY
    model: str = str(DEFAULT_CHECKPOINT)
    frames: int = NUM_FRAMES
    output: str | os.PathLike[str] | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_counts(self, "frames")

    def make_job(self) -> RowJob:
        """Load the checkpoint, and make the job.

        Raises:
            ValueError: If a path does not exist or cannot hold pictures, or the checkpoint is no detector.
            ImportError: If there are clips and PyAV is missing.
        """
        check_sources(self.paths, videos=True)
        check_video_decoder(self.paths)
        detector = load_detector(self.model)
        signature = make_signature(detector.model, detector.processor, checkpoint=self.model)
        constants = {"model": name_checkpoint(self.model), "signature": f"{signature}|frames:{self.frames}"}
        return RowJob(
            VERDICT_ROWS,
            settings={
                "paths": list(self.paths),
                "frames": self.frames,
                "signature": constants["signature"],
                CONSTANTS: constants,
                THREADS: torch.get_num_threads(),
            },
            find=partial(find_sources, self.paths, videos=True),
            count=partial(count_sources, self.paths, videos=True),
            measure=partial(_measure, detector=detector, frames=self.frames),
            output=self.output,
            overwrite=self.overwrite,
        )


def _measure(inputs: Inputs, *, detector: Detector, frames: int) -> Generator[tuple[VerdictRow]]:
    judge = partial(_judge_source, detector=detector, frames=frames)
    with closing(measure_ahead(inputs, judge, num_workers=NUM_WORKERS)) as judged:
        for key, report, error in judged:
            yield (_make_row(key, report) if error is None else VerdictRow(key, error=error),)


def _judge_source(source: LazyPicture, name: str, *, detector: Detector, frames: int) -> UpscalingReport:
    try:
        return detect_upscaling(source, detector, frames=frames)
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(name) else f"{name}: {text}") from error


def _make_row(key: str, report: UpscalingReport) -> VerdictRow:
    source_width, source_height = report.source_size or (None, None)
    return VerdictRow(
        key,
        *report.size,
        verdict=report.verdict,
        probability=report.probability,
        method=report.method,
        method_probability=report.method_probability,
        scale=report.scale,
        source_width=source_width,
        source_height=source_height,
        patches=len(report.patches),
        frames=len(report.frames),
        native_share=report.share("native"),
        upscaled_share=report.share("upscaled"),
        unsure_share=report.share("unsure"),
    )
