# SPDX-License-Identifier: Apache-2.0
"""Times and errors of matrix roots and eigenvalues beside `torch.linalg.eigh`; see docs/matrix_functions.md."""

from pathlib import Path

DOCUMENT = Path("docs/matrix_functions.md")
