# SPDX-License-Identifier: Apache-2.0
"""Training with the loss on relative locations beside the others."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._dynamo
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel, TrainingArguments

from musiq_hf import MusiqImageProcessor
from musiq_hf.models.loda import LodaConfig
from musiq_hf.training.distillation import DistillSettings
from musiq_hf.training.finetuning import finetune
from musiq_hf.training.pretraining_quality import PretrainSettings, pretrain_quality
from musiq_hf.training.self_supervised import localisation
from musiq_hf.training.self_supervised.localisation import LocalisedModel, add_localisation, find_grid, weight_at
from musiq_hf.training.self_supervised.relative_location import cell_positions, relative_location_loss
from musiq_hf.training.settings import FinetuneSettings
from musiq_hf.training.starting import freeze
from musiq_hf.training.trainer import QualityTrainer

RUN = {"data": "scores.csv", "model": "scratch:musiq-tiny", "output_dir": "out"}


def settings(**changes) -> FinetuneSettings:
    return FinetuneSettings(**(RUN | {"localisation_weight": 0.6} | changes))


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Sixteen pictures of three sizes, brighter with a higher score, and their table."""
    folder, generator, lines = tmp_path_factory.mktemp("photos"), np.random.default_rng(0), ["image,mos,split"]
    for index in range(16):
        size = ((24, 32), (40, 16), (33, 50))[index % 3]
        pixels = generator.integers(10 * index, 10 * index + 60, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        lines.append(f"{index}.png,{5 * index},{'validation' if index % 4 == 3 else 'train'}")
    (folder / "scores.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def tune(photos, blank):
    """Fine-tune on the pictures with some settings, and return the output folder."""

    def run(output: Path, **changes) -> Path:
        values = {"data": str(photos / "scores.csv"), "model": blank, "epochs": 1, "batch_size": 4}
        values |= {"learning_rate": 3e-3, "weight_decay": 0.0, "output_dir": str(output)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("musiq_hf.training.trainer.LOGGING_STEPS", 1)
            finetune(FinetuneSettings(**(values | changes)))
        return output

    return run


@pytest.fixture(scope="module")
def plain(tune, tmp_path_factory) -> Path:
    """Output of a run without the loss."""
    return tune(tmp_path_factory.mktemp("plain"))


@pytest.fixture
def batch(pictures) -> dict[str, torch.Tensor]:
    """Four pictures of several lengths, with padding, and labels."""
    processor = MusiqImageProcessor(patch_size=8, hash_grid_size=4, longer_side_lengths=[16, 24])
    return {**processor(pictures), "labels": torch.tensor([1.0, 2.0, 4.0, 3.0])}


def log_of(folder: Path, key: str) -> list[float]:
    log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry[key] for entry in log if key in entry]


def test_the_weight_rises_then_falls_by_the_steps_of_the_run():
    weights = [weight_at(step, 3000, 0.6) for step in range(3000)]
    assert int(np.argmax(weights)) in (199, 200) and max(weights) == pytest.approx(0.6, rel=0.01)
    assert weights[100] == pytest.approx(0.3, rel=0.01)
    assert weights[1000] == pytest.approx(0.6 * 200 / 280, rel=0.01)  # where the published runs stop
    assert 0 < weights[0] < 0.002 and 0 < weights[-1] < 0.002
    assert weight_at(0, 1, 0.6) > 0


def test_the_loss_is_that_of_the_tokens_of_the_same_forward(tiny_model, batch):
    quality = tiny_model().train()
    model = LocalisedModel(quality, quality, settings(localisation_pairs=7)).train()
    calls = []
    quality.musiq.register_forward_hook(lambda *_: calls.append(1))
    torch.manual_seed(3)
    found = model(**batch)
    assert len(calls) == 1
    torch.manual_seed(3)
    mask, scales = batch["pixel_attention_mask"], batch["scale_position_ids"]
    pairs = localisation.sample_token_pairs(mask, 7, scale_position_ids=scales)
    inputs = {name: values for name, values in batch.items() if name != "labels"}
    tokens = quality.musiq(**inputs).last_hidden_state[:, 1:]
    positions = cell_positions(batch["spatial_position_ids"], 4)
    wanted = relative_location_loss(model.location(tokens, pairs), positions, pairs)
    torch.testing.assert_close(found["localisation_loss"], wanted)
    alone = quality(**batch)
    for name in ("loss", "logits", "scores"):
        torch.testing.assert_close(found[name], alone[name])
    found["localisation_loss"].backward()
    assert all(weight.grad is not None for weight in (*quality.musiq.parameters(), *model.location.parameters()))


def test_pictures_that_are_measured_go_through_the_model_alone(tiny_model, batch):
    quality = tiny_model()
    model = LocalisedModel(quality, quality, settings()).eval()
    state = torch.random.get_rng_state()
    found, wanted = model(**batch), quality(**batch)
    assert list(found) == list(wanted) and all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_padding_has_no_part_in_the_loss(tiny_model, batch):
    quality = tiny_model().train()
    model = LocalisedModel(quality, quality, settings(localisation_pairs=50)).train()
    real = batch["pixel_attention_mask"].bool()
    assert not real.all()
    batch["pixel_values"].requires_grad_()
    model(**batch)["localisation_loss"].backward()
    moved = batch["pixel_values"].grad.abs().sum(dim=-1) > 0
    assert not moved[~real].any() and moved[real].all()


def test_partners_have_no_part_in_the_loss_of_a_picture(tiny_model, batch, monkeypatch):
    fixed = torch.tensor([[0, 1], [1, 2], [3, 0]])
    monkeypatch.setattr(localisation, "sample_token_pairs", lambda mask, *_, **__: fixed.expand(len(mask), -1, -1))
    quality = tiny_model().train()
    model = LocalisedModel(quality, quality, settings()).train()
    together = model(**batch)["localisation_loss"]
    alone = [
        model(**{name: values[i : i + 1] for name, values in batch.items()})["localisation_loss"] for i in range(4)
    ]
    torch.testing.assert_close(together, torch.stack(alone).mean())


def test_without_a_weight_the_model_of_a_run_stays_as_it_is(tiny_model):
    model = tiny_model()
    state = torch.random.get_rng_state()
    assert add_localisation(model, model, settings(localisation_weight=0.0)) is model
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    "changes",
    [
        {"localisation_pairs": 5, "localisation_across_scales": True, "rates": {"encoder": 0.5}},
        {"architecture": {"spatial_embedding": "none"}, "bf16": True, "gradient_accumulation_steps": 2},
        {"lora_rank": 2, "fixed_shapes": True, "view": {"native_patches": 6}},
    ],
    ids=["across", "none", "lora"],
)
def test_fine_tuning_stores_no_trace_of_the_loss(tune, plain, tmp_path, changes):
    out = tune(tmp_path / "out", localisation_weight=0.6, **changes)
    found = log_of(out, "localisation_loss")
    assert len(found) == len(log_of(out, "loss")) and all(0 < value < 5 for value in found)
    assert not log_of(plain, "localisation_loss")
    names = [{path.name for path in folder.iterdir() if path.is_file()} for folder in (out, plain)]
    assert names[0] == names[1]
    weights, usual = (load_file(folder / "model.safetensors") for folder in (out, plain))
    spatial = "musiq.embeddings.spatial_embedding.weight"
    assert weights.keys() | {spatial} == usual.keys()
    assert (spatial in weights) != ("architecture" in changes)
    if "architecture" not in changes:
        assert (out / "config.json").read_bytes() == (plain / "config.json").read_bytes()
    assert AutoModel.from_pretrained(out).head.classifier.weight.abs().max() > 0  # the scores are learnt too
    assert "localisation_weight 0.6" in (out / "README.md").read_text()
    assert "localisation" not in (plain / "README.md").read_text()


def test_the_trainer_adds_the_loss_with_the_weight_of_the_step(tiny_model, batch, tmp_path):
    quality = tiny_model()
    model = LocalisedModel(quality, quality, settings()).train()
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    trainer = QualityTrainer(model=model, args=arguments, eval_collator=lambda rows: rows, localisation_weight=0.6)
    trainer.state.max_steps, trainer.state.global_step = 300, 100
    torch.manual_seed(5)
    found = trainer.compute_loss(model, batch | {"num_tokens": torch.tensor([3, 4, 5, 6])})
    torch.manual_seed(5)
    parts = model(**batch)
    torch.testing.assert_close(found, parts["loss"] + weight_at(100, 300, 0.6) * parts["localisation_loss"])
    logs = {"loss": 1.0}
    trainer.log(logs)
    assert logs["localisation_loss"] == pytest.approx(parts["localisation_loss"].item(), abs=1e-6)
    trainer.log(later := {"loss": 1.0})
    assert "localisation_loss" not in later  # no step since the last entry


def test_a_resumed_run_repeats_an_uninterrupted_one(tune, tmp_path, monkeypatch, cut_off):
    changes = {"epochs": 2, "localisation_weight": 0.6, "ema_decay": 0.7, "fault_pairs": 1}
    whole = tune(tmp_path / "whole", **changes)
    with cut_off(4):  # in the middle of the second epoch
        tune(tmp_path / "broken", **changes)
    broken = tune(tmp_path / "broken", resume=True, **changes)
    for key in ("loss", "localisation_loss"):
        assert log_of(broken, key) == log_of(whole, key) and len(log_of(whole, key)) == 6
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, broken))
    assert all(torch.equal(first[name], second[name]) for name in first)
    kept = load_file(next(whole.glob("checkpoint-*")) / "model.safetensors")
    assert any(name.startswith("location.layers.") for name in kept)


@pytest.mark.parametrize("objective", [{}, {"objective": "whitening", "batch_size": 4, "embedding_size": 2}])
def test_pretraining_stores_the_quality_model_alone(photos, blank, tmp_path, monkeypatch, objective):
    monkeypatch.setattr("musiq_hf.training.trainer.LOGGING_STEPS", 1)
    stored = {}
    for weight in (0.0, 0.6):
        given = {
            "data": str(photos),
            "model": blank,
            "output_dir": str(tmp_path / str(weight)),
            "max_steps": 1,
            "batch_size": 2,
            "holdout_fraction": 0.4,
            "view": {"native_patches": 8},
            "rates": {"patch_encoder": 0.1},
            "localisation_weight": weight,
        }
        run = PretrainSettings(**given | objective)
        pretrain_quality(run)
        stored[weight] = load_file(tmp_path / str(weight) / "model.safetensors")
    assert stored[0.6].keys() == stored[0.0].keys()
    assert [len(log_of(tmp_path / name, "localisation_loss")) for name in ("0.0", "0.6")] == [0, 1]


@pytest.mark.slow  # torch.compile traces the model, but calls no compiler
def test_compiled_steps_are_the_same(tune, tmp_path, monkeypatch):
    changes = {"fixed_shapes": True, "view": {"native_patches": 6}, "max_steps": 2, "localisation_weight": 0.6}
    plain = tune(tmp_path / "plain", **changes)
    traced = partial(TrainingArguments, torch_compile_backend="eager")
    monkeypatch.setattr("musiq_hf.training.trainer.TrainingArguments", traced)
    torch._dynamo.reset()
    compiled = tune(tmp_path / "compiled", compile=True, **changes)
    first, second = (load_file(folder / "model.safetensors") for folder in (plain, compiled))
    for name in first:
        torch.testing.assert_close(first[name], second[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"localisation_weight": -0.1}, "`localisation_weight` must be at least 0, got -0.1"),
        ({"localisation_pairs": 0}, "`localisation_pairs` must be at least 1, got 0"),
        ({"localisation_weight": 0.0, "localisation_pairs": 32}, "`localisation_pairs` changes nothing without"),
        (
            {"localisation_weight": 0.0, "localisation_across_scales": True},
            "`localisation_across_scales` changes nothing without `localisation_weight`. Add it",
        ),
    ],
)
@pytest.mark.parametrize("kind", [FinetuneSettings, PretrainSettings])
def test_wrong_settings_are_refused(kind, changes, message):
    with pytest.raises(ValueError, match=message):
        kind(**(RUN | {"localisation_weight": 0.6} | changes))


def test_a_student_has_no_such_settings():
    assert not any("localisation" in name for name in DistillSettings.__dataclass_fields__)


def test_models_whose_tokens_have_no_place_are_refused(tiny_config, tmp_path):
    with pytest.raises(ValueError, match="`localisation_weight`: a loda model has no tokens of patches whose places"):
        find_grid(LodaConfig(), settings())
    assert find_grid(tiny_config(spatial_embedding="none"), settings()).size == 4
    one = tiny_config(longer_side_lengths=[16], use_native_resolution=False)
    with pytest.raises(ValueError, match="`localisation_across_scales` needs a model with several scales, got one"):
        find_grid(one, settings(localisation_across_scales=True))
    slots = {"spatial_embedding": "fixed", "max_native_patches": 64}
    run = settings(data=str(tmp_path / "missing.csv"), output_dir=str(tmp_path / "out"), architecture=slots)
    with pytest.raises(ValueError, match="`localisation_weight`: With .* slots of a sequence, which have no place"):
        finetune(run)  # before any picture is read


def test_a_frozen_encoder_is_refused(tiny_model):
    model = tiny_model()
    freeze(model, "encoder")
    with pytest.raises(ValueError, match="`localisation_weight` trains the encoder, which `freeze` leaves as it is"):
        add_localisation(model, model, settings())
