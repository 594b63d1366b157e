# SPDX-License-Identifier: Apache-2.0
"""Parts of training without scores: whitening, losses on views and positions, eigenvalues of many matrices."""
