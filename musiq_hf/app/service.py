# SPDX-License-Identifier: Apache-2.0
"""Service behind the page and the route: checkpoints that score one picture at a time, whoever asks.

It knows nothing of HTTP. A picture comes as a `LazyPicture`, so that its pixels are those of `musiq score`.
"""

import math
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from ..common.devices import find_device
from ..explain.curves import score_fault
from ..explain.figures import QualityMap
from ..explain.report import EXPLAINERS
from ..metrics.report_files import METRICS_FILE, read_metrics
from ..metrics.reports import QualityReport
from ..pictures.degradations import FAULTS, Fault, to_rgb_picture
from ..pictures.lazy import LazyPicture, escape_name, write_line
from ..pictures.opening import (
    JPEG_FORMATS,
    MAX_SHRUNK_MEGAPIXELS,
    check_megapixels,
    choose_limit,
    read_header,
    shrink_shorter_side,
)
from ..scoring.calibration import CALIBRATION
from ..scoring.loading import check_checkpoint, find_file
from ..scoring.rows import Scorers
from ..scoring.tables.forms import name_columns

# Largest pictures, in millions of pixels, unless the caller says otherwise: those of most cameras and, where time
# grows with the square of the size, those of telephones, which have 12.2.
MAX_MEGAPIXELS_SHRUNK, MAX_MEGAPIXELS_WHOLE = 25.0, 12.5
HELD_OUT = ("test", "validation")  # splits whose error is typical, the better one first
EXPLAINED_SIDE = 768  # shorter side, in pixels, to which a picture is shrunk before its score is explained
UNKNOWN_DIGITS = 2  # digits behind the point of a score whose range is not noted
LONGEST_NAME = 120  # characters of the name of an upload that are kept
JPEG_SCAN, MAX_SCANS = b"\xff\xda", 100  # start of a scan; a progressive file has about 10 of them


@dataclass(frozen=True)
class TypicalError:
    """Typical error of a checkpoint's scores, as its metrics.json has it.

    Attributes:
        points: Root of the mean squared error, in MOS points.
        num_pictures: Number of pictures on which it was measured.
        split: Name of the split that these are.
    """

    points: float
    num_pictures: int
    split: str


@dataclass(frozen=True)
class Checkpoint:
    """Checkpoint that is loaded, with all that is said about its scores.

    Attributes:
        name: Name in tables and menus.
        scorers: The checkpoint itself.
        error: Typical error of its scores; None if it was not stored.
    """

    name: str
    scorers: Scorers
    error: TypicalError | None

    @property
    def signature(self) -> str:
        """Signature of its scores."""
        return self.scorers.terms.signatures[0]

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of its rows, those of `musiq score`."""
        percentile = self.scorers.terms.has_percentiles
        return name_columns(std=self.scorers.terms.has_std, weights=None, percentile=percentile)

    @property
    def score_range(self) -> tuple[float, float] | None:
        """Lowest and highest opinion score, in MOS points; None if they are not noted."""
        model, _ = self.scorers.loaded[0]
        return model.config.answer_range

    @property
    def num_digits(self) -> int:
        """Digits of a score behind its point that are shown: 1 for a range of 100 points, and 3 for one of 1."""
        if self.score_range is None:
            return UNKNOWN_DIGITS
        low, high = self.score_range
        return max(1, 3 - math.ceil(math.log10(high - low)))


def find_typical_error(checkpoint: str) -> TypicalError | None:
    """Find the typical error of a checkpoint on pictures that it was not trained on; None if it is not stored.

    Raises:
        ValueError: If its metrics.json is damaged.
    """
    path = find_file(checkpoint, METRICS_FILE)
    reports = {} if path is None else read_metrics(path.parent).reports
    for split in HELD_OUT:
        report = reports.get(split)
        if isinstance(report, QualityReport) and report.overall.rmse is not None:
            return TypicalError(report.overall.rmse, report.num_pictures, split)
    return None


def name_checkpoints(models: Sequence[str]) -> Sequence[str]:
    """Name checkpoints for clients, who are not told in which folders they lie, unless two names would be the same."""
    names = [Path(model).resolve().name if Path(model).is_dir() else model for model in models]
    return names if len(set(names)) == len(names) else models


def _check_scans(source: str | BytesIO, name: str) -> None:
    """Raise a ValueError for a JPEG file of so many scans that it would be decoded for hours.

    Each scan may have a few bytes and still passes over all pixels.
    """
    content = source.getvalue() if isinstance(source, BytesIO) else Path(source).read_bytes()
    num_scans = content.count(JPEG_SCAN)
    if num_scans > MAX_SCANS:
        raise ValueError(f"{name}: a JPEG file may have {MAX_SCANS} scans, got {num_scans}. Save it anew.")


class Service:
    """Checkpoints that score uploads and explain the scores, one picture at a time.

    A lock holds back all others while a picture is scored, so that time and memory are those of one picture.

    Args:
        models: Checkpoints: folders, Hub ids or names of embedded ones.
        device: Device on which they score; see `find_device`.
        max_megapixels: Largest picture that is decoded, in millions of pixels; None chooses.

    Attributes:
        checkpoints: Checkpoints by their names; the first one is the default.
        max_megapixels: Largest picture that is decoded, in millions of pixels.

    Raises:
        ValueError: If a checkpoint or the device cannot be used, or what lies beside the weights is damaged.
    """

    def __init__(self, models: Sequence[str], *, device: str = "auto", max_megapixels: float | None = None):
        place = find_device(device)
        for model in models:
            check_checkpoint(model)  # before the Hub is asked for files beside it
        loaded = [
            Scorers([model], device=place, has_percentiles=find_file(model, CALIBRATION) is not None)
            for model in models
        ]
        self.checkpoints = {
            name: Checkpoint(name, scorers, find_typical_error(model))
            for name, model, scorers in zip(name_checkpoints(models), models, loaded, strict=True)
        }
        processors = [processor for scorers in loaded for _, processor in scorers.loaded]
        is_shrunk = choose_limit(None, *processors) == MAX_SHRUNK_MEGAPIXELS
        self.max_megapixels = max_megapixels or (MAX_MEGAPIXELS_SHRUNK if is_shrunk else MAX_MEGAPIXELS_WHOLE)
        self._lock = threading.Lock()

    def find(self, name: str | None = None) -> Checkpoint:
        """Return the checkpoint of a name; None stands for the first one.

        Raises:
            ValueError: If there is no such checkpoint here.
        """
        if name is None:
            return next(iter(self.checkpoints.values()))
        if name not in self.checkpoints:
            raise ValueError(f"{escape_name(name)}: no such checkpoint here. Choose {' or '.join(self.checkpoints)}.")
        return self.checkpoints[name]

    def make_picture(self, name: str, read: Callable[[], str | BytesIO]) -> LazyPicture:
        """Make a picture of an upload, whose size is checked by its header before it is decoded.

        Args:
            name: Name that the client gave the file; it is shown and never opened.
            read: Function that returns the path or the bytes of the upload.
        """
        shown = write_line(name)[-LONGEST_NAME:] or "picture"
        return LazyPicture(shown, partial(self._read, shown, read))

    def _read(self, name: str, read: Callable[[], str | BytesIO]) -> str | BytesIO:
        """Return what an upload is read from, or raise a ValueError if it is no picture or has too many pixels."""
        source = read()
        if read_header(source, name, check_size=self._check_size).format in JPEG_FORMATS:
            _check_scans(source, name)
        return source

    def _check_size(self, size: tuple[int, int], name: str) -> None:
        check_megapixels(size, name, max_megapixels=self.max_megapixels, advice="Send a smaller copy.")

    def score(self, pictures: Iterable[LazyPicture], checkpoint: Checkpoint) -> Generator[dict[str, Any], None, None]:
        """Score pictures in order; the lock is held for one picture at a time.

        Args:
            pictures: Pictures, as `make_picture` makes them.
            checkpoint: Checkpoint that scores them.

        Yields:
            Row of each picture with the columns of `musiq score`, with an error in place of a score if need be.
        """
        with closing(checkpoint.scorers.score((picture.name, picture) for picture in pictures)) as entries:
            while True:
                with self._lock:
                    entry = next(entries, None)
                if entry is None:
                    return
                values = entry[0]._asdict() | {"model": checkpoint.name, "signature": checkpoint.signature}
                yield {column: values[column] for column in checkpoint.columns}

    def shrink(self, picture: LazyPicture) -> Image.Image:
        """Open a picture to explain its score, and shrink one that is large: it is scored dozens of times.

        Raises:
            ValueError: If the picture cannot be used.
        """
        return shrink_shorter_side(picture.open(), EXPLAINED_SIDE)

    def map_quality(self, image: Image.Image, checkpoint: Checkpoint) -> QualityMap | None:
        """Measure the effect of each region of a picture on its score; None if its family has no such map.

        Raises:
            ValueError: If the picture is too small for a map.
        """
        model, processor = checkpoint.scorers.loaded[0]
        explainer = EXPLAINERS.get(model.config.model_type)
        if explainer is None:
            return None
        with self._lock:
            return explainer.quality_map(model, processor, image)

    def score_faults(self, image: Image.Image, checkpoint: Checkpoint) -> Iterator[tuple[Fault, tuple[float, ...]]]:
        """Score a picture and its copies with faults; the lock is held for one fault at a time.

        Args:
            image: Picture of any colour mode, small enough to be scored many times.
            checkpoint: Checkpoint that scores them.

        Yields:
            Fault, the score without it, and the score of the copy at each of its levels.

        Raises:
            ValueError: If the picture cannot be used.
        """
        whole, loaded = to_rgb_picture(image), checkpoint.scorers.loaded[0]
        clean = Fault(label="none", unit="", levels=(0,), apply=lambda image, level, seed: image)
        with self._lock:
            own = score_fault(*loaded, whole, clean)
        for fault in FAULTS.values():
            with self._lock:
                scores = score_fault(*loaded, whole, fault)
            yield fault, own + scores
