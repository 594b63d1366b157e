# SPDX-License-Identifier: Apache-2.0
"""Transformer of MUSIQ: attention, MLP and pre-norm blocks (google-research/musiq, multiscale_transformer.py)."""

from collections.abc import Callable

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from .configuration_musiq import MusiqConfig
from .cpu_kernels_musiq import MusiqLinear, is_as_built
from .packing_musiq import MusiqPacking, attention_by_kernel, attention_by_picture

# Tokens that go through the MLP at a time with a fast kernel; inside it features are 3 times as wide.
MLP_TOKENS = 4096
ACTIVATION = "gelu_pytorch_tanh"
INITIAL_BIAS = 1e-6  # standard deviation of the initial biases of the MLP


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
