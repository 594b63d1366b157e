# SPDX-License-Identifier: Apache-2.0
"""Converters of other programs' checkpoints, at most one of each family, and the table of them."""

from pathlib import Path
from typing import Any

from ..models import family_of
from .loda import LODA_CONVERTER
from .msit import MSIT_CONVERTER
from .musiq import MUSIQ_CONVERTER
from .protocol import Checkpoint, Conversion, Converter
from .sudds import SUDDS_CONVERTER

# Converters by the name of their family. If several recognise a file, the first converts it.
CONVERTERS: dict[str, Converter] = {
    converter.family: converter for converter in (MUSIQ_CONVERTER, LODA_CONVERTER, SUDDS_CONVERTER, MSIT_CONVERTER)
}


def converter_of_file(path: Path) -> Converter:
    """Return the converter that recognises a file, or else the one whose files have the same ending.

    No converter recognises a damaged file. Its ending still leads to its own converter, which reports the damage.

    Raises:
        ValueError: If there is no such converter; the message says what is accepted.
    """
    converters = CONVERTERS.values()
    recognising = (converter for converter in converters if converter.recognises(path))
    fitting = (converter for converter in converters if path.suffix.lower() in converter.endings)
    found = next(recognising, None) or next(fitting, None)
    if found is None:
        accepted = "; or ".join(converter.accepts for converter in converters)
        raise ValueError(f"{path} is no checkpoint that can be converted. Give {accepted}.")
    return found


def converter_of_config(config: Any) -> Converter:
    """Return the converter of the family of a configuration.

    Raises:
        ValueError: If there is no such family, or it has no converter.
    """
    family = family_of(config).name
    if family not in CONVERTERS:
        raise ValueError(f"Only {', '.join(CONVERTERS)} checkpoints can be converted back, got one of {family}.")
    return CONVERTERS[family]


__all__ = ["CONVERTERS", "Checkpoint", "Conversion", "Converter", "converter_of_config", "converter_of_file"]
