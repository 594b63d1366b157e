# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import TrainingArguments

from musiq_hf.training.averaging import MovingAverage, decay_at
from musiq_hf.training.finetuning import finetune
from musiq_hf.training.settings import FinetuneSettings
from musiq_hf.training.trainer import QualityTrainer


@pytest.fixture
def table(tmp_path) -> str:
    """Twelve pictures of one size, brighter with a higher score."""
    generator, lines = np.random.default_rng(0), ["image,mos,split"]
    for index in range(12):
        pixels = generator.integers(10 * index, 10 * index + 60, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        lines.append(f"{index}.png,{5 * index},{'validation' if index % 3 == 2 else 'train'}")
    (tmp_path / "scores.csv").write_text("\n".join(lines) + "\n")
    return str(tmp_path / "scores.csv")


def run(table: str, blank: str, folder: str, **changes) -> Path:
    output = Path(table).parent / folder
    values = {"data": table, "model": blank, "output_dir": str(output), "batch_size": 2}
    report = finetune(FinetuneSettings(**(values | {"learning_rate": 1e-2, "epochs": 2} | changes)))
    log = json.loads((output / "trainer_state.json").read_text())["log_history"]
    # The saved checkpoint is the one that was evaluated and chosen.
    assert report["selection"].overall.srcc == max(entry["eval_srcc"] for entry in log if "eval_srcc" in entry)
    return output


def losses(output: Path) -> list[float]:
    log = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in log if "loss" in entry]


def record_weights(monkeypatch) -> list[dict[str, np.ndarray]]:
    """Record the weights before training and after each step, as they are for training."""
    recorded: list[dict[str, np.ndarray]] = []

    def record(average, *args, model=None, **options):
        recorded.append({name: weight.detach().double().numpy() for name, weight in model.named_parameters()})

    for event in ("on_train_begin", "on_step_end"):
        original = getattr(MovingAverage, event)
        both = lambda *args, original=original, **options: (record(*args, **options), original(*args, **options))[1]  # noqa: E731
        monkeypatch.setattr(MovingAverage, event, both)
    return recorded


def test_decay_rises_to_its_limit():
    assert [decay_at(step, 0.5) for step in (1, 8, 9)] == [2 / 11, 0.5, 0.5]
    assert decay_at(10**6, 0.999) == 0.999


@pytest.mark.parametrize("is_chosen", [True, False])
def test_saved_weights_are_the_average_by_hand_and_training_is_as_without(table, blank, monkeypatch, is_chosen):
    monkeypatch.setattr("musiq_hf.training.trainer.LOGGING_STEPS", 1)
    epochs = 1 if is_chosen else 2
    plain = run(table, blank, "plain", epochs=epochs)
    if not is_chosen:  # no epoch is better than others, for scores that are all equal, say
        monkeypatch.setattr(QualityTrainer, "_determine_best_metric", lambda *args, **options: False)
    recorded = record_weights(monkeypatch)
    output = run(table, blank, "averaged", ema_decay=0.6, epochs=epochs)
    assert losses(output) == losses(plain) and len(recorded) == 1 + 4 * epochs
    saved = load_file(output / "model.safetensors")
    for name, weight in recorded[0].items():
        for step, weights in enumerate(recorded[1:], start=1):
            decay = min(0.6, (1 + step) / (10 + step))
            weight = decay * weight + (1 - decay) * weights[name]
        np.testing.assert_allclose(saved[name].numpy(), weight, atol=1e-6)
    name = "head.classifier.weight"
    assert abs(saved[name].numpy() - recorded[-1][name]).max() > 1e-4
    own = load_file(next(output.glob("checkpoint-*")) / "training_weights.safetensors")
    assert own.keys() == recorded[-1].keys()
    assert all(np.array_equal(own[name].double().numpy(), recorded[-1][name]) for name in own)
    assert "ema_decay 0.6" in (output / "README.md").read_text()


def test_frozen_weights_and_additions_of_low_rank_can_be_averaged(table, blank):
    frozen = run(table, blank, "frozen", ema_decay=0.9, freeze="encoder")
    names = load_file(next(frozen.glob("checkpoint-*")) / "training_weights.safetensors").keys()
    assert names and all(name.startswith("head.") for name in names)
    run(table, blank, "low", ema_decay=0.9, lora_rank=2)


def test_weights_in_parts_are_refused(tiny_model, tmp_path, monkeypatch):
    original = QualityTrainer.create_accelerator_and_postprocess

    def pretend_fsdp(trainer):
        original(trainer)
        trainer.is_fsdp_enabled = True

    monkeypatch.setattr(QualityTrainer, "create_accelerator_and_postprocess", pretend_fsdp)
    with pytest.raises(ValueError, match="`ema_decay` needs all weights in every process. Train without FSDP"):
        QualityTrainer(
            model=tiny_model(),
            args=TrainingArguments(output_dir=str(tmp_path), use_cpu=True),
            eval_collator=lambda rows: rows,
            average=MovingAverage(0.9),
        )


def test_the_own_weights_come_back_also_after_a_failure():
    model = torch.nn.Linear(2, 1)
    average = MovingAverage(0.9)
    average.on_train_begin(None, None, None, model=model)
    with torch.no_grad():
        model.weight.add_(1.0)
    before = model.weight.detach().clone()
    average.on_step_end(None, SimpleNamespace(global_step=1), None, model=model)
    with pytest.raises(RuntimeError), average.in_place(model):
        torch.testing.assert_close(model.weight, before - 2 / 11)
        raise RuntimeError
    assert torch.equal(model.weight, before)
