# SPDX-License-Identifier: Apache-2.0
"""Groups of keys: classes of content that a table names, and thirds of a descriptor of the references.

A table may name keys with or without suffix.
"""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..subjective.tables import Numbers, read_columns, read_rows
from .pairing import drop_suffix

GROUP = "group"  # column whose values name groups alone; those of others stand behind the name of the column
ALL = "all"  # group of all keys
THIRDS = ("low", "middle", "high")
NAMED = 3  # keys that a note names


class GroupTable(NamedTuple):
    """Groups of keys, as a table has them.

    Attributes:
        columns: Names of the columns.
        values: Value of each column, by key; None where the table has none.
        notes: Sentences about keys that only the table has, or that it lacks.
    """

    columns: tuple[str, ...]
    values: Mapping[str, tuple[str | None, ...]]
    notes: tuple[str, ...]


class OpinionTable(NamedTuple):
    """Opinion scores, as a table has them.

    Attributes:
        values: Opinion score by key and system.
        notes: Sentences about rows that match nothing.
    """

    values: Mapping[tuple[str, str], float]
    notes: tuple[str, ...]


class _Keys:
    """Keys of a comparison, found by their names with or without suffix.

    Args:
        keys: Keys.
        path: Table that names them, for messages.
    """

    def __init__(self, keys: Iterable[str], path: str | os.PathLike[str]):
        self.keys = list(keys)
        self.path = path
        self._by_name = {drop_suffix(key): key for key in self.keys} | {key: key for key in self.keys}
        self._strange: list[str] = []

    def find(self, name: str) -> str | None:
        """Return the key of a name; None, which `describe` tells later, if nothing matches."""
        key = self._by_name.get(name)
        if key is None:
            self._strange.append(name)
        return key

    def describe(self) -> list[str]:
        """Return a sentence about the names that match nothing, if there are any."""
        if not self._strange:
            return []
        verb = "matches" if len(self._strange) == 1 else "match"
        return [f"{self.path}: {_count(self._strange)} of it {verb} no file: {_name_some(self._strange)}."]

    def check_found(self, found: Collection[Any]) -> None:
        """Raise a ValueError if no name matches."""
        if not found:
            raise ValueError(
                f"{self.path}: no key of it matches a file, such as {_name_some(self.keys)}. Give relative paths, "
                "with or without suffix."
            )


def _count(keys: Sequence[str]) -> str:
    return f"{len(keys)} key{'' if len(keys) == 1 else 's'}"


def _name_some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:NAMED]) + (", ..." if len(keys) > NAMED else "")


def name_group(column: str, value: str) -> str:
    """Return the name of a group of keys that have one value in a column."""
    return value if column == GROUP else f"{column}: {value}"


def name_thirds(descriptor: str) -> str:
    """Return the title of the table of the thirds of a descriptor."""
    return f"thirds of {descriptor}"


def read_groups(
    path: str | os.PathLike[str], keys: Sequence[str], *, taken: Collection[str] = (), bins: Sequence[str] = ()
) -> GroupTable:
    """Read the groups of keys from a CSV table.

    Args:
        path: File with a column `key` and one or more others, each of which groups the keys.
        keys: Keys of the comparison.
        taken: Names that no column may have.
        bins: Descriptors whose thirds are groups too.

    Raises:
        ValueError: If a column, a row or a name is wrong, or no key matches; the message names the file.
    """
    names, rows = read_rows(path)
    columns = tuple(name for name in names if name != "key")
    expected = "key and at least one column of groups, as key,group"
    if "key" not in names or not columns or not rows:
        raise ValueError(f"{path}: {expected} were expected, got {','.join(names)} with {len(rows)} rows.")
    for name in columns:
        if not name.strip() or name in (ALL, *map(name_thirds, bins), *taken):
            raise ValueError(f"{path}: {name!r} cannot name a column of groups. Rename it.")
    known, values = _Keys(keys, path), dict[str, tuple[str | None, ...]]()
    owners = {name_group(name, third): name_thirds(name) for name in bins for third in THIRDS} | {ALL: "all keys"}
    for where, row in rows:
        key = _find_key(known, row, where, values)
        if key is not None:
            values[key] = tuple(row[name].strip() or None for name in columns)
            _check_groups(columns, values[key], where, owners)
    known.check_found(values)
    without = [key for key in keys if not any(values.get(key, ()))]
    notes = [f"{path}: {_count(without)} without a group: {_name_some(without)}."] if without else []
    return GroupTable(columns, values, (*known.describe(), *notes))


def _find_key(known: _Keys, row: Mapping[str, str], where: str, taken: Collection[str]) -> str | None:
    """Return the key of a row; raise a ValueError if another row has it."""
    key = known.find(row["key"].strip())
    if key in taken:
        raise ValueError(f"{where}: {row['key']} is named twice. Give each key one row.")
    return key


def _check_groups(columns: Sequence[str], values: Sequence[str | None], where: str, owners: dict[str, str]) -> None:
    """Raise a ValueError if something else has a group of the same name; new names are added to the owners."""
    for column, value in zip(columns, values, strict=True):
        if value is None:
            continue
        group = name_group(column, value)
        owner = owners.setdefault(group, f"the column {column}")
        if owner != f"the column {column}":
            raise ValueError(f"{where}: the group {group} is that of {owner}. Give this one another name.")


def read_opinions(path: str | os.PathLike[str], keys: Sequence[str], systems: Sequence[str]) -> OpinionTable:
    """Read opinion scores from a CSV table.

    Args:
        path: File with columns `key`, `system` and `mos`.
        keys: Keys of the comparison.
        systems: Names of the systems.

    Raises:
        ValueError: If a column, a row or a number is wrong, or no row matches; the message names the file.
    """
    numbers, known, values = Numbers(path), _Keys(keys, path), dict[tuple[str, str], float]()
    strange: list[str] = []
    found: set[str | None] = set()
    for where, row in read_columns(path, ("key", "system", "mos")):
        key, system, mos = known.find(row["key"].strip()), row["system"].strip(), _read_mos(numbers, row, where)
        found.add(key)
        if system not in systems:
            strange.append(system)
        elif key is not None and (key, system) in values:
            raise ValueError(f"{where}: {key} of {system} is named twice. Give each one row.")
        elif key is not None:
            values[key, system] = mos
    strange = sorted(set(strange))
    known.check_found(found - {None})
    if not values:
        raise ValueError(
            f"{path}: no row of these files has a system that is compared, such as {_name_some(systems)}; it has "
            f"{_name_some(strange)}. Name systems as in the command."
        )
    notes = [f"{path}: no system is named {_name_some(strange)}."] if strange else []
    return OpinionTable(values, (*known.describe(), *notes))


def _read_mos(numbers: Numbers, row: Mapping[str, str], where: str) -> float:
    mos = numbers.read(row["mos"], name="mos", where=where)
    if mos is None:
        raise ValueError(f"{where}: `mos` must be a number, got nothing. Leave the row out.")
    return mos


def find_edges(values: Iterable[float]) -> tuple[float, float]:
    """Compute the values up to which numbers are in the low third, and in the middle one."""
    low, high = np.quantile(list(values), (1 / 3, 2 / 3))
    return float(low), float(high)


def find_third(value: float, edges: tuple[float, float]) -> str:
    """Return the third that a number is in: "low", "middle" or "high"."""
    return THIRDS[(value > edges[0]) + (value > edges[1])]
