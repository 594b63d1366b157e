# SPDX-License-Identifier: Apache-2.0
"""Start of training: the model and its image processor, the unit of its scores, and the parts that are trained."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.utils import SAFE_WEIGHTS_NAME, logging

from ..common.checks import check_choice
from ..common.extras import require
from ..common.files import hide_path
from ..models import family_of
from ..models.protocol import Family
from ..scoring.loading import check_checkpoint, has_weights, load_config, resolve_model
from ..scoring.loading import load_processor as load_stored_processor
from .encoder_weights import load_encoder_weights, read_encoder_weights
from .self_supervised.localisation import find_grid
from .settings import LocalisationSettings, RunSettings

logger = logging.get_logger(__name__)


def architecture_fields(family: Family) -> dict[str, Any]:
    """Return names and types of the fields of a family's configuration and image processor that a run may change.

    The fields of the score are not among them, since training sets them from its labels.
    """
    shown = family.processor.valid_kwargs.__annotations__
    own = family.config.__annotations__.items()
    nested = getattr(family.config, "sub_configs", {})  # of networks within, which come with weights of their own
    return {name: shown[name] for name in family.processor_fields} | {
        name: kind for name, kind in own if not name.startswith(("score_", "model_type")) and name not in nested
    }


def check_architecture(family: Family, names: Iterable[str]) -> None:
    """Raise a ValueError if a name is no field of a family's architecture."""
    known = architecture_fields(family)
    for name in names:
        if name not in known:
            raise ValueError(
                f"`architecture` names {name}, which is no field of a {family.name} model. Known are "
                f"{', '.join(sorted(known))}."
            )


def _select_fields(config: Any, architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Select what a configuration has of the fields to change; the image processor alone has the others."""
    known = config.to_dict()
    return {name: value for name, value in architecture.items() if name in known}


def check_backbones(family: Family, names: Iterable[str], *, model: str) -> None:
    """Raise a ValueError if a model does not start from a network of some name, or has weights of its own.

    Args:
        family: Family of the model.
        names: Names of the networks.
        model: Checkpoint, or directory with a config.json.
    """
    for name in names:
        if name not in family.backbones:
            raise ValueError(
                f"`{name}`: a {family.name} model does not start from such a network. Leave it out, or choose another "
                "`model`."
            )
    if names and has_weights(model):
        raise ValueError(
            f"{model} has weights of its own, beside which no other network has a place. Leave out "
            f"{' and '.join(f'`{name}`' for name in sorted(names))}, or start from a configuration alone "
            f'("scratch:..."). `--set {min(names)}=null` takes away the one of a recipe.'
        )


def check_batches(family: Family, settings: RunSettings) -> None:
    """Raise a ValueError if batches are too small for a family, or are to be grouped by lengths that are all equal."""
    if settings.batch_size < family.min_batch_size:
        raise ValueError(
            f"`batch_size` must be at least {family.min_batch_size} for a {family.name} model, whose loss compares "
            f"the pictures of a batch, got {settings.batch_size}."
        )
    if getattr(settings, "lora_rank", None) is not None:
        check_lora(family)
    if getattr(settings, "group_by_length", False) and family.has_one_length:
        raise ValueError(f"`group_by_length`: all pictures of a {family.name} model have one length. Leave it out.")


def find_frozen(settings: RunSettings, family: Family) -> str | None:
    """Return the part of a model that a run leaves as it is: the wish of the run, else the habit of the family."""
    if not hasattr(settings, "freeze"):  # pre-training has no parts to leave as they are
        return None
    return None if settings.freeze == "none" else settings.freeze or family.frozen


def check_quality(family: Family, name: str) -> None:
    """Raise a ValueError if models of a family, of which one has this name, have no quality head."""
    if family.quality is None:
        raise ValueError(f"{name}: a {family.name} model has no quality head, so this command cannot train it.")


def check_start(settings: RunSettings) -> None:
    """Raise a ValueError if there is no such model, its family lacks a field, or its encoder lacks its weights.

    One without a quality head is refused too. Call it before pictures are read, which can take hours.
    """
    config = load_config(settings.model)
    family = family_of(config)
    check_quality(family, settings.model)
    check_architecture(family, settings.architecture)
    settings.training_view(family)
    check_backbones(family, settings.backbones, model=settings.model)
    check_batches(family, settings)
    changes = _select_fields(config, settings.architecture)
    changed = type(config).from_dict(config.to_diff_dict(), **changes)  # it refuses values and pairs of values
    if family.backbones and not has_weights(settings.model):
        with torch.random.fork_rng():  # the model of the run begins with the same random numbers
            _start(family, config, changes, settings.backbones, find_frozen(settings, family))
    if isinstance(settings, LocalisationSettings) and settings.localisation_weight:
        find_grid(changed, settings)
    if settings.encoder_weights is not None:
        kind: Any = family.quality
        with torch.device("meta"):
            model = kind(changed)
        read_encoder_weights(model, settings.encoder_weights)


def flatten_settings(settings: RunSettings) -> dict[str, Any]:
    """Collect all settings by name, those of the view with their defaults beside the others, as flags name them."""
    values = asdict(settings)
    values.pop("view")
    for name, source in values.pop("backbones").items():
        values[name] = hide_path(source)  # a card tells no private paths
    return values | asdict(settings.training_view(family_of(load_config(settings.model))))


def load_model(
    name: str,
    *,
    architecture: Mapping[str, Any] | None = None,
    num_labels: int = 1,
    backbones: Mapping[str, str] | None = None,
    frozen: str | None = None,
) -> Any:
    """Load the quality model of a checkpoint, or make one with fresh weights from a configuration alone.

    Weights that do not fit (a head with another number of labels, an embedding of another grid) are made anew.

    Args:
        name: Checkpoint, or directory with a config.json.
        architecture: Fields of the configuration to change; fields that only the image processor has are passed over.
        num_labels: Number of outputs: 1 for an opinion score, more for a distribution over so many score values.
        backbones: Networks that a model with fresh weights starts from, by the names of its family.
        frozen: Part that will not be trained; None trains all.

    Returns:
        The model, see `musiq_hf.models.protocol.QualityModel`.

    Raises:
        ValueError: If the checkpoint is of no family with a quality head, or its configuration does not allow the
            changes.
    """
    name = resolve_model(name)
    config = load_config(name)
    family = family_of(config)
    check_architecture(family, architecture or {})
    check_backbones(family, backbones or {}, model=name)
    check_quality(family, name)
    # Every score value is a label with a name, because Transformers counts the labels by their names.
    names = {0: "MOS"} if num_labels == 1 else {i: str(i + 1) for i in range(num_labels)}
    changes: dict[str, Any] = {"id2label": names, "label2id": {label: i for i, label in names.items()}}
    changes |= _select_fields(config, architecture or {})
    if not has_weights(name):
        logger.warning("%s holds no %s: training starts from random weights.", name, SAFE_WEIGHTS_NAME)
        return _start(family, config, changes, backbones or {}, frozen)
    if config.num_labels != num_labels:
        changes["problem_type"] = "regression" if num_labels == 1 else None
        changes |= {"score_offset": 0.0, "score_scale": 1.0, "score_range": None}
    check_checkpoint(name)  # of its own model it must have all weights, whatever is made anew below
    kind: Any = family.quality
    is_other = kind.__name__ not in config.architectures
    changes["ignore_mismatched_sizes"] = config.num_labels != num_labels or bool(architecture) or is_other
    model: Any = kind.from_pretrained(name, dtype=torch.float32, **changes)
    if family.keeps_head is not None and not family.keeps_head(config, changes):
        logger.warning("The head of %s is made anew, because it will read other features.", name)
        forget_scores(model)
    return model


def _start(
    family: Family, config: Any, changes: Mapping[str, Any], backbones: Mapping[str, str], frozen: str | None
) -> Any:
    """Make a model with fresh weights, from networks that others have trained if it starts from such.

    What the changes contradict may be a field that such a network decides, so that the family joins them itself.
    """
    if family.start is not None:
        return family.start(config.to_diff_dict() | changes, frozen=frozen, **backbones)
    kind: Any = family.quality
    return kind(type(config).from_dict(config.to_diff_dict(), **changes))


def load_processor(name: str, config: Any | None, *, architecture: Mapping[str, Any]) -> Any:
    """Load the image processor of a checkpoint, change it as its configuration, and check it against that.

    Args:
        name: Checkpoint, or directory with a preprocessor_config.json.
        config: Configuration of the model; None, as long as there is no model, leaves out the check.
        architecture: Fields to change; fields that only the configuration has are passed over.

    Returns:
        The processor, see `musiq_hf.models.protocol.QualityProcessor`.
    """
    name, stored = resolve_model(name), load_config(name)
    processor: Any = load_stored_processor(name, stored)
    changes = {field: value for field, value in architecture.items() if hasattr(processor, field)}
    if changes:
        processor = load_stored_processor(name, stored, **changes)
    if config is not None:
        processor.check_config(config)
    return processor


def load_start(settings: RunSettings, *, num_labels: int = 1) -> tuple[Any, Any]:
    """Load the model that a run starts from, with the weights of its patch encoder, and its image processor.

    Args:
        settings: Settings of the run.
        num_labels: Number of outputs, as in `load_model`.

    Returns:
        The model and the processor.

    Raises:
        ValueError: If there is no such checkpoint, or its files, fields and weights do not fit each other.
    """
    family = family_of(load_config(settings.model))
    model = load_model(
        settings.model,
        architecture=settings.architecture,
        num_labels=num_labels,
        backbones=settings.backbones,
        frozen=find_frozen(settings, family),
    )
    load_encoder_weights(model, settings.encoder_weights)
    if settings.backbones:
        return model, _fit_processor(settings, family, model.config)
    return model, load_processor(settings.model, model.config, architecture=settings.architecture)


def _fit_processor(settings: RunSettings, family: Family, config: Any) -> Any:
    """Make the image processor of a model from networks of others, which decide sizes that were others before.

    Settings of the stored processor are kept where they are not those that its own configuration gives. Files of the
    networks name others, as far as the family reads them.
    """
    kind: Any = family.processor
    stored = load_processor(settings.model, None, architecture=settings.architecture)
    usual = kind.from_config(load_config(settings.model))
    names = family.processor_fields
    chosen = {
        n: getattr(stored, n) for n in names if n in settings.architecture or getattr(stored, n) != getattr(usual, n)
    }
    read: Callable[[str], Mapping[str, Any]] = family.backbone_settings or (lambda _: {})
    named = {name: value for source in settings.backbones.values() for name, value in read(source).items()}
    return kind.from_config(config, **named | chosen)


def first_layer(model: Any) -> nn.Linear:
    """Return the linear layer that reads the features of a quality model; replicas of it have their own."""
    head = family_of(model.config).parts(model)["head"]
    return next(module for module in head if isinstance(module, nn.Linear))  # see `Family.parts`: the last is one


def run_with_features(model: Any, **batch: Any) -> tuple[Any, torch.Tensor]:
    """Run a quality model, and return its output and the features that its head reads.

    Args:
        model: Quality model of any family.
        **batch: Arguments of the model.

    Returns:
        The output, and the features, shape (batch_size, width); those of MUSIQ are the CLS states. If a head
        reads several parts of a picture, their mean is returned.
    """
    read: list[torch.Tensor] = []
    hook = first_layer(model).register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    try:
        outputs = model(**batch)
    finally:
        hook.remove()
    return outputs, read[0].unflatten(0, (len(outputs["logits"]), -1)).mean(dim=1)


def last_layer(model: Any) -> nn.Linear:
    """Return the linear layer that gives the logits of a quality model."""
    layer = family_of(model.config).parts(model)["head"][-1]
    assert isinstance(layer, nn.Linear)  # see `Family.parts`
    return layer


@torch.no_grad()
def forget_scores(model: Any) -> None:
    """Make the head of a quality model as fresh as that of a new one, since its features will mean something else."""
    head = last_layer(model)
    if head.bias is not None:  # fine-tuning sets the unit of a head without one by its labels alone
        head.weight.zero_()
        head.bias.zero_()
    model.config.score_offset, model.config.score_scale, model.config.score_range = 0.0, 1.0, None


@torch.no_grad()
def normalize_scores(model: Any, labels: Sequence[float], *, score_range: tuple[float, float] | None = None) -> None:
    """Set `score_offset` and `score_scale` to mean and standard deviation of the labels: the unit of the logits.

    If the checkpoint declares the same range as the new labels, its scores stay as they are. A head whose logits are
    already in standard deviations then keeps its unit. One in MOS points (a published checkpoint) is rewritten in
    standard deviations. If the range is another one or unknown, the former head is kept: a good picture stays good in
    the new unit. The latter is carried over: its `score_range` is mapped to the range of the labels. A fresh head has
    no points yet, and one without a bias has none of its own.

    Args:
        model: Quality model with one label; changed in place.
        labels: Opinion scores of the training pictures.
        score_range: Lowest and highest possible score of the new unit; noted in the configuration.
    """
    config, head = model.config, last_layer(model)
    offset, scale = float(np.mean(labels)), float(np.std(labels)) or 1.0
    head_is_fresh = not head.weight.any() and (head.bias is None or not head.bias.any())
    is_in_points = (config.score_offset, config.score_scale) == (0, 1)
    is_same_range = score_range is not None and tuple(score_range) == tuple(config.score_range or ())
    if is_same_range and not (is_in_points or head_is_fresh):
        return
    if is_in_points and not head_is_fresh and head.bias is not None:
        low, ratio, old_low = 0.0, 1.0, 0.0
        if config.score_range is not None and not is_same_range:
            old_low, old_high = config.score_range
            low, ratio = min(labels), (max(labels) - min(labels) or 1.0) / (old_high - old_low)
        head.bias.copy_(((head.bias - old_low) * ratio + low - offset) / scale)
        head.weight.mul_(ratio / scale)
    config.score_offset, config.score_scale = offset, scale
    config.score_range = None if score_range is None else list(score_range)


def calibrate(model: Any, logits: torch.Tensor, labels: torch.Tensor) -> bool:
    """Fit the unit of a model's scores to rated pictures, if its family fits it after training.

    Args:
        model: Quality model; its configuration, or its head, is changed in place.
        logits: Logits of the pictures, shape (num_pictures, num_labels).
        labels: Their opinion scores in MOS points, shape (num_pictures,).

    Returns:
        Whether the family of the model fits its unit; if not, nothing was done.

    Raises:
        ValueError: If there are not as many logits as labels.
    """
    if len(logits) != len(labels):
        raise ValueError(f"There must be as many `logits` as `labels`, got {len(logits)} and {len(labels)}.")
    fit = family_of(model.config).calibrate
    if fit is not None:
        fit(model, logits, labels)
    return fit is not None


def freeze(model: Any, part: str) -> None:
    """Exclude a part of a model from training.

    Args:
        model: Quality model; changed in place.
        part: Name of one of the parts of its family, "encoder" say; the head cannot be frozen.

    Raises:
        ValueError: If the family has no such part.
    """
    parts = {name: modules for name, modules in family_of(model.config).parts(model).items() if name != "head"}
    check_choice("freeze", part, tuple(parts))
    for module in parts[part]:
        module.requires_grad_(False)


def find_rates(model: Any, rates: Mapping[str, float], *, whole: nn.Module | None = None) -> dict[str, float]:
    """Find the factor of the learning rate of each parameter in the parts that have one.

    Args:
        model: Quality model or classifier, with the parts to freeze already frozen.
        rates: Factors by the names of parts of its family. A part within another one has its own factor.
        whole: Module that holds the model; None = the model.

    Returns:
        Factors by the names of the parameters in `whole`; a parameter of no such part is left out.

    Raises:
        ValueError: If the family has no such part, or the part is frozen.
    """
    parts = family_of(model.config).parts(model)
    held = {}
    for name in rates:
        check_choice("rates", name, tuple(parts))
        held[name] = [parameter for module in parts[name] for parameter in module.parameters()]
        if not any(parameter.requires_grad for parameter in held[name]):
            raise ValueError(f"`rates` names {name}, which `freeze` leaves as it is. Leave out one of them.")
    names = {id(parameter): name for name, parameter in (whole or model).named_parameters()}
    found: dict[str, float] = {}
    for part in sorted(rates, key=lambda part: len(held[part]), reverse=True):
        found |= {names[id(parameter)]: rates[part] for parameter in held[part]}
    return found


def check_lora(family: Family) -> None:
    """Raise a ValueError if a family names no layers for low-rank additions."""
    if not family.lora_targets:
        raise ValueError(f"`lora_rank`: a {family.name} model names no layers for low-rank additions. Leave it out.")


def add_lora(model: Any, rank: int) -> nn.Module:
    """Add low-rank matrices (Hu et al., 2022) to the linear layers that the family names; train them and the head.

    Args:
        model: Quality model, which is wrapped and changed in place.
        rank: Rank of the additions; their scale is 1.

    Returns:
        Model of peft; `merge_lora` gives the plain model back.

    Raises:
        ValueError: If the family names no layers for low-rank additions, or the model has none of them.
        ImportError: If peft is missing.
    """
    peft = require("peft", extra="train")
    family = family_of(model.config)
    check_lora(family)
    if not {name.rpartition(".")[2] for name, _ in model.named_modules()} & set(family.lora_targets):
        raise ValueError(
            "`lora_rank`: the network has none of the linear layers to which low-rank additions are made "
            f"({', '.join(family.lora_targets)}). Leave it out, or freeze the network with `freeze`."
        )
    head = {id(module) for module in family.parts(model)["head"]}
    trained = [name for name, module in model.named_modules() if id(module) in head]
    config = peft.LoraConfig(
        r=rank, lora_alpha=rank, target_modules=list(family.lora_targets), modules_to_save=trained
    )
    return peft.get_peft_model(model, config)


def merge_lora(model: nn.Module) -> Any:
    """Return the plain model, with low-rank additions, if there are any, merged into its weights."""
    merge: Any = getattr(model, "merge_and_unload", lambda: model)
    return merge()
