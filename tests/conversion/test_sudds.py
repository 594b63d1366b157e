# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the published upscaling detector, there and back."""

import golden_upscaling as golden
import numpy as np
import pytest
import torch
from transformers import AutoModel

from musiq_hf.cli import main
from musiq_hf.conversion import CONVERTERS, converter_of_file
from musiq_hf.conversion.command import build_parser
from musiq_hf.conversion.sudds import LABELS, DetectorOptions, build_model, convert, read_checkpoint, to_original
from musiq_hf.models.sudds import UpscalingDetectorConfig, UpscalingDetectorForImageClassification
from musiq_hf.scoring.loading import load_with_head
from musiq_hf.scoring.verification import run_self_test

PREFIX = "feature_extractor."


def make_state(*, labels: int = 10) -> dict[str, torch.Tensor]:
    """A state dict as the published program saves it, of a small network in its names."""
    torch.manual_seed(0)
    config = UpscalingDetectorConfig(
        backbone="resnet18",
        hidden_sizes=[4, 4, 8, 12],
        use_spectrum=False,
        num_head_layers=3,
        hidden_size=8,
        num_labels=labels,
    )
    state = {}
    for name, value in UpscalingDetectorForImageClassification(config).state_dict().items():
        name = name.replace("extractor.backbone.", f"{PREFIX}resnet_model.").replace("extractor.staircase.", PREFIX)
        for layer in range(3):
            name = name.replace(f"head.layers.{layer}.", f"mlp.fc{layer + 1}.")
        state[name] = value
    copies = {
        name.replace("resnet_model.layer", "resnet_model.stages."): value
        for name, value in state.items()
        if "resnet_model.layer" in name
    }
    copies |= {f"{PREFIX}bottlenecks.0.{kind}": state[f"{PREFIX}f11.0.{kind}"] for kind in ("weight", "bias")}
    unused = {f"{PREFIX}resnet_model.fc.weight": torch.ones(5, 12), f"{PREFIX}resnet_model.fc.bias": torch.ones(5)}
    return state | copies | unused


def save(path, state, *, compiled: bool = False):
    state = {name.replace(PREFIX, f"{PREFIX}_orig_mod.") if compiled else name: value for name, value in state.items()}
    torch.save({"state_dict": state, "epoch": 3, "global_step": 12}, path)
    return path


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sudds")
    source = save(folder / "detector.ckpt", make_state(), compiled=True)
    return source, convert(source, folder / "out", name="detector")


def test_a_checkpoint_becomes_a_directory_with_all_that_belongs_to_it(converted):
    source, conversion = converted
    assert CONVERTERS["sudds"] is converter_of_file(source) and conversion.largest_difference == 0
    config = conversion.config
    assert (config.backbone, config.hidden_sizes, config.hidden_size) == ("resnet18", [4, 4, 8, 12], 8)
    assert (config.patch_size, config.crop_size, config.num_patches, config.vote) == (240, 224, 96, "majority")
    assert list(config.id2label.values()) == list(LABELS) and config.num_head_layers == 3
    assert "arrays    " in conversion.report() and "copies and unused arrays left out" in conversion.report()
    model, processor = load_with_head(str(conversion.directory))
    assert all(one.is_within(1e-4) for one in run_self_test(model, processor, conversion.directory))
    card = (conversion.directory / "README.md").read_text()
    assert "3840 x 2160" in card and "license: other" in card and "No verdict is evidence" in card


def test_the_way_back_gives_the_arrays_bit_by_bit(converted, tmp_path):
    _, conversion = converted
    count = to_original(conversion.directory, tmp_path / "back.ckpt")
    state = torch.load(tmp_path / "back.ckpt", weights_only=True)["state_dict"]
    original = make_state()
    kept = {name for name in original if not any(part in name for part in (".stages.", ".bottlenecks.", ".fc."))}
    assert state.keys() == kept and count == len(kept)
    assert all(torch.equal(value, original[name]) for name, value in state.items())
    again = convert(tmp_path / "back.ckpt", tmp_path / "again")
    first, second = (AutoModel.from_pretrained(one.directory).state_dict() for one in (conversion, again))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@torch.no_grad()
def test_features_after_conversion_are_those_of_the_published_code(tmp_path):
    generator = torch.Generator().manual_seed(0)
    state = {f"{PREFIX}{name}": value for name, value in golden.make_weights().items()}
    for layer, shape in enumerate(((8, 512), (8, 8), (10, 8)), start=1):
        state |= {f"mlp.fc{layer}.weight": torch.randn(shape, generator=generator)}
        state |= {f"mlp.fc{layer}.bias": torch.zeros(shape[0])}
    model = build_model(read_checkpoint(save(tmp_path / "golden.ckpt", state)), DetectorOptions())
    features = model.extractor(torch.from_numpy(golden.ARRAYS["pixel_values"]))
    np.testing.assert_allclose(features.numpy(), golden.ARRAYS["features"], atol=1e-5, rtol=0)
    assert model.config.hidden_sizes is None and model.config.use_staircase


def test_labels_of_another_number_need_names(tmp_path):
    source = save(tmp_path / "two.ckpt", make_state(labels=2))
    with pytest.raises(ValueError, match="has 2 labels. Name them with `--label_names`, native first"):
        convert(source, tmp_path / "out")
    assert main(["convert", str(source), str(tmp_path / "out"), "--label_names", "native", "upscaled"]) == 0
    config = UpscalingDetectorConfig.from_pretrained(tmp_path / "out")
    assert list(config.id2label.values()) == ["native", "upscaled"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {f"{PREFIX}resnet_model.stages.1.0.conv1.weight": torch.ones(4, 4, 3, 3)},
            "should be copies of other arrays",
        ),
        ({f"{PREFIX}f11.0.weight": None, f"{PREFIX}bottlenecks.0.weight": None}, "missing: feature_extractor.f11.0.w"),
        ({f"{PREFIX}f55.0.weight": torch.ones(1)}, "unknown: feature_extractor.f55.0.weight"),
        ({"mlp.fc2.weight": torch.ones(8, 9)}, r"wrong shape: mlp.fc2.weight \(8, 9\), expected \(8, 8\)"),
        ({"mlp.fc1.weight": None}, "lacks arrays, or they have wrong shapes: mlp.fc1.weight"),
        ({"mlp.fc1.weight": torch.ones(8, 12, dtype=torch.float16)}, r"got mlp.fc1.weight \(float16\)"),
        ({"mlp.note": "x"}, r"mlp.note \(no tensor\)"),
        ({f"{PREFIX}resnet_model.conv1.weight": None}, "is no checkpoint of an upscaling detector"),
    ],
)
def test_what_is_not_the_published_layout_is_named(tmp_path, change, message):
    state = {name: value for name, value in (make_state() | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        convert(save(tmp_path / "wrong.ckpt", state), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_code_in_a_checkpoint_is_refused(tmp_path):
    torch.save({"state_dict": make_state(), "hyper_parameters": DetectorOptions()}, tmp_path / "pickled.ckpt")
    with pytest.raises(ValueError, match="pickled objects, which could run code and are refused"):
        read_checkpoint(tmp_path / "pickled.ckpt")


def test_what_the_original_cannot_hold_is_refused(tmp_path):
    small = UpscalingDetectorForImageClassification(UpscalingDetectorConfig(hidden_sizes=[4] * 4, hidden_size=8))
    small.save_pretrained(tmp_path / "small")
    with pytest.raises(ValueError, match="which is resnet18 without a spectrum"):
        to_original(tmp_path / "small", tmp_path / "back.ckpt")
    with pytest.raises(ValueError, match=r"ends in .ckpt, got .*back.pt"):
        to_original(tmp_path / "small", tmp_path / "back.pt")


def test_the_door_has_its_name():
    text = build_parser("convert_upscaling_checkpoint").format_help()
    assert "python -m conversion.convert_upscaling_checkpoint detector.ckpt detector" in text
