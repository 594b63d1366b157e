# SPDX-License-Identifier: Apache-2.0
"""Covariances and matrix roots for the training of any family; they lie with MUSIQ, to go to the Hub with it."""

from .musiq.covariance_musiq import (
    add_to_diagonal,
    check_mask,
    check_square,
    masked_covariance,
    matrix_inverse_sqrt,
    widen,
)

__all__ = ["add_to_diagonal", "check_mask", "check_square", "masked_covariance", "matrix_inverse_sqrt", "widen"]
