# SPDX-License-Identifier: Apache-2.0
"""Steps of super-resolution: the loss falls, an interrupted training continues, and the second stage."""

import math
import time
from dataclasses import replace

import pytest
import torch

from musiq_hf.hub.checkpoints import save_checkpoint
from musiq_hf.models.msit import MsitImageProcessor
from musiq_hf.pictures import find_pictures
from musiq_hf.training.super_resolution import steps
from musiq_hf.training.super_resolution.material import cut_windows
from musiq_hf.training.super_resolution.settings import RECIPES
from musiq_hf.training.super_resolution.state import STATE_FILE, check_state
from musiq_hf.upscaling import load_upscaler


@pytest.fixture
def windows(make_settings, photographs):
    return cut_windows(find_pictures(photographs), make_settings())


def train(settings, windows):
    return steps.train_model(settings, windows, report=lambda line: None)[0]


def test_a_model_begins_as_bilinear_and_learns_a_batch_by_heart(make_settings, windows, monkeypatch):
    settings = make_settings(steps=60)
    batch = steps.draw_batch(windows, settings.plan, max_scale=4, seed=(1, 0, 0))
    monkeypatch.setattr(steps, "draw_batch", lambda *args, **options: batch)
    fresh, trained = steps.make_model(settings).eval(), train(settings, windows)
    with torch.no_grad():
        before, after = (float(model(**batch).loss) for model in (fresh, trained))
    assert not fresh.decoder.others[-1].weight.any()
    assert not trained.training and after < 0.97 * before


def test_an_architecture_of_unknown_fields_is_refused(make_settings):
    with pytest.raises(ValueError, match="`architecture` names num_kernel, which is no field of a msit model"):
        steps.make_model(make_settings(architecture={"num_kernel": 1}))


def test_the_rate_rises_and_falls():
    plan = RECIPES["edsr_baseline"]
    rates = [steps.choose_rate(plan, epoch / 1050) for epoch in (0, 25, 50, 550, 1050)]
    assert rates == pytest.approx([1e-5, 5.5e-5, 1e-4, 5e-5, 0])


def test_the_clock_counts_steps_or_minutes_of_all_runs(make_settings, monkeypatch):
    assert [steps.Clock(make_settings(steps=4)).measure(step) for step in (0, 3, 4)] == [0, 0.75, 1]
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    clock = steps.Clock(make_settings(minutes=2), seconds=30)
    monkeypatch.setattr(time, "monotonic", lambda: 130.0)
    assert (clock.seconds, clock.measure(7)) == (60, 0.5)


def interrupt(monkeypatch, step):
    """Let a training write its state after each step, and end like a killed one before a step."""
    monkeypatch.setattr(steps, "SECONDS_BETWEEN_STATES", -1)
    take = steps._Run.take_step

    def take_step(run, progress):
        if run.step == step:
            raise KeyboardInterrupt
        return take(run, progress)

    monkeypatch.setattr(steps._Run, "take_step", take_step)


def test_an_interrupted_training_ends_with_the_same_weights(make_settings, windows, tmp_path, monkeypatch):
    whole = train(make_settings(steps=6, output_dir=tmp_path / "whole"), windows).state_dict()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, 4)
        train(make_settings(steps=6), windows)
    assert torch.load(tmp_path / "upscaler" / STATE_FILE, weights_only=True)["step"] == 4
    with pytest.raises(ValueError, match="state of a training that was interrupted. `--resume` continues it"):
        check_state(make_settings(steps=6))
    for check in (check_state, lambda settings: train(settings, windows)):
        with pytest.raises(ValueError, match="`seed` was 0 and is 1 now. Give the old one"):
            check(make_settings(steps=6, seed=1, resume=True))
    continued = train(make_settings(steps=6, resume=True), windows).state_dict()
    assert all(torch.equal(whole[name], continued[name]) for name in whole)
    other = train(make_settings(steps=6, seed=1, output_dir=tmp_path / "other"), windows).state_dict()
    assert not torch.equal(whole["reduction.weight"], other["reduction.weight"])


@pytest.mark.slow
def test_the_published_network_trains_continues_and_is_saved(make_settings, photographs, tmp_path, monkeypatch):
    small = replace(RECIPES["edsr_baseline"], source_size=8, batch_size=2, num_positions=16)
    monkeypatch.setitem(RECIPES, "edsr_baseline", small)
    settings = make_settings(recipe="edsr_baseline", steps=3)
    windows = cut_windows(find_pictures(photographs), settings)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, 2)
        train(settings, windows)
    fresh = steps.make_model(settings)
    model = train(make_settings(recipe="edsr_baseline", steps=3, resume=True), windows)
    assert sum(weight.numel() for weight in model.parameters()) > 7e6 and model.config.hidden_size == 256
    kernels = {name: weight for name, weight in fresh.named_parameters() if weight.dim() > 1}
    assert [name for name, weight in kernels.items() if torch.equal(weight, model.get_parameter(name))] == []
    save_checkpoint(model, MsitImageProcessor(), tmp_path / "saved", dtype="float32")
    again = load_upscaler(tmp_path / "saved").model
    source = torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        assert torch.equal(again(source, scale=2).reconstruction, model(source, scale=2).reconstruction)


def test_a_training_that_is_done_takes_no_further_step(make_settings, windows, monkeypatch):
    done = train(make_settings(steps=2), windows).state_dict()
    interrupt(monkeypatch, 2)
    again = train(make_settings(steps=2, resume=True), windows).state_dict()
    assert all(torch.equal(done[name], again[name]) for name in done)


def test_a_damaged_state_is_refused(make_settings, windows, tmp_path):
    (tmp_path / "upscaler").mkdir()
    (tmp_path / "upscaler" / STATE_FILE).write_bytes(b"damaged")
    for check in (check_state, lambda settings: train(settings, windows)):
        with pytest.raises(ValueError, match="is damaged, so this training cannot continue. Delete it to begin anew"):
            check(make_settings(steps=1, resume=True))


def test_the_second_stage_refines_frozen_kernels(make_settings, windows, tmp_path):
    first = train(make_settings(steps=3), windows)
    save_checkpoint(first, MsitImageProcessor(), tmp_path / "first", dtype="float32")
    settings = make_settings(steps=3, rim_from=str(tmp_path / "first"), output_dir=tmp_path / "second")
    begun, refined = steps.make_model(settings), train(settings, windows)
    source = torch.rand(1, 3, 9, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        answers = [model.eval()(source, scale=1.7).reconstruction for model in (first, begun, refined)]
    assert torch.allclose(answers[0], answers[1], atol=1e-6) and not torch.allclose(answers[0], answers[2], atol=1e-4)
    assert torch.equal(first.value.weight, refined.value.weight) and refined.config.use_rim
    save_checkpoint(refined, MsitImageProcessor(), tmp_path / "refined", dtype="float32")
    with pytest.raises(ValueError, match="has refined kernels already"):
        steps.make_model(make_settings(rim_from=str(tmp_path / "refined")))


def test_a_line_tells_steps_and_loss(make_settings, windows):
    said = []
    _, number = steps.train_model(make_settings(steps=2), windows, report=said.append)
    assert number == 2 and said[-1].startswith("2 steps, 0.0 minutes, loss 0.")
    assert math.isfinite(float(said[-1].rpartition(" ")[2]))
