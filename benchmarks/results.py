# SPDX-License-Identifier: Apache-2.0
"""The JSON file that benchmarks fill section by section and reports read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from musiq_hf.common.files import read_json, write_json


def read_results(path: Path) -> dict[str, Any]:
    """Content of a file of results: sections by name.

    Raises:
        ValueError: If there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise ValueError(f"There are no results in {path}. Measure with: python -m benchmarks.cpu --output {path}")
    content = read_json(path)
    if not isinstance(content.get("sections"), dict):
        raise ValueError(f"{path} holds no benchmark results: it has no `sections`. Give another file.")
    return content


def add_section(path: Path, name: str, section: dict[str, Any]) -> None:
    """Put one section into a file, which is made if missing; other sections stay."""
    content = read_results(path) if path.exists() else {"sections": {}}
    content["sections"][name] = section
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)


def section_rows(results: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Rows of a section, [] if it was not measured."""
    rows: list[dict[str, Any]] = results["sections"].get(name, {}).get("rows", [])
    return rows


def find_row(results: dict[str, Any], name: str, **wanted: Any) -> dict[str, Any] | None:
    """First row of a section whose fields have these values, None if there is none or it holds an error."""
    for row in section_rows(results, name):
        if "error" not in row and all(row.get(key) == value for key, value in wanted.items()):
            return row
    return None


def read_all(paths: Sequence[Path]) -> dict[str, Any]:
    """Several files as one; of sections of one name the last file's.

    Raises:
        ValueError: As `read_results`.
    """
    sections: dict[str, Any] = {}
    for path in paths:
        sections |= read_results(path)["sections"]
    return {"sections": sections}
