# SPDX-License-Identifier: Apache-2.0
"""Pictures: found, read, decoded, degraded and made."""

from .degradations import DEGRADATIONS, apply_degradations, degrade
from .finding import find_pictures
from .opening import open_picture, shrink_shorter_side, to_rgb_tensor
from .sources.paths import count_sources, find_sources
from .sources.tables import Columns
from .synthetic import make_picture

__all__ = [
    "Columns",
    "DEGRADATIONS",
    "apply_degradations",
    "count_sources",
    "degrade",
    "find_pictures",
    "find_sources",
    "make_picture",
    "open_picture",
    "shrink_shorter_side",
    "to_rgb_tensor",
]
