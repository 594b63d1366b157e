# SPDX-License-Identifier: Apache-2.0
"""Callbacks of a training run: random numbers of its workers, checkpoints, and lines about its progress."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch.utils.data import get_worker_info
from transformers import DataCollator, TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState
from transformers.utils import logging

from ..common.terminal import print_line
from .self_supervised.localisation import LOCALISATION_LOSS

ENDING = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and what a queue sends before it kills
STEPS_BETWEEN_TALKS = 20  # of several processes, which must agree to end
REPEATED = 1.0  # seconds; a launcher passes on a signal that the terminal has sent to all processes
logger = logging.get_logger(__name__)


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


class ShelteredCollator:
    """Collator in whose workers Ctrl-C and SIGTERM do nothing: a run needs them until it has saved and ends them.

    Args:
        collator: Collator of batches.
    """

    def __init__(self, collator: DataCollator):
        self.collator = collator

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        """Collate rows to a batch."""
        if get_worker_info() is not None:
            for number in ENDING:
                signal.signal(number, signal.SIG_IGN)
        return self.collator(rows)


class Saving(TrainerCallback):
    """Callback that saves a checkpoint every so many steps, and another one before Ctrl-C or SIGTERM ends the run.

    The end of an epoch is saved in any case, after its pictures are measured. A second signal ends the run at once.

    Args:
        save_steps: Steps from one checkpoint to the next; None saves at the ends of epochs alone.
    """

    def __init__(self, save_steps: int | None):
        self.save_steps = save_steps
        self.process = os.getpid()
        self.received: int | None = None
        self.received_at = 0.0
        self.is_ending = False

    @contextmanager
    def catch_signals(self) -> Iterator[None]:
        """Note signals for a while; those that are ignored stay ignored, and threads cannot catch any."""
        former: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            kept = (signal.SIG_IGN, None)
            former = {number: handler for number in ENDING if (handler := signal.getsignal(number)) not in kept}
        try:
            for number in former:
                signal.signal(number, self._receive)
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: Any) -> None:
        if os.getpid() != self.process:  # a worker, which has inherited this
            return
        now = time.monotonic()
        if number == self.received and now - self.received_at > REPEATED:
            self._end(number)
        self.received, self.received_at = number, now
        # Not `print`, which cannot be called while it is interrupted by this.
        os.write(2, b"\nThe run ends after this step with a checkpoint. A second signal ends it at once.\n")

    @staticmethod
    def _end(number: int) -> None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    def _agree(self) -> bool:
        """Return whether any process was asked to end; all must call it, since they must end after the same step."""
        if PartialState().num_processes > 1:
            asked = torch.tensor(self.received or 0, device=PartialState().device)
            found = int(reduce(asked, "sum"))
            self.received = self.received or (signal.SIGTERM if found else None)
        return self.received is not None

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **unused: Any
    ) -> None:
        if PartialState().num_processes == 1 or state.global_step % STEPS_BETWEEN_TALKS == 0:
            self.is_ending = self._agree()
        is_due = self.save_steps is not None and state.global_step % self.save_steps == 0
        # The last step of an epoch is saved after the epoch is measured, or a resumed run would not measure it.
        if (is_due or self.is_ending) and not float(state.epoch or 0).is_integer():
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **unused: Any) -> None:
        if self._agree():
            logger.warning(
                "Step %d of %d is saved in %s. The same command with --resume goes on.",
                state.global_step,
                state.max_steps,
                args.output_dir,
            )
            self._end(self.received or signal.SIGTERM)


class Progress(TrainerCallback):
    """Callback that prints where a run is, how long it will take, and how good it is."""

    def __init__(self) -> None:
        self.begun = 0.0
        self.first_step = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **unused: Any
    ) -> None:
        self.begun, self.first_step = time.monotonic(), state.global_step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **unused: Any
    ) -> None:
        if state.global_step == self.first_step + 1:  # a first guess, long before the first loss is logged
            self._say(state, f"step {state.global_step} of {state.max_steps}: {self._tell_time_left(state)}")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **unused: Any,
    ) -> None:
        if logs is not None and "loss" in logs:
            place = f"step {state.global_step} of {state.max_steps}, epoch {state.epoch:.2f}"
            losses = f"loss {logs['loss']:.4g}"
            if LOCALISATION_LOSS in logs:
                losses += f", localisation loss {logs[LOCALISATION_LOSS]:.4g}"
            self._say(state, f"{place}: {losses}, {self._tell_time_left(state)}")

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **unused: Any,
    ) -> None:
        name = args.metric_for_best_model or ""
        value = (metrics or {}).get(f"eval_{name}")
        if value is not None:
            choose = max if args.greater_is_better else min
            best = value if state.best_metric is None else choose(state.best_metric, value)
            self._say(state, f"epoch {state.epoch:.4g}: {name} {value:.4f}, best {best:.4f}")

    def _tell_time_left(self, state: TrainerState) -> str:
        """Tell the time that the remaining steps take at the pace so far, with evaluations and checkpoints."""
        pace = (time.monotonic() - self.begun) / (state.global_step - self.first_step)
        minutes, seconds = divmod(round(pace * (state.max_steps - state.global_step)), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02d}:{seconds:02d} left"

    @staticmethod
    def _say(state: TrainerState, text: str) -> None:
        if state.is_world_process_zero:
            print_line(text, file=sys.stderr)
