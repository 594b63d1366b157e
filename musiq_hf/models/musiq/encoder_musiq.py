# SPDX-License-Identifier: Apache-2.0
"""Transformer of MUSIQ: embeddings, attention, MLP and pre-norm blocks.

It is that of the released code (google-research/musiq, model/multiscale_transformer.py).

Blocks read padded batches with a mask, or packs: the sequences of several pictures in one row without padding, with
attention within each picture.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from .configuration_musiq import RESNET_DEPTHS, MusiqConfig
from .cpu_kernels_musiq import (
    MusiqLinear,
    as_input,
    attention_in_blocks,
    choose_size,
    is_as_built,
    is_fast_attention,
    keep_freed_memory,
    needs_one_graph,
)
from .patch_encoder_musiq import NUM_CHANNELS, MusiqEfficientNetLite, MusiqPatchEncoder, exact_convolutions
from .patching_musiq import sinusoid_table

# Number of patches that are embedded at a time when no gradient is needed, by device.
CHUNK = {"cpu": 256, "other": 8192}
# Patches that activation checkpointing encodes again at a time, by device; GPUs need many to be busy.
CHECKPOINT_PATCHES = {"cpu": 256, "other": 4096}
CACHE_BYTES = 2**21  # features of the patch encoder at a time, on a CPU
# Tokens that go through the MLP at a time with a fast kernel; inside it features are 3 times as wide.
MLP_TOKENS = 4096
ACTIVATION = "gelu_pytorch_tanh"
INITIAL_BIAS = 1e-6  # standard deviation of the initial biases of the MLP


def make_patch_encoder(config: MusiqConfig) -> MusiqPatchEncoder | MusiqEfficientNetLite | None:
    """Make the network between patches and their projection; None if the projection reads the pixels."""
    if config.patch_encoder == "linear":
        return None
    if config.uses_efficientnet:
        return MusiqEfficientNetLite(
            config.patch_encoder, patch_size=config.patch_size, num_stages=config.num_efficientnet_stages
        )
    resnet = config.patch_encoder == "resnet"
    return MusiqPatchEncoder(
        patch_size=config.patch_size,
        width=config.patch_encoder_width,
        num_stages=RESNET_DEPTHS.index(config.patch_encoder_depth) + 1 if resnet else 0,
        num_groups=config.patch_encoder_groups,
    )


class MusiqEmbeddings(nn.Module):
    """Patch, spatial (section 3.3) and scale embeddings (section 3.4), and the CLS token, which has no position."""

    gradient_checkpointing = False  # set by `activation_checkpointing_enable`

    def __init__(self, config: MusiqConfig):
        super().__init__()
        self.patch_values = config.patch_size**2 * NUM_CHANNELS
        self.patch_encoder = make_patch_encoder(config)
        feature_size = self.patch_values if self.patch_encoder is None else self.patch_encoder.output_size
        self.patch_projection = MusiqLinear(feature_size, config.hidden_size)
        self.patch_projection.initial = "lecun"
        self.spatial_kind = config.spatial_embedding
        self.num_positions, self.hidden_size = config.num_spatial_positions, config.hidden_size
        learned = self.spatial_kind in ("hash", "fixed")
        self.spatial_embedding = nn.Embedding(self.num_positions, self.hidden_size) if learned else None
        self.scale_embedding = (
            nn.Embedding(config.num_scales, config.hidden_size) if config.use_scale_embedding else None
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def _encode_at_once(self, patches: torch.Tensor) -> torch.Tensor:
        features = patches if self.patch_encoder is None else self.patch_encoder(patches)
        return self.patch_projection(as_input(features, self.patch_projection))

    def _encode(self, patches: torch.Tensor) -> torch.Tensor:
        """Encode patches, (num_patches, patch_size * patch_size * 3) -> (num_patches, D).

        On a CPU the encoder reads only a few patches at a time, so that their features stay in the cache. The
        projection, which has most of the weights, reads all of them at once. Features inside of the encoder are most
        of what training keeps. Activation checkpointing keeps none, and encodes a part of the patches at a time again
        for their gradients.
        """
        if self.patch_encoder is None:
            return self._encode_at_once(patches)
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            parts = patches.split(choose_size(CHECKPOINT_PATCHES, patches))
            return torch.cat([checkpoint(self._encode_at_once, part, use_reentrant=False) for part in parts])
        if needs_one_graph():
            return self._encode_at_once(patches)
        if patches.device.type != "cpu":
            with exact_convolutions():
                return self._encode_at_once(patches)
        few = max(1, CACHE_BYTES // (self.patch_encoder.cached_values * patches.element_size()))
        shape = (len(patches), self.patch_encoder.output_size)
        features = as_input(patches[:0], self.patch_projection).new_empty(shape)
        for start in range(0, len(patches), few):
            features[start : start + few] = self.patch_encoder(patches[start : start + few])
        return self.patch_projection(features)

    def _embed_patches(self, pixel_values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Encode a batch, (batch_size, sequence_length, values) -> (batch_size, sequence_length, D).

        Without gradients, padding is skipped and the patches are encoded some at a time. That bounds the memory: the
        features between encoder and projection are 40 times as large as the result.
        """
        patches = pixel_values.flatten(0, 1)
        if needs_one_graph():
            return self._encode(patches).view(*pixel_values.shape[:2], -1)
        keep_freed_memory()
        size = choose_size(CHUNK, patches)
        if mask is None or bool(mask.all()):
            encoded = torch.cat([self._encode(chunk) for chunk in patches.split(size)])
        else:
            real = mask.flatten().nonzero()[:, 0]
            parts = torch.cat([self._encode(patches[chunk]) for chunk in real.split(size)])
            encoded = parts.new_zeros(len(patches), parts.shape[-1]).index_copy_(0, real, parts)
        return encoded.view(*pixel_values.shape[:2], -1)

    def forward(
        self,
        pixel_values: torch.Tensor,
        spatial_position_ids: torch.Tensor,
        scale_position_ids: torch.Tensor,
        pixel_attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embed a batch: the result has shape (batch_size, 1 + sequence_length, hidden_size), CLS first."""
        embeddings = self._embed_patches(pixel_values, pixel_attention_mask)
        if self.spatial_kind == "sinusoid":
            table = sinusoid_table(self.num_positions, self.hidden_size, device=embeddings.device)
            embeddings = embeddings + nn.functional.embedding(spatial_position_ids, table.to(embeddings.dtype))
        elif self.spatial_embedding is not None:
            embeddings = embeddings + self.spatial_embedding(spatial_position_ids)
        if self.scale_embedding is not None:
            embeddings = embeddings + self.scale_embedding(scale_position_ids)
        embeddings = torch.cat((self.cls_token.expand(embeddings.shape[0], -1, -1), embeddings), dim=1)
        return self.dropout(embeddings)


@dataclass(frozen=True)
class MusiqPacking:
    """Places of several pictures in a pack: a batch of one, in which their tokens follow each other without padding.

    Attributes:
        starts: Index of the first token, CLS, of each picture, and the number of all tokens; int32, shape
            (num_pictures + 1,).
        lengths: Number of tokens of each picture.
    """

    starts: torch.Tensor
    lengths: list[int]

    @classmethod
    def of(cls, lengths: list[int], device: torch.device) -> "MusiqPacking":
        """Make the packing of pictures of these lengths, in this order."""
        starts = torch.tensor([0, *lengths], device=device).cumsum(0, dtype=torch.int32)
        return cls(starts=starts, lengths=lengths)

    def to(self, device: torch.device, non_blocking: bool = False) -> "MusiqPacking":
        """Move to another device; Accelerate calls this between blocks that a device map has put on different ones."""
        return MusiqPacking(starts=self.starts.to(device, non_blocking=non_blocking), lengths=self.lengths)


def can_pack(hidden_states: torch.Tensor, encoder: nn.Module, config: PreTrainedConfig) -> bool:
    """Return whether blocks can run on packs: not in training, and only if a kernel for packs is there.

    Args:
        hidden_states: Tokens that the blocks would read.
        encoder: Module that holds the blocks.
        config: Configuration of the blocks: kind of attention, width, number of heads.
    """
    if needs_one_graph() or config._attn_implementation != "sdpa":
        return False
    if any(module.training for module in encoder.modules()):
        return False
    if hidden_states.device.type == "cpu":
        return not torch.is_autocast_enabled("cpu")
    if not hidden_states.is_cuda or hidden_states.dtype not in (torch.float16, torch.bfloat16):
        return False
    head_dim = config.hidden_size // config.num_attention_heads
    flash = torch.backends.cuda.is_flash_attention_available() and torch.backends.cuda.flash_sdp_enabled()
    capable = torch.cuda.get_device_capability(hidden_states.device) >= (8, 0)
    return find_kernel() is not None and flash and capable and head_dim % 8 == 0 and head_dim <= 256


@cache
def find_kernel() -> Any:
    """Return the variable-length kernel of GPUs; None before torch 2.11, or where a build has none.

    torch 2.9 has no such kernel, and that of 2.10 takes no `scale`. Batches are padded then.
    """
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn if "scale" in signature(varlen_attn).parameters else None


def pack_groups(lengths: list[int], limit: int) -> Iterator[list[int]]:
    """Group neighbours whose lengths add up to at most the limit; a longer one stands alone."""
    group: list[int] = []
    for length in lengths:
        if group and sum(group) + length > limit:
            yield group
            group = []
        group.append(length)
    yield group


def attention_by_kernel(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packing: MusiqPacking, *, scaling: float
) -> torch.Tensor:
    """Attend inside each picture of a pack by the variable-length kernel of GPUs, in float16 or bfloat16.

    Args:
        query: Shape (num_tokens, num_heads, head_dim), or one query for each picture.
        key: Shape (num_tokens, num_heads, head_dim).
        value: Shape (num_tokens, num_heads, head_dim).
        packing: Places of the pictures.
        scaling: Factor of the products of queries and keys.

    Returns:
        Output in the shape of `query`.
    """
    starts, query_starts = packing.starts, packing.starts
    longest = longest_query = max(packing.lengths)
    if len(query) < len(key):
        query_starts, longest_query = torch.arange(len(query) + 1, dtype=starts.dtype, device=starts.device), 1
    attend = find_kernel()  # is there, or `can_pack` would have said no
    output: torch.Tensor = attend(query, key, value, query_starts, starts, longest_query, longest, scale=scaling)
    return output


def attention_by_picture(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packing: MusiqPacking, *, scaling: float
) -> torch.Tensor:
    """Attend inside each picture of a pack, one after the other: on a CPU one picture is enough for all cores.

    Arguments and result are those of `attention_by_kernel`.
    """
    query_lengths = packing.lengths if len(query) == len(key) else [1] * len(query)
    output, start = torch.empty_like(query), 0
    parts = zip(query.split(query_lengths), key.split(packing.lengths), value.split(packing.lengths), strict=True)
    for part in parts:
        # (length, num_heads, head_dim) -> (1, num_heads, length, head_dim)
        q, k, v = (tokens.transpose(0, 1)[None] for tokens in part)
        if is_fast_attention(q, k):
            attended = attention_in_blocks(q, k, v, scaling=scaling)[0]
        else:
            attended = nn.functional.scaled_dot_product_attention(q, k, v, scale=scaling)[0].transpose(0, 1)
        output[start : start + len(attended)] = attended
        start += len(attended)
    return output


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend in plain operations, with an additive mask; the other implementations must agree with this one.

    Returns:
        Output (batch_size, length, num_heads, head_dim) and weights (batch_size, num_heads, length, length).
    """
    weights = torch.matmul(query * scaling, key.transpose(2, 3))
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = nn.functional.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


def cls_tokens(hidden_states: torch.Tensor, packing: MusiqPacking | None) -> torch.Tensor:
    """Return the first token of every picture: (batch_size, 1, D), or for a pack (1, num_pictures, D)."""
    return hidden_states[:, :1] if packing is None else hidden_states[:, packing.starts[:-1].long()]


class MusiqAttention(nn.Module):
    """Multi-head self-attention over the real tokens; all of them attend, or CLS alone."""

    is_causal = False

    def __init__(self, config: MusiqConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_probs_dropout_prob
        self.q_proj = MusiqLinear(config.hidden_size, config.hidden_size)
        self.k_proj = MusiqLinear(config.hidden_size, config.hidden_size)
        self.v_proj = MusiqLinear(config.hidden_size, config.hidden_size)
        self.o_proj = MusiqLinear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        cls_only: bool = False,
        packing: MusiqPacking | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend, and return the output in the shape of the attending tokens, and the weights or None.

        Only some implementations of attention give weights. With `cls_only` every token is read, but CLS alone
        attends. With `packing` the batch of one is a pack, in which each picture attends to itself without a mask.
        """
        attending = cls_tokens(hidden_states, packing) if cls_only else hidden_states
        # (batch_size, length, D) -> (batch_size, length, num_heads, head_dim)
        query, key, value = (
            projection(tokens).unflatten(-1, (-1, self.head_dim))
            for projection, tokens in (
                (self.q_proj, attending),
                (self.k_proj, hidden_states),
                (self.v_proj, hidden_states),
            )
        )
        if packing is not None:
            attend = attention_by_kernel if query.is_cuda else attention_by_picture
            output = attend(query[0], key[0], value[0], packing, scaling=self.scaling)
            return self.o_proj(output.flatten(-2)[None]), None
        if cls_only and attention_mask is not None:
            attention_mask = attention_mask[:, :, :1]
        attention: Callable[..., tuple[torch.Tensor, torch.Tensor | None]] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, weights = attention(
            self,
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.o_proj(output.reshape(attending.shape).contiguous()), weights


class MusiqMLP(nn.Module):
    """Two dense layers around the tanh approximation of GELU, as in the released code; exact GELU changes scores."""

    def __init__(self, config: MusiqConfig):
        super().__init__()
        self.fc1 = MusiqLinear(config.hidden_size, config.intermediate_size)
        self.fc2 = MusiqLinear(config.intermediate_size, config.hidden_size)
        self.fc1.initial_bias = self.fc2.initial_bias = INITIAL_BIAS
        self.activation = ACT2FN[ACTIVATION]
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def _is_fast(self, hidden_states: torch.Tensor) -> bool:
        """Return whether oneDNN's product can include the activation: parts are as built, and dropout is off."""
        parts = ((self.fc1, MusiqLinear), (self.activation, type(ACT2FN[ACTIVATION])), (self.dropout, nn.Dropout))
        dropped = self.dropout.training and self.dropout.p > 0
        return not dropped and all(is_as_built(*part) for part in parts) and self.fc1.is_fast(hidden_states)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self._is_fast(hidden_states):
            parts = hidden_states.split(MLP_TOKENS, dim=1)
            outputs = [self.fc2(self.fc1.multiply(part, "gelu", "tanh")) for part in parts]
            return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)
        return self.fc2(self.dropout(self.activation(self.fc1(hidden_states))))


class MusiqDropPath(nn.Module):
    """Stochastic depth: in training, a residual branch is dropped for whole pictures and scaled up for the others."""

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability

    def forward(self, branch: torch.Tensor) -> torch.Tensor:
        if not self.training or self.probability == 0.0:
            return branch
        keep = 1.0 - self.probability
        kept = torch.rand((branch.shape[0], 1, 1), device=branch.device) < keep
        return branch * (kept / keep).to(branch.dtype)


class MusiqLayer(GradientCheckpointingLayer):
    """Pre-norm Transformer block; attention and MLP branches are dropped independently of each other."""

    def __init__(self, config: MusiqConfig, drop_path_rate: float):
        super().__init__()
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = MusiqAttention(config)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MusiqMLP(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.drop_path = MusiqDropPath(drop_path_rate)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        cls_only: bool = False,
        packing: MusiqPacking | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """Transform (batch_size, 1 + sequence_length, hidden_size); with `cls_only` the result has length 1, CLS.

        With `packing` tokens have shape (1, num_tokens, hidden_size), and with both the result has shape
        (1, num_pictures, hidden_size).
        """
        normed = self.layernorm_before(hidden_states)
        branch, _ = self.attention(normed, attention_mask, cls_only=cls_only, packing=packing, **kwargs)
        if cls_only:
            hidden_states = cls_tokens(hidden_states, packing)
        hidden_states = hidden_states + self.drop_path(self.dropout(branch))
        branch = self.mlp(self.layernorm_after(hidden_states))
        return hidden_states + self.drop_path(self.dropout(branch))


class MusiqEncoder(nn.Module):
    """Transformer blocks, one after the other."""

    def __init__(self, config: MusiqConfig):
        super().__init__()
        last = max(config.num_hidden_layers - 1, 1)
        self.layers = nn.ModuleList(
            MusiqLayer(config, config.drop_path_rate * i / last) for i in range(config.num_hidden_layers)
        )

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *,
        cls_only: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """Transform (batch_size, 1 + sequence_length, hidden_size); with `cls_only` the last block gives CLS alone.

        `packing`, one of `kwargs`, goes to every block, as `MusiqLayer` describes it.
        """
        for index, layer in enumerate(self.layers, start=1):
            is_last = index == len(self.layers)
            hidden_states = layer(hidden_states, attention_mask, cls_only=cls_only and is_last, **kwargs)
        return hidden_states
