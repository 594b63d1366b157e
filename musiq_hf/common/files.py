# SPDX-License-Identifier: Apache-2.0
"""Files of the package, and files that are written whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]


def data_directory(name: str) -> Path:
    """Return a folder of `configuration`, which a wheel holds inside the package and a clone beside it."""
    inside = PACKAGE / "configuration" / name
    return inside if inside.is_dir() else PACKAGE.parent / "configuration" / name


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name first, so that an interruption leaves the old file whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # several processes may write one file
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file in the format of Transformers, under a temporary name first."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")
