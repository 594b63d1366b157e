# SPDX-License-Identifier: Apache-2.0
"""Training of classifiers: start from a trained network, its preprocessing, and that they learn."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from scored import words_of_training, write_colours
from transformers import AutoConfig, AutoModelForImageClassification

from musiq_hf.cli import main
from musiq_hf.models.classifier import reading_classifier
from musiq_hf.scoring import load_quality
from musiq_hf.training import FinetuneSettings, load_settings

VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    """A network that others have trained, as it were, with the settings of its image processor."""
    folder = tmp_path_factory.mktemp("network") / "trained"
    torch.manual_seed(5)
    config = AutoConfig.for_model("vit", **VIT, image_size=32, patch_size=8, num_labels=7)
    AutoModelForImageClassification.from_config(config).save_pretrained(folder)
    values = {"image_mean": [0.5] * 3, "image_std": [0.4] * 3, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    return write_colours(tmp_path_factory.mktemp("colours"), 20)


def words(table: Path, output: Path, **changes: Any) -> list[str]:
    return words_of_training(table, output, **{"score_range": "0 20"} | changes)


def test_a_run_starts_from_a_network_of_others_and_its_preprocessing(network, table, tmp_path):
    given = {"model": "scratch:nima-resnet50", "backbone": network, "freeze": "backbone", "learning_rate": 0.01}
    assert main(["finetune", *words(table, tmp_path / "out", **given)]) == 0
    model, processor = load_quality(str(tmp_path / "out"))
    trained = AutoModelForImageClassification.from_pretrained(network).state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in model.network.state_dict().items())
    assert model.head.weight.any() and model.head.weight.shape == (1, 16)
    assert (model.config.head_dropout_prob, model.config.id2label) == (0.75, {0: "MOS"})
    assert (processor.image_size, processor.image_std, processor.resample) == (32, [0.4] * 3, "bicubic")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "from networks of others in the configuration `nima-resnet50`" in card and str(network) not in card


def test_the_size_the_crop_and_low_rank_additions_are_chosen(network, table, tmp_path):
    given = {"model": "scratch:resnet-tiny", "backbone": network, "set": "image_size=40", "lora_rank": 2}
    more = ["--set", "square_mode=crop", "--set", "resized_side=44", "--crop_margin", "4"]
    assert main(["finetune", *words(table, tmp_path / "out", **given), *more]) == 0
    model, processor = load_quality(str(tmp_path / "out"))
    assert (processor.image_size, processor.square_mode, processor.resized_side) == (40, "crop", 44)
    assert model.network.vit.embeddings.position_embeddings.shape == (1, 26, 16)
    trained = AutoModelForImageClassification.from_pretrained(network).state_dict()
    changed = {name for name, value in model.network.state_dict().items() if not torch.equal(value, trained[name])} - {
        "vit.embeddings.position_embeddings"
    }
    assert changed and all("_proj.weight" in name for name in changed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze": "backbone"}, "give `--backbone` an id on the Hub"),
        ({"backbone": "no/such"}, "no/such: there is no such folder"),
        ({"group_by_length": "true"}, "have one length"),
        ({"lora_rank": 2}, "`lora_rank`: the network has none of the linear layers"),
        ({"vit": "x"}, "`vit`: a classifier model does not start from such a network"),
        ({"crops_per_picture": 2}, "names crops_per_picture"),
        ({"set": "image_size=0"}, "`image_size` must be at least 1"),
        ({"set": "resized_side=300"}, "has no effect on `square_mode="),
    ],
)
def test_what_does_not_fit_is_one_sentence(changes, message, table, tmp_path, capsys, monkeypatch):
    def find_nothing(name: str, *args: Any, **kwargs: Any) -> None:
        raise OSError(f"{name} cannot be reached")

    monkeypatch.setattr(reading_classifier, "cached_file", find_nothing)
    given = {"model": "scratch:resnet-tiny"} | changes
    assert main(["finetune", *words(table, tmp_path / "out", **given)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "config.json").exists()


def test_the_recipe_names_a_network_that_can_be_taken_away():
    given = {"data": "d", "output_dir": "o"}
    settings = load_settings(FinetuneSettings, recipe="nima", arguments=given)
    assert settings.backbones == {"backbone": "microsoft/resnet-50"} and settings.model == "scratch:nima-resnet50"
    other = load_settings(FinetuneSettings, recipe="nima", overrides=["backbone=null"], arguments=given)
    assert other.backbones == {}


@pytest.mark.slow
@pytest.mark.parametrize(("model", "rate"), [("resnet-tiny", 1e-3), ("vit-tiny", 5e-4)])
def test_they_learn_the_blur_of_forty_pictures(model, rate, tmp_path):
    generator = np.random.default_rng(0)
    lines = ["image,mos,split"]
    for index in range(40):
        noise = [generator.random((-(-160 // cell), -(-200 // cell), 3)) for cell in (40, 8, 2)]
        sizes = zip(noise, (40, 8, 2), strict=True)
        parts = [np.kron(part, np.ones((cell, cell, 1)))[:160, :200] for part, cell in sizes]
        picture = Image.fromarray(np.clip(80 * sum(parts), 0, 255).astype(np.uint8))
        blur = 6 * generator.random()
        picture.filter(ImageFilter.GaussianBlur(blur)).save(tmp_path / f"{index}.png")
        lines += [f"{index}.png,{100 - 15 * blur:.2f},{split}" for split in ("train", "validation")]
    (tmp_path / "scores.csv").write_text("\n".join(lines) + "\n")
    given = {"model": f"scratch:{model}", "epochs": 25, "batch_size": 20, "learning_rate": rate}
    given |= {"holdout_fraction": 0, "warmup_fraction": 0, "score_range": "0 100"}
    assert main(["finetune", *words(tmp_path / "scores.csv", tmp_path / "out", **given)]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["selection"]["overall"]["srcc"] >= 0.9
