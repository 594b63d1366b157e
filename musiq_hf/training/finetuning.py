# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning, or training from scratch, on opinion scores with the Transformers Trainer under Accelerate.

It follows section 4.2 of the paper: L1 loss on opinion scores, EMD on distributions, and a cosine schedule. The only
augmentation is a horizontal flip, and pictures keep their native size. Nobody has published training code for MUSIQ;
where the paper is silent, the help of a setting explains the choice.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import EvalPrediction, set_seed
from transformers.utils import logging

from ..common.extras import require
from ..data.batches import QualityCollator
from ..data.checks import count_tokens_of_rows, readable_rows
from ..data.loading import load_data
from ..data.splits import choose_groups, identify_pictures, split_data
from ..hub.checkpoints import save_checkpoint
from ..hub.model_card import CheckpointCard
from ..hub.publishing import check_upload, find_hub_id, upload
from ..metrics.correlation import MIN_PICTURES, TRUSTWORTHY_PICTURES, quality_metrics, standard_error
from ..metrics.distributions import opinion_scores
from ..metrics.report_files import StoredMetrics, write_metrics
from ..metrics.reports import QualityReport, quality_report
from ..models import family_of
from ..models.calibration import CheckpointCalibration
from ..models.protocol import QualityProcessor
from ..scoring.calibration import MIN_PICTURES as MIN_CALIBRATION
from ..scoring.calibration import write_calibration
from ..scoring.loading import has_weights, load_config, load_quality, resolve_model
from ..scoring.verification import write_self_test
from .collators import Augmentation, TrainingCollator
from .losses import consistency_loss, pairwise_rank_loss, plcc_loss, range_loss, rank_loss
from .self_supervised.localisation import add_localisation, remove_localisation
from .settings import FinetuneSettings, ScoredRunSettings
from .starting import (
    add_lora,
    calibrate,
    check_start,
    find_frozen,
    find_rates,
    flatten_settings,
    freeze,
    load_processor,
    load_start,
    merge_lora,
    normalize_scores,
)
from .trainer import QualityTrainer, find_last_checkpoint, fixed_length, make_trainer, num_processes

if TYPE_CHECKING:
    import datasets


ENOUGH_TO_FIT = 30  # pictures that the unit of the scores is fitted to
PAIR_WEIGHT = 0.5  # weight of the ranking loss of `fault_pairs`, beside L1 in standard deviations of the scores
COMMAND = "musiq_hf.training.finetune"  # name of a run in its card where the caller gives no other
logger = logging.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Pictures of a run.

    Attributes:
        train: Pictures that are trained on.
        measured: Pictures that are measured, by the name of their split. "selection" chooses the epoch; "validation"
            is there only if it does not choose, and "test" if the data have one.
        groups: Groups of the measured pictures by the name of their split; None where nothing is measured on its own.
    """

    train: "datasets.Dataset"
    measured: "dict[str, datasets.Dataset]"
    groups: dict[str, list[str] | None]


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Compute the agreement of predicted scores with opinion scores, for the Trainer."""
    _, scores, *_ = prediction.predictions  # see `QualityModel` for the order
    return quality_metrics(scores, opinion_scores(prediction.label_ids))


def _make_extra_loss(settings: FinetuneSettings, scale: float) -> Callable[[Any, torch.Tensor], torch.Tensor] | None:
    """Make the sum of correlation and ranking loss over a batch; None if both have the weight 0.

    The ranking loss compares scores divided by `scale`, the standard deviation of the labels.
    """
    if not settings.plcc_weight and not settings.rank_weight:
        return None

    def loss(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        values = torch.arange(1, labels.shape[-1] + 1, device=labels.device, dtype=labels.dtype)
        targets = labels if labels.ndim == 1 else (labels * values).sum(dim=-1) / labels.sum(dim=-1)
        correlation = settings.plcc_weight * plcc_loss(outputs["scores"], targets)
        return correlation + settings.rank_weight * pairwise_rank_loss(outputs["scores"] / scale, targets)

    return loss


def _make_pair_losses(settings: FinetuneSettings, scale: float) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Make the losses of the entries that the collator adds: ranking and range of `pairs`, consistency of `views`.

    They compare scores divided by `scale`, the standard deviation of the labels.
    """

    def pair_loss(scores: torch.Tensor) -> torch.Tensor:
        loss = PAIR_WEIGHT * rank_loss(scores[0::2] / scale, scores[1::2] / scale)
        if not settings.range_weight or settings.score_range is None:
            return loss
        lowest, highest = settings.score_range
        return loss + settings.range_weight * range_loss(scores / scale, lowest / scale, highest / scale)

    losses: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {}
    if settings.fault_pairs:
        losses["pairs"] = pair_loss
    if settings.view_pairs:
        weight = settings.consistency_weight
        losses["views"] = lambda scores: weight * consistency_loss(scores[0::2] / scale, scores[1::2] / scale)
    return losses


def _read_labels(train: "datasets.Dataset") -> tuple[int, Sequence[float]]:
    """Read the number of labels that the head needs, and the opinion scores of the training pictures."""
    if "distribution" in train.column_names:
        distributions = np.asarray(train["distribution"][:], dtype=np.float64)
        return distributions.shape[1], opinion_scores(distributions).tolist()
    return 1, train["mos"][:]


def _make_trainer(
    settings: FinetuneSettings, train: "datasets.Dataset", selection: "datasets.Dataset"
) -> QualityTrainer:
    num_labels, scores = _read_labels(train)
    model, processor = load_start(settings, num_labels=num_labels)
    if num_labels == 1:
        normalize_scores(model, scores, score_range=settings.score_range)
        if settings.score_range is None:
            logger.warning(
                "Without --score_range LOW HIGH the checkpoint will not say the range of its scores, from which "
                "`musiq score` makes its column score_0_1. If it is the range of the checkpoint that training starts "
                "from, scores also stay where they are, and are not moved to the mean of these pictures."
            )
    elif settings.degrade_fraction:
        raise ValueError("`degrade_fraction` lowers opinion scores, but these data have distributions. Leave it out.")
    elif settings.score_range is not None:
        raise ValueError(f"Scores of distributions lie between 1 and {num_labels}. Leave `score_range` out.")
    family = family_of(model.config)
    view = settings.training_view(family)
    length = fixed_length(settings, processor, view, train)
    if (frozen := find_frozen(settings, family)) is not None:
        freeze(model, frozen)
    if settings.group_by_length:
        lengths = count_tokens_of_rows(train, processor, view=view, shorter_side=settings.shorter_side)
        train = train.add_column("length", lengths)
    augmentation = Augmentation(
        flip=True,
        degrade_fraction=settings.degrade_fraction,
        worst_score=min(scores),
        min_crop=settings.min_crop,
        fault_pairs=settings.fault_pairs,
        view_pairs=settings.view_pairs,
        size_fraction=settings.size_fraction,
    )
    collator = TrainingCollator(
        processor, view=view, augmentation=augmentation, shorter_side=settings.shorter_side, length=length
    )
    deviation = float(np.std(scores)) or 1.0
    whole = model if settings.lora_rank is None else add_lora(model, settings.lora_rank)
    whole = add_localisation(whole, model, settings)
    return make_trainer(
        settings,
        best_metric="srcc",
        model=whole,
        train_dataset=train,
        eval_dataset=selection,
        processing_class=processor,
        data_collator=collator,
        eval_collator=QualityCollator(processor, shorter_side=settings.shorter_side),
        extra_loss=_make_extra_loss(settings, deviation),
        pair_losses=_make_pair_losses(settings, deviation),
        rates=find_rates(model, settings.rates, whole=whole),
        compute_metrics=compute_metrics,
    )


def _is_off(kind: type[ScoredRunSettings], name: str, value: Any) -> bool:
    """Return whether a setting of a class changes nothing, so that the card can leave it out.

    The seed always says something, and so does a 0 in place of another default.
    """
    if name == "seed":
        return False
    default = getattr(kind, name, None)
    return value in (None, {}, "none") or (not value and value == default)


def write_card(
    settings: ScoredRunSettings,
    *,
    num_pictures: int,
    report: dict[str, QualityReport],
    calibration: CheckpointCalibration | None = None,
    command: str = COMMAND,
    teaching: str = "",
) -> None:
    """Write the model card of a finished run from its files, settings and metrics.

    Args:
        settings: Settings of the run; `output_dir` holds the checkpoint.
        num_pictures: Number of pictures that it was trained on.
        report: Reports that the run returns.
        calibration: Calibration that was written beside the weights; None if there is none.
        command: Command that trained, which the card names.
        teaching: Sentences about a teacher, for the card.
    """
    config = load_config(settings.output_dir)
    recipe = flatten_settings(settings) | {"schedule": "cosine", "augmentation": "flips"}
    recipe["freeze"] = find_frozen(settings, family_of(config))  # also where the family decides
    recipe |= {"processes": num_processes()} if num_processes() > 1 else {}
    unsaid = {"data", "output_dir", "model", "teacher", "image_root", "data_description", "resume", "num_workers"}
    unsaid |= {"image_column", "score_column", "split_column", "save_steps", "push_to_hub"}
    unsaid |= set() if settings.optimizer == "sgd" else {"momentum"}
    unsaid |= set() if getattr(settings, "localisation_weight", 0) else {"localisation_pairs"}
    said = {k: v for k, v in recipe.items() if k not in unsaid and not _is_off(type(settings), k, v)}
    if settings.encoder_weights is not None:
        said["encoder_weights"] = Path(settings.encoder_weights).name
    named = ", ".join(f"{key} {value}" for key, value in said.items())
    fresh = "networks of others" if settings.backbones else "random weights"
    start = "the weights of" if has_weights(settings.model) else f"{fresh} in the configuration"
    beginning = Path(resolve_model(settings.model)).name
    card = CheckpointCard(
        name=Path(settings.output_dir).name,
        config=config,
        source=f"Trained with `{command}` of musiq_hf, from {start} `{beginning}`. {teaching}".strip(),
        training_data=f"{settings.data_description or Path(settings.data).name + ':'} {num_pictures:,} pictures.",
        recipe=f"Settings: {named}.",
        metrics=report,
        calibration=calibration,
        base_model=find_hub_id(settings.model) if has_weights(settings.model) else None,
        datasets=[known] if (known := find_hub_id(settings.data)) else [],
    )
    card.save(settings.output_dir)


def _measure(
    trainer: QualityTrainer, rows: "datasets.Dataset", groups: list[str] | None
) -> tuple[QualityReport, tuple[np.ndarray, np.ndarray]]:
    """Return the report on some pictures, and their scores and opinion scores."""
    prediction = trainer.predict(rows)
    _, scores, *_ = prediction.predictions  # see `QualityModel` for the order
    wanted = opinion_scores(prediction.label_ids)
    return quality_report(scores, wanted, groups=groups), (scores, wanted)


def _store_calibration(
    settings: ScoredRunSettings, model: Any, processor: Any, scores: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> CheckpointCalibration | None:
    """Write the calibration of a finished run by the validation pictures; None if they are too few."""
    split = "validation" if "validation" in scores else "selection"
    if len(scores[split][0]) < MIN_CALIBRATION:
        logger.warning(
            "No percentiles of the scores are stored: at least %d validation pictures are needed, got %d.",
            *(MIN_CALIBRATION, len(scores[split][0])),
        )
        return None
    data = Path(settings.data).name if settings.dataset == "scores" else settings.dataset
    return write_calibration(
        settings.output_dir,
        scores[split][0],
        opinions=scores[split][1],
        model=model,
        processor=processor,
        data=f"{data}, {split}",
        shorter_side=settings.shorter_side,
    )


def load_splits(
    settings: ScoredRunSettings, *, score_range: tuple[float, float] | None = None
) -> "datasets.DatasetDict":
    """Load the data that the settings name, see `load_data`."""
    return load_data(
        settings.data,
        dataset=settings.dataset,
        image_root=settings.image_root,
        split_seed=settings.split_seed,
        score_range=score_range,
        options=settings.table_options(),
    )


def _check_scores_differ(name: str, rows: "datasets.Dataset") -> None:
    """Raise a ValueError if all pictures have one score: nothing can be learnt from it, and no order measured."""
    _, scores = _read_labels(rows)
    if min(scores) == max(scores):
        raise ValueError(
            f"The {name} pictures ({len(rows)}) all have the score {scores[0]:g}, and scores that differ are needed. "
            "Check the column (`score_column`), or give more data."
        )


def _warn_of_shared(train: "datasets.Dataset", measured: "dict[str, datasets.Dataset]") -> None:
    """Warn if the data name a picture both for training and for measuring."""
    seen = set(identify_pictures(train))
    for name, rows in measured.items():
        count = sum(picture in seen for picture in identify_pictures(rows))
        if count:
            logger.warning(
                "%d %s pictures are trained on too, so what is measured on them says too much. Check the splits.",
                count,
                name,
            )


def part_pictures(settings: ScoredRunSettings, splits: "datasets.DatasetDict", *readers: QualityProcessor) -> Parts:
    """Part the splits of the data into pictures to train on and pictures to measure.

    Args:
        settings: Settings of the run.
        splits: Splits of the data, without those pictures that `skip_bad_images` leaves out afterwards.
        *readers: Image processors that read the pictures too, beside that of the model: a teacher's, say.

    Raises:
        ValueError: If there are too few pictures to measure or train on, all have one score, or there is no `train`
            split.
    """
    if settings.skip_bad_images:
        processor = load_processor(settings.model, None, architecture=settings.architecture)
        for name in splits:
            splits[name] = readable_rows(
                splits[name],
                processor,
                *readers,
                shorter_side=settings.shorter_side,
                num_workers=settings.num_workers,
            )
    train, selection = split_data(splits, holdout_fraction=settings.holdout_fraction, seed=settings.seed)
    measured = {"selection": selection}
    for name in ("validation", "test"):
        if name in splits and splits[name] is not selection:
            measured[name] = splits[name]
    for name, rows in measured.items():
        if len(rows) < MIN_PICTURES:
            raise ValueError(
                f"The {name} pictures must be at least {MIN_PICTURES}, got {len(rows)}. Give more data, "
                "or hold out more of them (`holdout_fraction`)."
            )
        _check_scores_differ(name, rows)
    _check_scores_differ("train", train)
    _warn_of_shared(train, measured)
    if len(selection) < TRUSTWORTHY_PICTURES:
        logger.warning(
            "The epoch is chosen by the SRCC of only %d pictures, whose standard error is about %.2f: differences "
            "between epochs and between runs may be chance.",
            len(selection),
            standard_error(len(selection)),
        )
    groups = {name: choose_groups(rows, settings.group_by, source=settings.data) for name, rows in measured.items()}
    return Parts(train=train, measured=measured, groups=groups)


def choose_rows_to_fit(settings: ScoredRunSettings, parts: Parts) -> "datasets.Dataset | None":
    """Choose the pictures that the unit of the scores is fitted to after training; None if the family fits none.

    They are those that choose the epoch, or all of the run where these are too few for a fit that means something.
    """
    import datasets

    if family_of(load_config(settings.model)).calibrate is None:
        return None
    rows = parts.measured["selection"]
    return rows if len(rows) >= ENOUGH_TO_FIT else datasets.concatenate_datasets([rows, parts.train])


def fit_unit(trainer: QualityTrainer, settings: ScoredRunSettings, rows: "datasets.Dataset | None") -> None:
    """Fit the unit of the saved scores to the scores that some pictures should get, and save the model again.

    Args:
        trainer: Trainer of the run.
        settings: Settings of the run.
        rows: Pictures with these scores; None leaves the unit as it is.
    """
    if rows is None:
        return
    model, _ = load_quality(settings.output_dir)
    trainer.model = trainer.model_wrapped = model.to(trainer.args.device)
    prediction = trainer.predict(rows)
    logits, *_ = prediction.predictions
    calibrate(model.cpu(), torch.from_numpy(logits), torch.from_numpy(prediction.label_ids))
    save_trained(trainer, settings, model, weights=model.state_dict())


def train_to_end(trainer: QualityTrainer, settings: ScoredRunSettings, checkpoint: str | None) -> None:
    """Train, and leave the weights of the best epoch in the trainer's model.

    Args:
        trainer: Trainer of the run.
        settings: Settings of the run.
        checkpoint: Checkpoint to continue from; None starts anew.
    """
    if trainer.args.device.type == "cpu":
        logger.warning("No accelerator was found: training on the CPU. To see less of a picture makes it cheaper.")
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_state()  # the kept checkpoint may be an earlier one, whose log ends there


def save_trained(
    trainer: QualityTrainer, settings: ScoredRunSettings, model: Any, *, weights: dict[str, torch.Tensor]
) -> None:
    """Save a quality model with the processor of the run; all processes must call it.

    Args:
        trainer: Trainer of the run.
        settings: Settings of the run.
        model: Quality model, whose weights may be others.
        weights: Trained weights by the names of the model.
    """
    if trainer.is_world_process_zero():
        save_checkpoint(
            model, trainer.processing_class, settings.output_dir, dtype=settings.save_dtype, weights=weights
        )
    trainer.accelerator.wait_for_everyone()


def measure_saved(
    trainer: QualityTrainer, settings: ScoredRunSettings, parts: Parts, *, command: str, teaching: str = ""
) -> dict[str, QualityReport]:
    """Measure the saved files, whose weights may be rounded to float16; write self-test, metrics and card.

    Args:
        trainer: Trainer of the run.
        settings: Settings of the run.
        parts: Pictures of the run.
        command: Command that trained, which the card names.
        teaching: Sentences about a teacher, for the card.

    Returns:
        Reports by split.
    """
    stored, _ = load_quality(settings.output_dir)
    if trainer.is_world_process_zero():
        write_self_test(stored, trainer.processing_class, settings.output_dir)
    trainer.model = trainer.model_wrapped = stored.to(trainer.args.device)
    found = {name: _measure(trainer, rows, parts.groups[name]) for name, rows in parts.measured.items()}
    report = {name: part for name, (part, _) in found.items()}
    if trainer.is_world_process_zero():
        write_metrics(settings.output_dir, StoredMetrics(reports=report))
        # `accelerate launch` may have asked for bfloat16 although the settings do not.
        used = replace(settings, bf16=trainer.accelerator.mixed_precision == "bf16")
        scores = {name: part for name, (_, part) in found.items()}
        write_card(
            used,
            num_pictures=len(parts.train),
            report=report,
            calibration=_store_calibration(settings, stored, trainer.processing_class, scores),
            command=command,
            teaching=teaching,
        )
    return report


def finetune(settings: FinetuneSettings, *, command: str = COMMAND) -> dict[str, QualityReport]:
    """Train, keep the epoch with the best SRCC, save it, reload the saved files and measure them.

    Args:
        settings: Settings of the run: model, data and hyperparameters.
        command: Command or function that the caller was started with, "musiq finetune" say; the model card names it.

    Returns:
        Reports on the reloaded checkpoint by split, also in `output_dir/metrics.json`. "selection" holds the pictures
        that chose the epoch; "validation" and "test" follow if the data have them and they did not choose it.

    Raises:
        ValueError: If data, model or settings are wrong; nothing has been trained then. Also if the upload fails; then
            the checkpoint is saved.
    """
    require("scipy.stats", extra="train")
    set_seed(settings.seed)
    checkpoint = find_last_checkpoint(settings)
    check_start(settings)
    if settings.push_to_hub is not None:
        check_upload(settings.push_to_hub)
    parts = part_pictures(settings, load_splits(settings, score_range=settings.score_range))
    trainer = _make_trainer(settings, parts.train, parts.measured["selection"])
    train_to_end(trainer, settings, checkpoint)
    model = merge_lora(remove_localisation(trainer.accelerator.unwrap_model(trainer.model)))
    weights = trainer.trained_weights() if settings.lora_rank is None else model.state_dict()
    save_trained(trainer, settings, model, weights=weights)
    fit_unit(trainer, settings, choose_rows_to_fit(settings, parts))
    report = measure_saved(trainer, settings, parts, command=command)
    if settings.push_to_hub is not None and trainer.is_world_process_zero():
        upload(load_quality(settings.output_dir)[0], settings.push_to_hub, settings.output_dir)
    return report
