# SPDX-License-Identifier: Apache-2.0
"""MSIT against the numbers of its published code, and what it promises beyond."""

import json
from pathlib import Path

import golden_msit as golden
import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from musiq_hf.conversion.msit import build_model, from_ours, read_checkpoint
from musiq_hf.models.msit import MsitConfig, MsitForImageSuperResolution
from musiq_hf.models.msit import modeling_msit as modeling

TOLERANCE = 2e-5  # relative to 1 + spread; this implementation is off by 3e-6 at most
TRAINING_TOLERANCE = 1e-3
TINY = json.loads((Path(__file__).parent / "tiny.json").read_text())
VARIANTS = {
    "circular": {},
    "replicate": {"shift_padding": "replicate", "use_rim": False},
    "rdn": {"encoder_type": "rdn", "encoder_num_layers": 2, "encoder_growth": 4},
    "no attention": {"use_local_attention": False},
    "plain": {"use_shift": False, "use_cell": False, "window_radius": 0, "position_encoding_scale": None},
    "wide": {"num_kernels": 4, "num_attention_kernels": 4, "window_radius": 3},
}


def make(*, spread: float = 0.3, **fields) -> MsitForImageSuperResolution:
    """A small model with random weights, those of its last layer too; the larger the spread, the more they amplify."""
    torch.manual_seed(0)
    model = MsitForImageSuperResolution(MsitConfig(**TINY | fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
        model.decoder.others[-1].weight.mul_(0.1)
    return model


def make_pictures(batch_size: int = 1, height: int = 9, width: int = 11) -> torch.Tensor:
    return 2 * torch.rand((batch_size, 3, height, width), generator=torch.Generator().manual_seed(1)) - 1


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Build a model of a golden configuration by its name."""
    folder = tmp_path_factory.mktemp("msit")
    return lambda name: build_model(read_checkpoint(golden.save(folder / f"{name}.pth", name)))


def agree(found, expected, tolerance: float = TOLERANCE) -> None:
    found = found.detach().numpy() if isinstance(found, torch.Tensor) else found
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * (1 + expected.std()))


@torch.no_grad()
@pytest.mark.parametrize("name", golden.CONFIGS)
def test_pictures_are_those_of_the_published_code(published, name):
    model, found = published(name), 0
    for key, expected in golden.ARRAYS.items():
        config, *parts, kind = key.split("/")
        if config == name and kind == "rgb":
            rgb = model(golden.read_pixels(parts[0]), scale=float(parts[1][1:])).reconstruction[0].numpy()
            tie = golden.ARRAYS.get(key.replace("/rgb", "/tie"), np.zeros(rgb.shape[1:], bool))
            agree(np.where(tie, 0, rgb), np.where(tie, 0, expected))
            found += 1
    assert found


@torch.no_grad()
def test_maps_attention_and_kernels_are_those_of_the_published_code(published):
    model, positions = published("edsr"), torch.from_numpy(golden.ARRAYS["edsr/3/x2.7/positions"])[None]
    asked = {"scale": 2.7, "output_hidden_states": True, "output_attentions": True}
    outputs = model(golden.read_pixels("3"), positions=positions, **asked)
    for name, maps in zip(("features", "latent", "value", "query"), outputs.hidden_states, strict=True):
        agree(maps[0], golden.ARRAYS[f"edsr/3/{name}"])
    agree(outputs.attentions[0], golden.ARRAYS["edsr/3/x2.7/attention"])
    whole = model(golden.read_pixels("3"), **asked)
    rows, columns = positions[0].T
    width = whole.reconstruction.shape[3]
    agree(whole.attentions[0, rows * width + columns], golden.ARRAYS["edsr/3/x2.7/attention"])
    kernel = model.modulation.scales.convolutions[1].kernel()
    agree(kernel, golden.ARRAYS["edsr/folded/amsno.Ms_conv_2"])


def test_a_step_of_training_is_that_of_the_published_code(published):
    model = published("edsr").train()
    arrays = {
        key.removeprefix("edsr/train/"): torch.from_numpy(value)
        for key, value in golden.ARRAYS.items()
        if key.startswith("edsr/train/")
    }
    outputs = model(
        arrays["pixel_values"],
        target_size=arrays["target_size"].tolist(),
        positions=arrays["positions"],
        labels=arrays["labels"].transpose(1, 2),
    )
    agree(outputs.reconstruction.transpose(1, 2), arrays["prediction"].numpy(), TRAINING_TOLERANCE)
    assert outputs.loss.item() == pytest.approx(arrays["loss"].item(), rel=TRAINING_TOLERANCE)
    outputs.loss.backward()
    weights, count = {from_ours(key, model.config): value for key, value in model.named_parameters()}, 0
    for key, expected in arrays.items():
        kind, _, name = key.partition("/")
        if kind == "grad":
            largest = max(expected.abs().max().item(), 1e-7)  # before a batch norm, biases have no gradient
            found = weights[name].grad.view_as(expected)
            torch.testing.assert_close(found, expected, rtol=0, atol=TRAINING_TOLERANCE * largest, msg=name)
            count += 1
    assert count > 40
    state = {from_ours(key, model.config): value for key, value in model.state_dict().items()}
    for key in ("amsno.bn.running_mean", "multi_conv_qs.0.bn.running_var"):
        torch.testing.assert_close(state[key], arrays[f"after/{key}"], rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("scale", [0.4, 1, 2.3, 5])
@pytest.mark.parametrize("name", VARIANTS)
def test_single_pixels_and_blocks_give_the_whole(name, scale, monkeypatch):
    model, pictures = make(**VARIANTS[name]), make_pictures(2)
    whole = model(pictures, scale=scale).reconstruction
    rows, columns = torch.meshgrid(*map(torch.arange, whole.shape[2:]), indexing="ij")
    positions = torch.stack([rows.flatten(), columns.flatten()], dim=1).expand(2, -1, -1)
    pixels = model(pictures, scale=scale, positions=positions).reconstruction
    torch.testing.assert_close(pixels, whole.flatten(2), rtol=0, atol=5e-5)
    monkeypatch.setattr(modeling, "BLOCK_NUMBERS", 2**12)
    torch.testing.assert_close(model(pictures, scale=scale).reconstruction, whole, rtol=0, atol=5e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", VARIANTS)
def test_tiles_leave_no_seam(name):
    model, pictures = make(**VARIANTS[name]), make_pictures(2, 33, 41)
    for size in ({"scale": 1.7}, {"target_size": (20, 90)}):
        whole = model(pictures, **size).reconstruction
        for tile_size in (6, 16, 192):
            tiled = model.upscale(pictures, tile_size=tile_size, **size).reconstruction
            torch.testing.assert_close(tiled, whole, rtol=0, atol=5e-5)


@torch.no_grad()
@pytest.mark.parametrize("change", ["encoder", "maps"])
def test_tiles_need_all_that_they_read_beside_them(change, monkeypatch):
    """Without these pixels the answers differ, so that the test of seams can fail."""
    model, pictures = make(num_kernels=4), make_pictures(1, 33, 41)
    whole = model(pictures, scale=2).reconstruction
    if change == "encoder":
        reach = modeling.measure_reach(model.config)
        monkeypatch.setattr(modeling, "measure_reach", lambda config: reach - 1)
        assert (model.upscale(pictures, scale=2, tile_size=6).reconstruction - whole).abs().max() > 5e-5
    else:
        heights, read = [], model._read_maps
        monkeypatch.setattr(model, "_read_maps", lambda ringed: heights.append(ringed.shape[2]) or read(ringed))
        model.upscale(pictures, scale=2, tile_size=6)
        assert len(heights) == 6 * 7 and heights[0] < 33


class LargestTensor(TorchDispatchMode):
    """Watch of the tensors that are made; `count` is the numbers of the largest."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        made = found if isinstance(found, tuple | list) else [found]
        self.count = max([self.count, *(item.numel() for item in made if isinstance(item, torch.Tensor))])
        return found


@torch.no_grad()
@pytest.mark.parametrize("shift_padding", ["circular", "replicate"])
def test_tiles_hold_no_map_of_the_whole_picture(shift_padding):
    model, pictures = make(encoder_hidden_size=16, shift_padding=shift_padding), make_pictures(1, 16, 600)
    with LargestTensor() as watched:
        model.upscale(pictures, scale=1, tile_size=16)
    assert pictures.numel() <= watched.count < 16 * 16 * 600 / 2  # the map of the encoder has 16 channels


def test_a_new_model_samples_bilinearly_and_every_part_learns():
    torch.manual_seed(0)
    for name in ("circular", "rdn"):
        model = MsitForImageSuperResolution(MsitConfig(**TINY | VARIANTS[name])).eval()
        pictures = make_pictures(2, 8, 10)
        outputs = model(pictures, scale=2)
        expected = F.interpolate(pictures, scale_factor=2, mode="bilinear", align_corners=False)
        torch.testing.assert_close(outputs.reconstruction, expected, rtol=0, atol=1e-6)
        model = make(**VARIANTS[name]).train()
        positions = torch.randint(0, 16, (2, 30, 2))
        model(pictures, scale=2, positions=positions, labels=torch.zeros(2, 3, 30)).loss.backward()
        still = [key for key, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
        assert still == []


@torch.no_grad()
def test_a_picture_has_one_answer_alone_and_in_a_batch():
    model, pictures = make(), make_pictures(3)
    together = model(pictures, target_size=torch.tensor([20, 30]))
    for index in range(3):
        alone = model(pictures[index : index + 1], target_size=[20, 30]).reconstruction
        torch.testing.assert_close(together.reconstruction[index : index + 1], alone, rtol=0, atol=5e-5)
    assert together.hidden_states is together.attentions is together.loss is None


@torch.no_grad()
def test_reinteraction_is_added_without_effect_and_folded_without_effect(tmp_path):
    model, pictures = make(use_rim=False), make_pictures()
    plain = model(pictures, scale=2).reconstruction
    count = sum(weight.numel() for weight in model.parameters())
    model.add_rim()
    assert model.config.use_rim and torch.equal(model(pictures, scale=2).reconstruction, plain)
    assert not isinstance(model.value.weight, torch.nn.Parameter)
    for layer in model.modules():
        if isinstance(layer, modeling.ReinteractionConv2d):
            layer.pointwise_map.add_(torch.randn_like(layer.pointwise_map))
    changed = model(pictures, scale=2).reconstruction
    assert (changed - plain).abs().max() > 0.01
    model.save_pretrained(tmp_path)
    again = MsitForImageSuperResolution.from_pretrained(tmp_path)
    assert torch.equal(again(pictures, scale=2).reconstruction, changed)
    again.fold_rim()
    torch.testing.assert_close(again(pictures, scale=2).reconstruction, changed, rtol=0, atol=TOLERANCE)
    assert sum(weight.numel() for weight in again.parameters()) == count and not again.config.use_rim
    with pytest.raises(ValueError, match=r"have no re-interaction. Call `model.add_rim\(\)`"):
        again.fold_rim()


def test_the_small_recipe_and_the_published_size_have_their_parameters():
    with torch.device("meta"):
        published = MsitForImageSuperResolution(MsitConfig())
    assert sum(weight.numel() for weight in published.parameters()) == 6_047_307
    small = MsitConfig(
        encoder_num_blocks=6,
        encoder_hidden_size=32,
        hidden_size=48,
        num_attention_heads=4,
        window_radius=1,
        num_kernels=4,
        num_attention_kernels=2,
        position_encoding_size=16,
        position_encoding_scale=4,
        decoder_hidden_sizes=(96, 96),
        shift_padding="replicate",
        use_rim=False,
    )
    assert sum(weight.numel() for weight in MsitForImageSuperResolution(small).parameters()) == 258_759


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_nearly_the_same(dtype, tmp_path):
    model, pictures = make(spread=0.1), make_pictures()
    model.decoder.others[-1].weight.mul_(10)
    expected = model(pictures, scale=2).reconstruction
    assert (expected - F.interpolate(pictures, scale_factor=2, mode="bilinear")).std() > 0.04
    model.save_pretrained(tmp_path)
    half = MsitForImageSuperResolution.from_pretrained(tmp_path, dtype=dtype)
    assert half.encoder.first.weight.dtype == dtype
    assert half.modulation.scales.norm.weight.dtype == half.position_bias.projection.weight.dtype == torch.float32
    for found in (half(pictures, scale=2).reconstruction, model.to(dtype)(pictures, scale=2).reconstruction):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


POSITIONS = torch.zeros(1, 5, 2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_values": None}, "`pixel_values` is required"),
        ({"pixel_values": torch.zeros(1, 9, 11, 3)}, r"floats of shape .*, got \(1, 9, 11, 3\) of torch.float32"),
        ({"pixel_values": torch.zeros(1, 3, 9, 11, dtype=torch.uint8)}, "of torch.uint8. Did you skip"),
        ({"pixel_values": np.zeros((1, 3, 9, 11), np.float32)}, "`pixel_values` must be floats .*, got ndarray"),
        ({"pixel_values": [torch.zeros(1, 3, 9, 11)]}, "`pixel_values` must be floats .*, got list"),
        ({"scale": None}, "Exactly one of `scale` and `target_size` must be given, got neither"),
        ({"target_size": (9, 9)}, "got both"),
        ({"scale": 0}, "above 0 and at most 64, got 0"),
        ({"scale": 65}, "got 65"),
        ({"scale": float("nan")}, "got nan"),
        ({"scale": "2"}, "`scale` must be a number"),
        ({"scale": 0.01}, "must leave at least one pixel, got 0.01 for 9 x 11 pixels"),
        ({"scale": None, "target_size": (9, 0)}, r"two whole numbers from 1, got \(9, 0\)"),
        ({"scale": None, "target_size": (9.5, 3)}, "two whole numbers"),
        ({"scale": None, "target_size": 9}, "two whole numbers"),
        ({"scale": None, "target_size": "9x11"}, "two whole numbers from 1, got '9x11'"),
        ({"scale": None, "target_size": {"height": 9, "width": 9}}, "two whole numbers from 1, got {'height'"),
        ({"scale": None, "target_size": (9, 2**70)}, "two whole numbers from 1, got "),
        ({"scale": None, "target_size": (9, 11 * 64 + 1)}, "at most 64 times the size of the picture"),
        (
            {"positions": POSITIONS.float()},
            r"whole numbers of shape \(1, pixels, 2\), got .* of torch.float32",
        ),
        ({"positions": POSITIONS.tolist()}, r"`positions` must be whole numbers of shape .*, got list"),
        ({"positions": POSITIONS.numpy()}, r"`positions` must be whole numbers of shape .*, got ndarray"),
        ({"positions": POSITIONS[0]}, r"got \(5, 2\)"),
        ({"positions": POSITIONS + torch.tensor([18, 0])}, r"a target of 18 x 22 pixels, got \[18, 0\] to \[18, 0\]"),
        ({"positions": POSITIONS - 1}, r"got \[-1, -1\]"),
        ({"labels": torch.zeros(1, 3, 18, 21)}, r"`labels` must have shape \(1, 3, 18, 22\), got \(1, 3, 18, 21\)"),
        (
            {"labels": torch.zeros(1, 3, 18, 22, dtype=torch.uint8)},
            r"must be floats in \[-1, 1\], got .* of torch.uint8",
        ),
        ({"labels": np.zeros((1, 3, 18, 22), np.float32)}, r"`labels` must be floats in \[-1, 1\], got ndarray"),
        ({"interpolate": True}, "takes no argument interpolate"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        make()(**{"pixel_values": make_pictures(), "scale": 2} | change)


@torch.no_grad()
def test_numbers_of_numpy_and_double_precision_are_taken():
    model, pictures = make().double(), make_pictures()
    whole = model(pictures, scale=2).reconstruction
    tiles = model.upscale(pictures, scale=np.float32(2), tile_size=5).reconstruction
    assert whole.dtype == tiles.dtype == torch.float64
    torch.testing.assert_close(tiles, whole, rtol=0, atol=1e-12)


def test_tiles_need_evaluation_mode_and_a_size():
    with pytest.raises(ValueError, match=r"evaluation mode. Call `model.eval\(\)`"):
        make().train().upscale(make_pictures(), scale=2)
    for size in (0, 2.5):
        with pytest.raises(ValueError, match=f"`tile_size` must be a whole number of pixels from 1, got {size}"):
            make().upscale(make_pictures(), scale=2, tile_size=size)
