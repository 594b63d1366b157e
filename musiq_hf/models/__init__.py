# SPDX-License-Identifier: Apache-2.0
"""Model families, a folder for each, and the table of them."""

from typing import Any

from .classifier.family import CLASSIFIER
from .loda.family import LODA
from .msit.family import MSIT
from .musiq.checks_musiq import shorten
from .musiq.family import MUSIQ
from .protocol import Family
from .sudds.family import SUDDS

# Families by the `model_type` of their configurations.
FAMILIES: dict[str, Family] = {family.name: family for family in (MUSIQ, LODA, SUDDS, MSIT, CLASSIFIER)}


def family_of(config: Any) -> Family:
    """Return the family of a configuration.

    Raises:
        ValueError: If the package has no such family; the message names those that there are.
    """
    model_type = getattr(config, "model_type", None)
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise ValueError(f"A {' or '.join(FAMILIES)} checkpoint was expected, got one of type {shorten(model_type)}.")
    return FAMILIES[model_type]


__all__ = ["FAMILIES", "family_of"]
