# SPDX-License-Identifier: Apache-2.0
"""Spectrum of a whole picture: what the upscaling detector sees besides its patches.

Interpolation leaves zeros and copies of low frequencies in the upper part of a spectrum, at the same places all over
the picture. Averages over many short pieces of rows and columns show them, whatever the picture shows.
"""

import math

import numpy as np

PIECE = 64  # samples of a row or column that are transformed together, and numbers of each of the two averages
FLOOR = 0.01  # added before the logarithm, in levels of 1 / 255; rounding to bytes alone leaves about 0.2


def make_cosines(size: int) -> np.ndarray:
    """Return the orthonormal matrix of the discrete cosine transform (type II), float32 (size, size)."""
    frequencies, places = np.arange(size)[:, None], np.arange(size) + 0.5
    matrix = math.sqrt(2 / size) * np.cos(math.pi / size * frequencies * places)
    matrix[0] /= math.sqrt(2)
    return matrix.astype(np.float32)


_COSINES = make_cosines(PIECE)


def measure_spectrum(gray: np.ndarray) -> np.ndarray:
    """Measure the mean amplitudes of a picture along its rows and along its columns.

    Rows and columns are cut into pieces of 64 pixels from the left and from the top; a shorter rest is left out.

    Args:
        gray: Luma in [0, 1], float (height, width), both at least 64.

    Returns:
        Logarithms of the mean amplitudes of the 64 frequencies, first of rows, then of columns, float32 (128,).

    Raises:
        ValueError: If a side is shorter than 64 pixels, or the luma has another shape or type.
    """
    if gray.ndim != 2 or gray.dtype.kind != "f":
        raise ValueError(f"Luma must be float of shape (height, width), got {gray.shape} of {gray.dtype}.")
    height, width = gray.shape
    if min(height, width) < PIECE:
        raise ValueError(f"A spectrum needs at least {PIECE} x {PIECE} pixels, got {width} x {height}.")
    rows, columns = np.zeros(PIECE), np.zeros(PIECE)
    for top in range(0, height, PIECE):  # bands fit into the caches of a processor
        band = np.asarray(gray[top : top + PIECE], dtype=np.float32) * 255
        rows += np.abs(band[:, : width // PIECE * PIECE].reshape(-1, PIECE) @ _COSINES.T).sum(axis=0)
        if len(band) == PIECE:
            columns += np.abs(_COSINES @ band).sum(axis=1)
    means = [rows / (height * (width // PIECE)), columns / (width * (height // PIECE))]
    return np.log(np.concatenate(means) + FLOOR).astype(np.float32)


__all__ = ["PIECE", "make_cosines", "measure_spectrum"]
