# SPDX-License-Identifier: Apache-2.0
import os
import signal
import time
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from musiq_hf.training.callbacks import Progress, Saving, ShelteredCollator, WorkerSeeds
from musiq_hf.training.trainer import QualityTrainer


def draw(rows: list[int]) -> tuple[float, ...]:
    return tuple(torch.rand(len(rows)).tolist())


def read_epochs(seeds: WorkerSeeds, steps: list[int], num_workers: int = 2) -> list[list[tuple[float, ...]]]:
    """Read one epoch after another with the same workers; each begins at one of the steps."""
    loader = DataLoader(range(8), batch_size=2, collate_fn=seeds, num_workers=num_workers, persistent_workers=True)
    epochs = []
    for step in steps:
        seeds.on_epoch_begin(None, SimpleNamespace(global_step=step), None)
        epochs.append(list(loader))
    return epochs


def test_each_epoch_has_its_own_random_numbers_and_a_resumed_one_repeats_them():
    first, second, third = read_epochs(WorkerSeeds(draw, seed=5, rank=0), [0, 4, 8])
    assert len({*first, *second, *third}) == 12
    (resumed,) = read_epochs(WorkerSeeds(draw, seed=5, rank=0), [8])
    assert resumed == third
    for other in (WorkerSeeds(draw, seed=6, rank=0), WorkerSeeds(draw, seed=5, rank=1)):
        assert not set(read_epochs(other, [0])[0]) & set(first)


def test_without_workers_the_random_numbers_are_those_of_the_process():
    torch.manual_seed(3)
    expected = draw([1, 2])
    torch.manual_seed(3)
    assert WorkerSeeds(draw, seed=5, rank=0)([1, 2]) == expected


def test_workers_are_kept_for_the_pictures_of_every_epoch_alone(tiny_model, tmp_path):
    first, other = [1, 2], [3]
    arguments = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, dataloader_num_workers=1, dataloader_persistent_workers=True
    )
    trainer = QualityTrainer(
        model=tiny_model(), args=arguments, eval_dataset=first, data_collator=draw, eval_collator=draw
    )
    kept = trainer.get_eval_dataloader()
    assert trainer.get_eval_dataloader(first) is kept and kept.persistent_workers
    for loader in (trainer.get_eval_dataloader(other), trainer.get_test_dataloader(other)):
        assert loader.dataset is other and not loader.persistent_workers
    assert trainer.args.dataloader_persistent_workers


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_its_checkpoint_and_a_second_one_at_once(number, monkeypatch, capfd):
    saving, control = Saving(None), TrainerControl()
    state = TrainerState(global_step=3, max_steps=9, epoch=0.5)
    ending = pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit)
    monkeypatch.setattr("musiq_hf.training.callbacks.REPEATED", -1.0)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run side by side ignore it
    former = signal.getsignal(number)
    with saving.catch_signals():
        saving.on_step_end(None, state, control)
        assert not control.should_save
        os.kill(os.getpid(), number)
        saving.on_step_end(None, state, control)
        assert control.should_save
        with ending:
            saving.on_save(SimpleNamespace(output_dir="out"), state, control)
        with ending:
            os.kill(os.getpid(), number)
            time.sleep(1)
    assert signal.getsignal(number) is former
    assert "The run ends after this step with a checkpoint." in capfd.readouterr().err


def test_the_end_of_an_epoch_is_saved_after_it_is_measured():
    saving, due = Saving(2), []
    for step in range(1, 9):
        control = TrainerControl()
        saving.on_step_end(None, TrainerState(global_step=step, epoch=step / 4), control)
        due += [step] if control.should_save else []
    assert due == [2, 6]


def test_progress_tells_the_time_left_and_the_best_epoch(monkeypatch, capsys):
    clock = iter([10.0, 12.0, 50.0])
    monkeypatch.setattr("musiq_hf.training.callbacks.time", SimpleNamespace(monotonic=lambda: next(clock)))
    progress, control = Progress(), TrainerControl()
    state = TrainerState(global_step=100, max_steps=2000, epoch=0.5, best_metric=0.8)
    progress.on_train_begin(None, state, control)
    state.global_step = 101
    progress.on_step_end(None, state, control)
    state.global_step = 120
    progress.on_step_end(None, state, control)
    progress.on_log(None, state, control, logs={"loss": 0.51234567})
    arguments = SimpleNamespace(metric_for_best_model="srcc", greater_is_better=True)
    progress.on_evaluate(arguments, state, control, metrics={"eval_srcc": 0.7})
    progress.on_evaluate(arguments, state, control, metrics={"eval_loss": 0.7})
    arguments = SimpleNamespace(metric_for_best_model="loss", greater_is_better=False)
    progress.on_evaluate(arguments, state, control, metrics={"eval_loss": 0.7})
    assert capsys.readouterr().err.splitlines() == [
        "step 101 of 2000: 1:03:18 left",
        "step 120 of 2000, epoch 0.50: loss 0.5123, 1:02:40 left",
        "epoch 0.5: srcc 0.7000, best 0.8000",
        "epoch 0.5: loss 0.7000, best 0.7000",
    ]


def name_pid(rows: list[int]) -> int:
    return os.getpid()


def test_workers_survive_what_ends_the_run():
    loader = iter(DataLoader(range(8), batch_size=1, collate_fn=ShelteredCollator(name_pid), num_workers=1))
    worker = next(loader)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker, number)
    assert set(loader) == {worker}
    before = signal.getsignal(signal.SIGTERM)
    assert ShelteredCollator(name_pid)([1]) == os.getpid() and signal.getsignal(signal.SIGTERM) is before
