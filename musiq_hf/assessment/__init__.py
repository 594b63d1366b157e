# SPDX-License-Identifier: Apache-2.0
"""Assessment of pictures: measures with a reference, descriptors of content, comparisons of two systems."""

from ..metrics.calibration import Calibration
from .compare import Comparison, compare
from .descriptors import Description, colourfulness, describe, spatial_information
from .measures import psnr, ssim
from .significance import PairedDifference, bd_rate, paired_difference

__all__ = [
    "Comparison",
    "Calibration",
    "Description",
    "PairedDifference",
    "bd_rate",
    "colourfulness",
    "compare",
    "describe",
    "paired_difference",
    "psnr",
    "spatial_information",
    "ssim",
]
