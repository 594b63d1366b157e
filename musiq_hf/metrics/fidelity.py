# SPDX-License-Identifier: Apache-2.0
"""Tables of the fidelity of upscaled pictures to their originals."""

from dataclasses import dataclass
from typing import Self

from .json_objects import JsonObject


@dataclass(frozen=True, kw_only=True)
class FidelityRow(JsonObject):
    """Fidelity of a method at one scale, as means over the pictures.

    Attributes:
        method: Name of the method.
        scale: Enlargement of each side.
        psnr: Peak signal-to-noise ratio of luma, in dB.
        ssim: Structural similarity of luma.
        gain: Difference of the PSNR to that of the first method, in dB.
        smallest_gain: That of the picture where it is smallest.
    """

    method: str
    scale: float
    psnr: float
    ssim: float
    gain: float
    smallest_gain: float


@dataclass(frozen=True, kw_only=True)
class FidelityReport(JsonObject):
    """Fidelity of several methods that enlarge shrunk pictures again, the method to compare with first.

    Attributes:
        num_pictures: Number of originals.
        fidelity: Row of each method and scale.
    """

    num_pictures: int
    fidelity: tuple[FidelityRow, ...]

    def for_card(self) -> Self:
        """Return the part that cards and metrics.json hold: all of it."""
        return self
