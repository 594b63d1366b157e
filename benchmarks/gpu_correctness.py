# SPDX-License-Identifier: Apache-2.0
"""Agreement of a GPU with the CPU: scores in both types, packed against padded batches, and a training step."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.inputs import (
    Features,
    Size,
    in_type,
    make_array,
    make_features,
    make_model,
    pad_features,
    score_all,
    to_device,
)
from musiq_hf import DEFAULT_CHECKPOINT, MusiqConfig, MusiqForImageQualityAssessment, MusiqImageProcessor

FLOAT32_LIMIT, BFLOAT16_LIMIT = 1e-3, 0.5  # in points of a scale of 100
STEP_LIMIT = 1e-3  # relative
SPREAD = 10.0  # points of standard deviation that the scores of random weights are scaled to


@contextmanager
def _tf32_convolutions(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32, a float32 with 10 bits of mantissa, in the convolutions of GPUs for a while."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _make_row(name: str, value: float, limit: float) -> dict[str, Any]:
    return {"check": name, "largest_difference": value, "limit": limit, "agrees": value <= limit}


def _largest(x: torch.Tensor, y: torch.Tensor, unit: float = 1.0) -> float:
    return float((x.double().cpu() - y.double().cpu()).abs().max()) / unit


def compare_embedded(sizes: Sequence[Size], device: str) -> list[dict[str, Any]]:
    """Compare scores of the embedded checkpoint, from pixels, on a device and on the CPU; units are points."""
    processor = MusiqImageProcessor.from_pretrained(DEFAULT_CHECKPOINT)
    arrays = [make_array(*size, seed=seed) for seed, size in enumerate(sizes)]

    def score(device: str, dtype: torch.dtype) -> torch.Tensor:
        model = MusiqForImageQualityAssessment.from_pretrained(DEFAULT_CHECKPOINT).to(device).eval()
        return torch.tensor(score_all(arrays, model=in_type(model, dtype), processor=processor))

    exact = score("cpu", torch.float32)
    return [
        _make_row("embedded checkpoint, float32", _largest(score(device, torch.float32), exact), FLOAT32_LIMIT),
        _make_row("embedded checkpoint, bfloat16", _largest(score(device, torch.bfloat16), exact), BFLOAT16_LIMIT),
    ]


def compare_random(config: MusiqConfig, sizes: Sequence[Size], device: str) -> list[dict[str, Any]]:
    """Compare scores of random weights: device and CPU, alone and in a batch, packed and padded.

    Scores are scaled so that their standard deviation over the pictures is `SPREAD` points.
    """
    features = [make_features(config, *size, seed=seed) for seed, size in enumerate(sizes)]
    batch = to_device(pad_features(features), device)
    model = make_model(config)
    with torch.inference_mode():
        exact = torch.cat([model(**feature).scores for feature in features])
        unit = float(exact.std()) / SPREAD
        model = model.to(device)
        alone = torch.cat([model(**to_device(feature, device)).scores for feature in features])
        together = model(**batch).scores
        in_type(model, torch.bfloat16)
        packed = model(**batch).scores
        model.set_attn_implementation("eager")
        padded = model(**batch).scores
    return [
        _make_row("random weights, float32, one by one", _largest(alone, exact, unit), FLOAT32_LIMIT),
        _make_row("random weights, float32, batch of mixed sizes", _largest(together, exact, unit), FLOAT32_LIMIT),
        _make_row("random weights, bfloat16, packed", _largest(packed, exact, unit), BFLOAT16_LIMIT),
        _make_row("random weights, bfloat16, packed against padded", _largest(packed, padded, unit), BFLOAT16_LIMIT),
    ]


def _measure_step(config: MusiqConfig, batch: Features, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of a training step in float32, and all gradients in one vector."""
    model = make_model(config, device=device).train()
    labels = torch.linspace(0, 1, len(batch["pixel_values"]), device=device)
    loss = model(**to_device(batch, device), labels=labels).loss
    loss.backward()
    gradients = [parameter.grad.flatten().cpu() for parameter in model.parameters() if parameter.grad is not None]
    return loss.detach().cpu(), torch.cat(gradients)


def compare_training(config: MusiqConfig, sizes: Sequence[Size], device: str) -> list[dict[str, Any]]:
    """Compare loss and gradients of a training step on a device and on the CPU; differences are relative."""
    batch = pad_features([make_features(config, *size, seed=seed) for seed, size in enumerate(sizes)])
    (loss, gradients), (exact_loss, exact) = (_measure_step(config, batch, name) for name in (device, "cpu"))
    difference = float((gradients - exact).norm() / exact.norm())
    return [
        _make_row("training step, loss", _largest(loss, exact_loss, float(exact_loss)), STEP_LIMIT),
        _make_row("training step, gradients", difference, STEP_LIMIT),
    ]


def compare_all(config: MusiqConfig, sizes: Sequence[Size], device: str) -> dict[str, Any]:
    """Make all comparisons, as PyTorch computes by default and without TF32 in convolutions.

    Returns:
        `rows`, one for each check, and `failed`, the number of checks beyond their limit.
    """
    parts: list[Callable[[], list[dict[str, Any]]]] = [
        lambda: compare_embedded(sizes, device),
        lambda: compare_random(config, sizes, device),
        lambda: compare_training(config, sizes, device),
    ]
    rows = []
    for allowed in (True, False):
        with _tf32_convolutions(allowed):
            for part in parts:
                rows += [{"tf32_convolutions": allowed, **row} for row in part()]
    return {"rows": rows, "failed": sum(not row["agrees"] for row in rows)}
