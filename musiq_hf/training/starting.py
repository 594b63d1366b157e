# SPDX-License-Identifier: Apache-2.0
"""What happens to a model before and after training: where it starts, what of it is trained, how it is saved."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from transformers import AutoImageProcessor
from transformers.utils import SAFE_WEIGHTS_NAME, logging

from ..common.extras import require
from ..common.files import data_directory
from ..models.musiq.configuration_musiq import MusiqConfig
from ..models.musiq.image_processing_musiq import MusiqImageProcessor
from ..models.musiq.modeling_musiq import MusiqForImageQualityAssessment
from ..scoring.loading import has_weights, load_config

FROM_SCRATCH = "scratch:"
CONFIGURATIONS = data_directory("checkpoints")
logger = logging.get_logger(__name__)


def architecture_fields() -> dict[str, Any]:
    """Names and types of what makes up a MUSIQ; training sets the unit of the score itself."""
    own = MusiqConfig.__annotations__.items()
    return {name: kind for name, kind in own if not name.startswith(("score_", "model_type"))} | {
        "resize_mode": Literal["arp", "square"]
    }


def resolve_model(name: str) -> str:
    """The directory of a packaged configuration for "scratch:musiq-tiny" and the like; other names as they are.

    The prefix says aloud that training starts from random weights, though published weights of that name may exist.

    Raises:
        ValueError: If there is no such configuration.
    """
    if not name.startswith(FROM_SCRATCH):
        return name
    known = sorted(path.name for path in CONFIGURATIONS.iterdir())
    if name.removeprefix(FROM_SCRATCH) not in known:
        raise ValueError(f"There is no configuration for {name!r}. Choose {FROM_SCRATCH} with {', '.join(known)}.")
    return str(CONFIGURATIONS / name.removeprefix(FROM_SCRATCH))


def load_model(
    name: str, *, architecture: Mapping[str, Any] | None = None, num_labels: int = 1
) -> MusiqForImageQualityAssessment:
    """A quality model from a checkpoint, or with fresh weights from a directory that holds only a configuration.

    Weights that do not fit (a head with another number of labels, an embedding of another grid) are made anew.

    Args:
        name: Checkpoint, or directory with a config.json.
        architecture: Fields of the configuration to change; those of the image processor alone are passed over.
        num_labels: 1 = an opinion score, more = a distribution over so many score values.

    Raises:
        ValueError: If the checkpoint is no MUSIQ, or its configuration does not allow the changes.
    """
    config = load_config(name)
    # A label of its own per score value; Transformers counts the labels by these names.
    names = {0: "MOS"} if num_labels == 1 else {i: str(i + 1) for i in range(num_labels)}
    changes: dict[str, Any] = {"id2label": names, "label2id": {label: i for i, label in names.items()}}
    known = config.to_dict()
    changes |= {field: value for field, value in (architecture or {}).items() if field in known}
    if not has_weights(name):
        logger.warning("%s holds no %s: training starts from random weights.", name, SAFE_WEIGHTS_NAME)
        return MusiqForImageQualityAssessment(MusiqConfig(**(config.to_diff_dict() | changes)))
    if config.num_labels != num_labels:
        changes["problem_type"] = "regression" if num_labels == 1 else None
        changes |= {"score_offset": 0.0, "score_scale": 1.0, "score_range": None}
    changes["ignore_mismatched_sizes"] = config.num_labels != num_labels or bool(architecture)
    return MusiqForImageQualityAssessment.from_pretrained(name, dtype=torch.float32, **changes)


def load_processor(name: str, config: MusiqConfig | None, *, architecture: Mapping[str, Any]) -> MusiqImageProcessor:
    """The image processor of a checkpoint with the same changes as its configuration, checked against that.

    None leaves out the check, before there is a model.
    """
    changes = {field: value for field, value in architecture.items() if hasattr(MusiqImageProcessor, field)}
    processor = AutoImageProcessor.from_pretrained(name, **changes)
    if config is not None:
        processor.check_config(config)
    return processor


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
        model: With one label; changed in place.
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


def freeze(model: MusiqForImageQualityAssessment, part: str) -> None:
    """Exclude a part from training.

    Args:
        model: Changed in place.
        part: "patch_encoder" (residual network and projection of the patches) or "encoder" (all but the head).
    """
    embeddings = model.musiq.embeddings
    frozen: list[nn.Module] = [model.musiq]
    if part == "patch_encoder":
        frozen = [embeddings.patch_projection]
        if embeddings.patch_encoder is not None:
            frozen.append(embeddings.patch_encoder)
    for module in frozen:
        module.requires_grad_(False)


def add_lora(model: MusiqForImageQualityAssessment, rank: int) -> nn.Module:
    """Low-rank additions (Hu et al., 2022) to the attention's projections; they and the head are trained, no more.

    Args:
        model: Wrapped, and changed in place.
        rank: Of the additions; their scale is 1.

    Returns:
        A peft model; `merge_lora` gives the plain one back.
    """
    peft = require("peft", extra="train")
    projections = ["q_proj", "k_proj", "v_proj", "o_proj"]
    config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=projections, modules_to_save=["head"])
    return peft.get_peft_model(model, config)


def merge_lora(model: nn.Module) -> MusiqForImageQualityAssessment:
    """The plain model, low-rank additions (if there are any) added to the weights."""
    merge: Any = getattr(model, "merge_and_unload", lambda: model)
    return merge()
