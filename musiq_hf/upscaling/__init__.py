# SPDX-License-Identifier: Apache-2.0
"""Upscaled pictures: the scale that a picture was enlarged by."""

from .scale import ScaleEstimate, estimate_scale, measure_copies

__all__ = ["ScaleEstimate", "estimate_scale", "measure_copies"]
