# SPDX-License-Identifier: Apache-2.0
"""Detector of upscaled pictures, after SUDDS: is a picture native, or upscaled, and by which kind of method."""

from .spectrum_sudds import measure_spectrum

__all__ = ["measure_spectrum"]
