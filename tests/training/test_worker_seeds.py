# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import torch
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from musiq_hf.training.trainer import QualityTrainer
from musiq_hf.training.worker_seeds import WorkerSeeds


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
