# SPDX-License-Identifier: Apache-2.0
"""Pre-training on the classes of ImageNet, as the published checkpoints began (sections 3.5 and 4.2 of the paper).

The paper trains with RandAugment and mixup, on crops that are not resized. It says: "We still keep random cropping as
an augmentation to generate images of different sizes. However, instead of doing square resizing [...] we intentionally
skip resizing".

Mixup adds two pictures pixel by pixel, and here pictures differ in size. Mixing their patches instead would add a
patch of one place and scale to one of another. Stretching one picture to the other's size would be the resize that the
paper leaves out. So consecutive pictures of a batch form pairs, and one crop size that fits into both is drawn for
them. The two crops are flipped and augmented each on its own, then mixed. Patches are cut and resized copies made only
after that, so that all scales show the same mixture. A pair gives two samples: one mixed with share lambda, the other
with the roles swapped, as in a batch mixed with its own reversal. Sizes still differ from pair to pair. The price is
that a large picture beside a small one is cut to the small one's size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import EvalPrediction, set_seed
from transformers.utils import logging

from ..common.files import write_json
from ..data.splits import split_data
from ..hub.checkpoints import save_checkpoint
from ..models import family_of
from ..pictures.augmentations import check_rand_augment
from ..pictures.finding import PICTURE, LeftOutFiles, walk_folder
from ..pictures.opening import find_suffix
from ..scoring.loading import check_checkpoint, has_weights, load_config, load_with_head
from ..scoring.verification import write_self_test
from .collators_imagenet import ClassificationCollator, Mixing, MixupCollator
from .encoder_weights import load_encoder_weights
from .settings import OPTIMIZERS, RunSettings, needed, other_default, setting
from .starting import check_architecture, check_start, find_rates, load_processor
from .trainer import QualityTrainer, find_last_checkpoint, fixed_length, make_trainer

if TYPE_CHECKING:
    import datasets


LAYOUT = "`train/<class>/picture.jpg` in a folder, or a data set id on the Hub with `image` and `label`"
logger = logging.get_logger(__name__)


@dataclass(kw_only=True)
class ImageNetSettings(RunSettings):
    """Settings of `pretrain_imagenet`; those of every run are in `RunSettings`, here with the paper's values."""

    data: str = needed(
        "Folder `train/<class>/picture.jpg`, with `validation/<class>` if there is one, or a data set id "
        "on the Hub with columns `image` and `label`."
    )
    epochs: float = other_default(RunSettings, "epochs", 300)
    batch_size: int = setting(
        64,
        "Pictures per step and device; even, because mixup pairs them. The paper's 4096 are this times devices times "
        "`gradient_accumulation_steps`.",
    )
    optimizer: str = setting(
        "adamw",
        'The paper\'s "Adam [...] 0.1 weight decay" is "adamw": the Adam of its library (Flax) decays weights '
        "directly, in proportion to the learning rate.",
        choices=OPTIMIZERS,
    )
    learning_rate: float = other_default(RunSettings, "learning_rate", 1e-3)
    weight_decay: float = other_default(RunSettings, "weight_decay", 0.1)
    warmup_fraction: float = other_default(RunSettings, "warmup_fraction", 0.1)
    min_crop_area: float = setting(
        0.08,
        "Smallest part of a picture's area in a random crop; with mixup, of the area that fits into both pictures of "
        "a pair.",
    )
    num_operations: int = setting(2, "RandAugment's N, operations per picture; 0 leaves RandAugment out.")
    magnitude: float = setting(15.0, "RandAugment's M, in 0..30.")
    mixup_alpha: float = setting(0.2, "Shares of mixup are drawn from Beta(alpha, alpha); 0 leaves mixup out.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rand_augment(num_operations=self.num_operations, magnitude=self.magnitude)
        if not 0 < self.min_crop_area <= 1:
            raise ValueError(f"`min_crop_area` must lie in (0, 1], got {self.min_crop_area}.")
        if not 0 <= self.mixup_alpha < float("inf"):
            raise ValueError(f"`mixup_alpha` must be finite and at least 0, got {self.mixup_alpha}.")
        if self.mixup_alpha and self.batch_size % 2:
            raise ValueError(
                f"Mixup pairs the pictures of a batch, so `batch_size` must be even, got {self.batch_size}. "
                "Change it, or set `mixup_alpha` to 0."
            )


def _check_labels(rows: "datasets.Dataset", source: str) -> None:
    import datasets

    missing = [name for name in ("image", "label") if name not in rows.column_names]
    if missing:
        raise ValueError(f"{source}: columns {missing} are missing, got {rows.column_names}. Expected is {LAYOUT}.")
    kind = rows.features["label"]
    if not isinstance(kind, datasets.ClassLabel):
        raise ValueError(
            f"{source}: `label` must be a `ClassLabel`, which knows the names of all classes, got {kind}."
        )
    if kind.num_classes < 2:
        raise ValueError(f"{source}: at least 2 classes are needed, got {kind.names}. Expected is {LAYOUT}.")
    for row, label in enumerate(rows["label"][:]):
        if label is None or label < 0:
            raise ValueError(f"{source}, row {row}: the class is unknown ({label}). Leave the picture out.")


def _warn_of_unread(folder: str, known: Sequence[str]) -> None:
    """Log how many pictures of a folder `datasets` leaves out, because it does not know their endings."""
    unread = LeftOutFiles("endings that `datasets` does not read")
    for path, kind in walk_folder(folder, set()):
        if kind == PICTURE and find_suffix(path) not in known:
            unread.add(path)
    unread.warn()


def load_labelled_images(data: str) -> "datasets.DatasetDict":
    """Read pictures and their classes.

    Args:
        data: A directory that `datasets` reads as an imagefolder (`train/<class>/picture.jpg`), or a data set id on
            the Hub. How many pictures have endings that `datasets` does not know, such as .avif, is logged as a
            warning; they are left out.

    Returns:
        The splits "train" and "validation", as far as the data have them, with columns `image` (undecoded) and
        `label`. A test split is left out: its labels are not public (ImageNet's are all -1).

    Raises:
        ValueError: If the data cannot be read, or pictures or classes are missing.
    """
    import datasets
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

    try:
        if Path(data).is_dir():
            _warn_of_unread(data, ImageFolder.EXTENSIONS)
            loaded = datasets.load_dataset("imagefolder", data_dir=data)
        else:
            loaded = datasets.load_dataset(data)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"{data} cannot be read ({error}). Expected is {LAYOUT}.") from error
    if "train" not in loaded:
        raise ValueError(f"{data}: a `train` split is needed, got {sorted(loaded)}. Expected is {LAYOUT}.")
    splits = datasets.DatasetDict({name: loaded[name] for name in ("train", "validation") if name in loaded})
    for name, rows in splits.items():
        _check_labels(rows, f"{data}, split {name}")
    return splits.select_columns(["image", "label"]).cast_column("image", datasets.Image(decode=False))


def load_classifier(name: str, class_names: Sequence[str], *, architecture: Mapping[str, Any]) -> Any:
    """Load a classifier of a checkpoint, or make one with fresh weights from a configuration alone.

    Weights that do not fit (a head for other classes) are made anew.

    Args:
        name: Checkpoint, or directory with a config.json.
        class_names: Names of the classes, in the order of the labels.
        architecture: Fields of the configuration to change; those of the image processor alone are passed over.

    Returns:
        The model.

    Raises:
        ValueError: If the checkpoint is of no family with a classifier, or its configuration does not allow the
            changes.
    """
    config = load_config(name)
    family = family_of(config)
    if family.classifier is None:
        raise ValueError(f"{name}: a {family.name} model has no head for classes, so it cannot be trained on them.")
    check_architecture(family, architecture)
    values = config.to_diff_dict()
    changes = {key: value for key, value in architecture.items() if key in config.to_dict()}
    # The fields of a score have no meaning for classes, and the number of classes follows from their names.
    for field in ("score_offset", "score_scale", "score_range", "problem_type", "architectures", "num_labels"):
        values.pop(field, None)
    values |= {"id2label": dict(enumerate(class_names)), "label2id": {label: i for i, label in enumerate(class_names)}}
    config = type(config).from_dict(values, **changes)
    if not has_weights(name):
        logger.warning("%s holds no weights: training starts from random ones.", name)
        return family.classifier(config)
    check_checkpoint(name)
    return family.classifier.from_pretrained(name, config=config, dtype=torch.float32, ignore_mismatched_sizes=True)


def _choose_best_classes(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return logits.argmax(dim=-1)  # per batch, since the logits of all pictures would fill the memory


def _compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    return {"top1_accuracy": float((prediction.predictions == prediction.label_ids).mean())}


def _make_trainer(
    settings: ImageNetSettings, train: "datasets.Dataset", selection: "datasets.Dataset"
) -> QualityTrainer:
    names = train.features["label"].names
    model = load_classifier(settings.model, names, architecture=settings.architecture)
    load_encoder_weights(model, settings.encoder_weights)
    processor = load_processor(settings.model, model.config, architecture=settings.architecture)
    view = settings.training_view(family_of(model.config))
    return make_trainer(
        settings,
        best_metric="top1_accuracy",
        model=model,
        rates=find_rates(model, settings.rates),
        train_dataset=train,
        eval_dataset=selection,
        processing_class=processor,
        data_collator=MixupCollator(
            processor,
            view=view,
            num_labels=len(names),
            mixing=Mixing(
                min_crop_area=settings.min_crop_area,
                num_operations=settings.num_operations,
                magnitude=settings.magnitude,
                mixup_alpha=settings.mixup_alpha,
            ),
            length=fixed_length(settings, processor, view, train),
        ),
        eval_collator=ClassificationCollator(processor, view=view, seed=settings.seed),
        compute_metrics=_compute_metrics,
        preprocess_logits_for_metrics=_choose_best_classes,
    )


def pretrain_imagenet(settings: ImageNetSettings) -> dict[str, float]:
    """Train a classifier, keep the epoch with the best top-1 accuracy, and save it.

    Accuracy is measured on whole pictures, read as in training with at most `native_patches` of their native patches.

    Args:
        settings: Settings of the run: model, data and hyperparameters.

    Returns:
        "top1_accuracy" in [0, 1], "loss" and "num_pictures" of the kept epoch, also in `output_dir/metrics.json`. They
        come from the pictures that chose the epoch: the validation split, or the held-out part.

    Raises:
        ValueError: If data, model or settings are wrong, which is found before anything is trained, or if a picture
            cannot be decoded.
    """
    set_seed(settings.seed)
    checkpoint = find_last_checkpoint(settings)
    check_start(settings)
    splits = load_labelled_images(settings.data)
    train, selection = split_data(splits, holdout_fraction=settings.holdout_fraction, seed=settings.seed)
    trainer = _make_trainer(settings, train, selection)
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_state()
    measured = trainer.evaluate()
    report = {name: measured[f"eval_{name}"] for name in ("top1_accuracy", "loss")} | {"num_pictures": len(selection)}
    weights = trainer.trained_weights()
    if trainer.is_world_process_zero():
        trained, processor = trainer.accelerator.unwrap_model(trainer.model), trainer.processing_class
        save_checkpoint(trained, processor, settings.output_dir, dtype=settings.save_dtype, weights=weights)
        write_self_test(*load_with_head(settings.output_dir), settings.output_dir)
        write_json(Path(settings.output_dir) / "metrics.json", report)
    return report
