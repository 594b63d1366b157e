# SPDX-License-Identifier: Apache-2.0
"""Random numbers of the processes that decode pictures, which live as long as a run."""

from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info
from transformers import DataCollator, TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState


class WorkerSeeds(TrainerCallback):
    """Collator that gives each worker new random numbers in each epoch, as a resumed run needs them.

    Workers that live longer than an epoch would go on with their random numbers, but those of a resumed run begin
    anew. In the main process, which is no worker, it changes nothing.

    Args:
        collator: Collator of the training batches.
        seed: Seed of the run.
        rank: Index of the process that trains.
    """

    def __init__(self, collator: DataCollator, *, seed: int, rank: int):
        self.collator = collator
        self.seed = seed
        self.rank = rank
        self.first_step = torch.zeros((), dtype=torch.int64).share_memory_()  # of the epoch; workers see it change
        self.seen = -1

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **unused: Any
    ) -> None:
        self.first_step.fill_(state.global_step)

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        """Collate rows to a batch."""
        worker, step = get_worker_info(), int(self.first_step)
        if worker is not None and step != self.seen:
            self.seen = step
            entropy = (self.seed, self.rank, step, worker.id)
            torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))
        return self.collator(rows)
