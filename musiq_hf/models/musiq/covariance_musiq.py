# SPDX-License-Identifier: Apache-2.0
"""Square roots of symmetric matrices with gradients, and covariances of tokens.

Pade and Taylor roots, with gradients by the Lyapunov equation, are those of "Fast Differentiable Matrix Square Root"
(Song et al., ICLR 2022). Their published code is KingJamesSong/FastDifferentiableMatSqrt (MIT). Covariance pooling of
tokens is that of "So-ViT" (Xie et al., 2021). No code of either is here. Three things differ:

- Every matrix is scaled by its own Frobenius norm, so that other matrices of a batch never change a result. The
  published Newton-Schulz iteration divides by the trace and is less exact. The published gradient of the inverse
  divides by the norm of the whole batch.
- The published Taylor root writes its result into an identity that its gradient reads; here the gradient is right.
- The degree of the Taylor polynomial is 10, as in the published code; the paper says 11.
"""

from itertools import accumulate
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

# Square root of 1 - z at z = 0: the Taylor polynomial, and numerator and denominator of the Pade approximant [5/5].
TAYLOR = tuple(accumulate(range(1, 11), lambda coefficient, k: coefficient * (2 * k - 3) / (2 * k), initial=1.0))
PADE = (1, -11 / 4, 11 / 4, -77 / 64, 55 / 256, -11 / 1024), (1, -9 / 4, 7 / 4, -35 / 64, 15 / 256, -1 / 1024)
METHODS = ("eigh", "taylor", "pade", "newton_schulz")


def widen(matrices: torch.Tensor) -> torch.Tensor:
    """Return float16 and bfloat16 as float32, and wider types as they are."""
    return matrices.float() if matrices.dtype in (torch.float16, torch.bfloat16) else matrices


def check_square(matrices: torch.Tensor) -> None:
    """Raise a ValueError unless a tensor holds square matrices of floating point numbers."""
    if matrices.dim() < 2 or matrices.shape[-1] != matrices.shape[-2] or not matrices.is_floating_point():
        raise ValueError(
            "Square matrices of floating point numbers, shape (..., d, d), were expected, got shape "
            f"{tuple(matrices.shape)} of {matrices.dtype}. Give covariances, for example."
        )


def add_to_diagonal(matrices: torch.Tensor, value: float) -> torch.Tensor:
    """Return matrices (..., d, d) plus a multiple of the identity."""
    return matrices + value * torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)


def measure_norms(matrices: torch.Tensor) -> torch.Tensor:
    """Return the norm of each matrix, shape (..., 1, 1), at least the root of the smallest normal number."""
    squares = matrices.square().sum(dim=(-2, -1), keepdim=True)
    return squares.clamp(min=torch.finfo(matrices.dtype).tiny).sqrt()


def evaluate_polynomial(coefficients: tuple[float, ...], matrices: torch.Tensor) -> torch.Tensor:
    """Evaluate a polynomial, the constant coefficient first, of matrices (..., d, d)."""
    value = add_to_diagonal(coefficients[-1] * matrices, coefficients[-2])
    for coefficient in coefficients[-3::-1]:
        value = add_to_diagonal(value @ matrices, coefficient)
    return value


def _taylor(matrices: torch.Tensor) -> torch.Tensor:
    norm = measure_norms(matrices)
    return norm.sqrt() * evaluate_polynomial(TAYLOR, add_to_diagonal(-matrices / norm, 1.0))


def _pade(matrices: torch.Tensor, inverse: bool) -> torch.Tensor:
    norm = measure_norms(matrices)
    rest = add_to_diagonal(-matrices / norm, 1.0)
    numerator, denominator = (evaluate_polynomial(coefficients, rest) for coefficients in PADE)
    if inverse:
        return torch.linalg.solve(numerator, denominator) / norm.sqrt()
    return torch.linalg.solve(denominator, numerator) * norm.sqrt()


def _newton_schulz(matrices: torch.Tensor, inverse: bool, iterations: int) -> torch.Tensor:
    norm = measure_norms(matrices)
    root = matrices / norm
    inverse_root = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device).expand_as(matrices)
    for _ in range(iterations):
        step = add_to_diagonal(-0.5 * inverse_root @ root, 1.5)
        root, inverse_root = root @ step, step @ inverse_root
    return inverse_root / norm.sqrt() if inverse else root * norm.sqrt()


class _EighRoot(torch.autograd.Function):
    """Exact root; its gradient has no differences of eigenvalues, so that it is finite where two are equal."""

    @staticmethod
    def forward(ctx: Any, matrices: torch.Tensor, inverse: bool) -> torch.Tensor:
        values, vectors = torch.linalg.eigh(matrices)
        roots = values.clamp(min=0).sqrt()
        ctx.save_for_backward(roots, vectors)
        ctx.inverse = inverse
        return (vectors * (1 / roots if inverse else roots)[..., None, :]) @ vectors.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        roots, vectors = ctx.saved_tensors
        sums = roots[..., :, None] + roots[..., None, :]
        if ctx.inverse:
            factors = -1 / (sums * roots[..., :, None] * roots[..., None, :])
        else:
            factors = torch.where(sums > 0, 1 / sums, torch.zeros_like(sums))  # two zeros: the slope is infinite
        return vectors @ (vectors.mT @ gradient @ vectors * factors) @ vectors.mT, None


class _LyapunovRoot(torch.autograd.Function):
    """Root by a polynomial or a quotient of two, with the gradient of the exact root at its result.

    The gradient X solves the Lyapunov equation S X + X S = G, for the inverse T X + X T = -T^2 G T^2.
    """

    @staticmethod
    def forward(ctx: Any, matrices: torch.Tensor, method: str, inverse: bool, iterations: int) -> torch.Tensor:
        root = _pade(matrices, inverse) if method == "pade" else _taylor(matrices)
        scale = measure_norms(root) if inverse else measure_norms(matrices).sqrt()
        ctx.save_for_backward(root, scale)
        ctx.inverse, ctx.iterations = inverse, iterations
        return root

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        root, scale = ctx.saved_tensors
        if ctx.inverse:
            square = root @ root
            gradient = -square @ gradient @ square
        root, gradient = root / scale, gradient / scale
        for _ in range(ctx.iterations):
            square = root @ root
            step = add_to_diagonal(-square, 3.0)
            gradient = 0.5 * (gradient @ step - square @ gradient + root @ gradient @ root)
            root = 0.5 * root @ step
        return 0.5 * gradient, None, None, None


def _compute_root(
    matrices: torch.Tensor, inverse: bool, method: str, eps: float, newton_schulz: int, lyapunov: int
) -> torch.Tensor:
    """Check the arguments of a root, and compute it in float32 or wider."""
    check_square(matrices)
    methods = [name for name in METHODS if not (inverse and name == "taylor")]
    if method not in methods:
        raise ValueError(f"`method` must be {' or '.join(map(repr, methods))}, got {method!r}.")
    if min(newton_schulz, lyapunov) < 1:
        raise ValueError(f"Iterations must be at least 1, got {newton_schulz} and {lyapunov}.")
    with torch.autocast(matrices.device.type, enabled=False):
        wide = widen(matrices)
        wide = (wide + wide.mT) / 2
        if eps:
            wide = add_to_diagonal(wide, eps)
        if method == "newton_schulz":
            root = _newton_schulz(wide, inverse, newton_schulz)
        elif method == "eigh":
            root = _EighRoot.apply(wide, inverse)
        else:
            root = _LyapunovRoot.apply(wide, method, inverse, lyapunov)
        return root.to(matrices.dtype)


def matrix_sqrt(
    matrices: torch.Tensor,
    *,
    method: str = "eigh",
    eps: float = 0.0,
    newton_schulz_iterations: int = 5,
    lyapunov_iterations: int = 8,
) -> torch.Tensor:
    """Compute square roots S of symmetric matrices without negative eigenvalues: S S = A.

    `docs/matrix_functions.md` has times and errors, and says which method to use when. "taylor" and "pade" keep a
    floor: eigenvalue 0 becomes 0.176 and 1/11 of the root of the Frobenius norm. Only "newton_schulz" and
    "taylor" go into ONNX files.

    Args:
        matrices: Matrices, shape (..., d, d). Only their symmetric part counts.
        method: "eigh", exact, or an approximation by products: "taylor", "pade" (and a solve), "newton_schulz".
        eps: Multiple of the identity that is added first.
        newton_schulz_iterations: Number of iterations of "newton_schulz".
        lyapunov_iterations: Iterations of the gradient of "taylor" and "pade". Eight resolve ratios of the smallest
            to the largest eigenvalue of S down to 1/25; below, the gradient stays bounded and is not exact.

    Returns:
        Roots, shape (..., d, d), in the type of the matrices. float16 and bfloat16 are computed in float32. They can
        be differentiated once, with "newton_schulz" more often.

    Raises:
        ValueError: If the matrices are not square or not floating, the method is unknown, or there are no iterations.
    """
    return _compute_root(matrices, False, method, eps, newton_schulz_iterations, lyapunov_iterations)


def matrix_inverse_sqrt(
    matrices: torch.Tensor,
    *,
    method: str = "eigh",
    eps: float = 0.0,
    newton_schulz_iterations: int = 5,
    lyapunov_iterations: int = 8,
) -> torch.Tensor:
    """Compute inverse square roots T of symmetric matrices with positive eigenvalues: T A T = I.

    A singular matrix has none: "eigh" then gives numbers that are not finite, and a positive `eps` helps.

    Args:
        matrices: Matrices, shape (..., d, d). Only their symmetric part counts.
        method: "eigh", exact, or an approximation, "pade" or "newton_schulz".
        eps: Multiple of the identity that is added first.
        newton_schulz_iterations: Number of iterations of "newton_schulz".
        lyapunov_iterations: Iterations of the gradient of "pade", as in `matrix_sqrt`.

    Returns:
        Inverse roots, shape (..., d, d), in the type of the matrices, as in `matrix_sqrt`.

    Raises:
        ValueError: If the matrices are not square or not floating, the method is unknown, or there are no iterations.
    """
    return _compute_root(matrices, True, method, eps, newton_schulz_iterations, lyapunov_iterations)


def check_mask(mask: torch.Tensor | None, wanted: torch.Size) -> None:
    """Raise a ValueError if a mask has another shape than the tokens or rows that it is for."""
    if mask is not None and mask.shape != wanted:
        raise ValueError(f"`mask` must have shape {tuple(wanted)}, got {tuple(mask.shape)}. Give 1 for what is real.")


def masked_covariance(tokens: torch.Tensor, mask: torch.Tensor | None = None, *, eps: float = 0.0) -> torch.Tensor:
    """Compute the covariance of the real tokens of each picture: (1 / N) sum (x - mean)(x - mean)^T + eps I.

    Padding contributes neither value nor gradient, whatever is in it. A single token gives eps I, and so do none.

    Args:
        tokens: Tokens, floating, shape (batch_size, N, D).
        mask: 1 or True = real token, shape (batch_size, N). None = all real.
        eps: Multiple of the identity that is added.

    Returns:
        Covariances, shape (batch_size, D, D), in the type of the tokens. float16 and bfloat16 are computed in float32.

    Raises:
        ValueError: If the tokens have another number of axes or are not floating, or the mask has another shape.
    """
    if tokens.dim() != 3 or not tokens.is_floating_point():
        raise ValueError(
            "`tokens` must be floating and have shape (batch_size, N, D), got shape "
            f"{tuple(tokens.shape)} of {tokens.dtype}."
        )
    check_mask(mask, tokens.shape[:2])
    with torch.autocast(tokens.device.type, enabled=False):
        wide = widen(tokens)
        real = torch.ones_like(wide[..., :1], dtype=torch.bool) if mask is None else mask[..., None].bool()
        count = real.sum(dim=1, keepdim=True).clamp(min=1)
        # A selection, because 0 times NaN is NaN.
        mean = torch.where(real, wide, 0.0).sum(dim=1, keepdim=True) / count
        centred = torch.where(real, wide - mean, 0.0)
        return add_to_diagonal(centred.mT @ centred / count, eps).to(tokens.dtype)


def upper_triangle(matrices: torch.Tensor) -> torch.Tensor:
    """Return the upper triangle of square matrices, diagonal included, row by row.

    Args:
        matrices: Matrices, floating, shape (..., d, d).

    Returns:
        Shape (..., d (d + 1) / 2).

    Raises:
        ValueError: If the matrices are not square or not floating.
    """
    check_square(matrices)
    rows, columns = torch.triu_indices(matrices.shape[-1], matrices.shape[-1], device=matrices.device)
    return matrices[..., rows, columns]


class MusiqCovariancePooling(nn.Module):
    """Second-order pooling of So-ViT: tokens are reduced, and the root of their covariance becomes a vector.

    The reduction is a projection, a layer norm and a ReLU. So-ViT has a batch norm, by which the other pictures of a
    batch would move a score. All is computed in float32 or wider.

    Args:
        hidden_size: Width of the tokens.
        size: Width to which they are reduced.
        method: Root of the covariance, see `matrix_sqrt`.
        eps: Multiple of the identity that is added to the covariance.

    Attributes:
        output_size: Width of the vector, size (size + 1) / 2.
    """

    def __init__(self, hidden_size: int, *, size: int = 64, method: str = "newton_schulz", eps: float = 1e-3):
        super().__init__()
        self.reduction = nn.Linear(hidden_size, size, bias=False)
        self.norm = nn.LayerNorm(size)
        self.method, self.eps = method, eps
        self.output_size = size * (size + 1) // 2

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Pool tokens (batch_size, N, hidden_size) to (batch_size, output_size).

        Args:
            tokens: Tokens of the patches, without CLS.
            mask: 1 = real token, shape (batch_size, N). None = all real.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            reduced = torch.relu(self.norm(self.reduction(tokens.to(self.reduction.weight.dtype))))
            covariance = masked_covariance(reduced, mask, eps=self.eps)
            return upper_triangle(matrix_sqrt(covariance, method=self.method))
