# SPDX-License-Identifier: Apache-2.0
"""Files of the package, and files that are written whole or not at all."""

import glob
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
JSON_BYTES = 64 * 2**20  # largest JSON file that is read, a hundred times what a checkpoint or report needs
NAME_BYTES = 255  # longest name of a file that the usual file systems take
NOTHING = "no such file or folder, and no picture, tar, parquet or CSV file matches it."  # of a path to pictures
SUFFIX_BYTES = 48  # longest suffix of a file that is written beside another one


def data_directory(name: str) -> Path:
    """Return a folder of `configuration`, which a wheel holds inside the package and a clone beside it."""
    inside = PACKAGE / "configuration" / name
    return inside if inside.is_dir() else PACKAGE.parent / "configuration" / name


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its pairs, as a hook of the JSON parser; a name given twice has no one value."""
    content = dict(pairs)
    if len(content) < len(pairs):
        repeated = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"it names {repeated!r} twice")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        ValueError: If it is damaged, holds something else or is larger than `JSON_BYTES`.
        OSError: If there is no such file, or it is a folder, pipe or device.
    """
    size = path.stat().st_size
    if not path.is_file():
        raise OSError(f"{path} is no regular file. Put the JSON file there.")
    if size > JSON_BYTES:
        raise ValueError(f"{path} has {size:,} bytes; at most {JSON_BYTES:,} are read. It cannot be the right file.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_refuse_repeated)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}. It must hold one JSON object in UTF-8.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold one JSON object, got {type(content).__name__}.")
    return content


def leads_nowhere(path: str) -> bool:
    """Return whether a path or pattern leads to nothing at all."""
    return not os.path.lexists(path) and next(glob.iglob(path, recursive=True), None) is None


def check_output_file(path: Path) -> None:
    """Raise a ValueError if no file can be put in the place of a path, whatever stands there now."""
    if len(os.fsencode(path.name)) > NAME_BYTES:
        raise ValueError(f"{path}: the name is longer than {NAME_BYTES} bytes. Shorten it.")
    if path.is_dir():
        raise ValueError(f"{path} is a folder. Give the file another name.")
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no regular file, so it cannot be replaced. Give the file another name.")
    above = next((parent for parent in path.parents if os.path.lexists(parent)), path.parent)
    if os.path.lexists(above) and not above.is_dir():
        raise ValueError(f"{path}: {above} is no folder, so no file can be written in it. Choose another folder.")


def shorten_name(name: str) -> str:
    """Return a name to which a suffix of `SUFFIX_BYTES` can be added; a long name is cut and ends in its hash."""
    encoded = os.fsencode(name)
    if len(encoded) <= NAME_BYTES - SUFFIX_BYTES:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    return f"{encoded[: NAME_BYTES - SUFFIX_BYTES - 17].decode(errors='ignore')}~{digest}"


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Give a temporary name beside a path, whose file takes the place of the path if nothing fails.

    The name is this process's own; a file or link of that name is removed. Open it with mode "x", which follows no
    link.
    """
    temporary = path.with_name(f".{shorten_name(path.name)}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name first, so that an interruption leaves the old file whole."""
    with replace_file(path) as temporary, open(temporary, "x", encoding="utf-8") as file:
        file.write(text)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file in the format of Transformers, under a temporary name first."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hide_path(source: str | os.PathLike[str]) -> str:
    """Return the name alone of a file or folder that is here, and any other source, an id on the Hub say, as it is."""
    return Path(source).name if Path(source).exists() else str(source)
