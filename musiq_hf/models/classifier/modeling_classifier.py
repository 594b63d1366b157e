# SPDX-License-Identifier: Apache-2.0
"""Image classifiers of Transformers as models of image quality, the baseline of MUSIQ's Table 5.

The network keeps its own pooling. A head for opinion scores or score distributions takes the place of its last layer,
as NIMA does it (Talebi and Milanfar, 2018).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from .backbones_classifier import fill_network, load_backbone, make_network
from .checks_classifier import CheckedPreTrainedModel
from .configuration_classifier import ClassifierConfig
from .losses_classifier import distribution_loss, expect, opinion_loss
from .publishing_classifier import PublishedModel


@dataclass
class ClassifierImageQualityOutput(ModelOutput):
    """Output of `ClassifierForImageQualityAssessment`.

    Attributes:
        loss: Scalar, None without labels: L1 in units of the logit, or the earth mover's distance of a distribution.
        logits: Raw outputs of the head, shape (batch_size, num_labels).
        scores: Scores in MOS points, shape (batch_size,): `score_offset + score_scale * logit` for one label, the
            expectation over the score values 1..n for a distribution.
        hidden_states: States of the network, as it gives them, if they were asked for.
        attentions: Attention weights of the network, as it gives them, if they were asked for.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class ClassifierHead(nn.Linear):
    """Linear layer from pooled features to logits, after a dropout."""

    def __init__(self, num_features: int, config: ClassifierConfig):
        super().__init__(num_features, config.num_labels)
        self.dropout = nn.Dropout(config.head_dropout_prob)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return logits, (b, num_features) -> (b, num_labels), in the precision of the weight."""
        return super().forward(self.dropout(pooled.to(self.weight.dtype)))


class ClassifierPreTrainedModel(PublishedModel, CheckedPreTrainedModel):
    """Base of the models: class of the configuration, capabilities, and a head that begins at zero."""

    config_class = ClassifierConfig
    config: ClassifierConfig
    base_model_prefix = "network"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    # The Trainer would otherwise rescale our mean-reduced loss by the number of processes or accumulation steps.
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise the head; the network starts as Transformers starts it."""
        if isinstance(module, ClassifierHead):
            init.zeros_(module.weight)
            init.zeros_(module.bias)


class ClassifierForImageQualityAssessment(ClassifierPreTrainedModel):
    """Image classifier with a head for a mean opinion score (one label) or a score distribution over 1..n (n labels).

    `network` is the classifier of Transformers, whose logits are the features that its last layer would read.
    """

    _keep_in_fp32_modules_strict = {"head"}  # bfloat16 has steps of half a point at scores of 0..100

    def __init__(self, config: ClassifierConfig):
        super().__init__(config)
        self.network, num_features = make_network(config.backbone_config)
        self.supports_gradient_checkpointing = self.network.supports_gradient_checkpointing
        self.head = ClassifierHead(num_features, config)
        self.post_init()

    @classmethod
    def from_backbone(cls, backbone: Any, **fields: Any) -> "ClassifierForImageQualityAssessment":
        """Make a model from an image classifier that others have trained, with a new head.

        Args:
            backbone: Loaded model of Transformers, id on the Hub, or folder in the format of Transformers or timm. A
                file of weights of timm is read too. A configuration stands for random weights.
            **fields: Fields of `ClassifierConfig`, but for `backbone_config`; `num_labels` too.

        Returns:
            Model with the weights of the network, in evaluation mode.

        Raises:
            ValueError: If the network cannot be read, or is of a kind that cannot be used.
        """
        return cls.from_network(fields, *load_backbone(backbone)).eval()

    @classmethod
    def from_network(
        cls, fields: Mapping[str, Any], backbone_config: Any, weights: Mapping[str, torch.Tensor] | None
    ) -> "ClassifierForImageQualityAssessment":
        """Make a model from the fields of a configuration and a network.

        Args:
            fields: Fields of `ClassifierConfig`.
            backbone_config: Configuration of the network.
            weights: Weights of the network by name, with or without a head; None starts at random.

        Raises:
            ValueError: If fields contradict each other, or the weights are not those of such a network.
        """
        backbone = {**backbone_config.to_dict(), "model_type": backbone_config.model_type}
        model = cls(ClassifierConfig.from_dict({**fields, "backbone_config": backbone}))
        if weights is not None:
            fill_network(model.network, dict(weights))
        return model

    def train(self, mode: bool = True) -> "ClassifierForImageQualityAssessment":
        """Set the mode; a network that is frozen stays in evaluation mode, and so do statistics of its batch norms."""
        super().train(mode)
        if mode and not any(parameter.requires_grad for parameter in self.network.parameters()):
            self.network.eval()
        return self

    def scores_from_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Turn logits, shape (batch_size, num_labels), into MOS points, shape (batch_size,)."""
        if self.config.num_labels == 1:
            return self.config.score_offset + self.config.score_scale * logits[:, 0].float()
        return expect(logits.float())[0]

    def std_from_logits(self, logits: torch.Tensor) -> torch.Tensor | None:
        """Return standard deviations of predicted distributions, in MOS points, (batch_size,); None for one label."""
        return None if self.config.num_labels == 1 else expect(logits.cpu().double())[1]

    def _compute_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        labels = labels.to(device=logits.device, dtype=torch.float32)
        if self.config.num_labels == 1:
            targets = (labels - self.config.score_offset) / self.config.score_scale
            return opinion_loss(logits[:, 0].float(), targets)
        return distribution_loss(logits.float(), labels)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        *,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> ClassifierImageQualityOutput:
        """Score a batch of pictures.

        Args:
            pixel_values: Normalised squares, float, shape (batch_size, 3, image_size, image_size).
            labels: MOS points, shape (batch_size,), or counts per score value, shape (batch_size, num_labels).
            output_hidden_states: Whether states of the network are returned; None = as the configuration says.
            output_attentions: Whether its attention weights are returned; None = as the configuration says.
            **kwargs: `return_dict`.

        Returns:
            `ClassifierImageQualityOutput` with `scores` in MOS points.

        Raises:
            ValueError: If a tensor is missing or has a wrong shape, or an argument is unknown.
        """
        if unknown := kwargs.keys() - {"return_dict"}:
            raise ValueError(f"A classifier takes no argument {', '.join(sorted(unknown))}.")
        self._check_squares(pixel_values)
        wishes = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}
        wishes = {name: getattr(self.config, name) if wish is None else wish for name, wish in wishes.items()}
        wishes = {name: True for name, wish in wishes.items() if wish}  # not every network knows each of them
        outputs = self.network(pixel_values.to(self.network.dtype), return_dict=True, **wishes)  # type: ignore[union-attr]
        logits = self.head(outputs.logits)
        return ClassifierImageQualityOutput(
            loss=None if labels is None else self._compute_loss(logits, labels),
            logits=logits,
            scores=self.scores_from_logits(logits),
            hidden_states=outputs.get("reshaped_hidden_states", outputs.get("hidden_states")),
            attentions=outputs.get("attentions"),
        )

    def _check_squares(self, pixel_values: torch.Tensor | None) -> None:
        """Raise a ValueError unless squares have the shape that the configuration says."""
        if pixel_values is None:
            raise ValueError("`pixel_values` is required: pass the output of `ClassifierImageProcessor`.")
        side = self.config.side
        if pixel_values.dim() != 4 or tuple(pixel_values.shape[1:]) != (3, side, side):
            raise ValueError(
                f"`pixel_values` must have shape (batch_size, 3, {side}, {side}), got {tuple(pixel_values.shape)}. "
                "Did you skip `ClassifierImageProcessor`?"
            )


__all__ = [
    "ClassifierForImageQualityAssessment",
    "ClassifierImageQualityOutput",
    "ClassifierPreTrainedModel",
]
