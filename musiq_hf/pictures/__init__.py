# SPDX-License-Identifier: Apache-2.0
"""Pictures: found, read, decoded, degraded and made."""

from .degradations import DEGRADATIONS, apply_degradations, degrade
from .finding import find_pictures, has_picture_suffix
from .opening import open_picture, shrink_shorter_side, to_rgb_tensor
from .sources.parts import Part, find_parts, read_part
from .sources.paths import count_sources, find_sources
from .sources.tables import Columns
from .synthetic import make_picture
from .video import Video, VideoFrame, has_video_suffix, open_video

__all__ = [
    "Columns",
    "DEGRADATIONS",
    "Part",
    "Video",
    "VideoFrame",
    "apply_degradations",
    "count_sources",
    "degrade",
    "find_parts",
    "find_pictures",
    "find_sources",
    "has_picture_suffix",
    "has_video_suffix",
    "make_picture",
    "open_picture",
    "open_video",
    "read_part",
    "shrink_shorter_side",
    "to_rgb_tensor",
]
