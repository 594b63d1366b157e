# SPDX-License-Identifier: Apache-2.0
import copy

import pytest
import torch
from efficientnet_golden import golden_outputs, patches, published_state
from torch.nn import functional as F

from musiq_hf import MusiqConfig, MusiqForImageQualityAssessment, MusiqImageProcessor
from musiq_hf.models.musiq import encoder_musiq, patch_encoder_musiq
from musiq_hf.models.musiq.configuration_musiq import RESNET_FIELDS
from musiq_hf.models.musiq.patch_encoder_musiq import FACTORS, MusiqConvolution, MusiqEfficientNetLite
from musiq_hf.training.encoder_weights import convert_encoder_weights

GOLDEN = golden_outputs()


def golden_encoder(network: str, side: int, stages: int) -> MusiqEfficientNetLite:
    encoder = MusiqEfficientNetLite(network, patch_size=side, num_stages=stages)
    found = {name: torch.from_numpy(array) for name, array in published_state(network).items()}
    encoder.load_state_dict(convert_encoder_weights(found, encoder))
    return encoder.eval()


@pytest.fixture(scope="module")
def encoder() -> MusiqEfficientNetLite:
    return golden_encoder("efficientnet_lite0", 32, 5)


@pytest.mark.parametrize(("network", "side", "stages"), GOLDEN, ids=lambda value: str(value))
def test_features_are_those_of_the_published_code(network, side, stages):
    encoder, expected = golden_encoder(network, side, stages), torch.from_numpy(GOLDEN[network, side, stages])
    inputs = torch.from_numpy(patches(side))
    assert expected.shape == (2, encoder.output_size)
    with torch.no_grad():
        fast = encoder(inputs)
    plain = encoder(inputs)  # with a graph for gradients no kernel is fused
    # The golden numbers were computed in float64. Largest features are 5 to 15, and float32 has 7 digits of a sum.
    largest = expected.abs().max().item()
    torch.testing.assert_close(fast, expected, atol=1e-5 * largest, rtol=0)
    torch.testing.assert_close(plain.detach(), expected, atol=1e-5 * largest, rtol=0)
    exact = encoder.double()(inputs.double())
    torch.testing.assert_close(exact.float().detach(), expected, atol=1e-6 * largest, rtol=0)


def test_pixels_are_those_of_the_published_network():
    values = torch.arange(256, dtype=torch.float64)
    scale, shift = patch_encoder_musiq.PIXEL_SCALE, patch_encoder_musiq.PIXEL_SHIFT
    torch.testing.assert_close((values / 127.5 - 1) * scale + shift, (values - 127) / 128, atol=1e-15, rtol=0)


def test_each_patch_is_encoded_on_its_own_however_many_are_read_at_a_time(encoder, monkeypatch):
    inputs = torch.rand(7, 32 * 32 * 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        together = encoder(inputs)
        monkeypatch.setattr(patch_encoder_musiq, "CACHE_BYTES", 1)
        torch.testing.assert_close(encoder(inputs), together, atol=1e-5, rtol=1e-5)
        alone = torch.cat([encoder(patch[None]) for patch in inputs])
        assert encoder(inputs[:0]).shape == (0, encoder.output_size)
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-5)
    assert (together[0] - together[1]).abs().max() > 0.1


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 8, 9])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_a_kernel_loses_only_taps_that_reach_padding(side, stride, kernel_size):
    torch.manual_seed(0)
    whole, images = torch.randn(4, 1, kernel_size, kernel_size), torch.randn(3, 4, side, side)
    layer = MusiqConvolution(4, 4, kernel_size, stride=stride, side=side, groups=4)
    layer.weight = torch.nn.Parameter(whole[:, :, layer.taps, layer.taps].clone())
    total = max((-(-side // stride) - 1) * stride + kernel_size - side, 0)
    before, after = total // 2, total - total // 2
    padded = F.pad(images, (before, after, before, after))
    expected = F.relu6(F.conv2d(padded, whole, layer.bias, stride, groups=4)).permute(0, 2, 3, 1)
    rows = images.permute(0, 2, 3, 1).contiguous()
    torch.testing.assert_close(layer(rows), expected)
    with torch.no_grad():
        torch.testing.assert_close(layer(rows), expected)
    if side > 1:  # every tap that is left reads a pixel
        convolved = F.conv2d(padded.abs(), whole.requires_grad_(), None, stride, groups=4)
        (gradient,) = torch.autograd.grad(convolved.sum(), whole)
        reached = gradient.abs().amax(dim=(0, 1)) > 0
        assert reached[layer.taps, layer.taps].all() and reached.sum() == layer.weight[0, 0].numel()


@pytest.mark.parametrize("network", FACTORS)
def test_numbers_of_parameters(network):
    sizes = [
        sum(weight.numel() for weight in MusiqEfficientNetLite(network, patch_size=32, num_stages=n).parameters())
        for n in (3, 5, 7)
    ]
    assert (
        sizes
        == {
            "efficientnet_lite0": [54_048, 663_504, 2_803_664],
            "efficientnet_lite1": [88_288, 937_936, 3_524_112],
            "efficientnet_lite2": [108_952, 1_106_120, 4_142_264],
        }[network]
    )


def test_nothing_depends_on_training_mode_or_the_other_patches(encoder):
    inputs = torch.from_numpy(patches(32))
    trained = copy.deepcopy(encoder).train()
    assert torch.equal(trained(inputs), encoder(inputs))
    assert not list(encoder.buffers())


def test_half_precision_keeps_the_stem_in_float32_and_the_features_close(encoder):
    inputs = torch.from_numpy(patches(32))
    half = copy.deepcopy(encoder).bfloat16()
    half.stem_conv.float()
    with torch.no_grad():
        expected, features = encoder(inputs), half(inputs)
        with torch.autocast("cpu", torch.bfloat16):
            autocast = encoder(inputs)
    for found in (features, autocast):
        assert found.dtype == torch.bfloat16
        assert (found.float() - expected).abs().max() < 0.05 * expected.abs().max()
    model = MusiqForImageQualityAssessment(MusiqConfig(num_hidden_layers=1, patch_encoder="efficientnet_lite0"))
    assert "stem_conv" in model._keep_in_fp32_modules_strict


def test_a_hook_or_another_layer_in_a_block_is_heard(encoder):
    inputs, changed = torch.from_numpy(patches(32)), copy.deepcopy(encoder)
    layer = changed.blocks[1].expand
    layer.register_forward_hook(lambda module, arguments, output: output * 0)
    with torch.no_grad():
        fast = changed(inputs)
        assert (fast - encoder(inputs)).abs().max() > 0.1
    torch.testing.assert_close(changed(inputs).detach(), fast, atol=1e-5, rtol=1e-5)


def test_initial_features_neither_vanish_nor_explode():
    torch.manual_seed(0)
    config = MusiqConfig(num_hidden_layers=1, patch_encoder="efficientnet_lite0")
    encoder = MusiqForImageQualityAssessment(config).musiq.embeddings.patch_encoder
    with torch.no_grad():
        features = encoder(torch.rand(16, 32 * 32 * 3) * 2 - 1)
    assert 1e-2 < features.std() < 1e2
    assert not any(layer.bias.any() for layer in encoder.modules() if hasattr(layer, "bias"))


# In a model


@pytest.fixture
def model(tiny_model) -> MusiqForImageQualityAssessment:
    fields = RESNET_FIELDS | {"patch_encoder": "efficientnet_lite0", "patch_encoder_stages": 4}
    return tiny_model(**fields)


@pytest.fixture
def batch(model, pictures):
    return dict(MusiqImageProcessor.from_config(model.config)(pictures))


def test_a_compiled_model_is_one_graph_with_equal_scores(model, batch):
    with torch.no_grad():
        expected = model(**batch).scores
        torch.compiler.reset()
        try:
            compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
            torch.testing.assert_close(compiled(**batch).scores, expected, atol=1e-5, rtol=0)
        finally:
            torch.compiler.reset()


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated")
def test_activation_checkpointing_gives_the_same_gradients_to_every_layer(model, batch, monkeypatch):
    monkeypatch.setitem(encoder_musiq.CHECKPOINT_PATCHES, "cpu", 5)
    model.double().train()  # in float32 sums over other parts of the patches round otherwise
    batch["pixel_values"] = batch["pixel_values"].double()
    found = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        model(**batch, labels=torch.tensor([0.1, 0.9, -0.4, 2.0])).loss.backward()
        encoder = model.musiq.embeddings.patch_encoder
        found.append({name: weight.grad.clone() for name, weight in encoder.named_parameters()})
    assert all(gradient.abs().max() > 1e-9 for gradient in found[0].values())
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)


# Configuration


def test_an_encoder_without_a_number_of_stages_has_all_seven():
    config = MusiqConfig(patch_encoder="efficientnet_lite1")
    assert (config.num_efficientnet_stages, config.patch_encoder_stages) == (7, None)
    assert "patch_encoder_stages" not in config.signature_fields()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patch_encoder": "efficientnet_lite0", "patch_encoder_stages": 0}, "must be at least 1, got 0"),
        ({"patch_encoder": "efficientnet_lite0", "patch_encoder_stages": 8}, "must be at most 7, got 8"),
        ({"patch_encoder_stages": 3}, '`patch_encoder_stages=3` has no effect on `patch_encoder="resnet"`'),
        ({"patch_encoder": "linear", "patch_encoder_stages": 3}, 'no effect on `patch_encoder="linear"`'),
        *(
            ({"patch_encoder": "efficientnet_lite2", name: 8}, f'`{name}=8` has no effect on `patch_encoder="eff')
            for name in RESNET_FIELDS
        ),
    ],
)
def test_sizes_that_another_encoder_reads_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        MusiqConfig(**fields)


def test_another_encoder_at_loading_leaves_the_sizes_of_the_stored_one_behind(tmp_path):
    MusiqConfig(patch_encoder_width=16, patch_encoder_groups=8).save_pretrained(tmp_path)
    config = MusiqConfig.from_pretrained(tmp_path, patch_encoder="efficientnet_lite0", patch_encoder_stages=3)
    assert {name: getattr(config, name) for name in RESNET_FIELDS} == RESNET_FIELDS
    config.save_pretrained(tmp_path)
    assert MusiqConfig.from_pretrained(tmp_path).patch_encoder_stages == 3
    assert MusiqConfig.from_pretrained(tmp_path, patch_encoder="resnet").patch_encoder_stages is None
    with pytest.raises(ValueError, match="`patch_encoder_width=8` has no effect"):
        MusiqConfig.from_pretrained(tmp_path, patch_encoder="efficientnet_lite0", patch_encoder_width=8)
