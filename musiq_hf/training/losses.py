# SPDX-License-Identifier: Apache-2.0
"""Losses on the order and the correlation of scores, beside the loss of the model."""

import torch
from torch.nn import functional as F


def rank_loss(better: torch.Tensor, worse: torch.Tensor) -> torch.Tensor:
    """Compute the logistic loss on pairs, the mean of `log(1 + exp(worse - better))`; the paper has none.

    Args:
        better: Predictions of the better pictures of the pairs, shape (num_pairs,).
        worse: Predictions of the worse pictures of the pairs, shape (num_pairs,).

    Returns:
        Scalar, > 0; `log(2)` if the predictions of every pair are equal.
    """
    return F.softplus(worse - better).mean()


def pairwise_rank_loss(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Compute `rank_loss` over all pairs of a batch whose targets differ; the paper has none.

    Args:
        predictions: Predicted scores, shape (batch_size,).
        targets: Opinion scores, shape (batch_size,), higher is better, in any unit.

    Returns:
        Scalar, >= 0; 0 if all targets are equal.
    """
    # A mask rather than a selection, so that shapes do not depend on the data and the step can be compiled.
    is_better = (targets[:, None] > targets[None, :]).to(predictions.dtype)
    losses = F.softplus(predictions[None, :] - predictions[:, None]) * is_better
    return losses.sum() / is_better.sum().clamp(min=1)


def range_loss(predictions: torch.Tensor, lowest: float, highest: float) -> torch.Tensor:
    """Compute the mean distance of predictions to a range; the paper has none.

    Args:
        predictions: Predicted scores, shape (batch_size,).
        lowest: Lower end of the range.
        highest: Upper end of the range.

    Returns:
        Scalar, >= 0; 0 if all predictions lie in the range.
    """
    return (F.relu(lowest - predictions) + F.relu(predictions - highest)).mean()


def consistency_loss(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Compute the mean absolute difference of the predictions of two views of each picture; the paper has none.

    Args:
        first: Predictions of the first views, shape (num_pairs,).
        second: Predictions of the second views, shape (num_pairs,).

    Returns:
        Scalar, >= 0.
    """
    return (first - second).abs().mean()


def plcc_loss(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Compute `(1 - correlation) / 2` from the Pearson correlation over a batch; the paper has no such loss.

    Args:
        predictions: Predicted scores, shape (batch_size,).
        targets: Opinion scores, shape (batch_size,), in any unit.

    Returns:
        Scalar in [0, 1]. It is 1/2, with gradient 0, if one side is constant, as it is for a single picture.
    """
    first, second = predictions - predictions.mean(), targets - targets.mean()
    norms = (first * first).sum() * (second * second).sum()
    # The root has an infinite slope at 0: constant predictions must give the gradient 0, not NaN.
    is_constant = norms < 1e-12
    roots = torch.where(is_constant, torch.ones_like(norms), norms).sqrt()
    correlation = (first * second).sum() / roots
    return (1 - torch.where(is_constant, torch.zeros_like(norms), correlation)) / 2
