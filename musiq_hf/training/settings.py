# SPDX-License-Identifier: Apache-2.0
"""Settings of training runs: plain fields that have the same names in recipes, command lines and Python code.

The help text of a field stands in its metadata: `--help` of a command shows it, and so does
`{field.name: field.metadata["help"] for field in dataclasses.fields(FinetuneSettings)}`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..common.checks import check_choice, check_counts
from ..data.columns import TableOptions
from ..models.protocol import Family, TrainingView

OPTIMIZERS = ("adamw", "adam", "sgd")


def setting(default: Any, text: str, **options: Any) -> Any:
    """Make a field of settings.

    Args:
        default: Value if none is given.
        text: Help text, in whole sentences.
        **options: Further options of the argument, as `argparse` names them: `choices`, or a `metavar` for each of
            several values.
    """
    return field(default=default, metadata={"help": text, **options})


def needed(text: str) -> Any:
    """Make a field of settings that has no default, with its help text."""
    return field(metadata={"help": text})


def other_default(kind: type, name: str, default: Any) -> Any:
    """Make a field like that of another class of settings, with another default.

    Args:
        kind: Class that has the field.
        name: Name of the field.
        default: Value if none is given.
    """
    (original,) = (item for item in fields(kind) if item.name == name)
    return field(default=default, metadata=original.metadata)


def check_not_negative(settings: Any, *names: str) -> None:
    """Raise a ValueError if one of these settings is below 0."""
    for name in names:
        if getattr(settings, name) < 0:
            raise ValueError(f"`{name}` must be at least 0, got {getattr(settings, name)}.")


def check_fractions(settings: Any, *names: str) -> None:
    """Raise a ValueError if one of these settings lies outside of [0, 1); None is allowed."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not 0 <= value < 1:
            raise ValueError(f"`{name}` must lie in [0, 1), got {value}.")


def check_choices(settings: Any) -> None:
    """Raise a ValueError if a setting is none of its field's choices."""
    for item in fields(settings):
        if "choices" in item.metadata:
            check_choice(item.name, getattr(settings, item.name), item.metadata["choices"])


def make_view(family: Family, values: Mapping[str, Any], *, source: str) -> TrainingView:
    """Make a view of a family from some of its fields.

    Args:
        family: Family of the model.
        values: Fields of its `TrainingView` that differ from the defaults.
        source: Name of the setting that holds them, for the error message.

    Raises:
        ValueError: If the family's view has no such field, or refuses a value.
    """
    known = [item.name for item in fields(family.view)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(
            f"`{source}` names {', '.join(unknown)}, which training of a {family.name} model does not have. It has "
            f"{', '.join(known) or 'no such settings'}."
        )
    return family.view(**values)


@dataclass(kw_only=True)
class RunSettings:
    """Settings of every training run; the help texts are in the metadata of the fields."""

    output_dir: str = needed("Folder for model, processor, metrics and the Trainer's checkpoints.")
    model: str = needed(
        "Checkpoint to start from. A directory with a config.json but without weights is trained from "
        'scratch, and so is a configuration of the package, named as in "scratch:musiq-tiny".'
    )
    architecture: Mapping[str, Any] = field(
        default_factory=dict,
        metadata={
            "help": "Fields of the configuration and of the image processor that differ from those of `model`; "
            "weights that no longer fit are made anew."
        },
    )
    encoder_weights: str | None = setting(
        None,
        "Weights for a patch encoder that others have trained (`--set patch_encoder=efficientnet_lite0`): a .pth or "
        'safetensors file in the published names, or "package" for the installed package of the network.',
    )
    view: Mapping[str, Any] = field(
        default_factory=dict,
        metadata={"help": "Fields of the family's `TrainingView` that differ from its defaults."},
    )
    backbones: Mapping[str, str] = field(
        default_factory=dict,
        metadata={"help": "Networks of others that a new model starts from, by the names of its family."},
    )
    epochs: float = setting(10, "Passes over the training pictures.")
    max_steps: int | None = setting(None, "Stop after so many optimizer steps; None = after `epochs`.")
    batch_size: int = setting(16, "Pictures per step and device.")
    gradient_accumulation_steps: int = setting(1, "Steps whose gradients are averaged before the weights move.")
    eval_batch_size: int = setting(8, "Pictures per evaluation step and device.")
    optimizer: str = setting(
        "adamw",
        '"adamw" (decoupled weight decay), "adam" (weight decay in the gradient) or "sgd".',
        choices=OPTIMIZERS,
    )
    momentum: float = setting(0.9, "Momentum of SGD.")
    learning_rate: float = setting(1e-4, "Peak of the cosine schedule.")
    rates: Mapping[str, float] = field(
        default_factory=dict,
        metadata={
            "help": "Factors of the learning rate of parts of the model, as its family names them; 0.1 for the "
            '"patch_encoder", say. A part within another one has its own factor.'
        },
    )
    weight_decay: float = setting(0.05, "Decay of the weights; biases and normalisation layers have none.")
    warmup_fraction: float = setting(0.05, "Part of the steps over which the learning rate rises.")
    max_grad_norm: float = setting(1.0, "Gradients are scaled down to this norm; 0 leaves them alone.")
    ema_decay: float | None = setting(
        None,
        "Keep a moving average of the weights, of which each step leaves this part, or (1 + step) / (10 + step) in "
        "the first steps. The average is evaluated, chosen and saved; the weights themselves go on training.",
    )
    bf16: bool = setting(False, "Compute in bfloat16 where autocast allows it; weights stay float32.")
    fixed_shapes: bool = setting(
        False,
        "Pad every training batch to one length and drop a smaller last one, for XLA and `torch.compile`; needs a "
        "bound on the patches of a picture. Evaluation reads whole pictures, padded to the longest of a batch.",
    )
    compile: bool = setting(
        False,
        "Compile the training steps with `torch.compile`, which takes a minute or more at the start; needs "
        "`fixed_shapes`. Evaluation is not compiled, and saved files are as without it.",
    )
    holdout_fraction: float | None = setting(None, "Part of the training pictures held out to choose the best epoch.")
    early_stopping: int | None = setting(None, "Stop after so many epochs without a better one; None never does.")
    save_dtype: str = setting(
        "float32",
        '"float32" or "float16", of the weights file only; the model computes in float32 either way.',
        choices=("float32", "float16"),
    )
    seed: int = setting(0, "Seed of initial weights, order, flips and held-out pictures.")
    num_workers: int = setting(0, "Processes that decode pictures; 0 decodes in the main one.")
    report_to: str = setting(
        "none", "Tracker that the losses are reported to.", choices=("none", "tensorboard", "trackio")
    )
    save_steps: int | None = setting(
        None,
        "Save a checkpoint every so many steps, for runs whose epochs take long; None saves at the end of each epoch. "
        "Ctrl-C and SIGTERM save one in any case.",
    )
    resume: bool = setting(
        False,
        "Continue from the last checkpoint in `output_dir`, or start where there is none yet, so that one command may "
        "be repeated until the run is done.",
    )

    def __post_init__(self) -> None:
        """Raise a ValueError for wrong values, some of which would otherwise fail after hours."""
        if not self.epochs > 0:
            raise ValueError(f"`epochs` must be positive, got {self.epochs}.")
        check_counts(
            self, "max_steps", "batch_size", "gradient_accumulation_steps", "eval_batch_size", "early_stopping"
        )
        check_counts(self, "save_steps")
        check_not_negative(self, "learning_rate", "weight_decay", "num_workers", "max_grad_norm")
        check_fractions(self, "warmup_fraction", "momentum", "holdout_fraction", "ema_decay")
        if self.compile and not self.fixed_shapes:
            raise ValueError("`compile` needs batches of one shape, or every batch is compiled. Add `fixed_shapes`.")
        for part, factor in self.rates.items():
            if not 0 < factor < math.inf:
                raise ValueError(f"`rates` must be positive, got {factor} of {part}. `freeze` stops a part.")
        check_choices(self)

    def training_view(self, family: Family) -> TrainingView:
        """Make the view of a family from the fields in `view`: the part of a picture that a training step sees.

        Raises:
            ValueError: If the family's view has no such field, or refuses a value.
        """
        return make_view(family, self.view, source="view")


@dataclass(kw_only=True)
class LocalisationSettings(RunSettings):
    """Settings of the loss on relative locations, of `finetune` and `pretrain_quality`."""

    localisation_weight: float = setting(
        0.0,
        "Weight of a loss that asks pairs of tokens how far apart their patches are, in sides of the picture, added "
        "to the others. It rises over the first 1/15 of the steps and falls to 0 at the end; .6 and 3 are those of "
        "the published runs. What predicts the distances is not stored. The paper of MUSIQ has none.",
    )
    localisation_pairs: int = setting(64, "Pairs of tokens per picture and step that `localisation_weight` asks.")
    localisation_across_scales: bool = setting(
        False, "Ask pairs of tokens of two scales, instead of one; needs `localisation_weight`."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(self, "localisation_weight")
        check_counts(self, "localisation_pairs")
        if not self.localisation_weight:
            for name in ("localisation_pairs", "localisation_across_scales"):
                if getattr(self, name) != getattr(LocalisationSettings, name):
                    raise ValueError(f"`{name}` changes nothing without `localisation_weight`. Add it (.6, say).")


@dataclass(kw_only=True)
class ScoredRunSettings(RunSettings):
    """Settings of `finetune` and `distill`, which read pictures with opinion scores."""

    data: str = needed(
        "CSV or .xlsx (`image,mos[,split][,group]`), imagefolder, parquet, WebDataset or Hub id, or what `dataset` "
        "needs."
    )
    image_column: str | None = setting(None, "Column of a table with the pictures; None = `image`.")
    score_column: str | None = setting(None, "Column of a table with the scores; None = `mos` or `distribution`.")
    split_column: str | None = setting(None, "Column of a table with the splits; None = `split` if there is one.")
    dataset: str = setting(
        "scores",
        'Reader of `data`: "scores" for the above, or a name in `musiq_hf.data.DATA_SETS` ("koniq", say).',
    )
    image_root: str | None = setting(
        None, "Directory that the paths of a table start from; None = the table's own directory."
    )
    split_seed: int | None = setting(
        None, "Seed of the protocol's random split; None = the split that the data name, or the official one."
    )
    group_by: str | None = setting(
        None, 'Column whose values are measured on their own as well; None = `group` if there is one, "none" = off.'
    )
    shorter_side: int | None = setting(
        None, "Shrink pictures to this shorter side, in pixels, before anything else; None = native size."
    )
    min_crop: float = setting(
        1.0, "Train on random windows whose sides are at least this part of the picture's; 1 = whole pictures."
    )
    size_fraction: float = setting(
        0.0,
        "Part of the training pictures that change their size, so that up to 2,048 pixels are seen, or "
        "`max_native_side`. Half become up to 1.4 times larger or smaller with their scores, half mosaics of 4 to 16 "
        "pictures with the mean score; a rule of ours, the paper has none.",
    )
    fault_pairs: int = setting(
        0,
        "Pairs of copies with weaker and stronger made faults per step and device, at most one of a picture of the "
        "batch. `finetune` ranks them, since the better one is known without a score, and so keeps what "
        "`pretrain_quality` taught. `distill` lets the teacher score both.",
    )
    view_pairs: int = setting(
        0,
        "Pictures per step and device of which two views are made that look alike (mirrored, shifted, a little larger "
        "or smaller, with hardly visible noise). The `consistency_weight` of `finetune` makes their scores equal; "
        "`distill` lets the teacher score both.",
    )
    plcc_weight: float = setting(
        0.0, "Weight of a loss on the correlation within the batch, added to L1 or EMD; the paper has none."
    )
    freeze: str | None = setting(
        None,
        'Part of the model that stays as it is, as its family names it; of MUSIQ "backbone" (network of '
        'the patches), "patch_encoder" (network and projection) or "encoder" (all but the head); of LoDa "backbones", '
        '"vit" or "cnn"; of a classifier "backbone". "none" trains all; None is what the family does, "backbones" for '
        'LoDa and "none" for the others.',
    )
    skip_bad_images: bool = setting(
        False,
        "Leave out pictures that are missing, cannot be decoded, or are too long and thin to be cut, and name them; "
        "otherwise the first one is an error, and so are all missing ones.",
    )
    holdout_fraction: float | None = setting(
        None,
        "Part of the train split held out to choose the best epoch, so that `validation` is read only once, at the "
        "end. 0 chooses on `validation`. None = 0 if there is a `validation` split, else a tenth.",
    )
    data_description: str | None = setting(
        None, "What pictures and scores are, in sentences, for the model card; None names `data` alone."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.table_options()
        check_not_negative(self, "plcc_weight")
        check_counts(self, "shorter_side")
        for name in ("fault_pairs", "view_pairs"):
            if not 0 <= getattr(self, name) <= self.batch_size:
                raise ValueError(f"`{name}` must lie between 0 and `batch_size`, got {getattr(self, name)}.")

    def table_options(self) -> TableOptions:
        """Return how the table is read; raise a ValueError if one column is to have two meanings."""
        return TableOptions(
            image_column=self.image_column,
            score_column=self.score_column,
            split_column=self.split_column,
            skip_missing=self.skip_bad_images,
        )


@dataclass(kw_only=True)
class FinetuneSettings(ScoredRunSettings, LocalisationSettings):
    """Settings of `finetune` beside those of `ScoredRunSettings`. The metadata of the fields holds the help."""

    degrade_fraction: float = setting(
        0.0,
        "Part of the training pictures that are blurred, made noisy or compressed, with a lowered score, in each "
        "epoch; a rule of ours (`musiq_hf.pictures.degradations`) for data without such faults. The paper has none.",
    )
    consistency_weight: float = setting(
        0.0,
        "Weight of the mean absolute difference between the scores of the views of `view_pairs`, in standard "
        "deviations of the opinion scores, added to L1 or EMD; the paper has none.",
    )
    range_weight: float = setting(
        0.0,
        "Weight of the mean distance of the scores of `fault_pairs` to `score_range`, in standard deviations of the "
        "opinion scores, added to L1; not for distributions. Ranking alone pushes strong faults ever further "
        "down; the paper has none.",
    )
    rank_weight: float = setting(
        0.0, "Weight of a loss on all pairs of the batch, added to L1 or EMD; the paper has none."
    )
    lora_rank: int | None = setting(
        None,
        "Train low-rank additions to the attention's projections and the head instead of all weights (needs peft); "
        "they are merged before saving.",
    )
    group_by_length: bool = setting(False, "Put pictures with about as many patches into one batch, for less padding.")
    score_range: tuple[float, float] | None = setting(
        None,
        "Lowest and highest possible score, noted in the configuration. If it is that of the checkpoint, its scores "
        "are the start; else they are moved to mean and deviation of the training pictures' scores.",
        metavar=("LOW", "HIGH"),
    )
    push_to_hub: str | None = setting(
        None, "Repository on the Hub to which the finished checkpoint is uploaded.", metavar="OWNER/NAME"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(self, "rank_weight", "consistency_weight", "range_weight")
        check_counts(self, "lora_rank")
        if bool(self.view_pairs) != bool(self.consistency_weight):
            raise ValueError(
                "`view_pairs` and `consistency_weight` need each other: both must be above 0 or left out, got "
                f"{self.view_pairs} and {self.consistency_weight}."
            )
        if self.range_weight and not (self.fault_pairs and self.score_range):
            raise ValueError(
                "`range_weight` keeps the scores of `fault_pairs` in `score_range`: give both, or leave it out."
            )
        if self.freeze not in (None, "none") and self.lora_rank is not None:
            raise ValueError("`lora_rank` already leaves all other weights alone. Leave out `freeze`.")
        if self.rates and self.lora_rank is not None:
            raise ValueError("`lora_rank` trains additions to the weights, which have one rate. Leave out `rates`.")
