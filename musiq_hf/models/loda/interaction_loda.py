# SPDX-License-Identifier: Apache-2.0
"""Local distortion features of a convolutional network, added to the tokens of a vision Transformer.

Xu et al., CVPR 2024, section 3; the published code is NeosXu/LoDa. The
Transformer has the width D and N patches. The convolutional network has S stages, whose maps are pooled to g by g
cells. There are b crops, and the latent space has the width r.
"""

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_loda import LodaConfig


class LodaProjection(nn.Module):
    """Projection of the map of one stage to tokens: 1x1 and 3x3 convolution, then the mean of each cell of a grid."""

    def __init__(self, channels: int, config: LodaConfig):
        super().__init__()
        self.grid_size = config.token_grid_size
        self.reduce = nn.Conv2d(channels, config.latent_dim, kernel_size=1)
        self.mix = nn.Conv2d(config.latent_dim, config.latent_dim, kernel_size=3, padding=1, bias=False)

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Project a map, (b, channels, height, width) -> (b, g * g, r), row by row."""
        projected = self.mix(F.gelu(self.reduce(feature_map)))
        return F.adaptive_avg_pool2d(projected, self.grid_size).flatten(2).transpose(1, 2)


class LodaMlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, hidden: int, output: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, output)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(hidden_states)))


class LodaCrossAttention(nn.Module):
    """Attention of the Transformer's tokens on the local features, without any norm."""

    def __init__(self, config: LodaConfig):
        super().__init__()
        width = config.latent_dim
        self.num_heads = config.num_cross_attention_heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width)

    def _split(self, states: torch.Tensor) -> torch.Tensor:
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def forward(
        self, hidden_states: torch.Tensor, cnn_tokens: torch.Tensor, *, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend, (b, tokens, r) on (b, S * g * g, r); weights are (b, heads, tokens, S * g * g) or None."""
        query = self._split(self.q_proj(hidden_states))
        key, value = self._split(self.k_proj(cnn_tokens)), self._split(self.v_proj(cnn_tokens))
        weights = None
        if output_attentions:
            weights = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(dim=-1)
            attended = weights @ value
        else:
            attended = F.scaled_dot_product_attention(query, key, value)
        return self.o_proj(attended.transpose(1, 2).flatten(2)), weights


class LodaInteraction(nn.Module):
    """Shift of all tokens before one block of the Transformer, made of the tokens and the local features.

    Tokens go down to the latent space, attend on the local features there, and come up again. Each value of the
    result has a learned scale.
    """

    def __init__(self, config: LodaConfig):
        super().__init__()
        width, latent = config.hidden_size, config.latent_dim
        self.down_proj = LodaMlp(width, latent, latent)
        self.cross_attention = LodaCrossAttention(config)
        self.up_proj = LodaMlp(latent, width, width)
        self.scale = nn.Parameter(torch.empty(width))

    def forward(
        self, hidden_states: torch.Tensor, cnn_tokens: torch.Tensor, *, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the shift of the tokens, in their shape (b, 1 + N, D), and the attention weights or None."""
        latent = self.down_proj(hidden_states)
        attended, weights = self.cross_attention(latent, cnn_tokens, output_attentions=output_attentions)
        return self.up_proj(latent + attended) * self.scale, weights


__all__ = ["LodaInteraction", "LodaProjection"]
