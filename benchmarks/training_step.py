# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning step: tokens per second and memory, with and without gradient checkpointing and torch.compile."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from benchmarks.inputs import Features, make_features, make_model, pad_features, to_device
from benchmarks.measure import DTYPES, interleave, peak_above, synchronize
from benchmarks.operations import training_operations
from musiq_hf import MusiqConfig, MusiqForImageQualityAssessment

# Switches of each variant: type of automatic mixed precision, gradient checkpointing, torch.compile.
VARIANTS = {
    "float32": ("float32", False, False),
    "float32, checkpointing": ("float32", True, False),
    "float32, compiled": ("float32", False, True),
    "bfloat16": ("bfloat16", False, False),
    "bfloat16, checkpointing": ("bfloat16", True, False),
    "bfloat16, compiled": ("bfloat16", False, True),
}


@dataclass(frozen=True)
class TrainingSpec:
    """Training steps that one process measures.

    Attributes:
        variant: Name in `VARIANTS`.
        width: Columns of every picture of the batch, in pixels; all sequences are equally long.
        height: Rows of every picture, in pixels.
        batch_size: Number of pictures per step.
        repeats: Number of timed steps.
        threads: Number of threads of torch.
        device: Device of the model.
        budget: Seconds after which no further step begins; None = no limit.
        config: Fields of `MusiqConfig` that differ from its defaults.
    """

    variant: str
    width: int
    height: int
    batch_size: int
    repeats: int
    threads: int
    device: str = "cpu"
    budget: float | None = None
    config: dict[str, Any] = field(default_factory=dict)


def make_step(
    model: MusiqForImageQualityAssessment, batch: Features, labels: torch.Tensor, *, variant: str
) -> Callable[[], float]:
    """Make a function that does one step of AdamW and returns the loss."""
    precision, checkpointing, compiled = VARIANTS[variant]
    model.train()
    if checkpointing:
        name = "activation_checkpointing_enable"  # which came with Transformers 5.23
        getattr(model, name if hasattr(model, name) else "gradient_checkpointing_enable")()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    forward = torch.compile(model) if compiled else model
    device = model.device.type

    def step() -> float:
        with torch.autocast(device, dtype=DTYPES[precision], enabled=precision != "float32"):
            loss: torch.Tensor = forward(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def measure_training(spec: TrainingSpec) -> dict[str, Any]:
    """Measure training steps in this process, which should be fresh.

    Returns:
        Median time of a step, tokens and useful operations per second, peak memory above the loaded model (optimizer
        state, gradients and activations), and the time of the first step, in which torch.compile compiles.

    Raises:
        ValueError: If the variant is unknown.
    """
    if spec.variant not in VARIANTS:
        raise ValueError(f"`variant` must be one of {tuple(VARIANTS)}, got {spec.variant}.")
    torch.set_num_threads(spec.threads)
    config = MusiqConfig(**spec.config)
    model = make_model(config, device=spec.device)
    features = [make_features(config, spec.width, spec.height, seed=seed) for seed in range(spec.batch_size)]
    batch, labels = to_device(pad_features(features), spec.device), torch.rand(spec.batch_size, device=spec.device)
    tokens = batch["pixel_attention_mask"].sum().item()
    step = make_step(model, batch, labels, variant=spec.variant)
    on_gpu = torch.device(spec.device).type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(spec.device)
    loaded = torch.cuda.memory_allocated(spec.device) if on_gpu else 0

    def first_steps() -> float:
        start = time.perf_counter()
        step()
        synchronize(spec.device)
        first = time.perf_counter() - start
        step()  # the first step with the optimizer's state in memory
        return first

    first, peak = peak_above(first_steps)
    if on_gpu:
        peak = torch.cuda.max_memory_allocated(spec.device) - loaded
    timing = interleave({"step": step}, repeats=spec.repeats, warmups=0, device=spec.device, budget=spec.budget)
    seconds = timing["step"]["median"]
    useful = spec.batch_size * training_operations(config, int(tokens) // spec.batch_size)
    return {
        "timing": timing["step"],
        "first_step_seconds": first,
        "tokens_per_second": tokens / seconds,
        "operations_per_second": useful / seconds,
        "peak_bytes": peak,
        **asdict(spec),
    }
