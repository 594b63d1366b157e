# SPDX-License-Identifier: Apache-2.0
"""Whitening of features, a norm that whitens, and W-MSE, the loss of self-supervision by whitening.

W-MSE and its whitening are those of "Whitening for Self-Supervised Representation Learning" (Ermolov et al., ICML
2021). The norm is "Decorrelated Batch Normalization" (Huang et al., CVPR 2018) in the form of Song et al. (ICLR
2022). The published layer starts its scale at random and takes roots by Pade. Here the scale starts at 1, and roots
are exact by default.
"""

from itertools import combinations

import torch
from torch import nn
from torch.nn import functional as F

from ...models.covariance import add_to_diagonal, check_mask, masked_covariance, matrix_inverse_sqrt, widen

WHITENINGS = ("cholesky", "zca")


def whiten(features: torch.Tensor, *, method: str = "cholesky", eps: float = 0.0) -> torch.Tensor:
    """Whiten rows: centre and transform them, so that their covariance (divisor n - 1) is the identity.

    Args:
        features: Rows, floating, shape (..., n, e).
        method: "cholesky", a triangular transform, or "zca", the one that changes the rows least.
        eps: Share of the identity that is mixed into the covariance first: (1 - eps) C + eps I.

    Returns:
        Whitened rows in shape and type of the features. float16 and bfloat16 are computed in float32.

    Raises:
        ValueError: If the features are not floating rows, the method is unknown or `eps` is not in [0, 1]. Without
            `eps` also if there are no more than e rows, or features depend on each other.
    """
    if features.dim() < 2 or not features.is_floating_point():
        raise ValueError(
            f"`features` must be floating and have shape (..., n, e), got shape {tuple(features.shape)} of "
            f"{features.dtype}."
        )
    if method not in WHITENINGS:
        raise ValueError(f"`method` must be {' or '.join(map(repr, WHITENINGS))}, got {method!r}.")
    if not 0 <= eps <= 1:
        raise ValueError(f"`eps` must be from 0 to 1, got {eps}.")
    num_rows, size = features.shape[-2:]
    if num_rows < 2 or (eps == 0 and num_rows <= size):
        raise ValueError(
            f"Whitening {size} features needs more than {size} rows, got {num_rows}. Give more, or `eps` above 0."
        )
    with torch.autocast(features.device.type, enabled=False):
        centred = widen(features)
        centred = centred - centred.mean(dim=-2, keepdim=True)
        # Scaled after the product: of scaled rows with plain ones it is less symmetric, and ten times less exact.
        covariance = add_to_diagonal((centred.mT @ centred) * ((1 - eps) / (num_rows - 1)), eps)
        if method == "zca":
            return (centred @ matrix_inverse_sqrt(covariance)).to(features.dtype)
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if bool(failed.any()):
            raise ValueError("The features depend on each other, so nothing whitens them. Give `eps` above 0.")
        return torch.linalg.solve_triangular(factor, centred.mT, upper=False).mT.to(features.dtype)


class DecorrelatedNorm(nn.Module):
    """Norm that whitens groups of neighbouring channels over all real positions of a batch, then scales and shifts.

    In training mean and inverse root are those of the batch. In evaluation they are running averages: of the inverse
    roots, as published, not the inverse root of an average.

    Attributes:
        running_mean: Average of the means, shape (num_features,).
        running_matrix: Average of the inverse roots, shape (groups, num_features / groups, num_features / groups).
    """

    running_mean: torch.Tensor
    running_matrix: torch.Tensor

    def __init__(
        self, num_features: int, *, groups: int = 1, eps: float = 1e-2, momentum: float = 0.1, method: str = "eigh"
    ):
        """Make the norm.

        Args:
            num_features: Number of channels.
            groups: Number of groups.
            eps: Multiple of the identity that is added to covariances.
            momentum: Share of the batch in the new running averages.
            method: Method of `matrix_inverse_sqrt`. "pade" is the published one; at condition number 389 it is 11 %
                off.

        Raises:
            ValueError: If the groups do not divide the channels.
        """
        super().__init__()
        if groups < 1 or num_features % groups:
            raise ValueError(f"`groups` must divide the {num_features} channels, got {groups}.")
        self.groups, self.eps, self.momentum, self.method = groups, eps, momentum, method
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        size = num_features // groups
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_matrix", torch.eye(size).repeat(groups, 1, 1))

    def _measure(self, rows: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and inverse root of rows (M, groups, size), and move the running averages."""
        mean = torch.where(real, rows, 0.0).sum(dim=0) / real.sum().clamp(min=1)
        mask = real[None, :, 0, 0].expand(self.groups, -1)
        covariance = masked_covariance(rows.transpose(0, 1), mask, eps=self.eps)
        matrix = matrix_inverse_sqrt(covariance, method=self.method)
        with torch.no_grad():
            self.running_mean.lerp_(mean.flatten().to(self.running_mean.dtype), self.momentum)
            self.running_matrix.lerp_(matrix.to(self.running_matrix.dtype), self.momentum)
        return mean, matrix

    def forward(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Normalise features (..., num_features); padding contributes nothing and comes out as the bias.

        Args:
            features: Features, channels last.
            mask: 1 or True = real position, shape (...). None = all real.

        Returns:
            Normalised features in shape and type of the features. float16 and bfloat16 are computed in float32.

        Raises:
            ValueError: If there are other channels, the mask has another shape, or the method is unknown.
        """
        if features.dim() < 1 or features.shape[-1] != len(self.weight):
            raise ValueError(
                f"{len(self.weight)} channels, the last axis, were expected, got {tuple(features.shape)}."
            )
        check_mask(mask, features.shape[:-1])
        with torch.autocast(features.device.type, enabled=False):
            rows = widen(features).reshape(-1, self.groups, len(self.weight) // self.groups)
            real = torch.ones_like(rows[:, :1, :1], dtype=torch.bool)
            if mask is not None:
                real = mask.reshape(-1, 1, 1).bool()
            if self.training:
                mean, matrix = self._measure(rows, real)
            else:
                mean, matrix = (
                    self.running_mean.to(rows.dtype).view(rows.shape[1:]),
                    self.running_matrix.to(rows.dtype),
                )
            centred = torch.where(real, rows - mean, 0.0)
            whitened = torch.einsum("mgi,gij->mgj", centred, matrix).reshape(features.shape)
            return (whitened * self.weight + self.bias).to(features.dtype)


def w_mse_loss(
    embeddings: torch.Tensor,
    *,
    sub_batch: int | None = None,
    num_slicings: int = 1,
    eps: float = 0.0,
    permutations: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute W-MSE: 2 - 2 cos of the whitened embeddings of two views, as the mean over pictures and pairs of views.

    Rows are dealt into slices, the same for every view, and each slice of each view is whitened on its own. The
    authors take slices of at least 2 e rows. With several processes every one takes the loss of its own rows.

    Args:
        embeddings: Embeddings of the views of n pictures, floating, shape (views, n, e).
        sub_batch: Rows of a slice, which divide n. None = all n.
        num_slicings: Number of times that the rows are dealt, for a mean over them.
        eps: Share of the identity in the covariances, as in `whiten`.
        permutations: Orders in which rows are dealt, int64, shape (num_slicings, n). None = torch's generator draws.

    Returns:
        Scalar in [0, 4], float32 or wider: 0 for equal views, about 2 for unrelated ones.

    Raises:
        ValueError: If there are fewer than two views, slices do not divide the rows or have too few for whitening, or
            the permutations have another shape.
    """
    if embeddings.dim() != 3 or len(embeddings) < 2 or not embeddings.is_floating_point():
        raise ValueError(
            "`embeddings` must be floating and have shape (views, n, e) with two views or more, got "
            f"{tuple(embeddings.shape)} of {embeddings.dtype}."
        )
    num_views, num_rows, _ = embeddings.shape
    sub_batch = num_rows if sub_batch is None else sub_batch
    if sub_batch < 1 or num_rows % sub_batch:
        raise ValueError(f"`sub_batch` must divide the {num_rows} rows, got {sub_batch}.")
    if num_slicings < 1:
        raise ValueError(f"`num_slicings` must be at least 1, got {num_slicings}.")
    if permutations is None:
        permutations = torch.stack([torch.randperm(num_rows) for _ in range(num_slicings)])
    elif permutations.shape != (num_slicings, num_rows):
        raise ValueError(
            f"`permutations` must have shape {(num_slicings, num_rows)}, got {tuple(permutations.shape)}."
        )
    # (views, slicings, n, e) -> (views, slicings * n / w, w, e)
    dealt = widen(embeddings)[:, permutations.to(embeddings.device)]
    slices = whiten(dealt.reshape(num_views, -1, sub_batch, embeddings.shape[-1]), eps=eps)
    directions = F.normalize(slices, dim=-1)
    pairs = list(combinations(range(num_views), 2))
    cosines = torch.stack([(directions[one] * directions[other]).sum(dim=-1).mean() for one, other in pairs])
    return 2 - 2 * cosines.mean()
