# SPDX-License-Identifier: Apache-2.0
"""Tables of the shares of pictures that a classifier answers rightly."""

from dataclasses import dataclass
from typing import Self

from .json_objects import JsonObject


@dataclass(frozen=True, kw_only=True)
class AccuracyRow(JsonObject):
    """Row of a table.

    Attributes:
        name: Name of the pictures.
        shares: Part of the pictures with the right answer, in [0, 1], by column.
    """

    name: str
    shares: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class AccuracyReport(JsonObject):
    """Shares of right answers under several conditions.

    Attributes:
        pictures_per_share: Number of pictures behind each share of a single kind of pictures.
        columns: Names of the conditions.
        accuracy: Rows of the table.
    """

    pictures_per_share: int
    columns: tuple[str, ...]
    accuracy: tuple[AccuracyRow, ...]

    def for_card(self) -> Self:
        """Return the part that cards and metrics.json hold: all of it."""
        return self
