# SPDX-License-Identifier: Apache-2.0
"""Checks of the fields that the JSON files of a checkpoint hold: types and sizes, one sentence for each mistake."""

import math
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from huggingface_hub.dataclasses import type_validator

# Far above every model that was trained. A damaged file names sizes that fill any memory, or take hours.
LARGEST = {
    "hidden_size": 2**16,
    "num_hidden_layers": 2**10,
    "num_attention_heads": 2**10,
    "intermediate_size": 2**18,
    "patch_encoder_width": 2**12,
    "patch_encoder_groups": 2**12,
    "patch_size": 2**10,
    "hash_grid_size": 2**10,
    "max_native_patches": 2**20,
    "pre_logits_size": 2**16,
    "num_labels": 2**17,
}
LARGEST_COPY = 2**16  # patches of a resized copy: a square of 8192 pixels, cut into patches of 32
LARGEST_LENGTH = 2**14  # pixels
_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    type(None): "null",
    list: "a list",
    tuple: "a list",
    dict: "an object",
}
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 60, 60


def shorten(value: Any) -> str:
    """Return a value as Python writes it, cut if it is long or deep."""
    return _SHORT.repr(value)


def _describe(kind: Any) -> str:
    """Describe a type in the words of a JSON file."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_describe(part) for part in parts if part is not int or float not in parts))
    return _NAMES.get(origin or kind, str(kind))


def check_types(values: Mapping[str, Any], types: Mapping[str, Any]) -> None:
    """Raise a ValueError for the first value whose type is not that of its field.

    Args:
        values: Values by the names of their fields; names without a type are passed over.
        types: Types by the names of fields.
    """
    for name, kind in types.items():
        if name not in values:
            continue
        value = values[name]
        try:
            type_validator(name, value, kind)
        except TypeError as error:
            raise ValueError(f"`{name}` must be {_describe(kind)}, got {shorten(value)}.") from error
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"`{name}` must be finite, got {value}.")


def check_size(name: str, value: int) -> None:
    """Raise a ValueError unless a size lies between 1 and its entry in `LARGEST`."""
    if value < 1:
        raise ValueError(f"`{name}` must be at least 1, got {shorten(value)}.")
    if value > LARGEST[name]:
        raise ValueError(f"`{name}` must be at most {LARGEST[name]}, got {shorten(value)}.")


def check_lengths(lengths: Sequence[int], patch_size: int) -> None:
    """Raise a ValueError unless the longer sides of resized copies are ones that can be read.

    Args:
        lengths: Longer sides, in pixels.
        patch_size: Side of a patch, in pixels.
    """
    if any(length < 1 for length in lengths):
        raise ValueError(f"`longer_side_lengths` must be positive, in pixels, got {shorten(list(lengths))}.")
    if len(set(lengths)) != len(lengths):
        raise ValueError(
            f"`longer_side_lengths` must differ from each other, got {shorten(list(lengths))}. Remove the repeated "
            "length."
        )
    longest = min(LARGEST_LENGTH, math.isqrt(LARGEST_COPY) * patch_size)
    if any(length > longest for length in lengths):
        raise ValueError(
            f"`longer_side_lengths` must be at most {longest} pixels with patches of {patch_size}, got "
            f"{shorten(list(lengths))}."
        )


@contextmanager
def reading_json(source: Any) -> Iterator[None]:
    """Turn what Transformers raises over a JSON file of a checkpoint that holds no object into a ValueError."""
    try:
        yield
    except (TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{source} is damaged: each of its JSON files must hold one object ({error}).") from error


__all__ = ["LARGEST", "check_lengths", "check_size", "check_types", "reading_json", "shorten"]
