# SPDX-License-Identifier: Apache-2.0
"""Settings of training runs: plain fields that recipes, command lines and Python code name alike."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..common.checks import check_choice, check_counts
from ..models.musiq.image_processing_musiq import MusiqImageProcessor
from ..models.protocol import Family, TrainingView
from .starting import architecture_fields, resolve_model

OPTIMIZERS = ("adamw", "adam", "sgd")
FREEZABLE = ("patch_encoder", "encoder")
SAVE_DTYPES = ("float32", "float16")


@dataclass(kw_only=True)
class RunSettings:
    """Settings of every training run.

    Attributes:
        output_dir: Where model, processor, metrics and the Trainer's checkpoints go.
        model: Checkpoint to start from. A directory with a config.json but without weights is trained from scratch,
            and so is a configuration of the package, named as in "scratch:musiq-tiny".
        architecture: Fields of `MusiqConfig` and `MusiqImageProcessor` that differ from those of `model`; weights that
            no longer fit are made anew.
        epochs: Passes over the training pictures.
        max_steps: Stop after so many optimizer steps; None = after `epochs`.
        batch_size: Pictures per step and device.
        gradient_accumulation_steps: Steps whose gradients are averaged before the weights move.
        eval_batch_size: Pictures per evaluation step and device.
        optimizer: "adamw" (decoupled weight decay), "adam" (weight decay in the gradient) or "sgd".
        momentum: Of SGD.
        learning_rate: Peak of the cosine schedule.
        weight_decay: Of the weights; biases and normalisation layers have none.
        warmup_fraction: Part of the steps over which the learning rate rises.
        max_grad_norm: Gradients are scaled down to this norm; 0 leaves them alone.
        bf16: Whether to compute in bfloat16 where autocast allows it; weights stay float32.
        native_patches: Random subset of at most so many native patches per picture and step (the paper trains with
            512, which it does not say how to choose); None trains on all, at any cost in memory.
        resized_patches: Likewise of every resized copy; a few fixed patches are learnt by heart otherwise.
        fixed_shapes: Pad every training batch to one length and drop a smaller last one, for XLA and `torch.compile`;
            needs `native_patches`. Evaluation reads whole pictures, padded to the longest of a batch.
        holdout_fraction: Part of the training pictures held out to choose the best epoch.
        early_stopping: Stop after so many epochs without a better one; None never does.
        save_dtype: "float32" or "float16", of the weights file only; the model computes in float32 either way.
        seed: Of initial weights, order, flips and held-out pictures.
        num_workers: Processes that decode pictures; 0 decodes in the main one.
        report_to: "none", "tensorboard" or "trackio".
        resume: Continue from the last checkpoint in `output_dir`.
    """

    output_dir: str
    model: str
    architecture: Mapping[str, Any] = field(default_factory=dict)
    epochs: float = 10
    max_steps: int | None = None
    batch_size: int = 16
    gradient_accumulation_steps: int = 1
    eval_batch_size: int = 8
    optimizer: str = "adamw"
    momentum: float = 0.9
    learning_rate: float = 1e-4
    weight_decay: float = 0.05
    warmup_fraction: float = 0.05
    max_grad_norm: float = 1.0
    bf16: bool = False
    native_patches: int | None = 512
    resized_patches: int | None = None
    fixed_shapes: bool = False
    holdout_fraction: float | None = None
    early_stopping: int | None = None
    save_dtype: str = "float32"
    seed: int = 0
    num_workers: int = 0
    report_to: str = "none"
    resume: bool = False

    def __post_init__(self) -> None:
        """Raise a ValueError for what would otherwise fail after hours."""
        self.model = resolve_model(self.model)
        for name in self.architecture:
            if name not in architecture_fields():
                raise ValueError(f"`architecture` names {name}, which is no field of MUSIQ's architecture.")
        if not self.epochs > 0:
            raise ValueError(f"`epochs` must be positive, got {self.epochs}.")
        counts = ("max_steps", "batch_size", "gradient_accumulation_steps", "eval_batch_size", "early_stopping")
        check_counts(self, *counts, "native_patches", "resized_patches")
        if self.holdout_fraction is not None and not 0 <= self.holdout_fraction < 1:
            raise ValueError(f"`holdout_fraction` must lie in [0, 1), got {self.holdout_fraction}.")
        for name in ("learning_rate", "weight_decay", "num_workers", "max_grad_norm"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must be at least 0, got {getattr(self, name)}.")
        for name in ("warmup_fraction", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must lie in [0, 1), got {getattr(self, name)}.")
        check_choice("save_dtype", self.save_dtype, SAVE_DTYPES)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("report_to", self.report_to, ("none", "tensorboard", "trackio"))

    def training_view(self, family: Family) -> TrainingView:
        """Make the view of a family."""
        view: Any = family.view
        return view(native_patches=self.native_patches, resized_patches=self.resized_patches)

    def patch_limits(self, processor: MusiqImageProcessor) -> list[int | None]:
        """`native_patches` and `resized_patches` in the order of the processor's scales."""
        resized = [self.resized_patches] * len(processor.longer_side_lengths)
        return resized + [self.native_patches] * processor.use_native_resolution


@dataclass(kw_only=True)
class FinetuneSettings(RunSettings):
    """Settings of `finetune`; those of every run are in `RunSettings`.

    Attributes:
        data: CSV (`image,mos[,split][,group]`), imagefolder, parquet, WebDataset or Hub id, or what `dataset` needs.
        dataset: Reader of `data`: "scores" for the above, or a name in `musiq_hf.data.DATA_SETS` ("koniq", say).
        image_root: Directory that the paths of a table start from; None = the table's own.
        split_seed: Of the protocol's random split; None = the split that the data name, or the official one.
        group_by: Column whose values are measured on their own as well; None = `group` if there is one, "none" = off.
        shorter_side: Shrink pictures to this shorter side, in pixels, before anything else; None = native size.
        min_crop: Train on random windows whose sides are at least this part of the picture's; 1 = whole pictures.
        degrade_fraction: Part of the training pictures that are blurred, made noisy or compressed, with a lowered
            score, in each epoch; a rule of ours (`musiq_hf.pictures.degradations`) for data without such faults. The
            paper has none.
        fault_pairs: Pairs of copies with weaker and stronger made faults per step and device, at most one of a picture
            of the batch; which of the two is better is known without a score, and a loss ranks them. Keeps what
            `pretrain_quality` taught.
        plcc_weight: Weight of a loss on the correlation within the batch, added to L1 or EMD; the paper has none.
        rank_weight: Weight of a loss on all pairs of the batch, likewise.
        freeze: Leave "patch_encoder" (residual network and projection) or "encoder" (all but the head) as they are.
        lora_rank: Train low-rank additions to the attention's projections and the head instead of all weights (needs
            peft); they are merged before saving.
        group_by_length: Put pictures with about as many patches into one batch, for less padding.
        skip_bad_images: Leave out pictures that cannot be decoded, or are too long and thin to be cut, and name them;
            otherwise the first one is an error.
        holdout_fraction: Part of the train split held out to choose the best epoch, so that `validation` is read only
            once, at the end. 0 chooses on `validation`. None = 0 if there is a `validation` split, else a tenth.
        score_range: Lowest and highest possible score, noted in the configuration.
        data_description: What pictures and scores are, in sentences, for the model card; None names `data` alone.
    """

    data: str
    dataset: str = "scores"
    image_root: str | None = None
    split_seed: int | None = None
    group_by: str | None = None
    shorter_side: int | None = None
    min_crop: float = 1.0
    degrade_fraction: float = 0.0
    fault_pairs: int = 0
    plcc_weight: float = 0.0
    rank_weight: float = 0.0
    freeze: str | None = None
    lora_rank: int | None = None
    group_by_length: bool = False
    skip_bad_images: bool = False
    score_range: tuple[float, float] | None = None
    data_description: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("plcc_weight", "rank_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must be at least 0, got {getattr(self, name)}.")
        check_counts(self, "shorter_side", "lora_rank")
        if not 0 <= self.fault_pairs <= self.batch_size:
            raise ValueError(f"`fault_pairs` must lie between 0 and `batch_size`, got {self.fault_pairs}.")
        if self.freeze is not None:
            check_choice("freeze", self.freeze, FREEZABLE)
            if self.lora_rank is not None:
                raise ValueError("`lora_rank` already leaves all other weights alone. Leave out `freeze`.")
