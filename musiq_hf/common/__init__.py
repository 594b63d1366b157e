# SPDX-License-Identifier: Apache-2.0
"""Small tools for all layers, which know nothing of pictures and models."""
