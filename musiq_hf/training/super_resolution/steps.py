# SPDX-License-Identifier: Apache-2.0
"""Steps of a training of super-resolution: model, rates, clock and loop."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, send_to_device

from ...common.devices import without_accelerator
from ...models import FAMILIES
from ...scoring.loading import load_enlarging
from ..starting import check_architecture
from .material import draw_batch
from .settings import Recipe, SuperResolutionSettings
from .state import read_state, write_state

MSIT = FAMILIES["msit"]
SECONDS_BETWEEN_LINES = 20
SECONDS_BETWEEN_STATES = 60


def make_model(settings: SuperResolutionSettings) -> Any:
    """Make a model to begin with.

    A new one begins as bilinear interpolation, and one of the second stage as that of the first.

    Raises:
        ValueError: If the checkpoint of the first stage cannot be used, or the architecture is impossible.
    """
    kind: Any = MSIT.upscaler
    if settings.rim_from is not None:
        model: Any = load_enlarging(settings.rim_from)[0]
        if model.config.use_rim:
            raise ValueError(
                f"{settings.rim_from} has refined kernels already. Give a checkpoint of the first stage as `rim_from`."
            )
        model.add_rim()
        return model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        check_architecture(MSIT, settings.architecture)
        return kind(MSIT.config(**{**settings.plan.architecture, "use_rim": False, **settings.architecture}))


def choose_rate(recipe: Recipe, progress: float) -> float:
    """Return the learning rate at a part of the training: a linear rise, then a cosine down to 0."""
    warmup = recipe.warmup_fraction
    if progress < warmup:
        return recipe.learning_rate * (recipe.warmup_start + (1 - recipe.warmup_start) * progress / warmup)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


class Clock:
    """Part of a training that is over, by the number of steps or by the time.

    Args:
        settings: Settings of the training.
        seconds: Time that its earlier runs took.
    """

    def __init__(self, settings: SuperResolutionSettings, seconds: float = 0.0):
        self.minutes, self.steps = settings.length
        self.begin = time.monotonic() - seconds

    @property
    def seconds(self) -> float:
        """Time of the training until now."""
        return time.monotonic() - self.begin

    def measure(self, step: int) -> float:
        """Return the part that is over before a step; 1 or more = the training is done."""
        if self.steps is not None:
            return step / self.steps
        assert self.minutes is not None
        return self.seconds / (60 * self.minutes)


def draw_batches(
    settings: SuperResolutionSettings, windows: Sequence[np.ndarray], *, first: int, process: int
) -> Iterator[dict[str, Any]]:
    """Yield the batches of a process from a step on, each of which is made while the one before is computed."""

    def draw(step: int) -> dict[str, Any]:
        seed = (settings.seed, process, step)
        return draw_batch(windows, settings.plan, max_scale=settings.max_scale, seed=seed)

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(draw, first)
        while True:
            first += 1
            batch, coming = coming, pool.submit(draw, first)
            yield batch.result()


class _Run:
    """Training that is going on in this process.

    Args:
        settings: Settings of the training.
        windows: Pixels of photographs.
    """

    def __init__(self, settings: SuperResolutionSettings, windows: Sequence[np.ndarray]):
        self.settings = settings
        self.accelerator = Accelerator(cpu=without_accelerator())
        self.inner = make_model(settings).to(memory_format=torch.channels_last)  # a third faster in bfloat16
        trained = [weight for weight in self.inner.parameters() if weight.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=settings.plan.learning_rate)
        self.step, seconds = 0, 0.0
        state = read_state(settings)
        if state is not None:
            self.inner.load_state_dict(state["model"])
            self.step, seconds = state["step"], state["seconds"]
        self.model, self.optimizer = self.accelerator.prepare(self.inner, optimizer)
        if state is not None:
            self.optimizer.load_state_dict(state["optimizer"])
        batches = draw_batches(settings, windows, first=self.step, process=self.accelerator.process_index)
        self.batches = (send_to_device(batch, self.accelerator.device) for batch in batches)
        self.clock = Clock(settings, seconds)

    @property
    def progress(self) -> float:
        """Part of the training that is over, as the first process has it."""
        own = torch.tensor(self.clock.measure(self.step), dtype=torch.float64, device=self.accelerator.device)
        return float(broadcast(own))

    def take_step(self, progress: float) -> float:
        """Take a step at a part of the training, and return its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = choose_rate(self.settings.plan, progress)
        loss = self.model(**next(self.batches)).loss
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.optimizer.step()
        self.step += 1
        return float(loss.item())

    def save(self) -> None:
        """Write the state; the first process alone does so."""
        if self.accelerator.is_main_process:
            parts = {"model": self.inner.state_dict(), "optimizer": self.optimizer.state_dict()}
            write_state(self.settings, {**parts, "step": self.step, "seconds": self.clock.seconds})


def train_model(
    settings: SuperResolutionSettings, windows: Sequence[np.ndarray], *, report: Callable[[str], None] = print
) -> tuple[Any, int]:
    """Train a model, and return it in evaluation mode on its device, with the number of its steps.

    The state is written to the folder of the settings every minute. With `resume` the training goes on from there. If
    its length is a number of steps, the weights are those of a training that was never interrupted.

    Args:
        settings: Settings of the training.
        windows: Pixels of photographs; see `cut_windows`.
        report: Function that is told now and then how far the training is, in the first process alone.
    """
    run = _Run(settings, windows)
    tell = report if run.accelerator.is_main_process else lambda line: None
    losses: deque[float] = deque(maxlen=100)
    said = saved = time.monotonic()
    run.model.train()
    while (progress := run.progress) < 1:
        losses.append(run.take_step(progress))
        now = time.monotonic()
        if now - saved > SECONDS_BETWEEN_STATES:
            run.save()
            saved = now
        if now - said > SECONDS_BETWEEN_LINES:
            tell(f"{progress:4.0%}, step {run.step}, loss {np.mean(losses):.4f}")
            said = now
    run.save()
    tell(f"{run.step} steps, {run.clock.seconds / 60:.1f} minutes, loss {np.mean(losses or [math.nan]):.4f}")
    return run.inner.eval(), run.step
