# SPDX-License-Identifier: Apache-2.0
"""Dataclasses that are JSON objects on disk: the fields are the keys, and any other key is refused."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from types import UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints

_SCALARS: dict[type, tuple[tuple[type, ...], str]] = {
    float: ((int, float), "a number"),
    int: ((int,), "a whole number"),
    str: ((str,), "a text"),
    bool: ((bool,), "true or false"),
}


@dataclass(frozen=True, kw_only=True)
class JsonObject:
    """Base of a frozen dataclass that is written as a JSON object.

    A field whose default is None is left out of the object if its value is None. The type of a field is a number, a
    text, a truth value, another `JsonObject`, `Any`, or a `tuple` or `Mapping` of these.
    """

    def to_json(self) -> dict[str, Any]:
        """Return the object as a dictionary that `json` can write."""
        values = [(field, getattr(self, field.name)) for field in fields(self)]
        return {field.name: _write(value) for field, value in values if not (value is None and field.default is None)}

    @classmethod
    def from_json(cls, content: Any, *, name: str = "report") -> Self:
        """Make the dataclass from a JSON object.

        Args:
            content: Object as `json` reads it.
            name: Name of the object in error messages, its file and its key, say.

        Raises:
            ValueError: If a key is unknown or missing, or a value has another type.
        """
        _check_type(content, (dict,), "an object", name)
        required = {field.name for field in fields(cls) if field.default is MISSING}
        hints = get_type_hints(cls)
        unknown, missing = content.keys() - hints.keys(), required - content.keys()
        if unknown:
            raise ValueError(
                f"{name}: unknown key {min(unknown)!r}; known are {', '.join(hints)}. Correct or remove it."
            )
        if missing:
            raise ValueError(f"{name}: the key {min(missing)!r} is missing. Write the file anew.")
        return cls(**{key: _read(value, hints[key], f"{name}, {key}") for key, value in content.items()})


def _write(value: Any) -> Any:
    if isinstance(value, JsonObject):
        return value.to_json()
    if isinstance(value, Mapping):
        return {key: _write(item) for key, item in value.items()}
    return [_write(item) for item in value] if isinstance(value, tuple | list) else value


def _check_type(value: Any, kinds: tuple[type, ...], wanted: str, name: str) -> None:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise ValueError(f"{name}: {wanted} was expected, got {value!r}. Correct the file.")


def _read(value: Any, hint: Any, name: str) -> Any:
    """Return a value of the type that a hint asks for."""
    if isinstance(hint, UnionType):  # always a type or None
        return None if value is None else _read(value, get_args(hint)[0], name)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Mapping:
        _check_type(value, (dict,), "an object", name)
        return {key: _read(item, arguments[1], f"{name}, {key}") for key, item in value.items()}
    if origin is tuple:
        return _read_list(value, arguments, name)
    if hint is Any:
        return value
    if issubclass(hint, JsonObject):
        return hint.from_json(value, name=name)
    kinds, wanted = _SCALARS[hint]
    _check_type(value, kinds, wanted, name)
    return value


def _read_list(value: Any, arguments: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    _check_type(value, (list,), "a list", name)
    if Ellipsis not in arguments and len(value) != len(arguments):
        raise ValueError(f"{name}: {len(arguments)} values were expected, got {len(value)}. Correct the file.")
    return tuple(_read(item, arguments[0], name) for item in value)
