# SPDX-License-Identifier: Apache-2.0
"""Measure checkpoints on scored pictures (section 4.1 of the paper): reports, tables and model cards."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers.utils import is_torch_xla_available

from .collators import QualityCollator
from .configuration_musiq import MusiqConfig
from .data import load_data
from .image_processing_musiq import MusiqImageProcessor
from .metrics import (
    AVA_THRESHOLD,
    METRICS,
    MIN_PICTURES,
    OVERALL,
    distribution_metrics,
    opinion_scores,
    quality_report,
)
from .model_card import MusiqModelCard
from .model_preparation import load_for_inference
from .modeling_musiq import MusiqForImageQualityAssessment
from .presets import Preset, check_preset
from .publishing import read_json, write_json, write_text
from .settings import check_counts
from .signature import make_signature
from .tables import HEADINGS, markdown_table

if TYPE_CHECKING:
    import datasets

NO_GROUPS = "none"
SUMMARY = "summary"  # of repeated runs, in metrics.json
_CARD_KEYS = ("signatures", "num_pictures", OVERALL, "groups", "intervals", "targets", "faults", "half_size", SUMMARY)
_UNKNOWN = "Not noted with these files."


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
        preset: How files become pixels; see `musiq_hf.presets`.
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


def choose_split(names: Sequence[str], split: str | None, *, source: str) -> str:
    """`split` if it exists; without a wish "test", else "validation"."""
    if split is not None and split in names:
        return split
    if split is None:
        for default in ("test", "validation"):
            if default in names:
                return default
    wanted = "no `test` or `validation` split" if split is None else f"no split {split!r}"
    raise ValueError(f"{source} has {wanted}, only {', '.join(sorted(names))}. Name one of them with `--split`.")


def choose_groups(rows: "datasets.Dataset", group_by: str | None, *, source: str) -> list[str] | None:
    """Group of each picture, see `EvaluationSettings.group_by`; None if there is none."""
    if group_by == NO_GROUPS or (group_by is None and "group" not in rows.column_names):
        return None
    column = group_by or "group"
    if column not in rows.column_names:
        raise ValueError(
            f"`--group_by {column}`: {source} has no such column, only {', '.join(rows.column_names)}. "
            f"Name one of them, or {NO_GROUPS}."
        )
    return [str(value) for value in rows[column]]


def load_scorer(
    name: str, *, dtype: torch.dtype = torch.float32
) -> tuple[MusiqForImageQualityAssessment, MusiqImageProcessor]:
    """Model in evaluation mode and processor of a checkpoint that predicts quality.

    Args:
        name: Directory or Hub id.
        dtype: Of the weights; of a half-precision model stem and head stay in float32.

    Raises:
        ValueError: If it has no weights, or predicts no quality, or the two do not fit together.
    """
    lack = "predicts no quality. Fine-tune it first."
    return load_for_inference(name, MusiqForImageQualityAssessment, lack=lack, dtype=dtype)


def without_accelerator() -> bool:
    """Whether to tell Accelerate to use the CPU."""
    # Without saying so, several processes on a CPU would not find each other.
    return not (torch.accelerator.is_available() or is_torch_xla_available())


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


def _with_interval(report: Mapping[str, Any], part: str, metric: str, value: float) -> str:
    interval = report["intervals"].get(part, {}).get(metric)
    return f"{value:.4f}" if interval is None else f"{value:.4f} [{interval[0]:.4f}, {interval[1]:.4f}]"


def render_evaluations(reports: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: all metrics per checkpoint and data set, SRCC across data sets if there are several, then groups.

    Args:
        reports: What `evaluate_checkpoints` returns, at least one.
    """
    metrics = [name for name in HEADINGS if any(name in report[OVERALL] for report in reports)]
    heads = ["checkpoint", "data", "split", "pictures", *(HEADINGS[name] for name in metrics)]
    rows = []
    for report in reports:
        values = report[OVERALL]
        cells = [_with_interval(report, OVERALL, name, values[name]) if name in values else "" for name in metrics]
        rows.append([report["model"], report["data"], report["split"], f"{report['num_pictures']:,}", *cells])
    parts = ["Overall; in brackets 95 % bootstrap intervals over the pictures.", markdown_table(heads, rows)]
    data = list(dict.fromkeys(report["data"] for report in reports))
    if len(data) > 1:
        models = dict.fromkeys(report["model"] for report in reports)
        srcc = {(report["model"], report["data"]): report[OVERALL]["srcc"] for report in reports}
        across = [[model, *(f"{srcc[model, name]:.4f}" for name in data)] for model in models]
        parts += ["SRCC across data sets.", markdown_table(["checkpoint", *data], across)]
    rows = []
    for report in reports:
        for group, values in report.get("groups", {}).items():
            cells = [_with_interval(report, group, name, values[name]) for name in METRICS]
            rows.append([report["model"], report["data"], group, *cells])
    if rows:
        heads = ["checkpoint", "data", "group", *(HEADINGS[name] for name in METRICS)]
        parts += ["Within groups.", markdown_table(heads, rows)]
    signatures = dict.fromkeys(f"- `{own}`" for report in reports for own in report["signatures"])
    return "\n\n".join([*parts, "Made with", "\n".join(signatures)]) + "\n"


def check_card_directory(directory: str | Path) -> Path:
    """The directory of a checkpoint whose card can be updated, or a ValueError; for commands, before hours of work."""
    if not (Path(directory) / "config.json").is_file():
        raise ValueError(
            f"The card of {directory} cannot be updated: that needs a local directory with a config.json. "
            "Download the checkpoint first."
        )
    return Path(directory)


def update_card(directory: str | Path, report: Mapping[str, Any], *, title: str | None = None) -> None:
    """Add a report to metrics.json and to the "Evaluation" section of the model card; the rest of both stays.

    Args:
        directory: Of the checkpoint. Without a README.md a whole card is written.
        report: One of those of `evaluate_checkpoints`, or that of `musiq_hf.robustness.measure_robustness`, or, with a
            title, that of `musiq_hf.repeated_runs.repeat_runs`.
        title: Name of the entry; one of the same name is replaced. None = "<data>, <split>": "validation" alone is
            what training calls its own validation split.

    Raises:
        ValueError: If the directory holds no checkpoint.
    """
    directory = check_card_directory(directory)
    readme, stored = directory / "README.md", directory / "metrics.json"
    metrics = read_json(stored) if stored.is_file() else {}
    name = title or f"{report['data']}, {report['split']}"
    metrics[name] = {key: report[key] for key in _CARD_KEYS if key in report}
    text = MusiqModelCard(
        name=directory.name,
        config=MusiqConfig.from_pretrained(directory),
        source=_UNKNOWN,
        training_data=_UNKNOWN,
        recipe=_UNKNOWN,
        metrics={name: entry for name, entry in metrics.items() if _is_report(entry)},
    ).render()
    if readme.is_file():
        text = _replace_evaluation(readme.read_text(encoding="utf-8"), text)
    write_text(readme, text)
    write_json(stored, metrics)


def _is_report(entry: Any) -> bool:
    """Whether a card can show it: pre-training leaves plain numbers in metrics.json."""
    return isinstance(entry, Mapping) and (OVERALL in entry or SUMMARY in entry)


def _replace_evaluation(old: str, new: str) -> str:
    """The old card with the new one's "Evaluation" section, at the end if it had none."""
    section = re.compile(r"^## Evaluation\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    found = section.search(new)
    assert found is not None  # the template has one
    if section.search(old) is None:
        return f"{old.rstrip()}\n\n{found[0].rstrip()}\n"
    return section.sub(lambda _: found[0], old, count=1)
