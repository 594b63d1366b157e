# SPDX-License-Identifier: Apache-2.0
"""Sequences of several pictures in one row without padding, called packs, and attention within each picture."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedConfig

from .cpu_kernels_musiq import attention_in_blocks, is_fast_attention, needs_one_graph


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
    return flash and capable and head_dim % 8 == 0 and head_dim <= 256


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
    from torch.nn.attention.varlen import varlen_attn  # here, because not every build of torch has it

    output = varlen_attn(query, key, value, query_starts, starts, longest_query, longest, scale=scaling)
    return output  # type: ignore[return-value]  # it returns a pair only if asked to


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
