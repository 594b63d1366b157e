# SPDX-License-Identifier: Apache-2.0
"""Measurements of checkpoints on scored pictures (section 4.1 of the paper)."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm import tqdm
from transformers.utils import logging

from ..common.checks import check_counts
from ..common.devices import without_accelerator
from ..common.extras import require
from ..common.files import hide_path
from ..data.batches import RowPicture, lazy_row
from ..data.columns import TableOptions
from ..data.loading import load_data
from ..data.splits import choose_groups, choose_split, is_whole
from ..hub.card_updates import check_card_directory, renew_card
from ..metrics.bootstrap import bootstrap_differences
from ..metrics.correlation import MIN_PICTURES, TRUSTWORTHY_PICTURES, standard_error
from ..metrics.distributions import AVA_THRESHOLD, distribution_metrics, opinion_scores
from ..metrics.reports import ComparisonReport, QualityReport, SrccDifference, quality_report
from ..models.auto import DEFAULT_CHECKPOINT
from ..models.protocol import QualityModel, QualityProcessor
from ..pictures.opening import Preset, check_preset
from ..scoring.calibration import check_count, write_calibration
from ..scoring.engine import PictureScore, ScoringOptions, score_pictures
from ..scoring.loading import load_config, load_quality, resolve_model
from ..scoring.signature import make_signature

if TYPE_CHECKING:
    import datasets

logger = logging.get_logger(__name__)
ALL_ROWS = "all rows"  # name of the only split of data that name none


def _setting(text: str, **default: Any) -> Any:
    """Return a field whose help is shown by `musiq evaluate` as well."""
    return dataclasses.field(metadata={"help": text}, **default)


@dataclasses.dataclass(kw_only=True)
class EvaluationSettings:
    """Settings of `evaluate_checkpoints`; the help of each field is also that of `musiq evaluate`."""

    models: Sequence[str] = _setting(
        f"checkpoints, directories or ids on the Hub (default: {DEFAULT_CHECKPOINT.name})"
    )
    data: Sequence[str] = _setting("CSV with columns image,mos[,split][,group], a folder, or a data set id on the Hub")
    dataset: str = _setting(
        'reader of --data: "scores" or the name of a known data set (default: scores)', default="scores"
    )
    image_root: str | None = _setting(
        "directory that the paths of a table start from (default: the table's own)", default=None
    )
    image_column: str | None = _setting("column of a table with the pictures (default: image)", default=None)
    score_column: str | None = _setting(
        "column of a table with the scores (default: mos or distribution)", default=None
    )
    split_column: str | None = _setting(
        "column of a table with the splits (default: split, if there is one)", default=None
    )
    split: str | None = _setting(
        "split to measure on (default: test if there is one, else validation, or all of a table without splits)",
        default=None,
    )
    split_seed: int | None = _setting("seed of a random split (default: the data's own split)", default=None)
    group_by: str | None = _setting(
        'column whose values are measured on their own too, or "none" (default: group)', default=None
    )
    shorter_side: int | None = _setting(
        "shrink pictures to this shorter side in pixels first, as the paper does for SPAQ (default: native size)",
        default=None,
    )
    preset: Preset = _setting("how files become pixels; google: as in the published program", default="default")
    batch_size: int = _setting("pictures per step and device, at most (default: 8)", default=8)
    num_workers: int = _setting("decoding processes (default: 0, which decodes in threads)", default=0)
    num_resamples: int = _setting("number of draws of the bootstrap intervals (default: 1000)", default=1000)
    ensemble: bool = _setting(
        "measure the mean score of all checkpoints as well, as the last row of the paper's Table 6", default=False
    )
    write_calibration: bool = _setting(
        "store the percentiles of the scores in calibration.json of each checkpoint, a folder, and in its card",
        default=False,
    )

    def __post_init__(self) -> None:
        """Raise a ValueError for wrong values, some of which would otherwise fail late; find embedded checkpoints."""
        self.models = [resolve_model(name) for name in self.models]
        check_counts(self, "batch_size", "num_resamples", "shorter_side")
        check_preset(self.preset)
        self.table_options()
        if self.num_workers < 0:
            raise ValueError(f"`num_workers` must be at least 0, got {self.num_workers}.")
        if self.ensemble and len(self.models) < 2:
            raise ValueError(f"`ensemble` is the mean of several checkpoints, got {len(self.models)}. Name more.")
        if self.write_calibration and len(self.data) > 1:
            raise ValueError(f"`write_calibration` needs one data set, got {len(self.data)}. Leave out the others.")

    def table_options(self) -> TableOptions:
        """Return the names of the columns; raise a ValueError if one column is to have two meanings."""
        return TableOptions(
            image_column=self.image_column, score_column=self.score_column, split_column=self.split_column
        )

    def scoring_options(self) -> ScoringOptions:
        """Return the keywords of `score_pictures`."""
        decoding: ScoringOptions = {"num_workers": self.num_workers, "in_processes": True} if self.num_workers else {}
        return {
            "max_pictures": self.batch_size,
            "shorter_side": self.shorter_side,
            "max_megapixels": math.inf,  # a data set is measured whole
            "preset": self.preset,
            **decoding,
        }


class Predictions(NamedTuple):
    """Answers of a model to the pictures of a data set.

    Attributes:
        scores: Scores in MOS points, shape (num_pictures,).
        logits: Output of the head, shape (num_pictures, num_labels).
    """

    scores: np.ndarray
    logits: np.ndarray


def score_rows(
    rows: "datasets.Dataset", *, model: QualityModel, processor: QualityProcessor, **options: Unpack[ScoringOptions]
) -> Predictions:
    """Score rows of undecoded pictures, on the accelerator if there is one, shared among the processes.

    Args:
        rows: Rows as `load_data` gives them; a `box` is cut out.
        model: Model in evaluation mode.
        processor: Image processor of the model.
        **options: Options of `score_pictures`.

    Returns:
        The answers to all rows, in their order; every process gets all of them.

    Raises:
        ValueError: If a picture cannot be scored or its score is not finite; the message names it, in every process.
    """
    state = PartialState(cpu=without_accelerator())
    share = range(state.process_index, len(rows), state.num_processes)
    model = model.to(state.device)
    own = score_pictures(_iterate_sources(rows, share), model=model, processor=processor, **options)
    # Processes wait for each other here, and all of them raise the error of one.
    numbered = list(zip(share, _take_until_error(own, len(share)), strict=False))  # the rows after an error have none
    answers = [answer for _, answer in sorted(gather_object(numbered), key=itemgetter(0))]
    for answer in answers:
        _check_scored(answer)
    return Predictions(
        np.array([answer.score for answer in answers], dtype=np.float32),
        np.array([answer.logits for answer in answers], dtype=np.float32),
    )


def _iterate_sources(rows: "datasets.Dataset", share: Iterable[int]) -> Iterator[tuple[str, RowPicture]]:
    """Iterate over the pictures of some rows, each with the name of its row as the key."""
    for index in share:
        row = rows[index]
        name = row["image"]["path"] or f"row {index}"
        yield name, lazy_row(row, name)


def _take_until_error(answers: Iterator[PictureScore], count: int) -> list[PictureScore]:
    """Take the answers of this process up to the first picture that cannot be scored."""
    disable = None if PartialState().is_main_process else True  # None shows the bar in a terminal only
    taken = []
    for answer in tqdm(answers, total=count, desc="scoring", unit="picture", disable=disable):
        taken.append(answer)
        if answer.score is None:
            break
    return taken


def _check_scored(answer: PictureScore) -> None:
    """Raise a ValueError that names the picture if it has no score, or its score is not finite."""
    if answer.error is not None:
        raise ValueError(answer.error)
    if answer.score is None or not np.isfinite(answer.score):
        raise ValueError(f"The score of {answer.key} is {answer.score}. Check the weights of the checkpoint.")


def _shorten_names(names: Sequence[str]) -> list[str]:
    """Shorten paths to their last part for tables, unless two would get the same name."""
    short = [hide_path(name) for name in names]
    return short if len(set(short)) == len(short) else list(names)


def _check_one_range(models: Sequence[str]) -> None:
    """Raise a ValueError if the score ranges of the checkpoints differ, as far as they are noted."""
    ranges = {}
    for name in models:
        known = load_config(name).answer_range
        ranges[name] = "not noted" if known is None else f"{known[0]:g} to {known[1]:g}"
    if len(set(ranges.values())) > 1:
        said = ", ".join(f"{name}: {known}" for name, known in ranges.items())
        raise ValueError(f"`ensemble` averages scores, so all checkpoints must have one score range, got {said}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Measured:
    """Pictures of one data set, on which checkpoints are measured.

    Attributes:
        title: Name of the data set in tables.
        split: Name of the split; `ALL_ROWS` of data that name none.
        rows: Rows of the split.
        groups: Group of each row; None if there are no groups.
    """

    title: str
    split: str
    rows: "datasets.Dataset"
    groups: list[str] | None

    @cached_property
    def labels(self) -> np.ndarray:
        """Opinion scores of all rows; of distributions their means."""
        return opinion_scores(self.rows["mos" if "mos" in self.rows.column_names else "distribution"][:])

    def warn_of_constant_scores(self) -> None:
        """Warn if all pictures, or all of a group, have one opinion score: no order can agree with it."""
        labels, names = self.labels, np.asarray(self.groups or ())
        parts = {"all pictures": labels} | {
            f"group {name!r}": labels[names == name] for name in sorted(set(self.groups or ()))
        }
        constant = [title for title, part in parts.items() if len(part) >= MIN_PICTURES and np.ptp(part) == 0]
        if constant:
            logger.warning(
                "%s: the opinion scores of %s do not differ, so every correlation there is 0. Check the column of the "
                "scores (`score_column`).",
                self.title,
                ", ".join(constant),
            )

    def warn_of_few(self) -> None:
        """Warn if there are so few pictures that chance decides the figures."""
        if (count := len(self.rows)) < TRUSTWORTHY_PICTURES:
            logger.warning(
                "%s has only %d pictures, so the standard error of an SRCC is about %.2f: differences between "
                "checkpoints may be chance.",
                self.title,
                count,
                standard_error(count),
            )

    def report(self, model: str, scores: np.ndarray, *, signatures: list[str], num_resamples: int) -> QualityReport:
        """Report the agreement of scores of all rows with the opinion scores."""
        if np.ptp(scores) == 0:
            logger.warning(
                "%s gives all pictures of %s the score %g, so every correlation is 0.", model, self.title, scores[0]
            )
        own = quality_report(scores, self.labels, groups=self.groups, num_resamples=num_resamples)
        return dataclasses.replace(own, model=model, data=self.title, split=self.split, signatures=tuple(signatures))


def _read_measured(settings: EvaluationSettings) -> list[_Measured]:
    """Read the pictures to measure on."""
    measured = []
    for title, data in zip(_shorten_names(settings.data), settings.data, strict=True):
        splits = load_data(
            data,
            dataset=settings.dataset,
            image_root=settings.image_root,
            split_seed=settings.split_seed,
            options=settings.table_options(),
        )
        split = choose_split(splits, settings.split, source=data)
        rows = splits[split]
        if len(rows) < MIN_PICTURES:
            raise ValueError(f"{data}, split {split}: at least {MIN_PICTURES} pictures are needed, got {len(rows)}.")
        groups = choose_groups(rows, settings.group_by, source=data)
        label = ALL_ROWS if settings.split is None and is_whole(splits) else split
        measured.append(_Measured(title=title, split=label, rows=rows, groups=groups))
        measured[-1].warn_of_constant_scores()
        measured[-1].warn_of_few()
    return measured


def _check_calibration(settings: EvaluationSettings, measured: Sequence[_Measured]) -> None:
    """Raise a ValueError if calibrations are to be written that cannot be."""
    if not settings.write_calibration:
        return
    for part in measured:
        check_count(len(part.rows))
    for name in settings.models:
        check_card_directory(name)


def _find_differences(
    reports: Sequence[QualityReport], scores: Sequence[np.ndarray], part: _Measured, *, num_resamples: int
) -> Iterator[SrccDifference]:
    """Yield the difference of each two checkpoints on one data set.

    Args:
        reports: Report of each checkpoint.
        scores: Scores of each checkpoint for all rows.
        part: Data set.
        num_resamples: Number of draws of the bootstrap.
    """
    intervals = bootstrap_differences(scores, part.labels, num_resamples=num_resamples)
    for (first, second), ends in intervals.items():
        pair = reports[first], reports[second]
        yield SrccDifference(
            data=part.title,
            split=part.split,
            first=pair[0].model or "",
            second=pair[1].model or "",
            difference=pair[1].overall.srcc - pair[0].overall.srcc,
            interval=ends,
        )


def evaluate_checkpoints(
    settings: EvaluationSettings, *, on_scores: Callable[[np.ndarray, np.ndarray], None] | None = None
) -> ComparisonReport:
    """Measure each checkpoint on each data set.

    Args:
        settings: Checkpoints, data sets and options.
        on_scores: Function that is called with the scores and the opinion scores of each checkpoint on each data set.

    Returns:
        One report for each pair, all of the first checkpoint first, and the difference of each two checkpoints. A
        report also holds `distribution_metrics` if checkpoint and data both have score distributions over the same
        values. With `settings.ensemble`, the reports of the mean scores follow, one for each data set. With
        `settings.write_calibration`, calibration.json is written.

    Raises:
        ValueError: If data, checkpoint or settings are wrong; the data are read before anything is scored.
    """
    require("scipy.stats", extra="train")  # now, not after hours of scoring
    if settings.ensemble:
        _check_one_range(settings.models)
    measured = _read_measured(settings)
    _check_calibration(settings, measured)
    reading: dict[str, Any] = {"shorter_side": settings.shorter_side, "preset": settings.preset}
    answers: list[list[np.ndarray]] = [[] for _ in measured]
    reports, signatures = [], []
    for title, name in zip(_shorten_names(settings.models), settings.models, strict=True):
        model, processor = load_quality(name)
        signature = make_signature(model, processor, checkpoint=name, **reading)
        signatures.append(signature)
        for part, scores in zip(measured, answers, strict=True):
            found = score_rows(part.rows, model=model, processor=processor, **settings.scoring_options())
            report = part.report(title, found.scores, signatures=[signature], num_resamples=settings.num_resamples)
            reports.append(_add_distributions(report, found.logits, part.rows))
            scores.append(found.scores)
            if on_scores is not None:
                on_scores(found.scores, part.labels)
            if settings.write_calibration and PartialState().is_main_process:
                data = part.title if settings.dataset == "scores" else settings.dataset
                parts: dict[str, Any] = {"model": model, "processor": processor, "opinions": part.labels}
                write_calibration(name, found.scores, data=f"{data}, {part.split}", **parts, **reading)
                renew_card(name)
    if settings.ensemble:
        count = len(settings.models)
        for part, scores in zip(measured, answers, strict=True):
            title = f"mean of {count} checkpoints"
            scores.append(np.stack(scores).mean(axis=0, dtype=np.float64))
            reports.append(part.report(title, scores[-1], signatures=signatures, num_resamples=settings.num_resamples))
    differences = [
        difference
        for number, part in enumerate(measured)
        for difference in _find_differences(
            reports[number :: len(measured)], answers[number], part, num_resamples=settings.num_resamples
        )
    ]
    return ComparisonReport(results=tuple(reports), differences=tuple(differences) or None)


def _add_distributions(report: QualityReport, logits: np.ndarray, rows: "datasets.Dataset") -> QualityReport:
    """Add `distribution_metrics` if both sides are distributions over the same values and these go beyond 5."""
    if "distribution" not in rows.column_names or logits.shape[1] <= AVA_THRESHOLD:
        return report
    wanted = np.asarray(rows["distribution"][:], dtype=np.float64)
    if wanted.shape != logits.shape:
        return report
    predicted = torch.from_numpy(logits).double().softmax(dim=-1).numpy()
    overall = dataclasses.replace(report.overall, **distribution_metrics(predicted, wanted))
    return dataclasses.replace(report, overall=overall)
