# SPDX-License-Identifier: Apache-2.0
"""Eigenvalues of many small symmetric matrices at once, in plain operations of PyTorch, for devices without LAPACK.

The problem is that of "Batch-efficient EigenDecomposition for Small and Medium Matrices" (Song et al., ECCV 2022). The
published solver by QR is wrong for many matrices: of the identity it makes zeros. This one rotates as Jacobi did.
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from ...models.covariance import check_square, widen

SMALLEST_GAP = 1e-6  # eigenvalues count as equal below this difference, relative to the largest


def list_rounds(size: int, device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """List the rounds of a tournament in which every index meets every other one once, as firsts and seconds."""
    players = list(range(size + size % 2))
    rounds = []
    for _ in players[1:]:
        half = len(players) // 2
        pairs = zip(players[:half], reversed(players[half:]), strict=True)
        met = [sorted(pair) for pair in pairs if max(pair) < size]  # with an odd size one has nobody to meet
        meetings = torch.tensor(met, dtype=torch.int64, device=device).reshape(-1, 2)
        rounds.append((meetings[:, 0], meetings[:, 1]))
        players = [players[0], players[-1], *players[1:-1]]
    return rounds


def rotate_pairs(matrices: torch.Tensor, vectors: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> None:
    """Make the entries (first, second) of matrices (b, d, d) zero by rotations in place; rotate the vectors too."""
    entry, low, high = matrices[:, first, second], matrices[:, first, first], matrices[:, second, second]
    is_zero = entry == 0
    ratio = (high - low) / (2 * torch.where(is_zero, torch.ones_like(entry), entry))
    sign = torch.where(ratio < 0, -1.0, 1.0).to(ratio.dtype)
    tangent = torch.where(
        is_zero, torch.zeros_like(ratio), sign / (ratio.abs() + torch.hypot(ratio, torch.ones_like(ratio)))
    )
    cosine = (1 + tangent * tangent).rsqrt()
    sine = tangent * cosine
    for target in (vectors, matrices, matrices.mT):
        left, right = target[:, :, first], target[:, :, second]
        target[:, :, first] = cosine[:, None] * left - sine[:, None] * right
        target[:, :, second] = sine[:, None] * left + cosine[:, None] * right
    matrices[:, first, second] = matrices[:, second, first] = 0
    matrices[:, first, first] = low - tangent * entry
    matrices[:, second, second] = high + tangent * entry


def decompose(matrices: torch.Tensor, max_sweeps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ascending eigenvalues (b, d) and the eigenvectors (b, d, d) of symmetric matrices (b, d, d).

    Raises:
        ValueError: If entries off the diagonal are left.
    """
    matrices = matrices.clone()
    vectors = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device).repeat(len(matrices), 1, 1)
    rounds = list_rounds(matrices.shape[-1], matrices.device)
    for _ in range(max_sweeps + 1):
        diagonal = matrices.diagonal(dim1=-2, dim2=-1)
        largest = diagonal.abs().amax(dim=-1)
        rest = (matrices - torch.diag_embed(diagonal)).abs().amax(dim=(-2, -1))
        if bool((rest <= torch.finfo(matrices.dtype).eps * largest).all()):
            values, order = diagonal.sort(dim=-1)
            return values, vectors.gather(2, order[:, None].expand_as(vectors))
        for first, second in rounds:
            rotate_pairs(matrices, vectors, first, second)
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
