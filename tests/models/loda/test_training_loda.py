# SPDX-License-Identifier: Apache-2.0
"""Training of LoDa: start from trained networks, unit of the scores, several processes, and that it learns."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from places import ROOT
from safetensors.numpy import load_file
from scored import words_of_training, write_colours
from transformers import AutoBackbone, AutoConfig, AutoModel

from musiq_hf.cli import main
from musiq_hf.models.loda import LodaConfig, LodaForImageQualityAssessment, LodaImageProcessor, reading_loda
from musiq_hf.models.loda.family import LodaTrainingView
from musiq_hf.scoring import load_quality
from musiq_hf.training import FinetuneSettings, calibrate, load_settings
from musiq_hf.training.starting import load_model

SIZES = json.loads((ROOT / "tests" / "models" / "loda" / "tiny.json").read_text())


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> Path:
    """Two networks that others have trained, as it were, of other sizes than those of any configuration."""
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(5)
    vit = AutoModel.from_config(AutoConfig.for_model(**SIZES["vit_config"] | {"image_size": 40}))
    vit.save_pretrained(folder / "vit")
    AutoBackbone.from_config(AutoConfig.for_model(**SIZES["cnn_config"])).save_pretrained(folder / "cnn")
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    return write_colours(tmp_path_factory.mktemp("colours"), 40)


def words(table: Path, output: Path, **changes: Any) -> list[str]:
    return words_of_training(table, output, **{"score_range": "0 40"} | changes)


def test_a_run_starts_from_networks_of_others_and_leaves_them_alone(networks, table, tmp_path, capsys):
    given = {"model": "scratch:loda-tiny", "vit": networks / "vit", "cnn": networks / "cnn", "learning_rate": 0.01}
    assert main(["finetune", *words(table, tmp_path / "out", **given)]) == 0
    model, processor = load_quality(str(tmp_path / "out"))
    vit = AutoModel.from_pretrained(networks / "vit").state_dict()
    assert all(torch.equal(value, vit[name]) for name, value in model.loda.vit.state_dict().items())
    cnn = dict(AutoBackbone.from_config(model.config.cnn_config).named_parameters())
    stored = load_file(networks / "cnn" / "model.safetensors")
    for name, value in model.loda.cnn.named_parameters():
        assert name in cnn and torch.equal(value, torch.from_numpy(stored[name]))
    steps = model.loda.cnn.state_dict()["embedder.embedder.normalization.num_batches_tracked"]
    assert steps == 4  # statistics of the batches count
    assert (processor.crop_size, processor.shorter_side, processor.num_crops) == (40, 68, 5)
    assert model.config.id2label == {0: "MOS"}
    assert model.config.latent_dim == 32  # of the configuration, beside other networks
    settings = json.loads((tmp_path / "out" / "run_settings.json").read_text())
    assert settings["vit"] == "vit" and str(networks) not in json.dumps(settings)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "vit vit" in card and "freeze backbones" in card and str(networks) not in card
    assert "from networks of others in the configuration `loda-tiny`" in card


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "scratch:loda-tiny"}, "give `--vit` an id on the Hub"),
        ({"model": "scratch:loda-tiny", "freeze": "cnn"}, "give `--cnn` an id on the Hub"),
        ({"model": "scratch:loda-tiny", "vit": "no/such", "cnn": "x"}, "no/such: there is no such folder"),
        ({"model": "scratch:loda-tiny", "batch_size": 7}, "`batch_size` must be at least 8 for a loda model"),
        ({"model": "scratch:loda-tiny", "group_by_length": "true"}, "have one length"),
        ({"model": "scratch:loda-tiny", "freeze": "none", "lora_rank": 2}, "names no layers"),
        ({"model": "scratch:loda-tiny", "freeze": "none", "native_patches": 9}, "names native_patches"),
        ({"model": "scratch:loda-tiny", "freeze": "encoder"}, "`freeze` must be"),
        ({"model": "scratch:musiq-tiny", "vit": "x"}, "`vit`: a musiq model does not start from such a network"),
        ({"model": "scratch:musiq-tiny", "crops_per_picture": 2}, "names crops_per_picture"),
        ({"model": "musiq-tiny-biq2021", "cnn": "x"}, "`cnn`: a musiq model"),
        ({"model": "scratch:loda-tiny", "freeze": "none", "set": "vit_config={}"}, "neither a setting of the run nor"),
        ({"recipe": "loda", "freeze": "none", "set": "vit=3"}, "`vit` must be str"),
    ],
)
def test_what_does_not_fit_is_one_sentence(changes, message, table, tmp_path, capsys, monkeypatch):
    def find_nothing(name: str, *args: Any, **kwargs: Any) -> None:
        raise OSError(f"{name} cannot be reached")

    monkeypatch.setattr(reading_loda, "cached_file", find_nothing)
    assert main(["finetune", *words(table, tmp_path / "out", **changes)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "config.json").exists()


def test_networks_have_no_place_in_a_model_with_weights(networks, table, tmp_path, capsys):
    model = LodaForImageQualityAssessment(LodaConfig(**SIZES))
    model.save_pretrained(tmp_path / "model")
    LodaImageProcessor.from_config(model.config).save_pretrained(tmp_path / "model")
    given = {"model": tmp_path / "model", "vit": networks / "vit"}
    assert main(["finetune", *words(table, tmp_path / "out", **given)]) == 2
    assert "has weights of its own" in capsys.readouterr().err


def test_settings_of_a_start_are_kept_beside_other_networks(networks, table, tmp_path):
    config = LodaConfig(**SIZES, interaction_layers=[1])
    config.save_pretrained(tmp_path / "start")
    LodaImageProcessor.from_config(config, resample="bicubic", num_crops=3).save_pretrained(tmp_path / "start")
    given = {"model": tmp_path / "start", "vit": networks / "vit", "freeze": "vit", "set": "interaction_layers=[0]"}
    assert main(["finetune", *words(table, tmp_path / "out", **given)]) == 0
    model, processor = load_quality(str(tmp_path / "out"))
    assert model.config.injected_layers == [0] and list(model.loda.interactions) == ["0"]
    assert (processor.resample, processor.num_crops, processor.crop_size) == ("bicubic", 3, 40)


def test_a_recipe_can_be_used_without_its_networks():
    given = {"data": "d", "output_dir": "o"}
    named = load_settings(FinetuneSettings, recipe="loda", arguments=given).backbones
    assert named["cnn"] == "timm/resnet50.a1_in1k" and set(named) == {"vit", "cnn"}
    overrides = ["vit=null", "cnn=null"]
    assert load_settings(FinetuneSettings, recipe="loda", overrides=overrides, arguments=given).backbones == {}


def test_an_interaction_stays_with_its_block_when_others_are_chosen(tmp_path):
    model = LodaForImageQualityAssessment(LodaConfig(**SIZES))
    model.save_pretrained(tmp_path)
    other = load_model(str(tmp_path), architecture={"interaction_layers": [1]})
    assert torch.equal(other.loda.interactions["1"].scale, model.loda.interactions["1"].scale)


def test_calibration_is_the_least_squares_line(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("musiq_hf"), "propagate", True)
    model = LodaForImageQualityAssessment(LodaConfig(**SIZES))
    logits = torch.tensor([[0.1], [0.3], [-0.2], [0.6]])
    assert calibrate(model, logits, torch.tensor([12.0, 16.0, 6.0, 22.0]))
    slope, offset = np.polyfit(logits[:, 0].numpy(), [12, 16, 6, 22], 1)
    assert model.config.score_scale == pytest.approx(slope) and model.config.score_offset == pytest.approx(offset)
    before = model.config.to_dict()
    for labels in (torch.tensor([3.0, 2.0, 4.0, 1.0]), torch.zeros(4)):
        calibrate(model, logits, labels)
    calibrate(model, torch.zeros(4, 1), torch.arange(4.0))
    assert model.config.to_dict() == before
    assert len([record for record in caplog.records if "has learned nothing" in record.message]) == 3
    with pytest.raises(ValueError, match="as many `logits` as `labels`, got 4 and 3"):
        calibrate(model, logits, torch.zeros(3))


def test_a_step_sees_random_crops_of_the_resized_picture():
    processor = LodaImageProcessor(shorter_side=40, crop_size=32, patch_size=8)
    pixels = torch.arange(40 * 60 * 3).remainder(251).to(torch.uint8).view(40, 60, 3)
    view = LodaTrainingView(crops_per_picture=4, vertical_flip=False)
    torch.manual_seed(0)
    first, second = (view.cut(processor, pixels)["pixel_values"] for _ in range(2))
    torch.manual_seed(0)
    assert torch.equal(view.cut(processor, pixels)["pixel_values"], first) and not torch.equal(first, second)
    assert first.shape == (4, 3, 32, 32) and not torch.equal(first[0], first[1])
    assert view.max_tokens(processor) == view.count_tokens(processor, 40, 60) == 4 * 17
    slope = torch.arange(40, dtype=torch.uint8).view(40, 1, 1).expand(40, 40, 3)
    cuts = [LodaTrainingView().cut(processor, slope)["pixel_values"][0, 0] for _ in range(9)]
    assert {bool(cut[0, 0] < cut[-1, 0]) for cut in cuts} == {True, False}
    with pytest.raises(ValueError, match="`crops_per_picture` must be at least 1"):
        LodaTrainingView(crops_per_picture=0)


def run(command: list[str]) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_two_processes_train_as_one(networks, table, tmp_path):
    config = LodaConfig(**SIZES, head_dropout_prob=0, update_cnn_statistics=False)
    model = LodaForImageQualityAssessment(config)
    model.save_pretrained(tmp_path / "start")
    LodaImageProcessor.from_config(config).save_pretrained(tmp_path / "start")
    script = str(ROOT / "examples" / "finetune.py")
    given = {"model": tmp_path / "start", "epochs": 2, "freeze": "none", "optimizer": "sgd", "learning_rate": 0.5}
    run([sys.executable, script, *words(table, tmp_path / "one", **given, batch_size=16)])
    two = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", script]
    run([*two, *words(table, tmp_path / "two", **given, batch_size=8)])
    one, two, start = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two", "start"))
    moved = max(np.abs(one[name] - start[name]).max() for name in one)
    assert moved > 0.01
    for name in one:
        np.testing.assert_allclose(two[name], one[name], atol=1e-4)


@pytest.mark.slow
def test_it_learns_the_blur_of_forty_pictures(tmp_path):
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
    given = {"model": "scratch:loda-tiny", "freeze": "none", "epochs": 25, "batch_size": 20, "learning_rate": 1e-3}
    given |= {"holdout_fraction": 0, "warmup_fraction": 0, "score_range": "0 100"}
    assert main(["finetune", *words(tmp_path / "scores.csv", tmp_path / "out", **given)]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["selection"]["overall"]["srcc"] >= 0.95
