# SPDX-License-Identifier: Apache-2.0
"""Agreement of a GPU with the CPU: scores in both types, packed against padded batches, and a training step.

Scores are computed as PyTorch is set by default. Training takes TF32 in convolutions then; here it does not.
"""

from collections.abc import Sequence
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
ROUNDING_LIMIT = 2.0  # how many times as far as the CPU in bfloat16 a GPU may be from float32
STEP_LIMIT = 1e-3  # relative
SPREAD = 10.0  # points of standard deviation that the scores of random weights are scaled to


def _make_row(name: str, value: float, limit: float) -> dict[str, Any]:
    return {"check": name, "largest_difference": value, "limit": limit, "agrees": value <= limit}


def _largest(x: torch.Tensor, y: torch.Tensor, unit: float = 1.0) -> float:
    return float((x.double().cpu() - y.double().cpu()).abs().max()) / unit


def compare_trained(sizes: Sequence[Size], device: str) -> list[dict[str, Any]]:
    """Compare scores of the default checkpoint, from pixels, on a device and on the CPU; units are points."""
    processor = MusiqImageProcessor.from_pretrained(DEFAULT_CHECKPOINT)
    arrays = [make_array(*size, seed=seed) for seed, size in enumerate(sizes)]

    def score(device: str, dtype: torch.dtype) -> torch.Tensor:
        model = MusiqForImageQualityAssessment.from_pretrained(DEFAULT_CHECKPOINT).to(device).eval()
        return torch.tensor(score_all(arrays, model=in_type(model, dtype), processor=processor))

    exact = score("cpu", torch.float32)
    return [
        _make_row(f"{DEFAULT_CHECKPOINT.name}, float32", _largest(score(device, torch.float32), exact), FLOAT32_LIMIT),
        _make_row(
            f"{DEFAULT_CHECKPOINT.name}, bfloat16", _largest(score(device, torch.bfloat16), exact), BFLOAT16_LIMIT
        ),
    ]


def compare_random(config: MusiqConfig, sizes: Sequence[Size], device: str) -> list[dict[str, Any]]:
    """Compare scores of random weights: device and CPU, alone and in a batch, packed and padded.

    Scores are scaled so that their standard deviation over the pictures is `SPREAD` points. In bfloat16 random weights
    are no measure for the rounding of trained ones, so a GPU's distance from float32 is compared with the CPU's.
    """
    features = [make_features(config, *size, seed=seed) for seed, size in enumerate(sizes)]
    batch = to_device(pad_features(features), device)
    model, rounded = make_model(config), in_type(make_model(config), torch.bfloat16)
    with torch.inference_mode():
        exact = torch.cat([model(**feature).scores for feature in features])
        unit = float(exact.std()) / SPREAD
        rounding = (torch.cat([rounded(**feature).scores for feature in features]) - exact).square().mean().sqrt()
        model, rounded = model.to(device), rounded.to(device)
        alone = torch.cat([model(**to_device(feature, device)).scores for feature in features])
        together = model(**batch).scores
        packed = rounded(**batch).scores
        rounded.set_attn_implementation("eager")
        padded = rounded(**batch).scores
    on_device = (packed.cpu() - exact).square().mean().sqrt()
    return [
        _make_row("random weights, float32, one by one", _largest(alone, exact, unit), FLOAT32_LIMIT),
        _make_row("random weights, float32, batch of mixed sizes", _largest(together, exact, unit), FLOAT32_LIMIT),
        _make_row("random weights, bfloat16, packed against padded", _largest(packed, padded, unit), BFLOAT16_LIMIT),
        _make_row("random weights, bfloat16, rounding to the CPU's", float(on_device / rounding), ROUNDING_LIMIT),
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
    """Make all comparisons.

    Returns:
        `rows`, one for each check, and `failed`, the number of checks beyond their limit.
    """
    rows = [*compare_trained(sizes, device), *compare_random(config, sizes, device)]
    default = torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = False
        rows += compare_training(config, sizes, device)
    finally:
        torch.backends.cudnn.allow_tf32 = default
    return {"rows": rows, "failed": sum(not row["agrees"] for row in rows)}
