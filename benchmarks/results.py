# SPDX-License-Identifier: Apache-2.0
"""JSON file of results, which benchmarks fill section by section and reports read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from musiq_hf.common.files import read_json, write_json


def read_results(path: Path) -> dict[str, Any]:
    """Read a file of results, whose `sections` hold the sections by name.

    Raises:
        ValueError: If there is no such file, or it holds no results.
    """
    if not path.is_file():
        raise ValueError(f"There are no results in {path}. Measure with: python -m benchmarks.cpu --output {path}")
    content = read_json(path)
    if not isinstance(content.get("sections"), dict):
        raise ValueError(f"{path} holds no benchmark results: it has no `sections`. Give another file.")
    return content


def add_section(path: Path, name: str, section: dict[str, Any]) -> None:
    """Write a section into a file of results, which is made if it is missing; other sections stay."""
    content = read_results(path) if path.exists() else {"sections": {}}
    content["sections"][name] = section
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)


def section_rows(results: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the rows of a section; an empty list if it was not measured."""
    rows: list[dict[str, Any]] = results["sections"].get(name, {}).get("rows", [])
    return rows


def find_row(results: dict[str, Any], name: str, **wanted: Any) -> dict[str, Any] | None:
    """Return the first row of a section without an error whose fields have these values; None if there is none."""
    for row in section_rows(results, name):
        if "error" not in row and all(row.get(key) == value for key, value in wanted.items()):
            return row
    return None


def read_all(paths: Sequence[Path]) -> dict[str, Any]:
    """Read several files as one; if sections have the same name, the last file's is taken.

    Raises:
        ValueError: If a file is missing, or holds no results.
    """
    sections: dict[str, Any] = {}
    for path in paths:
        sections |= read_results(path)["sections"]
    return {"sections": sections}
