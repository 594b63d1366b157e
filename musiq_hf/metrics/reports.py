# SPDX-License-Identifier: Apache-2.0
"""Reports of measurements: on scored pictures, on degraded copies, and over repeated runs."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from .accuracy import AccuracyReport
from .bootstrap import bootstrap_intervals
from .correlation import MEAN_OF_GROUPS, Values, grouped_metrics, quality_metrics
from .fidelity import FidelityReport
from .json_objects import JsonObject

Interval = tuple[float, float]  # low and high end


@dataclass(frozen=True, kw_only=True)
class Metrics(JsonObject):
    """Agreement with opinion scores on one set of pictures; see `quality_metrics` and `distribution_metrics`.

    Attributes:
        srcc: Rank correlation.
        plcc: Linear correlation of the raw predictions.
        plcc_logistic: Linear correlation after a logistic curve.
        krcc: Rank correlation by pairs, tau-b.
        rmse: Root of the mean squared error, in MOS points.
        emd: Mean earth mover's distance of the score distributions.
        accuracy_at_5: Part of the pictures whose mean scores are on the same side of 5.
        mse: Mean squared difference of the mean scores of the distributions.
    """

    srcc: float
    plcc: float | None = None
    plcc_logistic: float | None = None
    krcc: float | None = None
    rmse: float | None = None
    emd: float | None = None
    accuracy_at_5: float | None = None
    mse: float | None = None


@dataclass(frozen=True, kw_only=True)
class Intervals(JsonObject):
    """Bootstrap intervals of 95 %; see `bootstrap_intervals`.

    Attributes:
        srcc: Interval of the rank correlation.
        plcc: Interval of the linear correlation of the raw predictions.
    """

    srcc: Interval | None = None
    plcc: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class QualityReport(JsonObject):
    """Agreement of predicted scores with opinion scores, on one split of a data set.

    Attributes:
        model: Title of the checkpoint; None if the file lies beside its checkpoint.
        data: Title of the data set.
        split: Name of the split.
        signatures: Signatures of the scores, one for each checkpoint that was averaged; see `make_signature`.
        num_pictures: Number of pictures.
        overall: Metrics over all pictures.
        groups: Metrics within each group, and their mean; None if the pictures have no groups.
        intervals: Bootstrap intervals over all pictures, and of the mean within groups; None if there are none.
    """

    model: str | None = None
    data: str | None = None
    split: str | None = None
    signatures: tuple[str, ...] | None = None
    num_pictures: int
    overall: Metrics
    groups: Mapping[str, Metrics] | None = None
    intervals: Mapping[str, Intervals] | None = None

    def for_card(self) -> Self:
        """Return the part that cards and metrics.json hold: all but model, data and split, which their entry names."""
        return replace(self, model=None, data=None, split=None)


@dataclass(frozen=True, kw_only=True)
class SrccDifference(JsonObject):
    """Difference of two checkpoints on the same pictures.

    Attributes:
        data: Title of the data set.
        split: Name of the split.
        first: Title of the first checkpoint.
        second: Title of the second checkpoint.
        difference: SRCC of the second minus that of the first.
        interval: Interval of 95 %; see `bootstrap_differences`.
    """

    data: str
    split: str
    first: str
    second: str
    difference: float
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class ComparisonReport(JsonObject):
    """Reports of several checkpoints and data sets, side by side.

    Attributes:
        results: One report for each pair, at least one, each with model, data, split and signatures.
        differences: Difference of each two checkpoints on each data set; None if there is one checkpoint, or too few
            pictures for intervals.
    """

    results: tuple[QualityReport, ...]
    differences: tuple[SrccDifference, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class PictureScores(JsonObject):
    """Scores of one picture and of its degraded copies.

    Attributes:
        picture: File name.
        pristine: Score of the picture as it is.
        whole: {fault: scores of the degraded copies}, weakest first.
        cropped: {fault: scores of the middle of the same copies}, weakest first.
    """

    picture: str
    pristine: float
    whole: Mapping[str, tuple[float, ...]]
    cropped: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class HalfSizeScores(JsonObject):
    """Scores of a large picture at two sizes.

    Attributes:
        picture: File name.
        width: Columns at full size, in pixels.
        height: Rows at full size, in pixels.
        full: Score at full size.
        half: Score of the picture shrunk to half of each side.
    """

    picture: str
    width: int
    height: int
    full: float
    half: float


@dataclass(frozen=True, kw_only=True)
class RobustnessTargets(JsonObject):
    """Figures of a checkpoint worth using.

    Attributes:
        srcc: Highest rank correlation of strength and score, over all faults.
        srcc_each: Highest one of a single fault; None in reports of earlier versions, which did not ask for it.
        pristine_above: Smallest part of the pairs whose pristine picture scores higher, over all faults.
        pristine_above_each: Smallest part of a single fault; None in reports of earlier versions.
        crop_srcc: Smallest rank correlation of the scores of whole and cropped copies, over all faults.
    """

    srcc: float
    srcc_each: float | None = None
    pristine_above: float
    pristine_above_each: float | None = None
    crop_srcc: float


@dataclass(frozen=True, kw_only=True)
class TargetsMet(JsonObject):
    """Truth values that say whether each figure is as good as its target."""

    srcc: bool
    pristine_above: bool
    crop_srcc: bool


@dataclass(frozen=True, kw_only=True)
class FaultSummary(JsonObject):
    """Figures over one fault, or over all.

    Attributes:
        srcc: Rank correlation of strength and score, mean over pictures and faults.
        srcc_with_pristine: Rank correlation with the pristine picture as one more strength, 0.
        pristine_above: Part of the pairs of pristine picture and copy whose pristine picture scores higher.
        crop_srcc: Rank correlation of the scores of whole and cropped copies of all pictures.
        met: Comparison with the targets. Over all faults a figure is met if that of each fault is met too.
    """

    srcc: float
    srcc_with_pristine: float
    pristine_above: float
    crop_srcc: float
    met: TargetsMet


@dataclass(frozen=True, kw_only=True)
class FaultReport(FaultSummary):
    """Figures over one fault, and its mean scores.

    Attributes:
        label: Name of the fault for tables.
        unit: Unit of its strengths.
        levels: Strengths, weakest first.
        mean_scores: Mean score of the pristine pictures, then of the copies of each strength.
    """

    label: str
    unit: str
    levels: tuple[float, ...]
    mean_scores: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class CopyChanges(JsonObject):
    """Changes from the score of each picture to that of its copy, in MOS points.

    Attributes:
        label: Copy, and the picture that it is compared with, for tables.
        num_pictures: Number of pictures.
        num_higher: Number of pictures whose copy scores higher.
        mean_change: Mean change.
        median_size: Median of the sizes of the changes, without their signs.
        largest_size: Largest size of a change.
        target: Figure asked for; None if nothing is asked for.
        is_met: Comparison with the target; None if there is none.
        changes: Change of each picture; None in metrics.json.
    """

    label: str
    num_pictures: int
    num_higher: int
    mean_change: float
    median_size: float
    largest_size: float
    target: str | None = None
    is_met: bool | None = None
    changes: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class OddScore(JsonObject):
    """Score of a picture that is no photograph, beside those of the pristine pictures.

    Attributes:
        label: Name of the picture for tables.
        score: Its score.
        num_below: Number of pristine pictures that score as low or lower.
        is_met: Answer whether no pristine picture is below, where that is asked for; None if it is not.
    """

    label: str
    score: float
    num_below: int
    is_met: bool | None = None


@dataclass(frozen=True, kw_only=True)
class RobustnessReport(JsonObject):
    """Scores of degraded copies of pristine pictures.

    Attributes:
        num_pictures: Number of pristine pictures.
        targets: Figures of a checkpoint worth using.
        overall: Figures over all faults.
        faults: {fault: figures over it}.
        pictures: Scores of every picture and its copies; None in metrics.json.
        half_size: Scores of large pictures at two sizes; None if there are none.
        common_sense: {copy: changes of the scores}; None if it was not measured.
        odd: {picture: score} of pictures that are no photographs; None if they were not scored.
    """

    num_pictures: int
    targets: RobustnessTargets
    overall: FaultSummary
    faults: Mapping[str, FaultReport]
    pictures: tuple[PictureScores, ...] | None = None
    half_size: tuple[HalfSizeScores, ...] | None = None
    common_sense: Mapping[str, CopyChanges] | None = None
    odd: Mapping[str, OddScore] | None = None

    def for_card(self) -> Self:
        """Return the part that cards and metrics.json hold: all but the scores of each picture."""
        if self.common_sense is None:
            return replace(self, pictures=None)
        brief = {name: replace(changes, changes=None) for name, changes in self.common_sense.items()}
        return replace(self, pictures=None, common_sense=brief)


@dataclass(frozen=True, kw_only=True)
class RunStatistics(JsonObject):
    """Statistics of one metric over runs.

    Attributes:
        num_runs: Number of runs that have the metric.
        mean: Mean, which MUSIQ reports.
        std: Standard deviation with the divisor num_runs - 1, which MUSIQ reports; None for one run.
        median: Median, which LoDa reports.
        min: Lowest value.
        max: Highest value.
    """

    num_runs: int
    mean: float
    std: float | None
    median: float
    min: float
    max: float


@dataclass(frozen=True, kw_only=True)
class SplitSummary(JsonObject):
    """Metrics of one split over runs.

    Attributes:
        overall: {metric: statistics} over all pictures.
        groups: {group: {metric: statistics}}, with an entry for the mean within groups; None if there are no groups.
    """

    overall: Mapping[str, RunStatistics]
    groups: Mapping[str, Mapping[str, RunStatistics]] | None = None


@dataclass(frozen=True, kw_only=True)
class RunsReport(JsonObject):
    """Training repeated over seeds and splits.

    Attributes:
        settings: Settings that all runs share, as JSON holds them; None in metrics.json.
        runs: {split: report} of each run; None in metrics.json.
        summary: {split: statistics over the runs}, which is all that cards show.
    """

    settings: Mapping[str, Any] | None = None
    runs: tuple[Mapping[str, QualityReport], ...] | None = None
    summary: Mapping[str, SplitSummary]

    def for_card(self) -> Self:
        """Return the part that cards and metrics.json hold: the summary."""
        return replace(self, settings=None, runs=None)


@dataclass(frozen=True, kw_only=True)
class SpeedReport(JsonObject):
    """Speed of scoring files, as `musiq score` does.

    Attributes:
        pictures_per_second: Median over the repetitions, without the start of the program.
        num_pictures: Number of files of one repetition.
        num_repeats: Number of repetitions.
        width: Columns of the pictures, in pixels.
        height: Rows of the pictures, in pixels.
        num_threads: Number of threads that compute.
        processor: Name of the processor.
    """

    pictures_per_second: float
    num_pictures: int
    num_repeats: int
    width: int
    height: int
    num_threads: int
    processor: str

    def for_card(self) -> Self:
        """Return the part that cards and metrics.json hold: all of it."""
        return self


Report = QualityReport | RobustnessReport | RunsReport | SpeedReport | AccuracyReport | FidelityReport


def read_report(entry: Mapping[str, Any], *, name: str = "report") -> Report:
    """Make a report of an entry of metrics.json, or of the content of a report file.

    The kind of the report follows from a key that no other kind has.

    Args:
        entry: JSON object.
        name: Name of the entry in error messages: its file and its key.

    Raises:
        ValueError: If a key is unknown or missing, or a value has another type; the message names file and key.
    """
    kinds: dict[str, type[Report]] = {
        "faults": RobustnessReport,
        "summary": RunsReport,
        "pictures_per_second": SpeedReport,
        "accuracy": AccuracyReport,
        "fidelity": FidelityReport,
    }
    kind = next((kind for key, kind in kinds.items() if key in entry), QualityReport)
    return kind.from_json(entry, name=name)


def quality_report(
    predictions: Values, targets: Values, *, groups: Sequence[str] | None = None, num_resamples: int = 1000
) -> QualityReport:
    """Measure predicted scores on one set of pictures: metrics, also within groups, and intervals.

    Args:
        predictions: Predicted scores, shape (num_pictures,), at least 3, finite.
        targets: Opinion scores, shape (num_pictures,), finite.
        groups: Name of each picture's group; None if there are no groups.
        num_resamples: Number of draws of the bootstrap.

    Returns:
        The report: `quality_metrics`, `grouped_metrics` (only with groups) and `bootstrap_intervals` of 95 %, which
        fewer than 10 pictures do not have.

    Raises:
        ValueError: If `quality_metrics` or `grouped_metrics` refuses the scores.
    """
    overall = quality_metrics(predictions, targets)
    own = None if groups is None else grouped_metrics(predictions, targets, groups)
    intervals = bootstrap_intervals(predictions, targets, groups=groups, num_resamples=num_resamples)
    return QualityReport(
        num_pictures=len(predictions),
        overall=Metrics(**overall),
        groups=None if own is None else {name: Metrics(**values) for name, values in own.items()},
        intervals={
            part: Intervals(**{metric: (low, high) for metric, (low, high) in ends.items()})
            for part, ends in intervals.items()
        },
    )


def _compute_statistics(values: Sequence[float]) -> RunStatistics:
    return RunStatistics(
        num_runs=len(values),
        mean=statistics.fmean(values),
        std=statistics.stdev(values) if len(values) > 1 else None,
        median=statistics.median(values),
        min=min(values),
        max=max(values),
    )


def _summarize(measured: Sequence[Metrics]) -> dict[str, RunStatistics]:
    tables = [metrics.to_json() for metrics in measured]
    names = dict.fromkeys(name for table in tables for name in table)
    return {name: _compute_statistics([table[name] for table in tables if name in table]) for name in names}


def _summarize_split(reports: Sequence[QualityReport]) -> SplitSummary:
    tables = [report.groups or {} for report in reports]
    groups = sorted({group for table in tables for group in table} - {MEAN_OF_GROUPS})
    within = {
        group: _summarize([table[group] for table in tables if group in table]) for group in (*groups, MEAN_OF_GROUPS)
    }
    return SplitSummary(overall=_summarize([report.overall for report in reports]), groups=within if groups else None)


def summarize_runs(reports: Sequence[Mapping[str, QualityReport]]) -> dict[str, SplitSummary]:
    """Compute mean, standard deviation and median of every metric over runs, also within groups.

    Args:
        reports: {split: report} of each run, at least one, as `finetune` returns them.

    Returns:
        {split: statistics}; a run that lacks a split or a group is not counted there.

    Raises:
        ValueError: If there is no report.
    """
    if not reports:
        raise ValueError("At least one finished run is needed for a summary, got none.")
    splits = dict.fromkeys(split for report in reports for split in report)
    return {split: _summarize_split([report[split] for report in reports if split in report]) for split in splits}
