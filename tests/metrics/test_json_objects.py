# SPDX-License-Identifier: Apache-2.0
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from musiq_hf.metrics.json_objects import JsonObject


@dataclass(frozen=True, kw_only=True)
class Leaf(JsonObject):
    size: int
    spread: float | None


@dataclass(frozen=True, kw_only=True)
class Tree(JsonObject):
    name: str
    is_old: bool
    leaves: Mapping[str, Leaf]
    ends: tuple[float, float] | None = None
    rings: tuple[int, ...] = ()
    notes: Mapping[str, Any] | None = None


def test_objects_come_back_and_only_defaults_of_none_are_left_out():
    tree = Tree(name="oak", is_old=True, leaves={"a": Leaf(size=3, spread=None)}, notes={"range": (1, 2)})
    content = json.loads(json.dumps(tree.to_json()))
    assert content == {
        "name": "oak",
        "is_old": True,
        "leaves": {"a": {"size": 3, "spread": None}},
        "rings": [],
        "notes": {"range": [1, 2]},
    }
    assert Tree.from_json(content).to_json() == content
    full = Tree(name="elm", is_old=False, leaves={}, ends=(0, 0.5), rings=(4, 5))
    assert Tree.from_json(json.loads(json.dumps(full.to_json()))) == full
    assert isinstance(Tree.from_json({**content, "ends": [1, 2]}).to_json()["ends"][0], int)  # numbers stay as written


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"age": 3}, "^f.json: unknown key 'age'; known are name, is_old, leaves, ends, rings, notes. Correct or"),
        ({"leaves": {"a": {"size": 1}}}, "^f.json, leaves, a: the key 'spread' is missing"),
        ({"leaves": []}, r"^f.json, leaves: an object was expected, got \[\]"),
        (
            {"leaves": {"a": {"size": 1.5, "spread": 0}}},
            "^f.json, leaves, a, size: a whole number was expected, got 1.5",
        ),
        ({"leaves": {"a": {"size": True, "spread": 0}}}, "^f.json, leaves, a, size: a whole number was .* got True"),
        ({"name": None}, "^f.json, name: a text was expected, got None"),
        ({"is_old": 1}, "^f.json, is_old: true or false was expected, got 1"),
        ({"ends": [1]}, "^f.json, ends: 2 values were expected, got 1"),
        ({"rings": 3}, "^f.json, rings: a list was expected, got 3"),
    ],
)
def test_mistakes_are_named_by_file_and_key(changes, message):
    content = {"name": "oak", "is_old": True, "leaves": {}} | changes
    with pytest.raises(ValueError, match=message):
        Tree.from_json(content, name="f.json")
    with pytest.raises(ValueError, match="^report: an object was expected, got 3"):
        Tree.from_json(3)
