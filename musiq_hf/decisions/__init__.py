# SPDX-License-Identifier: Apache-2.0
"""Decisions that follow from scores: stars in the sidecars of photographs."""

from .rating import RatedRow
from .rating_job import RatingSettings
from .sidecars import name_sidecar

__all__ = ["RatedRow", "RatingSettings", "name_sidecar"]
