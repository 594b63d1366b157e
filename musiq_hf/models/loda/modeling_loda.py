# SPDX-License-Identifier: Apache-2.0
"""LoDa: a vision Transformer adapted by local distortion features (Xu et al., CVPR 2024; code NeosXu/LoDa).

A convolutional network reads the same crop as the Transformer. Before each block of the Transformer its features are
added to all tokens. As published, both networks stay as they were trained by others, and only what is between them
learns.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoBackbone
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from .backbones_loda import copy_weights, load_backbone, load_vit, make_vit
from .checks_loda import CheckedPreTrainedModel
from .configuration_loda import LodaConfig
from .interaction_loda import LodaInteraction, LodaProjection
from .losses_loda import gather_batch, loda_loss
from .publishing_loda import PublishedModel


@dataclass
class LodaModelOutput(ModelOutput):
    """Output of `LodaModel`, for b crops.

    Attributes:
        last_hidden_state: Tokens after the last norm, CLS first, shape (b, 1 + N, D).
        pooler_output: CLS token, shape (b, D).
        cnn_tokens: Local features, stage by stage, row by row, shape (b, S * g * g, r).
        hidden_states: Input of every block, after the local features were added, and the output of the last one, each
            of shape (b, 1 + N, D).
        cross_attentions: Weights of the tokens on the local features, one tensor for each interaction, each of shape
            (b, heads, 1 + N, S * g * g).
    """

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    cnn_tokens: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    cross_attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class LodaImageQualityOutput(ModelOutput):
    """Output of `LodaForImageQualityAssessment`.

    Attributes:
        loss: Loss on the correlation of all crops of the batch with the labels of their pictures.
        logits: Means of the cosines of the crops, shape (batch_size, 1).
        scores: Scores in MOS points, shape (batch_size,).
        crop_logits: Cosine of each crop, in [-1, 1], shape (batch_size, num_crops).
        hidden_states: States of all crops of all pictures, see `LodaModelOutput`.
        cross_attentions: Weights of all crops of all pictures, see `LodaModelOutput`.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    crop_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    cross_attentions: tuple[torch.Tensor, ...] | None = None


class LodaHead(nn.Linear):
    """Cosine of a token and a learned vector, whose length has no effect."""

    def __init__(self, config: LodaConfig):
        super().__init__(config.hidden_size, config.num_labels, bias=False)
        self.dropout = nn.Dropout(config.head_dropout_prob)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return cosines, (b, D) -> (b, 1), in the precision of the weight."""
        pooled = self.dropout(pooled.to(self.weight.dtype))
        # Not by `F.linear`, which autocast would compute in half precision.
        return (F.normalize(pooled, dim=-1) * F.normalize(self.weight, dim=-1)).sum(dim=-1, keepdim=True)


def list_blocks(vit: nn.Module) -> nn.ModuleList:
    """Return the blocks of a vision Transformer of Transformers, whichever of its classes it is."""
    return vit.layers if hasattr(vit, "layers") else vit.encoder.layer  # type: ignore[union-attr, return-value]


class LodaPreTrainedModel(PublishedModel, CheckedPreTrainedModel):
    """Base of all LoDa models: class of the configuration, capabilities, and initial weights as in the original."""

    config_class = LodaConfig
    config: LodaConfig
    base_model_prefix = "loda"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    # The Trainer would otherwise rescale our mean-reduced loss by the number of processes or accumulation steps.
    accepts_loss_kwargs = False
    _no_split_modules = ["LodaInteraction"]
    _supports_sdpa = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise what is between the two networks, which start as Transformers starts them."""
        if isinstance(module, LodaHead):
            init.uniform_(module.weight, -1.0, 1.0)
        elif isinstance(module, LodaInteraction):
            deviation = self.config.initializer_range
            init.trunc_normal_(module.scale, std=deviation, a=-2 * deviation, b=2 * deviation)
        elif isinstance(module, nn.Linear | nn.Conv2d):
            bound = module.weight[0].numel() ** -0.5  # PyTorch's own start of both
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)


class LodaModel(LodaPreTrainedModel):
    """Vision Transformer with local features added before its blocks, without a head."""

    def __init__(self, config: LodaConfig):
        super().__init__(config)
        self.vit = make_vit(config.vit_config)
        self.vit.embeddings.mask_token = None  # no picture has masked patches
        self.cnn = AutoBackbone.from_config(config.cnn_config)
        self.cnn_projections = nn.ModuleList(LodaProjection(channels, config) for channels in self.cnn.channels)
        # By the number of their block, so that weights find it also where other blocks are chosen.
        self.interactions = nn.ModuleDict({str(layer): LodaInteraction(config) for layer in config.injected_layers})
        self.post_init()

    def train(self, mode: bool = True) -> "LodaModel":
        """Set the mode; the convolutional network stays in evaluation mode if the configuration says so."""
        super().train(mode)
        if mode and not self.config.update_cnn_statistics:
            self.cnn.eval()
        return self

    def encode_locally(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Compute the local features of crops, (b, 3, s, s) -> (b, S * g * g, r)."""
        maps = self.cnn(pixel_values).feature_maps
        return torch.cat([project(item) for project, item in zip(self.cnn_projections, maps, strict=True)], dim=1)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        *,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> LodaModelOutput:
        """Encode crops.

        Args:
            pixel_values: Normalised crops, float, shape (b, 3, s, s), s the image size of the Transformer.
            output_hidden_states: Whether inputs of the blocks are returned; None = as the configuration says.
            output_attentions: Whether weights on the local features are returned; None = as the configuration says.
            **kwargs: `return_dict`.

        Returns:
            `LodaModelOutput`.

        Raises:
            ValueError: If the crops have a wrong shape, or an argument is unknown.
        """
        if unknown := kwargs.keys() - {"return_dict"}:
            raise ValueError(f"LoDa takes no argument {', '.join(sorted(unknown))}.")
        size = self.config.image_size
        if pixel_values.dim() != 4 or tuple(pixel_values.shape[1:]) != (3, size, size):
            raise ValueError(
                f"`pixel_values` must have shape (crops, 3, {size}, {size}), got {tuple(pixel_values.shape)}."
            )
        config = self.config
        keeps_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        keeps_weights = bool(config.output_attentions if output_attentions is None else output_attentions)
        pixel_values = pixel_values.to(self.dtype)
        cnn_tokens = self.encode_locally(pixel_values)
        hidden_states = self.vit.embeddings(pixel_values)
        states, attentions = [], []
        for index, block in enumerate(list_blocks(self.vit)):
            if str(index) in self.interactions:
                interaction = self.interactions[str(index)]
                shift, weights = interaction(hidden_states, cnn_tokens, output_attentions=keeps_weights)
                hidden_states = hidden_states + shift
                attentions.append(weights)
            states += [hidden_states] if keeps_states else []
            hidden_states = block(hidden_states)
        states += [hidden_states] if keeps_states else []
        encoded = self.vit.layernorm(hidden_states)
        return LodaModelOutput(
            last_hidden_state=encoded,
            pooler_output=encoded[:, 0],
            cnn_tokens=cnn_tokens,
            hidden_states=tuple(states) if keeps_states else None,
            cross_attentions=tuple(attentions) if keeps_weights else None,
        )


class LodaForImageQualityAssessment(LodaPreTrainedModel):
    """LoDa with a head for a mean opinion score, the mean over the crops of a picture."""

    _keep_in_fp32_modules_strict = {"head"}  # a cosine has steps of 0.004 in bfloat16

    def __init__(self, config: LodaConfig):
        super().__init__(config)
        self.loda = LodaModel(config)
        self.head = LodaHead(config)
        self.post_init()

    @classmethod
    def from_backbones(cls, vit: Any, cnn: Any, **fields: Any) -> "LodaForImageQualityAssessment":
        """Make a model from two networks that others have trained; what is between them starts at random.

        Args:
            vit: Vision Transformer that is loaded, an id on the Hub, a folder in the format of Transformers or timm,
                or a file in timm's names.
            cnn: Convolutional network, given in one of the same ways.
            **fields: Fields of `LodaConfig`, but for `vit_config` and `cnn_config`.

        Returns:
            Model with the weights of both networks.

        Raises:
            ValueError: If a network cannot be read, or is of a kind that LoDa cannot use.
        """
        return cls.from_networks(fields, vit=load_vit(vit), cnn=load_backbone(cnn)).eval()

    @classmethod
    def from_networks(cls, fields: Mapping[str, Any], **networks: Any) -> "LodaForImageQualityAssessment":
        """Make a model from the fields of a configuration, with the weights of the networks that are given.

        Args:
            fields: Fields of `LodaConfig`; its `vit_config` and `cnn_config` hold for networks that are not given.
            **networks: Loaded networks by the names "vit" and "cnn"; another one starts at random.

        Raises:
            ValueError: If fields contradict each other or the networks.
        """
        parts = {f"{part}_config": network.config.to_dict() for part, network in networks.items()}
        model = cls(LodaConfig.from_dict({**fields, **parts}))
        for part, network in networks.items():
            copy_weights(network, getattr(model.loda, part))
        return model

    def scores_from_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Turn logits, shape (batch_size, 1), into MOS points, shape (batch_size,)."""
        return self.config.score_offset + self.config.score_scale * logits[:, 0].float()

    def std_from_logits(self, logits: torch.Tensor) -> torch.Tensor | None:
        """Return None: a LoDa model predicts no distribution."""
        return None

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        *,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> LodaImageQualityOutput:
        """Score a batch of pictures.

        Args:
            pixel_values: Normalised crops, float, shape (batch_size, num_crops, 3, s, s), or (batch_size, 3, s, s) for
                one crop of each picture.
            labels: MOS points, shape (batch_size,). In training all processes must pass as many pictures, which the
                loss compares with each other.
            output_hidden_states: Whether inputs of the blocks are returned; None = as the configuration says.
            output_attentions: Whether weights on the local features are returned; None = as the configuration says.
            **kwargs: `return_dict`.

        Returns:
            `LodaImageQualityOutput` with `scores` in MOS points.

        Raises:
            ValueError: If a tensor is missing or has a wrong shape.
        """
        crops = self._check_crops(pixel_values)
        outputs = self.loda(
            crops.flatten(0, 1),
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            **kwargs | {"return_dict": True},
        )
        crop_logits = self.head(outputs.pooler_output).view(crops.shape[:2])
        logits = crop_logits.mean(dim=1, keepdim=True)
        loss = None
        if labels is not None:
            labels = labels.to(device=crop_logits.device, dtype=crop_logits.dtype)
            if labels.shape != crop_logits.shape[:1]:
                raise ValueError(f"`labels` must have shape ({len(crops)},), got {tuple(labels.shape)}.")
            pair = (crop_logits.flatten(), labels.repeat_interleave(crops.shape[1]))
            # In evaluation a process may be alone with its batch.
            loss = loda_loss(*gather_batch(*pair)) if self.training else loda_loss(*pair)
        return LodaImageQualityOutput(
            loss=loss,
            logits=logits,
            scores=self.scores_from_logits(logits),
            crop_logits=crop_logits,
            hidden_states=outputs.hidden_states,
            cross_attentions=outputs.cross_attentions,
        )

    def _check_crops(self, pixel_values: torch.Tensor | None) -> torch.Tensor:
        """Return crops of shape (batch_size, num_crops, 3, s, s), or raise a ValueError."""
        if pixel_values is None:
            raise ValueError("`pixel_values` is required: pass the output of `LodaImageProcessor`.")
        crops = pixel_values[:, None] if pixel_values.dim() == 4 else pixel_values
        size = self.config.image_size
        if crops.dim() != 5 or tuple(crops.shape[2:]) != (3, size, size) or not crops.shape[1]:
            raise ValueError(
                f"`pixel_values` must have shape (batch_size, num_crops, 3, {size}, {size}), got "
                f"{tuple(pixel_values.shape)}. Did you skip `LodaImageProcessor`?"
            )
        return crops


__all__ = [
    "LodaForImageQualityAssessment",
    "LodaImageQualityOutput",
    "LodaModel",
    "LodaModelOutput",
    "LodaPreTrainedModel",
]
