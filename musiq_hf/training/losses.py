# SPDX-License-Identifier: Apache-2.0
"""Losses on the order and the correlation of scores, beside the loss of the model."""

import torch
from torch.nn import functional as F


def rank_loss(better: torch.Tensor, worse: torch.Tensor) -> torch.Tensor:
    """Logistic loss on pairs: log(1 + exp(worse - better)), averaged. Not in the paper.

    Args:
        better: Predictions of the better pictures of the pairs, shape (num_pairs,).
        worse: Predictions of the worse ones, shape (num_pairs,).

    Returns:
        Scalar, > 0; log 2 if the two cannot be told apart.
    """
    return F.softplus(worse - better).mean()


def pairwise_rank_loss(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """`rank_loss` over all pairs of a batch whose targets differ. Not in the paper.

    Args:
        predictions: Shape (batch_size,).
        targets: Shape (batch_size,), higher is better, in any unit.

    Returns:
        Scalar, >= 0; 0 if all targets are equal.
    """
    # Masked rather than selected: the shapes do not depend on the data.
    is_better = (targets[:, None] > targets[None, :]).to(predictions.dtype)
    losses = F.softplus(predictions[None, :] - predictions[:, None]) * is_better
    return losses.sum() / is_better.sum().clamp(min=1)


def plcc_loss(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(1 - Pearson correlation) / 2 over a batch. Not in the paper.

    Args:
        predictions: Shape (batch_size,).
        targets: Shape (batch_size,), in any unit.

    Returns:
        Scalar in [0, 1]; 1/2, with gradient 0, if one side is constant, as for a single picture.
    """
    first, second = predictions - predictions.mean(), targets - targets.mean()
    norms = (first * first).sum() * (second * second).sum()
    # The root has an infinite slope at 0: constant predictions must give the gradient 0, not NaN.
    is_constant = norms < 1e-12
    roots = torch.where(is_constant, torch.ones_like(norms), norms).sqrt()
    correlation = (first * second).sum() / roots
    return (1 - torch.where(is_constant, torch.zeros_like(norms), correlation)) / 2
