# SPDX-License-Identifier: Apache-2.0
"""Moving average of the weights of a training run."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

WARMUP = 10.0  # steps; without it, the initial weights would stay in the average for long


def decay_at(step: int, decay: float) -> float:
    """Return the part of the average that stays in a step, counted from 1: `min(decay, (1 + step) / (10 + step))`."""
    return min(decay, (1 + step) / (WARMUP + step))


class MovingAverage(TrainerCallback):
    """Callback that averages the trained weights after each step, `average = d * average + (1 - d) * weight`.

    Every process keeps the same average, since all of them have the same weights.

    Args:
        decay: Largest part d of the average that stays in a step, in [0, 1).
    """

    def __init__(self, decay: float):
        self.decay = decay
        self.average: list[torch.Tensor] = []

    @staticmethod
    def trained_weights(model: nn.Module) -> dict[str, torch.Tensor]:
        """Return the weights that are averaged, by name; they share the memory of the model."""
        return {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}

    def start(self, model: nn.Module) -> None:
        """Take the weights of a model as the average."""
        self.average = [weight.clone() for weight in self.trained_weights(model).values()]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **unused: Any
    ) -> None:
        if not self.average:  # else it was read from a checkpoint
            self.start(model)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **unused: Any
    ) -> None:
        update = get_ema_multi_avg_fn(decay_at(state.global_step, self.decay))
        update(self.average, list(self.trained_weights(model).values()), None)

    def copy_to(self, model: nn.Module) -> None:
        """Replace the weights of a model by the average."""
        for weight, average in zip(self.trained_weights(model).values(), self.average, strict=True):
            weight.copy_(average)

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
        """Let a model have the average for a while, and give copies of its own weights by name."""
        weights = self.trained_weights(model)
        own = {name: weight.clone() for name, weight in weights.items()}
        self.copy_to(model)
        try:
            yield own
        finally:
            for name, weight in weights.items():
                weight.copy_(own[name])
