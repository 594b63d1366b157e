# SPDX-License-Identifier: Apache-2.0
"""The fast kernels against the plain forms, and when they must stand back."""

import copy

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from torch import nn
from torch.nn import functional as F

from musiq_hf import MusiqImageProcessor
from musiq_hf.models.musiq import cpu_kernels_musiq, encoder_musiq
from musiq_hf.models.musiq.configuration_musiq import RESNET_FIELDS
from musiq_hf.models.musiq.cpu_kernels_musiq import (
    MusiqGroupNorm,
    MusiqLinear,
    attention_in_blocks,
    is_fast,
    is_fast_attention,
)
from musiq_hf.models.musiq.patch_encoder_musiq import MusiqStdConv2d

EFFICIENTNET = RESNET_FIELDS | {"patch_encoder": "efficientnet_lite0", "patch_encoder_stages": 4}
needs_onednn = pytest.mark.skipif(not cpu_kernels_musiq.HAS_ONEDNN, reason="no oneDNN here: the plain forms serve")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def features(tiny_config):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((30, 41), (64, 17), (50, 50))]
    return MusiqImageProcessor.from_config(tiny_config())(pictures)


@pytest.fixture
def plain(monkeypatch):
    """Switch the fast kernels off."""
    return lambda: monkeypatch.setattr(cpu_kernels_musiq, "HAS_ONEDNN", False)


@needs_onednn
def test_gradients_compilers_autocast_and_other_types_get_the_plain_forms():
    values = torch.rand(3)
    assert not is_fast(values)  # gradients are on
    with torch.no_grad():
        assert is_fast(values)
        assert not is_fast(values.half()) and not is_fast(values.double())
        assert not is_fast(values.to("meta"))
        with torch.autocast("cpu", torch.bfloat16):
            assert not is_fast(values)
        exported = torch.export.export(MusiqLinear(3, 2), (torch.rand(4, 3),))
    assert not any("mkldnn" in str(node.target) for node in exported.graph.nodes)


@torch.no_grad()
@pytest.mark.parametrize(("flat", "tolerance"), [(False, 2e-5), (True, 2e-3)])
@pytest.mark.parametrize(("channels", "groups"), [(8, 4), (12, 12), (6, 1)])
def test_group_norm_is_the_plain_one(channels, groups, flat, tolerance):
    norm = MusiqGroupNorm(groups, channels, eps=1e-4)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    # Flat features far from 0: the variance is lost in the square of the mean unless the mean goes first.
    features = 30 + 1e-3 * torch.randn(3, channels, 7, 5) if flat else 2 * torch.randn(3, channels, 7, 5) + 1
    exact = F.group_norm(features.double(), groups, norm.weight.double(), norm.bias.double(), norm.eps).float()
    ours = norm(features.contiguous(memory_format=torch.channels_last))
    assert ours.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours, exact, atol=tolerance, rtol=0)
    torch.testing.assert_close(norm(features), exact, atol=max(tolerance, 2e-2 * flat), rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 5, 64])
def test_product_is_the_plain_one_with_or_without_the_activation(rows):
    layer, inputs = MusiqLinear(24, 10), torch.randn(2, rows, 24)
    expected = F.linear(inputs, layer.weight, layer.bias)
    torch.testing.assert_close(layer(inputs), expected, atol=1e-6, rtol=1e-5)
    if cpu_kernels_musiq.HAS_ONEDNN:
        activated = layer.multiply(inputs, "gelu", "tanh")
        torch.testing.assert_close(activated, F.gelu(expected, approximate="tanh"), atol=1e-6, rtol=1e-5)


@needs_onednn
@torch.no_grad()
# bfloat16 keeps 8 bits: products of queries and keys up to 5 are off by up to 1 %.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("block", [2**6, 2**14, 2**20])
@pytest.mark.parametrize("largest", [2**10, 2 * 64 * 701, 2**23])
def test_attention_in_blocks_is_the_plain_one(dtype, tolerance, block, largest, monkeypatch):
    monkeypatch.setattr(cpu_kernels_musiq, "BLOCK_VALUES", block)
    monkeypatch.setattr(cpu_kernels_musiq, "LARGEST_BLOCK", largest)
    query, key, value = (torch.randn(1, 3, 701, 16, dtype=dtype) for _ in range(3))
    assert is_fast_attention(query, key) and not is_fast_attention(query[:, :, :1], key)
    expected = F.scaled_dot_product_attention(query.float(), key.float(), value.float(), scale=0.3)
    ours = attention_in_blocks(query, key, value, scaling=0.3)
    torch.testing.assert_close(ours.float(), expected.transpose(1, 2), atol=tolerance, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(
    "fields", [{}, {"patch_encoder": "conv"}, {"patch_encoder_depth": 11}, EFFICIENTNET, {"num_labels": 5}]
)
def test_scores_are_those_of_the_plain_forms(tiny_model, features, plain, monkeypatch, fields):
    model = tiny_model(**fields)
    monkeypatch.setattr(cpu_kernels_musiq, "MIN_LENGTH", {torch.float32: 1, torch.bfloat16: 1})
    monkeypatch.setattr(encoder_musiq, "MLP_TOKENS", 7)
    fast = model(**features).scores
    plain()
    torch.testing.assert_close(fast, model(**features).scores, atol=1e-5, rtol=0)
    with torch.enable_grad():
        torch.testing.assert_close(fast, model(**features).scores.detach(), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_changed_weight_is_standardised_again_however_it_was_changed():
    layer, images = MusiqStdConv2d(3, 4, 3), torch.randn(2, 3, 8, 8)
    layer(images)
    for change in (
        lambda: layer.weight.data.mul_(torch.rand(4, 3, 3, 3)),
        lambda: layer.weight.add_(torch.rand(4, 3, 3, 3)),
        lambda: layer.load_state_dict({"weight": torch.randn(4, 3, 3, 3)}),
    ):
        change()
        expected = F.conv2d(F.pad(images, (1, 1, 1, 1)), layer.standardized_weight())
        torch.testing.assert_close(layer(images), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_an_adapter_or_a_hook_in_the_mlp_is_heard(tiny_model, features):
    class Doubled(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base, self.weight = base, base.weight

        def forward(self, inputs):
            return 2 * self.base(inputs)

    model = tiny_model()
    adapted, before = copy.deepcopy(model), model(**features).scores
    mlp = adapted.musiq.encoder.layers[0].mlp
    mlp.fc1 = Doubled(mlp.fc1)
    with torch.enable_grad():
        expected = adapted(**features).scores.detach()
    assert (expected - before).abs().max() > 1e-4
    torch.testing.assert_close(adapted(**features).scores, expected, atol=1e-5, rtol=0)

    handle = model.musiq.encoder.layers[0].mlp.fc1.register_forward_hook(lambda module, inputs, output: 2 * output)
    torch.testing.assert_close(model(**features).scores, expected, atol=1e-5, rtol=0)
    handle.remove()


@torch.no_grad()
@pytest.mark.parametrize("part", ["fc1", "activation", "dropout", "fc2"])
def test_every_part_of_the_mlp_calls_its_hooks(tiny_model, features, part):
    model, calls = tiny_model(), []
    getattr(model.musiq.encoder.layers[0].mlp, part).register_forward_hook(lambda *args: calls.append(part))
    model(**features)
    assert calls


@torch.no_grad()
def test_a_replaced_activation_is_used(tiny_model, features):
    model = tiny_model()
    model.musiq.encoder.layers[0].mlp.activation = nn.ReLU()
    with torch.enable_grad():
        expected = model(**features).scores.detach()
    torch.testing.assert_close(model(**features).scores, expected, atol=1e-5, rtol=0)


def test_offloaded_weights_are_loaded_first(tiny_model, features):
    model = tiny_model()
    with torch.no_grad():
        expected = model(**features).scores
        offloaded = cpu_offload(copy.deepcopy(model), execution_device=torch.device("cpu"))
        assert next(offloaded.musiq.encoder.layers[0].mlp.fc1.parameters()).is_meta
        torch.testing.assert_close(offloaded(**features).scores, expected, atol=1e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["MusiqAttention", "MusiqMLP", "MusiqDropPath"])
def test_one_part_in_training_mode_stays_random(tiny_model, features, kind):
    model = tiny_model(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5, drop_path_rate=0.5)
    for module in model.modules():
        if type(module).__name__ == kind:
            module.train()
    assert not torch.equal(model(**features).scores, model(**features).scores)


def test_only_floating_point_weights_decide_the_type_of_inputs():
    layer, inputs = MusiqLinear(3, 2).bfloat16(), torch.rand(4, 3)
    assert cpu_kernels_musiq.as_input(inputs, layer).dtype == torch.bfloat16
    layer.weight = nn.Parameter(torch.ones(2, 3, dtype=torch.int8), requires_grad=False)
    assert cpu_kernels_musiq.as_input(inputs, layer) is inputs


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("gradients", [False, True])
def test_cls_alone_is_the_cls_of_all_tokens(tiny_model, features, attention, gradients):
    model = tiny_model().musiq
    model.set_attn_implementation(attention)
    with torch.set_grad_enabled(gradients):
        everything, alone = model(**features), model(**features, cls_only=True)
        assert alone.last_hidden_state.shape[1] == 1
        assert everything.last_hidden_state.shape[1] == 1 + features["pixel_values"].shape[1]
        torch.testing.assert_close(alone.pooler_output, everything.pooler_output, atol=1e-6, rtol=0)
        asked = model(**features, cls_only=True, output_hidden_states=True)
    assert asked.last_hidden_state.shape == everything.last_hidden_state.shape
    assert asked.hidden_states[-2].shape == everything.last_hidden_state.shape
