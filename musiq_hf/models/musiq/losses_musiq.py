# SPDX-License-Identifier: Apache-2.0
"""Losses of section 4.2: L1 on opinion scores and the earth mover's distance on score distributions (eq. 3)."""

import torch
from torch.nn import functional as F


def l1_loss(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute error, the paper's loss on opinion scores.

    Args:
        predictions: Shape (batch_size,).
        targets: Shape (batch_size,), in the unit of the predictions.

    Returns:
        Scalar, >= 0.

    Raises:
        ValueError: If the shapes differ; broadcasting would compare every prediction with every target.
    """
    if predictions.shape != targets.shape:
        raise ValueError(
            f"Labels of opinion scores must have shape {tuple(predictions.shape)}, got {tuple(targets.shape)}. "
            "Give one MOS per picture."
        )
    return F.l1_loss(predictions, targets)


def emd_loss(probabilities: torch.Tensor, targets: torch.Tensor, *, exponent: float = 2.0) -> torch.Tensor:
    """Return the earth mover's distance between score distributions (eq. 3), averaged over the batch.

    Args:
        probabilities: Shape (batch_size, num_bins), rows adding up to 1.
        targets: Counts or probabilities, shape (batch_size, num_bins), >= 0. Rows need not add up to 1.
        exponent: Exponent r of eq. 3; the paper trains with 2.

    Returns:
        Scalar, >= 0; it is 0 if both are equal.

    Raises:
        ValueError: If the shapes differ, or a target has a negative entry or is all zeros.
    """
    if probabilities.shape != targets.shape:
        raise ValueError(
            f"Labels of score distributions must have shape {tuple(probabilities.shape)}, got {tuple(targets.shape)}. "
            "Give one count or probability per score value."
        )
    totals = targets.sum(dim=-1, keepdim=True)
    if not (torch.compiler.is_compiling() or bool((targets >= 0).all() & (totals > 0).all())):  # NaN fails both
        raise ValueError(
            "A target score distribution must have entries >= 0 and a sum > 0, got another. Check its row."
        )
    distances = (probabilities.cumsum(-1) - (targets / totals).cumsum(-1)).abs().pow(exponent)
    means = distances.mean(dim=-1)
    # The root has an infinite slope at 0: a perfect prediction must give the gradient 0, not NaN.
    roots = torch.where(means > 0, means, torch.ones_like(means)).pow(1.0 / exponent)
    return torch.where(means > 0, roots, torch.zeros_like(means)).mean()
