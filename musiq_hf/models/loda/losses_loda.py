# SPDX-License-Identifier: Apache-2.0
"""Loss of LoDa on the correlation within a batch, as in its published code."""

import torch
from torch import distributed
from torch.distributed.nn import functional as distributed_functional
from torch.nn import functional as F

EPS = 1e-8  # as in the published code


def _standardize(values: torch.Tensor) -> torch.Tensor:
    """Return values less their mean, by their biased standard deviation; equal values are zeros without gradient."""
    centred = values - values.mean()
    variance = centred.square().mean()
    is_flat = (values.amax() == values.amin()) | (variance == 0)
    deviation = torch.where(is_flat, torch.ones_like(variance), variance).sqrt()
    return torch.where(is_flat, torch.zeros_like(values), centred / (deviation + EPS))


def loda_loss(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Compute the loss of LoDa: (1 - rho) / 4 + (1 - rho^2) / 8 of the linear correlation rho within a batch.

    It fixes neither unit nor origin of the predictions. Its gradient by rho is -(1 + rho) / 4, so it vanishes at
    rho = -1. The published code has a gradient of 6e6 for equal predictions; here it is 0.

    Args:
        predictions: Predictions of a batch, shape (m,).
        targets: Opinion scores in any unit, shape (m,).

    Returns:
        Scalar in [0, 0.5]; 0.25 for equal predictions, 0.125 for equal targets.

    Raises:
        ValueError: If the shapes differ, or are none of m numbers.
    """
    if predictions.dim() != 1 or predictions.shape != targets.shape or not len(predictions):
        raise ValueError(
            "`predictions` and `targets` must have one shape (m,), with m of at least 1, got "
            f"{tuple(predictions.shape)} and {tuple(targets.shape)}."
        )
    predicted, wanted = _standardize(predictions), _standardize(targets)
    correlation = (predicted * wanted).mean()
    return (F.mse_loss(predicted, wanted) + F.mse_loss(correlation * predicted, wanted)) / 8


def gather_batch(*parts: torch.Tensor) -> list[torch.Tensor]:
    """Join the parts of a batch that is spread over processes, so that the loss compares all of its pictures.

    Gradients flow back to the process that each value comes from. Their mean over the processes, which data-parallel
    training takes, is the gradient of the loss of the whole batch.

    Args:
        *parts: Tensors of this process, of the same shapes in every process.

    Returns:
        Tensors of all processes, joined along the first axis; in a single process those that were given.
    """
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return list(parts)
    return [torch.cat(distributed_functional.all_gather(part.contiguous())) for part in parts]


__all__ = ["gather_batch", "loda_loss"]
