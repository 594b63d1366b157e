# SPDX-License-Identifier: Apache-2.0
"""Measure checkpoints on scored pictures (section 4.1 of the paper): reports, tables and model cards."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..common.checks import check_counts
from ..common.devices import without_accelerator
from ..data.batches import QualityCollator
from ..data.loading import load_data
from ..data.splits import choose_groups, choose_split
from ..metrics.correlation import MIN_PICTURES, OVERALL
from ..metrics.distributions import AVA_THRESHOLD, distribution_metrics, opinion_scores
from ..metrics.reports import quality_report
from ..models.musiq.configuration_musiq import MusiqConfig
from ..models.musiq.image_processing_musiq import MusiqImageProcessor
from ..models.musiq.modeling_musiq import MusiqForImageQualityAssessment
from ..pictures.opening import Preset, check_preset
from ..scoring.loading import load_scorer
from ..scoring.signature import make_signature

if TYPE_CHECKING:
    import datasets


@dataclasses.dataclass(kw_only=True)
class EvaluationSettings:
    """What to measure on what.

    Attributes:
        models: Checkpoints, directories or Hub ids.
        data: Data sets as `load_data` reads them.
        dataset: Reader of all of `data`, see `load_data`.
        image_root: Directory that the paths of a table start from; None = the table's own.
        split: Which split; None = "test" if there is one, else "validation".
        split_seed: Of the random protocol split in place of the data's own one; None = their own, see `load_data`.
        group_by: Column whose values are measured on their own as well; None = `group` if there is one, "none" = off.
        shorter_side: Shrink pictures to this shorter side, in pixels, first (SPAQ's protocol); None keeps their size.
        preset: How files become pixels; see `musiq_hf.pictures.opening`.
        batch_size: Pictures per step and device.
        num_workers: Processes that decode pictures; 0 decodes in the main one.
        num_resamples: Of the bootstrap intervals.
        ensemble: Whether to measure the mean of the scores of all `models` as well (last row of Table 6).
    """

    models: Sequence[str]
    data: Sequence[str]
    dataset: str = "scores"
    image_root: str | None = None
    split: str | None = None
    split_seed: int | None = None
    group_by: str | None = None
    shorter_side: int | None = None
    preset: Preset = "default"
    batch_size: int = 8
    num_workers: int = 0
    num_resamples: int = 1000
    ensemble: bool = False

    def __post_init__(self) -> None:
        """Raise a ValueError for what would otherwise fail late."""
        check_counts(self, "batch_size", "num_resamples", "shorter_side")
        check_preset(self.preset)
        if self.ensemble and len(self.models) < 2:
            raise ValueError(f"`ensemble` is the mean of several checkpoints, got {len(self.models)}. Name more.")


@torch.inference_mode()
def predict(
    model: MusiqForImageQualityAssessment,
    processor: MusiqImageProcessor,
    rows: "datasets.Dataset",
    *,
    shorter_side: int | None = None,
    preset: Preset = "default",
    batch_size: int = 8,
    num_workers: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Score rows of undecoded pictures, on the accelerator if there is one, shared among the processes.

    Args:
        model: In evaluation mode.
        processor: Of the model.
        rows: As `load_data` gives them.
        shorter_side: See `EvaluationSettings`.
        preset: See `EvaluationSettings`.
        batch_size: Pictures per step and device.
        num_workers: Processes that decode pictures.

    Returns:
        Scores in MOS points, shape (num_pictures,), and logits, shape (num_pictures, num_labels); in every process.

    Raises:
        ValueError: If a picture cannot be decoded or its score is not finite; the message names it.
    """
    accelerator = Accelerator(cpu=without_accelerator())
    model = model.to(accelerator.device)
    loader = DataLoader(
        rows,
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=QualityCollator(processor, shorter_side=shorter_side, preset=preset),
        pin_memory=torch.cuda.is_available(),
    )
    loader = accelerator.prepare_data_loader(loader)
    scores, logits = [], []
    disable = None if accelerator.is_main_process else True  # None: unless in a terminal
    for batch in tqdm(loader, desc="scoring", unit="batch", disable=disable):
        batch.pop("num_tokens")
        batch.pop("labels")  # no loss is wanted, and a head of another kind could not compute it
        output = model(**batch)
        gathered = accelerator.gather_for_metrics((output.scores, output.logits))
        scores.append(gathered[0].float().cpu())
        logits.append(gathered[1].float().cpu())
    values = torch.cat(scores).numpy()
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        name = rows[row]["image"]["path"] or f"row {row}"
        raise ValueError(f"The score of {name} is {values[row]}. Check the weights of the checkpoint.")
    return values, torch.cat(logits).numpy()


def _titles(names: Sequence[str]) -> list[str]:
    """Short names for tables: the last part of a path, unless two would be called the same."""
    short = [Path(name).name if Path(name).exists() else name for name in names]
    return short if len(set(short)) == len(short) else list(names)


def _check_one_range(models: Sequence[str]) -> None:
    """Raise a ValueError if the scores of the checkpoints have different units, as far as these are noted."""
    ranges = {}
    for name in models:
        known = MusiqConfig.from_pretrained(name).answer_range
        ranges[name] = "not noted" if known is None else f"{known[0]:g} to {known[1]:g}"
    if len(set(ranges.values())) > 1:
        said = ", ".join(f"{name}: {known}" for name, known in ranges.items())
        raise ValueError(f"`ensemble` averages scores, so all checkpoints must have one score range, got {said}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Measured:
    """The pictures of one data set."""

    title: str
    split: str
    rows: "datasets.Dataset"
    groups: list[str] | None

    def report(self, model: str, scores: np.ndarray, *, signatures: list[str], num_resamples: int) -> dict[str, Any]:
        labels = self.rows["mos" if "mos" in self.rows.column_names else "distribution"][:]
        wanted = opinion_scores(labels)
        own = quality_report(scores, wanted, groups=self.groups, num_resamples=num_resamples)
        return {"model": model, "data": self.title, "split": self.split, "signatures": signatures, **own}


def _read_measured(settings: EvaluationSettings) -> list[_Measured]:
    """What to measure on, see `EvaluationSettings`."""
    measured = []
    for title, data in zip(_titles(settings.data), settings.data, strict=True):
        splits = load_data(
            data, dataset=settings.dataset, image_root=settings.image_root, split_seed=settings.split_seed
        )
        split = choose_split(list(splits), settings.split, source=data)
        rows = splits[split]
        if len(rows) < MIN_PICTURES:
            raise ValueError(f"{data}, split {split}: at least {MIN_PICTURES} pictures are needed, got {len(rows)}.")
        groups = choose_groups(rows, settings.group_by, source=data)
        measured.append(_Measured(title=title, split=split, rows=rows, groups=groups))
    return measured


def evaluate_checkpoints(settings: EvaluationSettings) -> list[dict[str, Any]]:
    """Measure each checkpoint on each data set.

    Args:
        settings: What to measure on what.

    Returns:
        One report per pair: "model", "data", "split", "signatures" (one for each checkpoint of it) and what
        `quality_report` gives. Where checkpoint and data both have score distributions over the same values, "overall"
        also holds `distribution_metrics`. With `settings.ensemble`, the reports of the mean scores follow, one per
        data set.

    Raises:
        ValueError: If data, checkpoint or settings are wrong; the data are read before anything is scored.
    """
    if settings.ensemble:
        _check_one_range(settings.models)
    measured = _read_measured(settings)
    sums = [np.zeros(len(part.rows)) for part in measured]
    reports, signatures = [], []
    for title, name in zip(_titles(settings.models), settings.models, strict=True):
        model, processor = load_scorer(name)
        signature = make_signature(
            model, processor, checkpoint=name, shorter_side=settings.shorter_side, preset=settings.preset
        )
        signatures.append(signature)
        for part, total in zip(measured, sums, strict=True):
            scores, logits = predict(
                model,
                processor,
                part.rows,
                shorter_side=settings.shorter_side,
                preset=settings.preset,
                batch_size=settings.batch_size,
                num_workers=settings.num_workers,
            )
            report = part.report(title, scores, signatures=[signature], num_resamples=settings.num_resamples)
            report[OVERALL] |= _on_distributions(logits, part.rows)
            reports.append(report)
            total += scores
    if settings.ensemble:
        count = len(settings.models)
        for part, total in zip(measured, sums, strict=True):
            title = f"mean of {count} checkpoints"
            reports.append(
                part.report(title, total / count, signatures=signatures, num_resamples=settings.num_resamples)
            )
    return reports


def _on_distributions(logits: np.ndarray, rows: "datasets.Dataset") -> dict[str, float]:
    """`distribution_metrics` where both sides are distributions over the same values that go beyond 5."""
    num_bins = logits.shape[1]
    if "distribution" not in rows.column_names or num_bins <= AVA_THRESHOLD:
        return {}
    wanted = np.asarray(rows["distribution"][:], dtype=np.float64)
    if wanted.shape != logits.shape:
        return {}
    return distribution_metrics(torch.from_numpy(logits).double().softmax(dim=-1).numpy(), wanted)
