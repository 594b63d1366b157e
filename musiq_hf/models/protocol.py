# SPDX-License-Identifier: Apache-2.0
"""Types that every model family provides; the rest of the package knows a family by them alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature

# One picture, unpadded and without a batch axis; the keys are arguments of the model's `forward`.
Feature = dict[str, torch.Tensor]


class QualityConfig(Protocol):
    """Configuration of a model: labels, unit and range of its scores.

    Attributes:
        model_type: Name of the family.
        num_labels: 1 = an opinion score, n = a distribution over the score values 1..n.
        score_offset: MOS points added to a one-label logit.
        score_scale: MOS points per unit of a one-label logit.
        score_range: Lowest and highest possible score, in MOS points; None if it is not noted.
        architectures: Name of the model's class, in a list.
    """

    model_type: str
    num_labels: int
    score_offset: float
    score_scale: float
    score_range: Sequence[float] | None
    architectures: list[str] | None

    @property
    def answer_range(self) -> tuple[float, float] | None:
        """Lowest and highest score in MOS points; None if it is not noted."""

    def signature_fields(self) -> dict[str, Any]:
        """Return the fields that shape no weight but change a score."""

    def to_dict(self) -> dict[str, Any]:
        """Return all fields."""

    @staticmethod
    def list_code() -> list[Path]:
        """List the files of the family that go with a checkpoint."""

    @classmethod
    def publish(cls, directory: str | PathLike[str]) -> None:
        """Add these files, and the names of the classes in them, to a directory with a config.json."""


class QualityProcessor(Protocol):
    """Image processor of a family: pixels to features, features to batches.

    Attributes:
        do_convert_rgb: Whether pictures that are not RGB are converted; if not, they raise.
    """

    do_convert_rgb: bool

    def cut(self, pixels: torch.Tensor) -> Feature:
        """Turn a picture into what the model reads.

        Args:
            pixels: Shape (height, width, 3), uint8, or float32 in [0, 1].

        Returns:
            The feature, on the device of the pixels.

        Raises:
            ValueError: If the model cannot read pictures of this size.
        """

    def num_tokens(self, feature: Feature) -> int:
        """Return the length of a feature in tokens; the size of a batch is bounded in this unit."""

    def count_tokens(self, height: int, width: int) -> int:
        """Return the `num_tokens` that a picture of this size, in pixels, would have, without cutting it.

        Raises:
            ValueError: If the model cannot read pictures of this size.
        """

    def pad(
        self, features: Sequence[Feature], *, padding: str | None = None, max_length: int | None = None
    ) -> BatchFeature:
        """Batch features of different lengths.

        Args:
            features: Features of the pictures, one of each.
            padding: "longest" pads to the longest feature of the batch, "max_length" to a fixed length; None = the
                processor's own setting.
            max_length: Tokens that "max_length" pads to; None = the longest possible feature.
        """

    def check_config(self, config: Any) -> None:
        """Raise a ValueError if a configuration disagrees with this processor."""

    @classmethod
    def from_config(cls, config: Any, **settings: Any) -> Self:
        """Make a processor that agrees with a configuration."""

    def signature_fields(self) -> dict[str, Any]:
        """Return the settings that decide what a model sees of a picture."""

    def save_pretrained(self, save_directory: Any) -> Any:
        """Write preprocessor_config.json, and the files of the family."""

    @classmethod
    def publish(cls, directory: str | PathLike[str]) -> None:
        """Add the files of the family to a directory with a preprocessor_config.json, and the name of this class."""


class QualityModel(Protocol):
    """Model with a quality head.

    It is called with a batch of `QualityProcessor.pad` and perhaps `labels`. Its output has, in this order, `loss` (if
    there are labels), `logits` (batch_size, num_labels) and `scores` (batch_size,) in MOS points. More may follow.

    Attributes:
        config: Configuration of the model.
        device: Device that holds the weights.
        training: Whether the model is in training mode.
    """

    config: Any
    training: bool

    @property
    def device(self) -> torch.device: ...

    def __call__(self, **batch: Any) -> Any: ...

    def std_from_logits(self, logits: torch.Tensor) -> torch.Tensor | None:
        """Return the standard deviation of the predicted distributions, in MOS points; None for one label."""

    def to(self, *args: Any, **kwargs: Any) -> Self: ...

    def eval(self) -> Self: ...

    def parameters(self) -> Any: ...

    def state_dict(self) -> dict[str, torch.Tensor]: ...


@dataclass(kw_only=True)
class TrainingView:
    """Part of a picture that a training step sees; this class shows the whole picture.

    The fields of a subclass become settings and flags of training. Random numbers come from torch's generator, so that
    a resumed run repeats them.
    """

    def for_batch(self) -> Self:
        """Return the view of one training batch, of which a part may be random; this class gives itself."""
        return self

    def cut(self, processor: Any, pixels: torch.Tensor) -> Feature:
        """Turn a training picture into a feature, as `QualityProcessor.cut` does."""
        return processor.cut(pixels)

    def check(self, processor: Any) -> None:
        """Raise a ValueError if this view is not possible with a processor."""

    def max_tokens(self, processor: Any) -> int:
        """Return the largest number of tokens that `cut` gives.

        Raises:
            ValueError: If there is no such bound; the message says which setting would make one.
        """
        raise ValueError("`fixed_shapes` needs a bound on the tokens of a picture, which this family does not have.")

    def count_tokens(self, processor: Any, height: int, width: int) -> int:
        """Return the tokens that `cut` gives for a picture of this size, in pixels."""
        return processor.count_tokens(height, width)


@dataclass(frozen=True, kw_only=True)
class TokenGrid:
    """Grid of cells in which the patches of a family's pictures lie.

    Attributes:
        size: Cells along a side; `spatial_position_ids` are row * size + column.
        num_scales: Number of scales of a picture.
    """

    size: int
    num_scales: int


@dataclass(frozen=True, kw_only=True)
class CardText:
    """Sentences of a family for a model card.

    Attributes:
        summary: Sentence that says what the model is.
        preprocessing: Sentences about the way from a picture to the model's input.
        score: Sentences about the meaning of the score.
        intended: Sentences about the intended use.
        limits: Markdown list of limits and bias.
        patents: Sentence about patents on the method, which begins with a blank or a line break; empty if none are
            known.
        citation: BibTeX entries.
        tags: Tags of the Hub.
    """

    summary: str
    preprocessing: str
    score: str
    intended: str
    limits: str
    citation: str
    tags: tuple[str, ...]
    patents: str = ""


def describe_score(config: QualityConfig) -> str:
    """Write the sentences of a card that say what a score means: an expectation, or an opinion score in its unit."""
    if config.num_labels > 1:
        return (
            f"The head predicts a distribution over the score values 1 to {config.num_labels}; the score is its "
            f"expectation, so it lies between 1 and {config.num_labels}. Higher is better."
        )
    mapping = ""
    if (config.score_offset, config.score_scale) != (0, 1):
        mapping = f" It is {config.score_offset:.6g} + {config.score_scale:.6g} times the logit."
    if config.score_range is None:
        meaning = "The unit and the range are those of the opinion scores that it was trained on."
    else:
        low, high = config.score_range
        meaning = f"Opinion scores lie between {low:g} and {high:g}; predictions are not clipped and can leave them."
    return f"One number per picture, an estimate of its mean opinion score (MOS). Higher is better.{mapping} {meaning}"


@dataclass(frozen=True, kw_only=True)
class Family:
    """Model family: its classes, and all that the rest of the package must know to use them.

    Attributes:
        name: The `model_type` of its configuration.
        config: Class of the configuration; see `QualityConfig`.
        processor: Class of the image processor; see `QualityProcessor`.
        quality: Class of the model with a quality head, see `QualityModel`; None for a family without one.
        classifier: Class of the model with a head for classes; None for a family without one.
        upscaler: Class of the model that answers larger pictures, with `upscale`; None for a family without one.
        others: Further classes of models.
        processor_fields: Settings that are part of the architecture but that only the image processor has.
        view: Class of the part of a picture that a training step sees; see `TrainingView`.
        parts: Function from a model to its parts that can be frozen, by name. "head" is always among them; its last
            module is the linear layer that gives the logits, which may have no bias.
        published_encoder: Function from a model to the part for which others have published weights: the name of that
            network and the module, or None. None for a family without such parts.
        published: Names under which `musiq convert` downloads published checkpoints of the family.
        lora_targets: Names of the linear layers to which low-rank additions are made.
        card: Function from a configuration to the sentences of a model card.
        facts: Function from a configuration to the lines that this family adds to `musiq info`, by name; None adds
            none.
        backbones: Networks that others have trained and that a new model can start from: help texts by name.
        backbone_settings: Function from a source that was given for one of these networks to the settings of the image
            processor that its own files name. None for a family whose configuration decides them.
        start: Function that makes a new model from the fields of a configuration, `frozen=` and the given backbones by
            name. The part `frozen` will not be trained; None trains all. None if configuration and class do all that.
        frozen: Part that training freezes unless it is told otherwise; None trains all.
        calibrate: Function that is called once after training with the model, logits and labels; None does nothing.
        feature_maps: Function from a model in evaluation mode, its processor and the pixels of one picture to feature
            maps. They go from the first block to the last, by the name of a network or scale. Each has the shape
            (crops, channels, rows, columns). None for a family without maps.
        token_grid: Function from a configuration to the grid of the patches; ValueError if they have no place in it. A
            model that `cls_only=False` is given then computes all tokens. Its `base_model` gives CLS and the tokens
            as `last_hidden_state`, shape (batch_size, 1 + N, hidden_size). A batch has
            `pixel_attention_mask`, `spatial_position_ids` and `scale_position_ids`, shape (batch_size, N). None for a
            family without such tokens.
        keeps_head: Function from the configuration of a trained model and the fields that change to whether its head
            goes on to read the same features. Otherwise training makes the head anew. None for a family whose head
            always does.
        has_one_length: Whether all pictures have the same number of tokens, so that there are no lengths to group.
        min_batch_size: Smallest batch on one device whose loss means something.
    """

    name: str
    config: type[PreTrainedConfig]
    processor: type[BaseImageProcessor]
    quality: type[PreTrainedModel] | None
    classifier: type[PreTrainedModel] | None = None
    upscaler: type[PreTrainedModel] | None = None
    others: tuple[type[PreTrainedModel], ...] = ()
    processor_fields: tuple[str, ...] = ()
    view: type[TrainingView] = TrainingView
    parts: Callable[[Any], Mapping[str, Sequence[nn.Module]]]
    published_encoder: Callable[[Any], tuple[str, nn.Module] | None] | None = None
    published: tuple[str, ...] = ()
    lora_targets: tuple[str, ...] = ()
    card: Callable[[Any], CardText]
    facts: Callable[[Any], Mapping[str, str]] | None = None
    backbones: Mapping[str, str] = field(default_factory=dict)
    backbone_settings: Callable[[str], Mapping[str, Any]] | None = None
    start: Callable[..., Any] | None = None
    frozen: str | None = None
    calibrate: Callable[[Any, torch.Tensor, torch.Tensor], None] | None = None
    feature_maps: Callable[[Any, Any, torch.Tensor], Mapping[str, Sequence[torch.Tensor]]] | None = None
    token_grid: Callable[[Any], TokenGrid] | None = None
    keeps_head: Callable[[Any, Mapping[str, Any]], bool] | None = None
    has_one_length: bool = False
    min_batch_size: int = 1

    @property
    def models(self) -> tuple[type[PreTrainedModel], ...]:
        """Classes of models: those with a head first."""
        heads = (self.quality, self.classifier, self.upscaler)
        return (*(kind for kind in heads if kind is not None), *self.others)
