# SPDX-License-Identifier: Apache-2.0
"""Eigenvalues of many small symmetric matrices at once, in plain operations of PyTorch, for devices without LAPACK.

The problem is that of "Batch-efficient EigenDecomposition for Small and Medium Matrices" (Song et al., ECCV 2022). The
published solver by QR is wrong for many matrices: of the identity it makes zeros. This one rotates as Jacobi did.
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ...models.covariance import check_square, widen

SMALLEST_GAP = 1e-6  # eigenvalues count as equal below this difference, relative to the largest


def order_next_round(size: int, device: torch.device) -> torch.Tensor:
    """Return the order that brings the next pairs of a tournament together: index i meets index size / 2 + i.

    The first index stays and the others move on by one, so that after size - 1 rounds all are back.
    """
    half = size // 2
    if half == 1:
        return torch.arange(size, device=device)
    order = [0, half, *range(1, half - 1), *range(half + 1, size), half - 1]
    return torch.tensor(order, device=device)


class _Rounds:
    """Rotations of all pairs of a round, as one product; it also brings the pairs of the next round together.

    Attributes:
        size: Side d of the matrices, even.
        rotation: Places of cosines, sines and negative sines in a flattened rotation.
        diagonal: Places of the rotated diagonal in a flattened matrix.
        pairs: Places of the entries that become zero.
    """

    def __init__(self, size: int, device: torch.device):
        self.size, half = size, size // 2
        to = order_next_round(size, device).argsort()  # new place of each index
        first, second = torch.arange(half, device=device), torch.arange(half, size, device=device)
        rows = torch.cat((first, second, first, second))
        self.rotation = rows * size + torch.cat((to, to[second], to[first]))
        self.diagonal = to * (size + 1)
        self.pairs = torch.cat((to[first] * size + to[second], to[second] * size + to[first]))

    def rotate(self, matrices: torch.Tensor, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Make the entries (i, d / 2 + i) of matrices (b, d, d) zero, and rotate the vectors too."""
        entry = matrices.diagonal(self.size // 2, dim1=1, dim2=2)
        low, high = matrices.diagonal(dim1=1, dim2=2).chunk(2, dim=1)
        is_zero = entry == 0
        ratio = (high - low) / (2 * entry.masked_fill(is_zero, 1))
        tangent = torch.where(ratio < 0, -1, 1) / (ratio.abs() + (1 + ratio * ratio).sqrt())
        tangent = tangent.masked_fill(is_zero, 0)
        cosine = (1 + tangent * tangent).rsqrt()
        sine = tangent * cosine
        rotation = torch.zeros_like(matrices)
        rotation.flatten(1)[:, self.rotation] = torch.cat((cosine, cosine, sine, -sine), dim=1)
        rotated = rotation.mT @ matrices @ rotation
        flat = rotated.flatten(1)
        flat[:, self.diagonal] = torch.cat((low - tangent * entry, high + tangent * entry), dim=1)
        flat[:, self.pairs] = 0
        return rotated, vectors @ rotation


def decompose(matrices: torch.Tensor, max_sweeps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ascending eigenvalues (b, d) and the eigenvectors (b, d, d) of symmetric matrices (b, d, d).

    Raises:
        ValueError: If entries off the diagonal are left.
    """
    size = matrices.shape[-1]
    even = size + size % 2  # zeros that are added to an odd size are never rotated
    matrices = F.pad(matrices, (0, even - size, 0, even - size))
    vectors = torch.eye(even, dtype=matrices.dtype, device=matrices.device).repeat(len(matrices), 1, 1)
    rounds = _Rounds(even, matrices.device)
    for _ in range(max_sweeps + 1):
        diagonal = matrices.diagonal(dim1=1, dim2=2)
        rest = (matrices - torch.diag_embed(diagonal)).abs().amax(dim=(1, 2))
        if bool((rest <= torch.finfo(matrices.dtype).eps * diagonal.abs().amax(dim=1)).all()):
            values, places = diagonal[:, :size].sort(dim=-1)
            return values, vectors[:, :size, :size].gather(2, places[:, None].expand(-1, size, -1))
        for _ in range(even - 1):
            matrices, vectors = rounds.rotate(matrices, vectors)
    raise ValueError(
        f"{max_sweeps} sweeps were not enough for these matrices. Give finite ones, or a larger `max_sweeps`."
    )


class _Eigh(torch.autograd.Function):
    """Decomposition whose gradient leaves out pairs of eigenvalues that are as good as equal, so that it is finite."""

    @staticmethod
    def forward(ctx: Any, matrices: torch.Tensor, max_sweeps: int) -> tuple[torch.Tensor, torch.Tensor]:
        values, vectors = decompose(matrices, max_sweeps)
        ctx.save_for_backward(values, vectors)
        return values, vectors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_values: torch.Tensor, of_vectors: torch.Tensor) -> tuple[torch.Tensor, None]:
        values, vectors = ctx.saved_tensors
        gaps = values[:, None, :] - values[:, :, None]
        is_equal = gaps.abs() <= SMALLEST_GAP * values.abs().amax(dim=-1)[:, None, None]
        factors = torch.where(is_equal, torch.zeros_like(gaps), 1 / gaps)
        inner = torch.diag_embed(of_values) + factors * (vectors.mT @ of_vectors)
        return vectors @ inner @ vectors.mT, None


def batched_eigh(matrices: torch.Tensor, *, max_sweeps: int = 15) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute eigenvalues and eigenvectors of symmetric matrices by Jacobi rotations of the whole batch.

    A round of a sweep makes d / 2 entries of every matrix zero. Sweeps end when the largest entry off the diagonal
    is below the precision of the largest one on it. On CPUs this is slower than `torch.linalg.eigh`, see
    `docs/matrix_functions.md`.

    Args:
        matrices: Matrices, shape (..., d, d). Only their symmetric part counts.
        max_sweeps: Number of sweeps after which the matrices are given up.

    Returns:
        Ascending eigenvalues (..., d) and orthonormal eigenvectors (..., d, d), a column each, in the type of the
        matrices. float16 and bfloat16 are computed in float32. Gradients leave out pairs of eigenvalues that differ
        by less than 1e-6 of the largest: their vectors are not determined.

    Raises:
        ValueError: If the matrices are not square or not floating, or the sweeps were not enough.
    """
    check_square(matrices)
    with torch.autocast(matrices.device.type, enabled=False):
        wide = widen(matrices)
        wide = ((wide + wide.mT) / 2).reshape(-1, *matrices.shape[-2:])
        values, vectors = _Eigh.apply(wide, max_sweeps)
        shape, dtype = matrices.shape, matrices.dtype
        return values.reshape(shape[:-1]).to(dtype), vectors.reshape(shape).to(dtype)
