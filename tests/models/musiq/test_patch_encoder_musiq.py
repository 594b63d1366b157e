# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from musiq_hf.models.musiq.patch_encoder_musiq import (
    MusiqPatchEncoder,
    MusiqResidualUnit,
    MusiqStdConv2d,
    exact_convolutions,
    pad_same,
)

GENERATOR = torch.Generator().manual_seed(0)


def noise(*shape):
    return torch.randn(*shape, generator=GENERATOR)


def random_encoder(*, patch_size=16, width=8, num_stages=1, num_groups=4, seed=0):
    torch.manual_seed(seed)
    encoder = MusiqPatchEncoder(patch_size=patch_size, width=width, num_stages=num_stages, num_groups=num_groups)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return encoder.eval()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 7), st.integers(1, 3))
def test_same_padding_gives_every_stride_a_place_and_puts_the_odd_pixel_last(height, width, kernel_size, stride):
    padded = pad_same(torch.ones(1, 1, height, width), kernel_size, stride)[0, 0]
    for axis, size in ((0, height), (1, width)):
        places = -(-size // stride)
        total = max((places - 1) * stride + kernel_size - size, 0)
        assert padded.shape[axis] == size + total
        occupied = padded.amax(dim=1 - axis).nonzero().flatten()
        assert occupied.tolist() == list(range(total // 2, total // 2 + size))


def test_stem_pads_two_and_three_pixels():
    padded = pad_same(torch.ones(1, 1, 32, 32), 7, 2)[0, 0]
    assert padded.shape == (37, 37)
    assert padded[2, 2] == 1 and padded[1, 2] == padded[2, 34] == 0


@torch.no_grad()
@pytest.mark.parametrize("patch_size", [1, 2, 5, 6, 8, 9, 12])
def test_maxima_are_padded_as_tensorflow_does(patch_size):
    encoder = MusiqPatchEncoder(patch_size=patch_size, width=8, num_stages=0, num_groups=2)
    normed = []
    encoder.stem_norm.register_forward_hook(lambda module, inputs, output: normed.append(output))
    ours = encoder(torch.randn(3, patch_size * patch_size * 3))
    side = normed[0].shape[-1]
    total = max((-(-side // 2) - 1) * 2 + 3 - side, 0)
    before, after = total // 2, total - total // 2
    padded = F.pad(normed[0].relu(), (before, after, before, after), value=float("-inf"))
    assert torch.equal(ours, F.max_pool2d(padded, 3, 2).permute(0, 2, 3, 1).flatten(1))


def test_standardized_weight_has_mean_0_and_biased_deviation_1():
    conv = MusiqStdConv2d(3, 8, 7, stride=2)
    weight = conv.standardized_weight().detach()
    torch.testing.assert_close(weight.mean(dim=(1, 2, 3)), torch.zeros(8), atol=1e-6, rtol=0)
    # Epsilon is added to the deviation of the raw weight, so that of the result is std / (std + 1e-5).
    raw = conv.weight.detach().std(dim=(1, 2, 3), correction=0)
    torch.testing.assert_close(weight.std(dim=(1, 2, 3), correction=0), raw / (raw + 1e-5), atol=1e-6, rtol=0)


def test_epsilon_stands_beside_the_deviation_not_inside_of_the_root():
    conv = MusiqStdConv2d(1, 1, 1)
    conv.weight = torch.nn.Parameter(torch.tensor([[[[1.0]], [[1.0 + 2e-5]]]]))
    expected = 1e-5 / (1e-5 + 1e-5)
    torch.testing.assert_close(
        conv.standardized_weight().flatten(), torch.tensor([-expected, expected]), atol=2e-2, rtol=0
    )


def test_standardized_weight_ignores_offset_and_nearly_scale():
    conv = MusiqStdConv2d(4, 6, 3)
    before = conv.standardized_weight().detach()
    with torch.no_grad():
        conv.weight.mul_(3.0).add_(0.7)
    torch.testing.assert_close(conv.standardized_weight(), before, atol=1e-3, rtol=0)


def test_standardisation_is_in_float32_and_keeps_the_dtype_of_the_weight():
    conv = MusiqStdConv2d(3, 8, 7).to(torch.bfloat16)
    weight = conv.standardized_weight()
    assert weight.dtype == torch.bfloat16
    exact = conv.weight.double()
    mean, std = exact.mean(dim=(1, 2, 3), keepdim=True), exact.std(dim=(1, 2, 3), correction=0, keepdim=True)
    assert torch.equal(weight, ((exact - mean) / (std + 1e-5)).to(torch.bfloat16))


@pytest.mark.parametrize(("kernel_size", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
def test_convolution_is_that_of_the_standardized_weight(kernel_size, stride):
    conv = MusiqStdConv2d(3, 4, kernel_size, stride)
    images = noise(2, 3, 10, 13)
    output = conv(images)
    assert conv.bias is None
    assert output.shape == (2, 4, -(-10 // stride), -(-13 // stride))
    expected = F.conv2d(pad_same(images, kernel_size, stride), conv.standardized_weight(), stride=stride)
    assert torch.equal(output, expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_residual_unit_adds_a_projection(stride):
    torch.manual_seed(0)
    unit = MusiqResidualUnit(8, 4, stride, num_groups=4)
    features = noise(2, 8, 6, 6)
    assert unit(features).shape == (2, 16, 6 // stride, 6 // stride)
    with torch.no_grad():
        unit.norm3.weight.zero_()
        unit.norm3.bias.zero_()
    torch.testing.assert_close(unit(features), F.relu(unit.norm_proj(unit.conv_proj(features))))


@pytest.mark.parametrize(
    ("num_stages", "output_size"), [(0, 8 * 8 * 64), (1, 8 * 8 * 256), (2, 4 * 4 * 512), (3, 2 * 2 * 1024)]
)
def test_size_of_a_feature_follows_from_the_stages(num_stages, output_size):
    encoder = MusiqPatchEncoder(patch_size=32, width=64, num_stages=num_stages, num_groups=32)
    assert encoder.output_size == output_size
    assert encoder(torch.zeros(2, 32 * 32 * 3)).shape == (2, output_size)


@pytest.mark.parametrize("patch_size", [8, 15, 20])
def test_patch_size_need_not_be_a_power_of_two(patch_size):
    encoder = random_encoder(patch_size=patch_size, num_stages=2)
    assert encoder(noise(3, patch_size * patch_size * 3)).shape == (3, encoder.output_size)


def test_each_patch_is_encoded_on_its_own():
    encoder = random_encoder()
    patches = noise(4, 16 * 16 * 3)
    with torch.no_grad():
        together = encoder(patches)
        alone = torch.cat([encoder(patch[None]) for patch in patches])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_features_are_in_row_column_channel_order():
    encoder = random_encoder(num_stages=0)
    recorded = []
    handle = encoder.stem_conv.register_forward_hook(lambda module, inputs, output: recorded.append(output))
    patches = noise(1, 16 * 16 * 3)
    flat = encoder(patches)
    handle.remove()
    # (1, P * P * 3) is rows, columns, channels too: the top left pixel is the first three values.
    pixels = patches.view(16, 16, 3).permute(2, 0, 1)[None]
    torch.testing.assert_close(recorded[0], encoder.stem_conv(pixels), atol=1e-5, rtol=0)
    stem = F.relu(encoder.stem_norm(recorded[0]))
    pooled = F.max_pool2d(F.pad(stem, (0, 1, 0, 1), value=float("-inf")), 3, 2)
    torch.testing.assert_close(flat.view(4, 4, 8), pooled[0].permute(1, 2, 0), atol=1e-5, rtol=0)


def test_norms_have_the_epsilons_of_the_released_code():
    encoder = random_encoder(num_stages=1)
    assert encoder.stem_norm.eps == 1e-6
    unit = encoder.stages[0]
    assert {norm.eps for norm in (unit.norm1, unit.norm2, unit.norm3, unit.norm_proj)} == {1e-4}


def test_scores_of_other_devices_need_exact_convolutions_and_training_does_not(tiny_model):
    model, seen = tiny_model().to("meta").eval(), []
    encoder = model.musiq.embeddings.patch_encoder
    encoder.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.conv.fp32_precision))
    before = torch.backends.cudnn.conv.fp32_precision
    patches = torch.rand(5, model.musiq.embeddings.patch_values, device="meta")
    with torch.inference_mode():
        model.musiq.embeddings._encode(patches)
    model.musiq.embeddings._encode(patches)  # with gradients
    assert seen == ["ieee", before] != ["ieee", "ieee"]
    assert torch.backends.cudnn.conv.fp32_precision == before


def test_exact_convolutions_end_with_an_error_too():
    before = torch.backends.cudnn.conv.fp32_precision
    with pytest.raises(KeyError), exact_convolutions():
        raise KeyError("broken")
    assert torch.backends.cudnn.conv.fp32_precision == before != "ieee"
