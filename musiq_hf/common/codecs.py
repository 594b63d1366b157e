# SPDX-License-Identifier: Apache-2.0
"""Codecs and qualities of a ladder of encodings: as words say them, and checked.

Nothing heavy is imported for it.
"""

import math
from collections.abc import Sequence

CODECS = ("jpeg", "webp", "avif")
QUALITIES = (10, 20, 30, 40, 50, 60, 70, 80, 90, 95)
MAX_QUALITY = 100  # in the count of all three encoders


def check_ladder(codecs: Sequence[str], qualities: Sequence[int], max_drop: float | None) -> None:
    """Raise a ValueError if a codec is unknown or named twice, or a quality or the drop is out of range."""
    unknown = [codec for codec in codecs if codec not in CODECS]
    if unknown:
        raise ValueError(f"Codecs must be of {', '.join(CODECS)}, got {unknown[0]!r}. Leave it out.")
    for name, values in (("codec", codecs), ("quality", qualities)):
        if not values:
            raise ValueError(f"At least one {name} is needed, got none. Name one.")
        repeated = [value for index, value in enumerate(values) if value in values[:index]]
        if repeated:
            raise ValueError(f"Each {name} must be named once, got {repeated[0]} twice. Leave out one of them.")
    outside = [quality for quality in qualities if not 1 <= quality <= MAX_QUALITY]
    if outside:
        raise ValueError(f"Qualities must be whole numbers from 1 to {MAX_QUALITY}, got {outside[0]}.")
    if max_drop is not None and not 0 <= max_drop < math.inf:
        raise ValueError(f"The largest drop must be 0 points or more, got {max_drop:g}.")
