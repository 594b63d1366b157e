# SPDX-License-Identifier: Apache-2.0
"""Loss of LoDa on the correlation within a batch, as in its published code."""

import torch
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


__all__ = ["loda_loss"]
