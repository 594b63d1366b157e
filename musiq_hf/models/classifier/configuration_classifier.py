# SPDX-License-Identifier: Apache-2.0
"""Configuration of an image classifier of Transformers as a model of image quality, and the rules that it obeys.

Whoever loads one class of a repository gets the files that it imports, and Transformers finds imports by their text.
These lines stand here so that all files come, and can be saved again:

    from .image_processing_classifier import ClassifierImageProcessor
    from .modeling_classifier import ClassifierForImageQualityAssessment
"""

from copy import deepcopy
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig, ResNetConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from .checks_classifier import shorten
from .parts_classifier import NOTES, describe_part, make_part
from .settings_classifier import CheckedConfig, check_sizes

DEFAULT_SIDE = 384  # pixels, for networks that name no size; the squares of MUSIQ's Table 5
LARGEST_SIDE = 2**13
# Networks that Transformers counts among its classifiers but that cannot be used, by type.
REFUSED_TYPES = {
    "imagegpt": "reads clusters of colours",
    "perceiver": "reads inputs of its own shape",
    "pp_lcnet": "gives its logits by another name",
    "shieldgemma2": "reads text beside a picture",
    "siglip2": "reads any number of patches (NaFlex; SigLIP 2 at one size is of type siglip)",
    "timm_wrapper": "is built by timm",
}
# Vision towers with a configuration of their own, and the type whose classifier holds such a tower.
TOWERS = {"clip_vision_model": "clip", "siglip_vision_model": "siglip"}
# Modules that no classifier of Transformers reads, left out where a configuration can say so: they never learn.
UNUSED_PARTS = ("use_mask_token", "vision_use_head")
# Fields of a backbone on which no score depends, beside those of any part.
UNREAD_OF_BACKBONE = NOTES | {"out_features", "text_config"}
UNREAD_FIELDS = {"head_dropout_prob", "score_range"}


def vision_of(config: Any) -> Any:
    """Return the part of a network's configuration that describes what reads pictures; most have no other part."""
    return getattr(config, "vision_config", None) or config


def _trim(values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a backbone without those on which no score depends, also within it."""
    kept = {name: value for name, value in values.items() if name not in UNREAD_OF_BACKBONE}
    return {name: _trim(value) if isinstance(value, dict) else value for name, value in kept.items()}


def make_backbone(value: Any) -> Any:
    """Return the configuration of a backbone of its own, of which fields or a vision tower alone may be given.

    Raises:
        ValueError: If Transformers knows no such network, or a size is out of any measure.
    """
    config: Any = make_part("backbone_config", deepcopy(value), ResNetConfig())
    if config.model_type in TOWERS:
        tower = {"vision_config": config.to_dict()}
        config = AutoConfig.for_model(TOWERS[config.model_type], **tower)
    vision = vision_of(config)
    if vision is not config:
        make_part("backbone_config.vision_config", vision, vision)
    for name in UNUSED_PARTS:
        if getattr(vision, name, False):
            setattr(vision, name, False)
    return config


@strict
class ClassifierConfig(CheckedConfig, PreTrainedConfig):
    """Configuration of an image classifier as a model of quality; the defaults give a ResNet-50 with one label.

    Args:
        backbone_config: Configuration of the network, any that `AutoModelForImageClassification` knows, or its fields
            with a `model_type`. None makes it a ResNet-50.
        image_size: Side of the squares that the network reads, in pixels; None = that of the backbone, or 384 if it
            names none. Another size than that of a backbone with positions resamples these.
        head_dropout_prob: Dropout before the head, in [0, 1); NIMA has 0.75.
        score_offset: MOS points added to a one-label logit.
        score_scale: MOS points per unit of a one-label logit.
        score_range: Lowest and highest possible score, in MOS points. It is a note that never changes a score.

    Raises:
        ValueError: If fields contradict each other; the message says what to change.
    """

    model_type = "classifier"
    sub_configs = {"backbone_config": AutoConfig}

    backbone_config: dict[str, Any] | PreTrainedConfig | None = None
    image_size: int | None = None
    head_dropout_prob: float | int = 0.0
    score_offset: float | int = 0.0
    score_scale: float | int = 1.0
    score_range: list[float | int] | tuple[float | int, ...] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self.backbone_config = make_backbone(self.backbone_config)
        vision = vision_of(self.backbone_config)
        own = getattr(vision, "image_size", None)
        if self.image_size is not None and own is not None:
            vision.image_size = self.image_size if isinstance(own, int) else type(own)([self.image_size] * 2)
        super().__post_init__(**kwargs)

    @property
    def side(self) -> int:
        """Side of the squares that the network reads, in pixels."""
        own = getattr(vision_of(self.backbone_config), "image_size", None)
        if self.image_size is not None or own is None:
            return DEFAULT_SIDE if self.image_size is None else self.image_size
        return own if isinstance(own, int) else own[0]

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, those of the backbone without what no score depends on."""
        values = super().to_dict()
        return values | {"backbone_config": _trim(values["backbone_config"])}

    def to_diff_dict(self) -> dict[str, Any]:
        """Return the fields that differ from the defaults; the backbone is whole, so that it names what it is."""
        return super().to_diff_dict() | {"backbone_config": self.to_dict()["backbone_config"]}

    def signature_fields(self) -> dict[str, Any]:
        """Return the fields that a model in evaluation mode reads; the weights tell the rest."""
        fields = {name: getattr(self, name) for name in ClassifierConfig.__annotations__.keys() - UNREAD_FIELDS}
        return fields | {"backbone_config": _trim(describe_part(self.backbone_config)), "image_size": self.side}

    def validate_architecture(self) -> None:
        """Raise a ValueError for the first rule that the fields break."""
        check_sizes({"image_size": self.side}, {"image_size": LARGEST_SIDE})
        self._validate_backbone()
        if not 0 <= self.head_dropout_prob < 1:
            raise ValueError(f"`head_dropout_prob` must lie in [0, 1), got {self.head_dropout_prob}.")
        super().validate_architecture()

    def _validate_backbone(self) -> None:
        config: Any = self.backbone_config
        kind = config.model_type
        if kind in REFUSED_TYPES:
            raise ValueError(
                "`backbone_config`: a classifier that reads pixels of squares of one size was expected, but one of "
                f"type {kind} {REFUSED_TYPES[kind]}. Give another one."
            )
        if kind not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES:
            raise ValueError(
                f"`backbone_config`: Transformers has no image classifier of type {shorten(kind)}. Give one that "
                "`AutoModelForImageClassification` knows, such as resnet, vit or dinov2."
            )
        vision = vision_of(config)
        sides = getattr(vision, "image_size", None)
        if isinstance(sides, list | tuple) and len(set(sides)) != 1:
            raise ValueError(f"`backbone_config`: `image_size` must be that of a square, got {shorten(sides)}.")
        channels = getattr(vision, "num_channels", 3)
        if channels != 3:
            raise ValueError(f"`backbone_config`: `num_channels` must be 3, for RGB pictures, got {channels}.")


__all__ = ["ClassifierConfig", "vision_of"]
