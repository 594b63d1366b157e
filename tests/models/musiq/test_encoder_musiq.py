# SPDX-License-Identifier: Apache-2.0
"""Pictures one after the other without padding: the same answers as padded and masked ones."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from accelerate.utils import send_to_device
from torch.nn import functional as F

from musiq_hf import MusiqImageProcessor
from musiq_hf.models.musiq import encoder_musiq, modeling_musiq
from musiq_hf.models.musiq.encoder_musiq import (
    MusiqPacking,
    attention_by_kernel,
    attention_by_picture,
    can_pack,
    find_kernel,
    pack_groups,
)

LENGTHS = [3, 1, 7, 4]


def dense(query, key, value, query_starts, key_starts, scale):
    """Attention over a whole pack with a dense block mask, in place of the kernel of GPUs."""
    owner = torch.bucketize(torch.arange(len(key)), key_starts[1:], right=True)
    asker = torch.bucketize(torch.arange(len(query)), query_starts[1:], right=True)
    q, k, v = (tokens.transpose(0, 1)[None] for tokens in (query, key, value))
    mask = asker[:, None] == owner[None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)[0].transpose(0, 1)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def kernel(monkeypatch):
    """A stand-in for `varlen_attn` that keeps its contract; returns the longest lengths that it was told."""
    told = []

    def stand_in(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale):
        assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
        assert int(cu_seq_q[-1]) == len(query) and int(cu_seq_k[-1]) == len(key)
        told.append((max_q, max_k))
        return dense(query, key, value, cu_seq_q, cu_seq_k, scale)

    monkeypatch.setattr(encoder_musiq, "find_kernel", lambda: stand_in)
    return told


@torch.no_grad()
@pytest.mark.parametrize("cls_only", [False, True])
def test_both_attentions_keep_pictures_apart(kernel, cls_only):
    packing = MusiqPacking.of(LENGTHS, torch.device("cpu"))
    assert packing.starts.tolist() == [0, 3, 4, 11, 15]
    key, value = torch.randn(15, 2, 8), torch.randn(15, 2, 8)
    query = torch.randn(4 if cls_only else 15, 2, 8)
    starts = torch.arange(5) if cls_only else packing.starts
    expected = dense(query, key, value, starts, packing.starts, 0.3)
    for attend in (attention_by_picture, attention_by_kernel):
        torch.testing.assert_close(attend(query, key, value, packing, scaling=0.3), expected, atol=1e-6, rtol=0)
    assert kernel == [(1 if cls_only else 7, 7)]


def test_a_pack_moves_between_devices_as_tensors_do():
    moved = send_to_device(MusiqPacking.of(LENGTHS, torch.device("cpu")), "meta")
    assert moved.starts.is_meta and moved.lengths == LENGTHS


def test_groups_are_neighbours_within_the_limit_and_longer_ones_stand_alone():
    assert list(pack_groups([3, 4, 9, 1, 2, 3], 7)) == [[3, 4], [9], [1, 2, 3]]
    assert list(pack_groups([9], 7)) == [[9]]


@pytest.fixture
def features(tiny_config):
    pictures = [torch.rand(3, *size) for size in ((30, 41), (64, 17), (50, 50), (8, 9))]
    return MusiqImageProcessor.from_config(tiny_config())(pictures)


@torch.no_grad()
@pytest.mark.parametrize("limit", [1, 60, 10_000])
def test_packed_is_padded_and_masked(tiny_model, features, limit, monkeypatch):
    monkeypatch.setitem(modeling_musiq.PACK_TOKENS, "cpu", limit)
    model = tiny_model()
    real = F.pad(features["pixel_attention_mask"], (1, 0), value=1).bool()
    packed, tokens = model(**features), model.musiq(**features).last_hidden_state
    model.set_attn_implementation("eager")
    torch.testing.assert_close(packed.scores, model(**features).scores, atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens[real], model.musiq(**features).last_hidden_state[real], atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_kernel_of_gpus_gives_the_same_scores(tiny_model, features, kernel, monkeypatch):
    model = tiny_model()
    expected = model(**features).scores
    monkeypatch.setattr(encoder_musiq, "attention_by_picture", attention_by_kernel)
    torch.testing.assert_close(model(**features).scores, expected, atol=1e-5, rtol=0)
    assert kernel[-1][0] == 1 < kernel[0][0]  # the last block asks for CLS alone


@torch.no_grad()
def test_blocks_take_packs_only_where_a_kernel_serves(tiny_model):
    model = tiny_model().musiq
    tokens = torch.zeros(1, 3, 16)
    assert can_pack(tokens, model.encoder, model.config)
    assert not can_pack(tokens.to("meta"), model.encoder, model.config)
    with torch.autocast("cpu", torch.bfloat16):
        assert not can_pack(tokens, model.encoder, model.config)
    with torch.enable_grad():
        assert not can_pack(tokens, model.encoder, model.config)
    model.encoder.layers[1].dropout.train()
    assert not can_pack(tokens, model.encoder, model.config)


def varlen_of_ours(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None):
    """The kernel of torch 2.11, by its arguments."""


def varlen_without_scale(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None):
    """The kernel of torch 2.10, by its arguments."""


@torch.no_grad()
@pytest.mark.parametrize("kernel", [varlen_of_ours, varlen_without_scale, None])
def test_a_gpu_takes_packs_only_if_torch_has_a_kernel_with_scale(tiny_model, monkeypatch, kernel):
    name = "torch.nn.attention.varlen"
    module = None if kernel is None else ModuleType(name)  # None is a module that cannot be imported
    if module is not None:
        module.varlen_attn = kernel
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("torch.backends.cuda.is_flash_attention_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))
    tokens = SimpleNamespace(device=torch.device("cuda"), is_cuda=True, dtype=torch.bfloat16)
    model = tiny_model(hidden_size=16, num_attention_heads=2).musiq
    find_kernel.cache_clear()
    try:
        assert can_pack(tokens, model.encoder, model.config) == (kernel is varlen_of_ours)
    finally:
        find_kernel.cache_clear()


@torch.no_grad()
def test_training_and_eager_attention_stay_padded(tiny_model, features, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("packed")

    model = tiny_model()
    monkeypatch.setattr(type(model.musiq), "_encode_packed", refuse)
    with pytest.raises(AssertionError, match="packed"):
        model(**features)
    model.train()(**features)
    model.eval().set_attn_implementation("eager")
    model(**features)
    model.set_attn_implementation("sdpa")
    with torch.enable_grad():
        model(**features)
