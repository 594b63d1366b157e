# SPDX-License-Identifier: Apache-2.0
"""Assessment of pictures: measures with a reference, descriptors of content, comparisons of two systems."""

from ..metrics.calibration import Calibration
from .compare import Comparison, compare
from .comparison_job import ComparisonSettings, compare_systems
from .comparison_report import SystemsReport
from .comparison_tables import write_systems_report
from .descriptors import Description, colourfulness, describe, spatial_information
from .measures import psnr, ssim
from .significance import PairedDifference, bd_rate, paired_difference

__all__ = [
    "Comparison",
    "Calibration",
    "ComparisonSettings",
    "Description",
    "PairedDifference",
    "SystemsReport",
    "bd_rate",
    "colourfulness",
    "compare",
    "compare_systems",
    "describe",
    "paired_difference",
    "psnr",
    "spatial_information",
    "ssim",
    "write_systems_report",
]
