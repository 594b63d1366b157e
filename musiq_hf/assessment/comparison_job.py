# SPDX-License-Identifier: Apache-2.0
"""Comparisons of systems with a reference: what is compared, and the job that makes the rows."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch

from ..common.checks import check_counts
from ..common.devices import find_device
from ..common.extras import require
from ..common.systems import COMPARED, SCORED, System, check_metrics, read_systems
from ..models.auto import DEFAULT_CHECKPOINT
from ..pictures.lazy import escape_name, write_line
from ..pictures.opening import describe_decoder
from ..pictures.video import has_video_suffix
from ..scoring.journal import THREADS, Totals
from ..scoring.tables.forms import CONSTANTS
from ..scoring.tables.row_jobs import Inputs, RowJob, measure_rows, read_rows, run_rows
from ..version import __version__
from .compare import compare
from .comparison_report import ReportInputs, SystemsReport, find_sound, report_systems
from .comparison_rows import COMPARISONS, GROUPS, MEASURED, METRICS, ComparisonRow, list_columns, read_row
from .comparison_scores import FileScore, FileScorer
from .descriptors import describe
from .groups import GroupTable, OpinionTable, read_groups, read_opinions
from .pairing import Match, match_files
from .vmaf import describe_vmaf

logger = logging.getLogger(__name__)
NO_REFERENCE = "no file of the reference matches it. Files match by their relative paths without suffix."
NO_FILE = "the system {} has no file that matches it. Files match by their relative paths without suffix."


@dataclass(frozen=True)
class ComparisonSettings:
    """Systems to compare with a reference, and how.

    Attributes:
        reference: File, or folder of pictures and videos.
        distorted: Paths of systems of the same kind, or `NAME=PATH`.
        metrics: Metrics of "psnr", "ssim", "vmaf" and "musiq".
        groups: CSV table with a column `key` and others, which group the keys; None makes no groups.
        bins: Descriptors of the references, "si", "ti" or "cf", by whose thirds the report groups keys.
        mos: CSV table with columns `key`, `system` and `mos`, for the report; None if there are no opinion scores.
        crop_border: Number of pixels that leave each side before PSNR, SSIM and VMAF; scores are those of all pixels.
        every: Every n-th frame of a video is scored; None takes one a second.
        model: Checkpoint: folder, Hub id or name of an embedded one; None takes the default one.
        device: Device that scores: "cpu", "cuda", "cuda:1", "mps", or "auto" for a GPU if there is one.
        output: A .csv, .jsonl or .parquet file; None for rows on the terminal.
        overwrite: Whether the output is replaced if it exists.

    Raises:
        ValueError: If a setting is out of range, or says something of metrics that were not asked for.
    """

    reference: str
    distorted: Sequence[str]
    _: KW_ONLY
    metrics: Sequence[str] = ("psnr", "ssim", "musiq")
    groups: str | os.PathLike[str] | None = None
    bins: Sequence[str] = ()
    mos: str | os.PathLike[str] | None = None
    crop_border: int = 0
    every: int | None = None
    model: str | None = None
    device: str = "auto"
    output: str | os.PathLike[str] | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        options = {name: getattr(self, name) for name in ("bins", "crop_border", "every", "model")}
        check_metrics(self.metrics, **options)
        check_counts(self, "every")
        object.__setattr__(self, "metrics", tuple(name for name in COMPARED if name in self.metrics))

    @property
    def measures(self) -> list[str]:
        """Metrics with a reference, without that of scores."""
        return [name for name in self.metrics if name != SCORED]


class SystemsComparison:
    """Comparison whose files are found, whose tables are read, and whose checkpoint is loaded.

    Args:
        settings: Systems to compare, and how.

    Attributes:
        systems: Systems in their order.
        matches: Files of the reference with those of the systems, in the order of the keys.
        groups: Groups of the keys; without columns if there are none.
        opinions: Opinion scores; None if there are none.
        signature: All that changes a value of the rows.

    Raises:
        ValueError: If the systems, a table, the checkpoint or a metric cannot be used.
        ImportError: If SciPy is missing.
    """

    def __init__(self, settings: ComparisonSettings):
        require("scipy.stats", extra="assessment")  # fails now, not after the rows have been measured
        self.settings = settings
        systems = read_systems(settings.reference, settings.distorted)
        self.systems = [system._replace(name=escape_name(system.name)) for system in systems]
        self.matches = match_files(settings.reference, self.systems)
        self._has_videos = any(
            has_video_suffix(path or "") for match in self.matches for path in (match.reference, *match.distorted)
        )
        if not self._has_videos:
            _refuse_pictures(settings)
        keys = [match.key for match in self.matches]
        self.groups = GroupTable((), {}, ())
        if settings.groups is not None:
            taken = list_columns({METRICS: COMPARED, GROUPS: ()})
            self.groups = read_groups(settings.groups, keys, taken=taken, bins=settings.bins)
        self.opinions: OpinionTable | None = None
        if settings.mos is not None:
            self.opinions = read_opinions(settings.mos, keys, self._names)
        device, self._scorer = find_device(settings.device), None
        if SCORED in settings.metrics:
            model = settings.model or str(DEFAULT_CHECKPOINT)
            self._scorer = FileScorer(model, device=device, every=settings.every)
        self.signature = self._make_signature()

    @property
    def _names(self) -> list[str]:
        return [system.name for system in self.systems]

    def _make_signature(self) -> str:
        """Write all that changes a value of the rows on one line."""
        settings, parts = self.settings, [f"decoder:{describe_decoder('default')}", f"musiq_hf:{__version__}"]
        if self._scorer is not None:
            parts = [self._scorer.signature]
            parts += [f"every:{settings.every or 'second'}"] if self._has_videos else []
        if settings.measures:
            parts += [f"measures:{'+'.join(settings.measures)}", f"crop_border:{settings.crop_border}"]
        if self._has_videos:
            parts.append(f"av:{require('av', extra='video').__version__}")
        if "vmaf" in settings.measures:
            parts.append(f"vmaf:{describe_vmaf()}")
        return "|".join(parts)

    def make_notes(self) -> list[str]:
        """Return sentences about keys and systems that only the tables have, or that they lack."""
        return [*self.groups.notes, *(() if self.opinions is None else self.opinions.notes)]

    def make_job(self) -> RowJob:
        """Return the job that makes the rows, and their table if there is an output."""
        settings, constants = self.settings, {"signature": self.signature}
        if self._scorer is not None:
            constants["model"] = self._scorer.name
        groups = json.dumps([self._find_groups(match.key) for match in self.matches])
        return RowJob(
            COMPARISONS,
            {
                "reference": settings.reference,
                "systems": [list(system) for system in self.systems],
                METRICS: list(settings.metrics),
                GROUPS: list(self.groups.columns),
                "hash of the groups": hashlib.sha256(groups.encode()).hexdigest()[:16],
                CONSTANTS: constants,
                **({} if self._scorer is None else {THREADS: torch.get_num_threads()}),
            },
            find=lambda: ((match.key, match) for match in self.matches),
            count=lambda: len(self.matches),
            measure=self._measure,
            known=self._list_known,
            output=settings.output,
            overwrite=settings.overwrite,
        )

    def _list_known(self, match: Match) -> list[dict[str, Any]]:
        """Return what is known of the rows of a match before it is measured."""
        groups = dict(zip(self.groups.columns, self._find_groups(match.key), strict=True))
        return [{"system": system.name, **groups} for system in self._find_files(match)]

    def _find_groups(self, key: str) -> tuple[str | None, ...]:
        return self.groups.values.get(key, (None,) * len(self.groups.columns))

    def _find_files(self, match: Match) -> dict[System, str | None]:
        """Return the file of each system that has a row: of all, or without a reference of those that have a file."""
        files = dict(zip(self.systems, match.distorted, strict=True))
        return {system: path for system, path in files.items() if match.reference is not None or path is not None}

    def _measure(self, inputs: Inputs) -> Generator[tuple[ComparisonRow, ...]]:
        for _, match in inputs:
            yield tuple(self._measure_match(match))

    def _measure_match(self, match: Match) -> Iterator[ComparisonRow]:
        files = self._find_files(match)
        rows = {system: self._compare(match, system, path) for system, path in files.items()}
        scores: Mapping[Any, FileScore] = {}
        sound = [path for system, path in files.items() if path is not None and rows[system].error is None]
        if self._scorer is not None and match.reference is not None and sound:
            scores = self._scorer.score(match.reference, sound)
        for system, row in rows.items():
            is_scored = row.error is None and scores
            yield _add_scores(row, scores[match.reference], scores[files[system]]) if is_scored else row

    def _compare(self, match: Match, system: System, path: str | None) -> ComparisonRow:
        """Measure a file with its reference, without scores."""
        row = ComparisonRow(match.key, system.name, self._find_groups(match.key))
        if match.reference is None:
            return row._replace(error=f"{match.key}: {NO_REFERENCE}")
        if path is None:
            return row._replace(error=f"{match.key}: {NO_FILE.format(system.name)}")
        if not self.settings.measures:
            return row
        try:
            found = compare(
                match.reference, path, metrics=self.settings.measures, crop_border=self.settings.crop_border
            )
        except (ValueError, OSError) as error:
            return row._replace(error=write_line(str(error)))
        values = {name: getattr(found, name) for name in MEASURED}
        return row._replace(**values, width=found.width, height=found.height, frames=found.num_frames)

    def report(self, rows: Iterable[Mapping[str, Any]]) -> SystemsReport:
        """Make the report of all rows, and describe the references for its thirds.

        Args:
            rows: Rows by the names of their columns.

        Raises:
            ValueError: If a descriptor is that of no reference.
        """
        found = [read_row(row, self.groups.columns) for row in rows]
        descriptors = self._describe(find_sound(found, self._names)) if self.settings.bins else None
        inputs = ReportInputs(
            systems=self._names,
            metrics=self.settings.metrics,
            signature=self.signature,
            columns=self.groups.columns,
            opinions=None if self.opinions is None else self.opinions.values,
            descriptors=descriptors,
        )
        return report_systems(found, inputs)

    def _describe(self, keys: Iterable[str]) -> dict[str, dict[str, float]]:
        """Return the descriptors of the references of some keys."""
        found: dict[str, dict[str, float]] = {name: {} for name in self.settings.bins}
        references: dict[str, Any] = {match.key: match.reference for match in self.matches}
        for key in keys:
            try:
                description = describe(references[key])
            except (ValueError, OSError) as error:
                logger.warning("%s is in no third: %s", key, write_line(str(error)))
                continue
            for name, values in found.items():
                value = getattr(description, name)
                if value is not None:
                    values[key] = value
        return found


def compare_systems(
    settings: ComparisonSettings, *, on_progress: Callable[[Totals], None] | None = None
) -> SystemsReport:
    """Compare systems with a reference, as `musiq compare` does, and make the report.

    >>> report = compare_systems(ComparisonSettings("originals", ["bicubic", "network"], output="rows.csv"))
    >>> report.best["all"]["psnr_y"]
    'network'

    Args:
        settings: Systems to compare, and how. With an output the rows are written there, and a run that was
            interrupted continues.
        on_progress: Function that is called with the numbers of keys, once before the first and after each, where
            there is an output.

    Raises:
        ValueError: If the systems, a table, the checkpoint, a metric or the output cannot be used.
        ImportError: If SciPy is missing, or for videos PyAV or an ffmpeg with libvmaf.
    """
    comparison = SystemsComparison(settings)
    job = comparison.make_job()
    if job.output is None:
        entries = measure_rows(job)
        return comparison.report(row for entry in entries for row in job.form.complete(entry, job.settings))
    run_rows(job, on_progress=on_progress)
    return comparison.report(read_rows(job))


def _refuse_pictures(settings: ComparisonSettings) -> None:
    """Raise a ValueError if a setting is of videos alone."""
    only = "of videos, and only pictures are compared"
    if "vmaf" in settings.metrics:
        raise ValueError(f"VMAF is {only}. Leave vmaf out of the metrics.")
    if settings.every is not None:
        raise ValueError(f"`every` is {only}. Leave it out.")
    if "ti" in settings.bins:
        raise ValueError(f"Temporal information (ti) is {only}. Leave it out of the bins.")


def _add_scores(row: ComparisonRow, reference: FileScore, distorted: FileScore) -> ComparisonRow:
    """Return a row with scores, or with the error of one of them and no numbers."""
    error = distorted.error or reference.error
    if error is not None:
        return ComparisonRow(row.key, row.system, row.groups, error=write_line(error))
    if row.width is None:
        row = row._replace(width=distorted.width, height=distorted.height, frames=distorted.frames)
    return row._replace(score=distorted.score, reference_score=reference.score)
