# SPDX-License-Identifier: Apache-2.0
"""Distillation: a model learns the scores, and the features before the head, of another model, its teacher.

The teacher scores every training picture as it is shown to the student: cut, mirrored, resized, in a mosaic or with
made faults. So pictures need no opinion scores. The paper has no distillation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import set_seed
from transformers.image_processing_utils import BatchFeature

from ..common.devices import find_device
from ..common.extras import require
from ..data.batches import WHOLE_PICTURE, QualityCollator, cut_picture, pad_features
from ..data.loading import load_pictures
from ..metrics.distributions import opinion_scores
from ..metrics.reports import QualityReport
from ..models import family_of
from ..models.protocol import Feature, QualityProcessor, TrainingView
from ..scoring.loading import load_quality, resolve_model
from .collators import Augmentation, TrainingCollator
from .finetuning import (
    Parts,
    choose_rows_to_fit,
    compute_metrics,
    fit_unit,
    load_splits,
    measure_saved,
    part_pictures,
    save_trained,
    train_to_end,
)
from .losses import plcc_loss
from .settings import ScoredRunSettings, check_not_negative, make_view, needed, setting
from .starting import (
    check_start,
    find_frozen,
    find_rates,
    first_layer,
    freeze,
    load_start,
    normalize_scores,
    run_with_features,
)
from .trainer import QualityTrainer, find_last_checkpoint, fixed_length, make_trainer

if TYPE_CHECKING:
    import datasets

COMMAND = "musiq_hf.training.distill"  # name of a run in its card where the caller gives no other
PICTURES = "pictures"  # `dataset` of pictures without opinion scores
SAMPLE = 256  # pictures from which mean and deviation of the teacher's scores and features are taken
MAX_SPREADS = 4.0  # ratio of two deviations of scores in one unit; 1..5 beside 0..100 have 25
PREFIX = "teacher."  # of the teacher's tensors in the feature of a picture


@dataclass(kw_only=True)
class DistillSettings(ScoredRunSettings):
    """Settings of `distill` beside those of `ScoredRunSettings`, whose `model` is the student."""

    teacher: str = needed("Checkpoint of any family that teaches: a directory or an id on the Hub.")
    teacher_view: Mapping[str, Any] = field(
        default_factory=dict,
        metadata={
            "help": "Fields of the `TrainingView` of the teacher's family that differ from its defaults, so that the "
            "teacher sees a part of each picture, which is faster; without any, it sees the whole picture."
        },
    )
    dataset: str = setting(
        "scores",
        'Reader of `data`: "scores" for the above, a name in `musiq_hf.data.DATA_SETS` ("koniq", say), or "pictures" '
        "for a folder of pictures without opinion scores: the epoch is then chosen by the scores of the teacher.",
    )
    label_weight: float = setting(
        0.0,
        "Part of the opinion score in the score that a picture should get, in [0, 1]; the rest is the teacher's. Both "
        "must have one unit. Copies with made faults have the teacher's score alone.",
    )
    state_weight: float = setting(
        0.5,
        "Weight of the mean absolute difference between the features before the head (CLS states) of student and "
        "teacher, in deviations of the teacher's. Where their sizes differ, a linear projection joins them, which is "
        "not saved.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(self, "state_weight")
        if not 0 <= self.label_weight <= 1:
            raise ValueError(f"`label_weight` must lie in [0, 1], got {self.label_weight}.")
        if self.label_weight and self.dataset == PICTURES:
            raise ValueError('`dataset` "pictures" has no opinion scores. Leave `label_weight` out.')
        if self.split_seed is not None and self.dataset == PICTURES:
            raise ValueError('`dataset` "pictures" has no splits to draw. Leave `split_seed` out.')
        if self.fixed_shapes and not self.teacher_view:
            raise ValueError(
                "`fixed_shapes` needs a bound on what the teacher sees too. Set `teacher_view` "
                "({native_patches: 256}, say)."
            )


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Quality model that teaches, and how it sees a picture.

    Attributes:
        model: The model, in evaluation mode.
        processor: Image processor of the model.
        view: Part of a picture that it sees.
    """

    model: Any
    processor: Any
    view: TrainingView

    @classmethod
    def load(cls, settings: DistillSettings) -> "Teacher":
        """Load the teacher of a run.

        Raises:
            ValueError: If there is no such checkpoint, it predicts no quality, or its view lacks a field.
        """
        model, processor = load_quality(resolve_model(settings.teacher))
        view = WHOLE_PICTURE
        if settings.teacher_view:
            view = make_view(family_of(model.config), settings.teacher_view, source="teacher_view")
        return cls(model=model.requires_grad_(False), processor=processor, view=view)

    @torch.no_grad()
    def score(self, rows: "datasets.Dataset", *, shorter_side: int | None) -> tuple[np.ndarray, torch.Tensor]:
        """Score whole pictures, one by one.

        Args:
            rows: Rows of the pictures.
            shorter_side: Shorter side to which pictures are shrunk first, in pixels; None keeps their size.

        Returns:
            Scores in MOS points, shape (num_pictures,), and features, shape (num_pictures, width), on the CPU.
        """
        collator, scores, features = QualityCollator(self.processor, shorter_side=shorter_side), [], []
        for row in rows:
            batch = self.processor.pad([cut_picture(self.processor, collator.open(row)[0])])
            outputs, read = run_with_features(self.model, **batch.to(self.model.device))
            scores.append(float(outputs.scores))
            features.append(read[0].float().cpu())
        return np.array(scores), torch.stack(features)


class DistillCollator(TrainingCollator):
    """Collator of rows to batches that student and teacher read, each with its own image processor.

    Copies of fault pairs and views are pictures of the batch like the others. Their label is NaN, which stands for no
    opinion score. The entry `teacher` holds the arguments of the teacher.

    Args:
        processor: Image processor of the student.
        teacher: Model that teaches.
        teacher_length: Number of tokens to which the teacher's batches are padded; None pads to the longest picture.
        **options: View, augmentation and more, as for `TrainingCollator`.
    """

    def __init__(
        self, processor: QualityProcessor, *, teacher: Teacher, teacher_length: int | None = None, **options: Any
    ):
        super().__init__(processor, **options)
        self.teacher_processor, self.teacher_view = teacher.processor, teacher.view
        self.teacher_length = teacher_length

    def cut(self, image: Image.Image, view: TrainingView) -> Feature:
        """Turn an augmented picture into what the student reads, and what the teacher reads."""
        shown = cut_picture(self.teacher_processor, image, self.teacher_view.for_batch())
        return super().cut(image, view) | {PREFIX + name: values for name, values in shown.items()}

    def join(self, features: list[Feature], labels: list[Any], copies: dict[str, list[Feature]]) -> BatchFeature:
        """Pad the features of pictures and copies to one batch, and those of the teacher to an entry of it."""
        every = [*features, *(feature for made in copies.values() for feature in made)]
        own = [{name: part[name] for name in part if not name.startswith(PREFIX)} for part in every]
        shown = [{name.removeprefix(PREFIX): part[name] for name in part if name.startswith(PREFIX)} for part in every]
        batch = super().join(own, [*labels, *[float("nan")] * (len(every) - len(labels))], {})
        padded = pad_features(self.teacher_processor, shown, length=self.teacher_length)
        batch["teacher"] = {name: values for name, values in padded.items() if name != "num_tokens"}
        return batch


class DistillModel(nn.Module):
    """Student beside its teacher, with the losses between them; only the student is kept after training.

    Args:
        student: Quality model with one label, whose scores are in the unit of the teacher.
        teacher: Quality model whose weights are not trained.
        features: Features of the teacher for some pictures, shape (num_pictures, width).
        settings: Settings of the run, with the weights of the losses.
    """

    # The Trainer would otherwise rescale the mean loss by the number of processes or accumulation steps.
    accepts_loss_kwargs = False

    def __init__(self, student: Any, teacher: Any, *, features: torch.Tensor, settings: DistillSettings):
        super().__init__()
        self.student, self.teacher = student, teacher
        self.settings = settings
        self.spread = float(features.var(dim=0, correction=0).mean().sqrt()) or 1.0
        width, teacher_width = first_layer(student).in_features, features.shape[1]
        self.projection: nn.Module = nn.Identity()
        if settings.state_weight and width != teacher_width:
            self.projection = nn.Linear(width, teacher_width)
            with torch.no_grad():
                self.projection.bias.copy_(features.mean(dim=0))

    def train(self, mode: bool = True) -> "DistillModel":
        """Set the mode of the student and the projection; the teacher has neither dropout nor dropped paths."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, labels: torch.Tensor, teacher: Mapping[str, torch.Tensor] | None = None, **inputs: Any) -> Any:
        """Compute the losses of a batch; without the teacher's arguments, let the student alone answer.

        Args:
            labels: Opinion scores, NaN where there is none, shape (batch_size,).
            teacher: Arguments of the teacher; None while the student is measured.
            **inputs: Arguments of the student.

        Returns:
            `loss`, `logits` and `scores` of the student.
        """
        if teacher is None:
            return self.student(labels=labels, **inputs)
        with torch.no_grad():
            taught, wanted = run_with_features(self.teacher, **teacher)
        outputs, features = run_with_features(self.student, **inputs)
        part = self.settings.label_weight
        mixed = (1 - part) * taught.scores + part * labels
        targets = torch.where(labels.isnan(), taught.scores, mixed)
        loss = (outputs.scores - targets).abs().mean() / self.student.config.score_scale
        if self.settings.plcc_weight:
            loss = loss + self.settings.plcc_weight * plcc_loss(outputs.scores, targets)
        if self.settings.state_weight:
            difference = self.projection(features.float()) - wanted.float()
            loss = loss + self.settings.state_weight * difference.abs().mean() / self.spread
        return {"loss": loss, "logits": outputs.logits, "scores": outputs.scores}


def _load_splits(settings: DistillSettings) -> "datasets.DatasetDict":
    """Load the data with one opinion score a picture, NaN where there is none; distributions become their means."""
    import datasets

    if settings.dataset == PICTURES:
        pictures = load_pictures(settings.data, image_root=settings.image_root, options=settings.table_options())
        return datasets.DatasetDict({"train": pictures.add_column("mos", [float("nan")] * len(pictures))})
    splits = load_splits(settings)
    for name, rows in splits.items():
        if "distribution" in rows.column_names:
            means = opinion_scores(np.asarray(rows["distribution"][:], dtype=np.float64))
            splits[name] = rows.remove_columns("distribution").add_column("mos", means.tolist())
    return splits


def _teach(settings: DistillSettings, rows: "datasets.Dataset", teacher: Teacher) -> "datasets.Dataset":
    """Give pictures the scores that the student should give them, in place of their opinion scores."""
    scores, _ = teacher.score(rows, shorter_side=settings.shorter_side)
    labels, part = np.array(rows["mos"][:]), settings.label_weight
    wanted = np.where(np.isnan(labels), scores, (1 - part) * scores + part * labels)
    return rows.remove_columns("mos").add_column("mos", wanted.tolist())


def _load_parts(settings: DistillSettings, teacher: Teacher) -> Parts:
    """Load the pictures of a run; those that choose the epoch get the teacher's scores if they have no others."""
    parts = part_pictures(settings, _load_splits(settings), teacher.processor)
    if settings.dataset != PICTURES:
        return parts
    return replace(parts, measured={"selection": _teach(settings, parts.measured["selection"], teacher)})


def _check_unit(labels: np.ndarray, scores: np.ndarray) -> None:
    """Raise a ValueError if opinion scores cannot have the unit of the teacher's scores of the same pictures."""
    spreads = float(labels.std()), float(scores.std())
    if not scores.min() <= labels.mean() <= scores.max() or max(spreads) > MAX_SPREADS * min(spreads):
        raise ValueError(
            f"`label_weight` mixes opinion scores with the teacher's, but their mean and deviation are "
            f"{labels.mean():.4g} and {spreads[0]:.4g}, and the teacher's scores lie between {scores.min():.4g} and "
            f"{scores.max():.4g} with a deviation of {spreads[1]:.4g}: another unit. Leave it out."
        )


def _make_trainer(settings: DistillSettings, parts: Parts, teacher: Teacher) -> QualityTrainer:
    student, processor = load_start(settings)
    view = settings.training_view(family_of(student.config))
    length = fixed_length(settings, processor, view, parts.train)
    teacher_length = fixed_length(settings, teacher.processor, teacher.view, parts.train)
    order = np.random.RandomState(settings.seed).permutation(len(parts.train))
    sample = parts.train.select(sorted(order[:SAMPLE]))
    scores, features = teacher.score(sample, shorter_side=settings.shorter_side)
    if settings.label_weight:
        _check_unit(np.array(sample["mos"][:]), scores)
    normalize_scores(student, scores.tolist(), score_range=teacher.model.config.answer_range)
    if (frozen := find_frozen(settings, family_of(student.config))) is not None:
        freeze(student, frozen)
    whole = DistillModel(student, teacher.model, features=features, settings=settings)
    augmentation = Augmentation(
        flip=True,
        min_crop=settings.min_crop,
        fault_pairs=settings.fault_pairs,
        view_pairs=settings.view_pairs,
        size_fraction=settings.size_fraction,
    )
    collator = DistillCollator(
        processor,
        teacher=teacher,
        teacher_length=teacher_length,
        view=view,
        augmentation=augmentation,
        shorter_side=settings.shorter_side,
        length=length,
    )
    return make_trainer(
        settings,
        best_metric="srcc",
        model=whole,
        train_dataset=parts.train,
        eval_dataset=parts.measured["selection"],
        processing_class=processor,
        data_collator=collator,
        eval_collator=QualityCollator(processor, shorter_side=settings.shorter_side),
        rates=find_rates(student, settings.rates, whole=whole),
        compute_metrics=compute_metrics,
    )


def _describe_teaching(settings: DistillSettings) -> str:
    sentence = f"Its teacher was `{Path(resolve_model(settings.teacher)).name}`."
    if settings.dataset != PICTURES:
        return sentence
    return f"{sentence} The pictures have no opinion scores, so it is compared with the scores of the teacher."


def distill(settings: DistillSettings, *, command: str = COMMAND) -> dict[str, QualityReport]:
    """Train a model with another one as its teacher, keep the epoch with the best SRCC, save it and measure the files.

    Args:
        settings: Settings of the run: student, teacher, data and hyperparameters.
        command: Command or function that the caller was started with; the model card names it.

    Returns:
        Reports on the saved student by split, as those of `finetune`. They compare it with opinion scores, or with the
        teacher's scores if the pictures have no others.

    Raises:
        ValueError: If data, models or settings are wrong; nothing has been trained then.
    """
    require("scipy.stats", extra="train")
    set_seed(settings.seed)
    checkpoint = find_last_checkpoint(settings)
    check_start(settings)
    teacher = Teacher.load(settings)
    teacher.model.to(find_device("auto"))
    parts = _load_parts(settings, teacher)
    fitted = choose_rows_to_fit(settings, parts)
    if fitted is not None:  # now, because training may spread the teacher over devices
        fitted = _teach(settings, fitted, teacher)
    trainer = _make_trainer(settings, parts, teacher)
    student = trainer.model.student
    train_to_end(trainer, settings, checkpoint)
    save_trained(trainer, settings, student, weights=trainer.trained_weights("student."))
    fit_unit(trainer, settings, fitted)
    return measure_saved(trainer, settings, parts, command=command, teaching=_describe_teaching(settings))
