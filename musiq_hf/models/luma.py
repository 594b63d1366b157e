# SPDX-License-Identifier: Apache-2.0
"""Luma of pixels, for all that looks for traces of upscaling; it lies with the detector, to go to the Hub with it."""

from .sudds.patches_sudds import to_luma

__all__ = ["to_luma"]
