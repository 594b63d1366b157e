# SPDX-License-Identifier: Apache-2.0
"""Sequences of several pictures in one row of tokens, without padding, and attention within each."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from .cpu_kernels_musiq import attention_in_blocks, takes_attention


@dataclass(frozen=True)
class MusiqPacking:
    """How the tokens of several pictures stand one after the other, without padding, as a batch of one.

    Attributes:
        starts: int32, shape (num_pictures + 1,): where each picture begins, with its CLS, and the last ends.
        lengths: Tokens of each picture.
    """

    starts: torch.Tensor
    lengths: list[int]

    @classmethod
    def of(cls, lengths: list[int], device: torch.device) -> "MusiqPacking":
        """Pictures of these lengths, in this order."""
        starts = torch.tensor([0, *lengths], device=device).cumsum(0, dtype=torch.int32)
        return cls(starts=starts, lengths=lengths)

    def to(self, device: torch.device, non_blocking: bool = False) -> "MusiqPacking":
        """On another device; accelerate calls this between blocks that a device map has put on different ones."""
        return MusiqPacking(starts=self.starts.to(device, non_blocking=non_blocking), lengths=self.lengths)


def pack_groups(lengths: list[int], limit: int) -> Iterator[list[int]]:
    """Neighbours whose sum stays within the limit; a longer one alone."""
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
    """Attention inside each picture of a pack, by the variable-length kernel of GPUs (fp16 and bf16).

    Args:
        query: Shape (num_tokens, num_heads, head_dim), or one query for each picture.
        key: Shape (num_tokens, num_heads, head_dim).
        value: Shape (num_tokens, num_heads, head_dim).
        packing: Where the pictures lie.
        scaling: Factor of the products of queries and keys.

    Returns:
        Shaped as `query`.
    """
    starts, query_starts = packing.starts, packing.starts
    longest = longest_query = max(packing.lengths)
    if len(query) < len(key):
        query_starts, longest_query = torch.arange(len(query) + 1, dtype=starts.dtype, device=starts.device), 1
    from torch.nn.attention.varlen import varlen_attn  # only where it is called: not every build of torch has it

    output = varlen_attn(query, key, value, query_starts, starts, longest_query, longest, scale=scaling)
    return output  # type: ignore[return-value]  # a pair only if asked for


def attention_by_picture(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packing: MusiqPacking, *, scaling: float
) -> torch.Tensor:
    """As `attention_by_kernel`, one picture after the other: on a CPU a picture fills the cores by itself."""
    query_lengths = packing.lengths if len(query) == len(key) else [1] * len(query)
    output, start = torch.empty_like(query), 0
    parts = zip(query.split(query_lengths), key.split(packing.lengths), value.split(packing.lengths), strict=True)
    for part in parts:
        # (length, num_heads, head_dim) -> (1, num_heads, length, head_dim)
        q, k, v = (tokens.transpose(0, 1)[None] for tokens in part)
        if takes_attention(q, k):
            attended = attention_in_blocks(q, k, v, scaling=scaling)[0]
        else:
            attended = nn.functional.scaled_dot_product_attention(q, k, v, scale=scaling)[0].transpose(0, 1)
        output[start : start + len(attended)] = attended
        start += len(attended)
    return output
