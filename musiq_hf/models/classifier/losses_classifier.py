# SPDX-License-Identifier: Apache-2.0
"""Losses of opinion scores and of score distributions, and the way from logits to scores."""

import torch
from torch.nn import functional as F


def opinion_loss(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Compute the mean absolute error of opinion scores, the loss of MUSIQ's paper (section 3.5) for one label.

    Args:
        predictions: Predicted scores, shape (batch_size,).
        targets: Opinion scores in the same unit, shape (batch_size,).

    Returns:
        Scalar, >= 0.

    Raises:
        ValueError: If the shapes differ.
    """
    if predictions.shape != targets.shape:
        raise ValueError(
            f"`labels` must be one opinion score for each of {len(predictions)} pictures, got {tuple(targets.shape)}."
        )
    return F.l1_loss(predictions, targets)


def distribution_loss(logits: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Compute the earth mover's distance with r = 2 (NIMA, eq. 1; MUSIQ, eq. 3), the mean over the batch.

    Args:
        logits: Logits of the score values 1..n, shape (batch_size, n).
        counts: Votes or probabilities of these values, >= 0, shape (batch_size, n); rows need not add up to 1.

    Returns:
        Scalar in [0, 1].

    Raises:
        ValueError: If the shapes differ, or a row of counts is negative somewhere or zero everywhere.
    """
    if logits.shape != counts.shape:
        raise ValueError(
            f"`labels` must be distributions of shape {tuple(logits.shape)}, got {tuple(counts.shape)}. Give a count "
            "for each score value."
        )
    totals = counts.sum(dim=1, keepdim=True)
    if not (torch.compiler.is_compiling() or bool((counts >= 0).all() & (totals > 0).all())):  # NaN fails both
        raise ValueError("Each row of `labels` must hold counts >= 0 that are not all 0. Check the table of scores.")
    steps = logits.softmax(dim=1).cumsum(dim=1) - (counts / totals).cumsum(dim=1)
    squares = steps.square().mean(dim=1)
    # The slope of a root at 0 is infinite, and a perfect prediction must not give NaN.
    is_perfect = squares == 0
    return torch.where(is_perfect, squares, torch.where(is_perfect, 1.0, squares).sqrt()).mean()


def expect(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute expectation and standard deviation of the distributions over 1..n that logits (batch_size, n) give."""
    probabilities = logits.softmax(dim=1)
    values = torch.arange(1, logits.shape[1] + 1, dtype=logits.dtype, device=logits.device)
    # Not by a matrix product, which autocast would compute in half precision.
    mean = (probabilities * values).sum(dim=1)
    variance = (probabilities * (values - mean[:, None]).square()).sum(dim=1)
    return mean, variance.sqrt()


__all__ = ["distribution_loss", "expect", "opinion_loss"]
