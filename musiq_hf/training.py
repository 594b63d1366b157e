# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning, or training from scratch, on opinion scores with the Transformers Trainer under Accelerate.

Section 4.2 of the paper: L1 loss, horizontal flip as the only augmentation, cosine schedule, pictures at their native
size. Nobody has published training code for MUSIQ; where the paper is silent the choice is named at the
setting.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    EvalPrediction,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, is_torch_xla_available, logging

from .configuration_musiq import MusiqConfig
from .data import QualityCollator, load_scored_images
from .extras import require
from .image_processing_musiq import MusiqImageProcessor
from .metrics import MIN_PICTURES, grouped_metrics, quality_metrics
from .model_card import MusiqModelCard
from .modeling_musiq import MusiqForImageQualityAssessment
from .publishing import add_remote_code, read_json, write_json

if TYPE_CHECKING:
    import datasets


LOGGING_STEPS = 20
logger = logging.get_logger(__name__)


@dataclass(kw_only=True)
class FinetuneSettings:
    """Settings of `finetune`.

    Attributes:
        data: CSV (`image,mos[,split][,group]`), imagefolder or Hub id; see `load_scored_images`.
        output_dir: Where model, processor, metrics and the Trainer's checkpoints go.
        model: Checkpoint to start from; a directory with a config.json but without weights is trained from scratch.
        image_root: Directory that the paths of a CSV start from.
        epochs: Passes over the training pictures.
        batch_size: Pictures per step and device.
        eval_batch_size: Pictures per evaluation step and device.
        learning_rate: Peak of the cosine schedule (AdamW).
        weight_decay: AdamW's decoupled weight decay.
        warmup_fraction: Part of the steps over which the learning rate rises.
        native_patches: Random subset of at most so many native patches per picture and step (the paper trains with
            512, which it does not say how to choose); None trains on all, at any cost in memory.
        degrade_fraction: Part of the training pictures that are blurred or made noisy, with a lowered score, in each
            epoch; a rule of ours (`musiq_hf.degradations`) for data without such faults. The paper has none.
        holdout_fraction: Part of the train split held out to choose the best epoch, so that `validation` is read only
            once, at the end. 0 chooses on `validation`. None = 0 if there is a `validation` split, else a tenth.
        score_range: Lowest and highest possible score, noted in the configuration.
        save_dtype: "float32" or "float16", of the weights file only; the model computes in float32 either way.
        seed: Of initial weights, order, flips and held-out pictures.
        num_workers: Processes that decode pictures; 0 decodes in the main one.
        data_description: What pictures and scores are, in sentences, for the model card; None names `data` alone.
        resume: Continue from the last checkpoint in `output_dir`.
    """

    data: str
    output_dir: str
    model: str
    image_root: str | None = None
    epochs: float = 10
    batch_size: int = 16
    eval_batch_size: int = 8
    learning_rate: float = 1e-4
    weight_decay: float = 0.05
    warmup_fraction: float = 0.05
    native_patches: int | None = 512
    degrade_fraction: float = 0.0
    holdout_fraction: float | None = None
    score_range: tuple[float, float] | None = None
    save_dtype: str = "float32"
    seed: int = 0
    num_workers: int = 0
    data_description: str | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        """Raise a ValueError for what would otherwise fail after hours."""
        if not self.epochs > 0:
            raise ValueError(f"`epochs` must be positive, got {self.epochs}.")
        for name in ("batch_size", "eval_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if self.save_dtype not in ("float32", "float16"):
            raise ValueError(f'`save_dtype` must be "float32" or "float16", got {self.save_dtype!r}.')


def has_weights(name: str) -> bool:
    """Whether a checkpoint has weights; a directory may hold a configuration alone."""
    directory = Path(name)
    files = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)
    return not directory.is_dir() or any((directory / file).exists() for file in files)


def load_model(name: str) -> MusiqForImageQualityAssessment:
    """A one-label model from a checkpoint, or with fresh weights from a directory that holds only a configuration.

    The head is kept if it has one label and made anew otherwise (an ImageNet head, a distribution).
    """
    config = AutoConfig.from_pretrained(name)
    if not isinstance(config, MusiqConfig):
        raise ValueError(f"{name} is a {config.model_type} checkpoint, a MUSIQ one was expected.")
    changes: dict[str, Any] = {"id2label": {0: "MOS"}, "label2id": {"MOS": 0}}
    if not has_weights(name):
        logger.warning("%s holds no %s: training starts from random weights.", name, SAFE_WEIGHTS_NAME)
        return MusiqForImageQualityAssessment(MusiqConfig(**(config.to_diff_dict() | changes)))
    if config.num_labels != 1:
        changes |= {"problem_type": "regression", "ignore_mismatched_sizes": True}
    return MusiqForImageQualityAssessment.from_pretrained(name, dtype=torch.float32, **changes)


@torch.no_grad()
def normalize_scores(
    model: MusiqForImageQualityAssessment,
    labels: Sequence[float],
    *,
    score_range: tuple[float, float] | None = None,
) -> None:
    """Set `score_offset` and `score_scale` to mean and deviation of the labels, so that logits are in deviations.

    A head that is in deviations already, of other labels, is kept: what was good stays good, in the new unit. A head
    in MOS points (a published checkpoint) is carried over by mapping its `score_range` to the range of the labels.

    Args:
        model: Changed in place.
        labels: Opinion scores of the training pictures.
        score_range: Lowest and highest possible score of the new unit; noted in the configuration.
    """
    config, head = model.config, model.head.classifier
    offset, scale = float(np.mean(labels)), float(np.std(labels)) or 1.0
    head_is_fresh = not head.weight.any() and not head.bias.any()
    if (config.score_offset, config.score_scale) == (0, 1) and not head_is_fresh:
        low, ratio, old_low = 0.0, 1.0, 0.0
        if config.score_range is not None:
            old_low, old_high = config.score_range
            low, ratio = min(labels), (max(labels) - min(labels) or 1.0) / (old_high - old_low)
        head.bias.copy_(((head.bias - old_low) * ratio + low - offset) / scale)
        head.weight.mul_(ratio / scale)
    config.score_offset, config.score_scale = offset, scale
    config.score_range = None if score_range is None else list(score_range)
    config.validate_architecture()


def save_checkpoint(
    model: MusiqForImageQualityAssessment, processor: MusiqImageProcessor, output_dir: str | Path, *, dtype: str
) -> None:
    """Write config, weights and preprocessor config, each under a temporary name first.

    Args:
        model: What to save; its own weights are left alone.
        processor: Saved beside it.
        output_dir: Made if missing; other files in it are kept.
        dtype: "float32" or "float16", of the file; config.json says float32, so that it loads as float32.
    """
    output = Path(output_dir)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".saving-") as name:
        temporary = Path(name)
        weights = {key: value.to(getattr(torch, dtype)) for key, value in model.state_dict().items()}
        model.save_pretrained(temporary, state_dict=weights)
        processor.save_pretrained(temporary)
        write_json(temporary / "config.json", read_json(temporary / "config.json") | {"dtype": "float32"})
        for file in temporary.iterdir():
            os.replace(file, output / file.name)


def split_data(
    splits: "datasets.DatasetDict", *, holdout_fraction: float | None, seed: int
) -> tuple["datasets.Dataset", "datasets.Dataset"]:
    """Training pictures, and those that choose the best epoch; see `FinetuneSettings.holdout_fraction`.

    Raises:
        ValueError: If there is no train split, or nothing to choose on.
    """
    if "train" not in splits:
        raise ValueError(f"A `train` split is needed, got {sorted(splits)}. Name it in the `split` column.")
    fraction = holdout_fraction
    if fraction is None:
        fraction = 0.0 if "validation" in splits else 0.1
    if fraction == 0:
        if "validation" not in splits:
            raise ValueError("`holdout_fraction=0` chooses the best epoch on a `validation` split, but there is none.")
        return splits["train"], splits["validation"]
    if not 0 < fraction < 1:
        raise ValueError(f"`holdout_fraction` must lie in [0, 1), got {fraction}.")
    parts = splits["train"].train_test_split(test_size=fraction, seed=seed)
    return parts["train"], parts["test"]


class QualityTrainer(Trainer):
    """Trainer with one collator for training (flips, subsets) and another for evaluation (whole pictures)."""

    def __init__(self, *args: Any, eval_collator: QualityCollator, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.eval_collator = eval_collator

    def _with_eval_collator(self, make_loader: Any, *args: Any) -> Any:
        train_collator = self.data_collator  # type: ignore[has-type]
        self.data_collator = self.eval_collator
        try:
            return make_loader(*args)
        finally:
            self.data_collator = train_collator

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        return self._with_eval_collator(super().get_eval_dataloader, eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        return self._with_eval_collator(super().get_test_dataloader, test_dataset)


def _compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    _, scores = prediction.predictions  # logits and scores, in the order of the model's output
    return quality_metrics(scores, prediction.label_ids)


def _training_arguments(settings: FinetuneSettings) -> TrainingArguments:
    return TrainingArguments(
        output_dir=settings.output_dir,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.eval_batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup_fraction,  # below 1: a fraction of all steps
        lr_scheduler_type="cosine",
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="srcc",
        greater_is_better=True,
        logging_steps=LOGGING_STEPS,
        dataloader_num_workers=settings.num_workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        label_names=["labels"],
        seed=settings.seed,
        # Without it several processes on a CPU would not find each other and train apart.
        use_cpu=not (torch.accelerator.is_available() or is_torch_xla_available()),
    )


def _last_checkpoint(settings: FinetuneSettings) -> str | None:
    """Where to continue; starting anew in the directory of another run would mix the two."""
    output = Path(settings.output_dir)
    checkpoint = get_last_checkpoint(str(output)) if output.is_dir() else None
    if settings.resume and checkpoint is None:
        raise ValueError(f"`--resume`: {output} holds no checkpoint yet. Start without it.")
    if checkpoint is not None and not settings.resume:
        raise ValueError(f"{output} holds the checkpoints of another run. Add `--resume`, or choose a new directory.")
    return checkpoint


def _make_trainer(
    settings: FinetuneSettings, train: "datasets.Dataset", selection: "datasets.Dataset"
) -> QualityTrainer:
    model = load_model(settings.model)
    processor = AutoImageProcessor.from_pretrained(settings.model)
    processor.check_config(model.config)
    normalize_scores(model, train["mos"][:], score_range=settings.score_range)
    return QualityTrainer(
        model=model,
        args=_training_arguments(settings),
        train_dataset=train,
        eval_dataset=selection,
        processing_class=processor,
        data_collator=QualityCollator(
            processor,
            flip=True,
            degrade_fraction=settings.degrade_fraction,
            worst_score=min(train["mos"]),
            # A bound on native patches holds by itself where there are none.
            native_patches=settings.native_patches if processor.use_native_resolution else None,
        ),
        eval_collator=QualityCollator(processor),
        compute_metrics=_compute_metrics,
    )


def write_card(settings: FinetuneSettings, *, num_pictures: int, report: dict[str, Any]) -> None:
    """Write the model card of a finished run from its files, settings and metrics.

    Args:
        settings: Of the run; its `output_dir` holds the checkpoint.
        num_pictures: Pictures that it was trained on.
        report: What `finetune` returns.
    """
    config = MusiqConfig.from_pretrained(settings.output_dir)
    recipe = asdict(settings) | {"loss": "L1", "optimizer": "AdamW", "schedule": "cosine", "augmentation": "flips"}
    unsaid = ("data", "output_dir", "model", "image_root", "data_description", "resume", "num_workers")
    named = ", ".join(f"{key} {value}" for key, value in recipe.items() if key not in unsaid and value is not None)
    start = "the weights of" if has_weights(settings.model) else "random weights in the configuration"
    card = MusiqModelCard(
        name=Path(settings.output_dir).name,
        config=config,
        source=f"Trained with `examples/finetune.py` of musiq_hf, from {start} `{Path(settings.model).name}`.",
        training_data=f"{settings.data_description or Path(settings.data).name} {num_pictures:,} pictures.",
        recipe=f"Settings: {named}.",
        metrics=report,
    )
    card.save(settings.output_dir)


def _report(trainer: QualityTrainer, rows: "datasets.Dataset") -> dict[str, Any]:
    prediction = trainer.predict(rows)
    _, scores = prediction.predictions
    report: dict[str, Any] = {"num_pictures": len(rows), "overall": quality_metrics(scores, prediction.label_ids)}
    if "group" in rows.column_names:
        report["groups"] = grouped_metrics(scores, prediction.label_ids, [str(name) for name in rows["group"]])
    return report


def finetune(settings: FinetuneSettings) -> dict[str, Any]:
    """Train, keep the epoch with the best SRCC, save it, reload the saved files and measure them.

    Args:
        settings: What to train on what, and how.

    Returns:
        Metrics of the reloaded checkpoint, also in `output_dir/metrics.json`: "selection" (the pictures that chose the
        epoch) and, if `validation` did not choose it, "validation".

    Raises:
        ValueError: If data, model or settings are wrong; before anything is trained.
    """
    require("scipy.stats", extra="train")
    set_seed(settings.seed)
    checkpoint = _last_checkpoint(settings)
    splits = load_scored_images(settings.data, image_root=settings.image_root)
    train, selection = split_data(splits, holdout_fraction=settings.holdout_fraction, seed=settings.seed)
    measured = {"selection": selection}
    if "validation" in splits and splits["validation"] is not selection:
        measured["validation"] = splits["validation"]
    for name, rows in measured.items():
        if len(rows) < MIN_PICTURES:
            raise ValueError(f"The {name} pictures must be at least {MIN_PICTURES}, got {len(rows)}. Give more data.")
    trainer = _make_trainer(settings, train, selection)
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_state()  # the whole log; of the checkpoints only the best is kept
    model = trainer.accelerator.unwrap_model(trainer.model)
    if trainer.is_world_process_zero():
        save_checkpoint(model, trainer.processing_class, settings.output_dir, dtype=settings.save_dtype)
        add_remote_code(settings.output_dir)
    trainer.accelerator.wait_for_everyone()
    # What is published is what the files give, not what was in memory.
    model.load_state_dict(MusiqForImageQualityAssessment.from_pretrained(settings.output_dir).state_dict())
    report = {name: _report(trainer, rows) for name, rows in measured.items()}
    if trainer.is_world_process_zero():
        write_json(Path(settings.output_dir) / "metrics.json", report)
        write_card(settings, num_pictures=len(train), report=report)
    return report
