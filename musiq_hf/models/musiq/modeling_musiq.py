# SPDX-License-Identifier: Apache-2.0
"""MUSIQ: multi-scale image quality Transformer (Ke et al., ICCV 2021, section 3).

Hidden states of real tokens equal those of the released code (google-research/musiq,
model/multiscale_transformer.py). Two differences change no score. Padding tokens are not attended to here; the
released code also keeps them from attending. And sequences need no fixed length.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .checks_musiq import CheckedPreTrainedModel
from .configuration_musiq import MusiqConfig
from .covariance_musiq import MusiqCovariancePooling
from .cpu_kernels_musiq import MusiqLinear, as_input, choose_size
from .encoder_musiq import (
    MusiqAttention,
    MusiqEmbeddings,
    MusiqEncoder,
    MusiqLayer,
    MusiqPacking,
    can_pack,
    pack_groups,
)
from .patch_encoder_musiq import MusiqConvolution, MusiqStdConv2d
from .patching_musiq import check_inputs
from .publishing_musiq import PublishedModel

# Number of tokens that go through the blocks at a time, by device; a picture with more goes alone.
PACK_TOKENS = {"cpu": 2048, "other": 2**30}
GAINS = {"lecun": 1, "he": 2}  # variances of initial weights, times the number of inputs
RECORDED = ("output_hidden_states", "output_attentions")


@dataclass
class MusiqImageQualityOutput(ModelOutput):
    """Output of `MusiqForImageQualityAssessment`.

    Attributes:
        loss: Scalar, None without labels: L1 in units of the logit, or EMD (eq. 3) for a distribution.
        logits: Raw outputs of the head, shape (batch_size, num_labels).
        scores: Scores in MOS points, shape (batch_size,): `score_offset + score_scale * logit` for one label, the
            expectation over the score values 1..n for a distribution.
        hidden_states: Inputs of every block and output of the last, if they were asked for.
        attentions: Attention weights of every block, if they were asked for and the attention is eager.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


def l1_loss(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute error, the paper's loss on opinion scores.

    Args:
        predictions: Shape (batch_size,).
        targets: Shape (batch_size,), in the unit of the predictions.

    Returns:
        Scalar, >= 0.

    Raises:
        ValueError: If the shapes differ; broadcasting would compare every prediction with every target.
    """
    if predictions.shape != targets.shape:
        raise ValueError(
            f"Labels of opinion scores must have shape {tuple(predictions.shape)}, got {tuple(targets.shape)}. "
            "Give one MOS per picture."
        )
    return nn.functional.l1_loss(predictions, targets)


def emd_loss(probabilities: torch.Tensor, targets: torch.Tensor, *, exponent: float = 2.0) -> torch.Tensor:
    """Return the earth mover's distance between score distributions (eq. 3), averaged over the batch.

    Args:
        probabilities: Shape (batch_size, num_bins), rows adding up to 1.
        targets: Counts or probabilities, shape (batch_size, num_bins), >= 0. Rows need not add up to 1.
        exponent: Exponent r of eq. 3; the paper trains with 2.

    Returns:
        Scalar, >= 0; it is 0 if both are equal.

    Raises:
        ValueError: If the shapes differ, or a target has a negative entry or is all zeros.
    """
    if probabilities.shape != targets.shape:
        raise ValueError(
            f"Labels of score distributions must have shape {tuple(probabilities.shape)}, got {tuple(targets.shape)}. "
            "Give one count or probability per score value."
        )
    totals = targets.sum(dim=-1, keepdim=True)
    if not (torch.compiler.is_compiling() or bool((targets >= 0).all() & (totals > 0).all())):  # NaN fails both
        raise ValueError(
            "A target score distribution must have entries >= 0 and a sum > 0, got another. Check its row."
        )
    distances = (probabilities.cumsum(-1) - (targets / totals).cumsum(-1)).abs().pow(exponent)
    means = distances.mean(dim=-1)
    # The root has an infinite slope at 0: a perfect prediction must give the gradient 0, not NaN.
    roots = torch.where(means > 0, means, torch.ones_like(means)).pow(1.0 / exponent)
    return torch.where(means > 0, roots, torch.zeros_like(means)).mean()


class MusiqCovarianceFeatures(nn.Module):
    """Features from the covariance of patch tokens, (batch_size, N, D) -> (batch_size, D)."""

    def __init__(self, config: MusiqConfig):
        super().__init__()
        self.pooling = MusiqCovariancePooling(
            config.hidden_size,
            size=config.covariance_size,
            method=config.covariance_method,
            eps=config.covariance_eps,
        )
        self.projection = MusiqLinear(self.pooling.output_size, config.hidden_size, bias=False)
        # Beside CLS, zeros leave the scores of a checkpoint as they were.
        self.projection.initial = "lecun" if config.pooling == "covariance" else "zeros"

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.projection(as_input(self.pooling(tokens, mask), self.projection))


class MusiqHead(nn.Module):
    """Head from pooled features to logits, through a tanh layer if `pre_logits_size` asks for one."""

    def __init__(self, config: MusiqConfig):
        super().__init__()
        self.pre_logits = None
        if config.pre_logits_size:
            self.pre_logits = MusiqLinear(config.hidden_size, config.pre_logits_size)
            self.pre_logits.initial = "lecun"
        self.classifier = MusiqLinear(config.pre_logits_size or config.hidden_size, config.num_labels)
        self.classifier.initial = "zeros"

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        pooled = as_input(pooled, self.classifier)  # the head stays in float32 in half-precision models too, see below
        if self.pre_logits is not None:
            pooled = torch.tanh(self.pre_logits(pooled))
        return self.classifier(pooled)


def _fill(weight: torch.Tensor, initial: str) -> None:
    """Fill a weight with its initial values: "ones", "zeros", "xavier" (uniform), "lecun" or "he" (normal)."""
    if initial == "xavier":
        init.xavier_uniform_(weight)
    elif initial in ("lecun", "he"):
        # Truncated at two deviations as in JAX; Transformers' `lecun_normal_` comes out 14 % too wide.
        deviation = (weight[0].numel() / GAINS[initial]) ** -0.5 / 0.87962566
        init.trunc_normal_(weight, std=deviation, a=-2 * deviation, b=2 * deviation)
    else:
        init.constant_(weight, {"ones": 1.0, "zeros": 0.0}[initial])


class MusiqPreTrainedModel(PublishedModel, CheckedPreTrainedModel):
    """Base of all MUSIQ models: class of the configuration, capabilities, and initial weights as in the original."""

    config_class = MusiqConfig
    config: MusiqConfig
    base_model_prefix = "musiq"
    main_input_name = "pixel_values"
    _input_embed_layer = "patch_projection"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    # The Trainer would otherwise rescale our mean-reduced loss by the number of processes or accumulation steps.
    accepts_loss_kwargs = False
    # bfloat16 keeps too little of the pixels: a stem in it moves scores of musiq-tiny-biq2021 10 times as far.
    _keep_in_fp32_modules_strict = {"stem_conv", "stem_norm", "covariance"}
    _no_split_modules = ["MusiqEmbeddings", "MusiqLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": MusiqLayer, "attentions": MusiqAttention}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise the weights that a module itself owns, as the released code and the defaults of its library do.

        A layer that starts otherwise than others of its class says so in `initial`.

        A parent does not initialise its children. For classes outside of its own package Transformers skips every
        module that owns no parameter itself. The weights below such a module would stay uninitialised.
        """
        if isinstance(module, MusiqEmbeddings):
            init.zeros_(module.cls_token)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, nn.LayerNorm | nn.GroupNorm):
            _fill(module.weight, getattr(module, "initial", "ones"))
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear | MusiqStdConv2d | MusiqConvolution):
            _fill(module.weight, getattr(module, "initial", "xavier"))
        if isinstance(module, nn.Linear | MusiqConvolution) and module.bias is not None:
            init.normal_(module.bias, std=getattr(module, "initial_bias", 0.0))


class MusiqModel(MusiqPreTrainedModel):
    """Encoder without a head: it turns patches of all scales into a sequence of hidden states, CLS first.

    A head reads the CLS token, or features from the covariance of the patch tokens, or their sum: see `pooling` in
    `MusiqConfig`.
    """

    def __init__(self, config: MusiqConfig):
        super().__init__(config)
        self.embeddings = MusiqEmbeddings(config)
        self.encoder = MusiqEncoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.covariance = MusiqCovarianceFeatures(config) if config.pools_covariance else None
        self.post_init()

    def _encode_packed(
        self,
        hidden_states: torch.Tensor,
        mask: torch.Tensor | None,
        *,
        cls_only: bool,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """Run the blocks on the real tokens alone, picture after picture: without work on padding and without a mask.

        Padding tokens come back unchanged; with `cls_only` only CLS of every picture comes back.
        """
        real = hidden_states.new_ones(hidden_states.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
        tokens, encoded, start = hidden_states[real], [], 0
        for lengths in pack_groups(real.sum(dim=1).tolist(), choose_size(PACK_TOKENS, tokens)):
            packing = MusiqPacking.of(lengths, tokens.device)
            pack = tokens[None, start : start + sum(lengths)]
            output = self.encoder(pack, None, cls_only=cls_only, packing=packing, **kwargs)[0]
            encoded.append(output.to(hidden_states.device))  # a device map can put the last block elsewhere
            start += sum(lengths)
        if cls_only:
            return torch.cat(encoded)[:, None]
        return hidden_states.masked_scatter(real[..., None], torch.cat(encoded))

    def encode(
        self,
        hidden_states: torch.Tensor,
        mask: torch.Tensor | None = None,
        *,
        cls_only: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """Run blocks and final norm on embedded tokens, so that a caller can embed once and encode parts of them.

        Args:
            hidden_states: Embedded tokens, CLS first, shape (batch_size, 1 + sequence_length, hidden_size).
            mask: 1 = real token, 0 = padding, shape (batch_size, 1 + sequence_length). None = all real.
            cls_only: Whether only what `pool` reads is wanted, as in `forward`.
            **kwargs: `output_hidden_states`, `output_attentions`.

        Returns:
            Encoded tokens in the shape of `hidden_states`, or CLS alone.
        """
        recorded = any(kwargs.get(name, getattr(self.config, name, False)) for name in RECORDED)
        cls_only = cls_only and not recorded and self.config._attn_implementation in ("eager", "sdpa")
        cls_only = cls_only and self.covariance is None
        if not recorded and can_pack(hidden_states, self.encoder, self.config):
            return self.layernorm(self._encode_packed(hidden_states, mask, cls_only=cls_only, **kwargs))
        attention_mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=hidden_states, attention_mask=mask
        )
        return self.layernorm(self.encoder(hidden_states, attention_mask, cls_only=cls_only, **kwargs))

    def pool(self, hidden_states: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Pool encoded tokens into the features that a head reads.

        Args:
            hidden_states: Result of `encode`.
            mask: Mask that `encode` was given, shape (batch_size, 1 + sequence_length).

        Returns:
            Features, shape (batch_size, hidden_size).
        """
        if self.covariance is None:
            return hidden_states[:, 0]
        features = self.covariance(hidden_states[:, 1:], None if mask is None else mask[:, 1:])
        if self.config.pooling == "covariance":
            return features
        return hidden_states[:, 0] + features.to(hidden_states.device)  # a device map can put the layers elsewhere

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        pixel_attention_mask: torch.Tensor | None = None,
        spatial_position_ids: torch.Tensor | None = None,
        scale_position_ids: torch.Tensor | None = None,
        *,
        cls_only: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Encode the patches of a batch of pictures.

        Args:
            pixel_values: Patches, float, shape (batch_size, sequence_length, patch_size * patch_size * 3), in [-1, 1].
            pixel_attention_mask: 1 = real patch, 0 = padding, shape (batch_size, sequence_length). None = all real.
            spatial_position_ids: Cell of the spatial grid, or slot for "fixed", shape (batch_size, sequence_length).
            scale_position_ids: Scale of each patch, resized copies first, shape (batch_size, sequence_length).
            cls_only: Whether only CLS is wanted: the last block then computes no other token. It has no effect if
                hidden states or attentions are asked for, with an attention other than eager and sdpa, or if
                covariances are pooled.
            **kwargs: `output_hidden_states`, `output_attentions`, `return_dict`.

        Returns:
            `last_hidden_state` (batch_size, 1 + sequence_length, hidden_size), CLS first and meaningless on padding,
            or CLS alone; and `pooler_output` (batch_size, hidden_size), which is CLS unless covariances are pooled.

        Raises:
            ValueError: If a tensor that the configuration needs is missing, or the patches have a wrong shape.
        """
        check_inputs(self.config, pixel_values, spatial_position_ids, scale_position_ids)
        hidden_states = self.embeddings(pixel_values, spatial_position_ids, scale_position_ids, pixel_attention_mask)
        if pixel_attention_mask is not None:
            pixel_attention_mask = nn.functional.pad(pixel_attention_mask, (1, 0), value=1)  # CLS is always real
        hidden_states = self.encode(hidden_states, pixel_attention_mask, cls_only=cls_only, **kwargs)
        pooled = self.pool(hidden_states, pixel_attention_mask)
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=pooled)


class MusiqForImageQualityAssessment(MusiqPreTrainedModel):
    """MUSIQ with a head for a mean opinion score (one label) or a score distribution over 1..n (n labels)."""

    # Logits of published checkpoints are scores of 0..100, where bfloat16 has steps of half a point.
    _keep_in_fp32_modules_strict = {"head"}  # besides the modules of the base class

    def __init__(self, config: MusiqConfig):
        super().__init__(config)
        self.musiq = MusiqModel(config)
        self.head = MusiqHead(config)
        self.post_init()

    def scores_from_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Turn logits, shape (batch_size, num_labels), into MOS points, shape (batch_size,)."""
        if self.config.num_labels == 1:
            return self.config.score_offset + self.config.score_scale * logits[:, 0].float()
        probabilities = logits.float().softmax(dim=-1)
        values = torch.arange(1.0, self.config.num_labels + 1, dtype=torch.float32, device=logits.device)
        return (probabilities * values).sum(dim=-1)  # autocast would do a matrix product in half precision

    def std_from_logits(self, logits: torch.Tensor) -> torch.Tensor | None:
        """Return standard deviations of predicted distributions, in MOS points, (batch_size,); None for one label."""
        if self.config.num_labels == 1:
            return None
        probabilities = logits.cpu().double().softmax(dim=-1)  # not every device has doubles
        values = torch.arange(1.0, self.config.num_labels + 1, dtype=torch.float64)
        distances = values - (probabilities * values).sum(dim=-1, keepdim=True)
        return (probabilities * distances**2).sum(dim=-1).sqrt()

    def _compute_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        labels = labels.to(device=logits.device, dtype=torch.float32)
        if self.config.num_labels == 1:
            targets = (labels - self.config.score_offset) / self.config.score_scale
            return l1_loss(logits[:, 0].float(), targets)
        return emd_loss(logits.float().softmax(dim=-1), labels)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        pixel_attention_mask: torch.Tensor | None = None,
        spatial_position_ids: torch.Tensor | None = None,
        scale_position_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        *,
        cls_only: bool = True,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MusiqImageQualityOutput:
        """Score a batch of pictures.

        Args:
            pixel_values: Patches, float, shape (batch_size, sequence_length, patch_size * patch_size * 3), in [-1, 1].
            pixel_attention_mask: 1 = real patch, 0 = padding, shape (batch_size, sequence_length). None = all real.
            spatial_position_ids: Cell of the spatial grid, or slot for "fixed", shape (batch_size, sequence_length).
            scale_position_ids: Scale of each patch, resized copies first, shape (batch_size, sequence_length).
            labels: MOS points, shape (batch_size,), or counts per score value, shape (batch_size, num_labels).
            cls_only: Whether `musiq` computes CLS alone, which is all that the head reads, see `MusiqModel.forward`.
            **kwargs: `output_hidden_states`, `output_attentions`, `return_dict`.

        Returns:
            `MusiqImageQualityOutput` with `scores` in MOS points.

        Raises:
            ValueError: If a tensor is missing or has a wrong shape, or a row of labels is no distribution.
        """
        inputs = (pixel_values, pixel_attention_mask, spatial_position_ids, scale_position_ids)
        outputs = self.musiq(*inputs, cls_only=cls_only, return_dict=True, **kwargs)
        logits = self.head(outputs.pooler_output)
        return MusiqImageQualityOutput(
            loss=None if labels is None else self._compute_loss(logits, labels),
            logits=logits,
            scores=self.scores_from_logits(logits),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class MusiqForImageClassification(MusiqPreTrainedModel):
    """MUSIQ with a classification head, for the ImageNet pre-training of section 4.2."""

    _keep_in_fp32_modules_strict = {"head"}  # besides the modules of the base class

    def __init__(self, config: MusiqConfig):
        super().__init__(config)
        self.musiq = MusiqModel(config)
        self.head = MusiqHead(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        pixel_attention_mask: torch.Tensor | None = None,
        spatial_position_ids: torch.Tensor | None = None,
        scale_position_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageClassifierOutput:
        """Classify a batch of pictures.

        Args:
            pixel_values: Patches, float, shape (batch_size, sequence_length, patch_size * patch_size * 3), in [-1, 1].
            pixel_attention_mask: 1 = real patch, 0 = padding, shape (batch_size, sequence_length). None = all real.
            spatial_position_ids: Cell of the spatial grid, or slot for "fixed", shape (batch_size, sequence_length).
            scale_position_ids: Scale of each patch, resized copies first, shape (batch_size, sequence_length).
            labels: Class indices, int64, shape (batch_size,), or class probabilities, shape (batch_size, num_labels).
            **kwargs: `output_hidden_states`, `output_attentions`, `return_dict`.

        Returns:
            `ImageClassifierOutput` with `logits` (batch_size, num_labels) and the cross entropy as `loss`.

        Raises:
            ValueError: If a tensor is missing or has a wrong shape.
        """
        inputs = (pixel_values, pixel_attention_mask, spatial_position_ids, scale_position_ids)
        outputs = self.musiq(*inputs, cls_only=True, return_dict=True, **kwargs)
        logits = self.head(outputs.pooler_output)
        loss = None if labels is None else nn.functional.cross_entropy(logits.float(), labels.to(logits.device))
        return ImageClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


__all__ = [
    "MusiqForImageClassification",
    "MusiqForImageQualityAssessment",
    "MusiqImageQualityOutput",
    "MusiqModel",
    "MusiqPreTrainedModel",
]
