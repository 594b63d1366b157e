# SPDX-License-Identifier: Apache-2.0
"""Parts that readers of annotation files share: tables, checks of scores, pictures by name."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..common.extras import require
from ..pictures.csv_rows import check_columns, check_number, name_cells, open_csv, parse_number, read_column_names

Range = tuple[float, float] | None  # lowest and highest possible score
NUM_NAMED = 10  # missing pictures that a message names


@dataclass
class MissingPictures:
    """Pictures that a table names and that are not there, gathered so that one message names them all.

    Attributes:
        is_allowed: Whether nothing is gathered, because `readable_rows` leaves such pictures out later.
        found: File, line and path of each one.
    """

    is_allowed: bool = False
    found: list[str] = field(default_factory=list)

    def note(self, path: str, where: str) -> None:
        """Note the path of a missing picture, and the file and line that name it."""
        if not self.is_allowed:
            self.found.append(f"{where}: picture {path} does not exist")

    def check(self) -> None:
        """Raise a ValueError that names the missing pictures, if there are any: ten of them, and the number."""
        if not self.found:
            return
        advice = "Check `--image_root`; training goes on without them with `--skip_bad_images`."
        if len(self.found) == 1:
            raise ValueError(f"{self.found[0]}. {advice.replace('them', 'it')}")
        named = "; ".join(self.found[:NUM_NAMED]) + ("; ..." if len(self.found) > NUM_NAMED else "")
        raise ValueError(f"{named}. {len(self.found):,} pictures are missing. {advice}")


def check_distribution(values: Any, *, where: str) -> list[float]:
    """Return counts or fractions of the scores 1..n as fractions that sum to 1.

    Raises:
        ValueError: If they are anything else; the message starts with `where`.
    """
    try:
        counts = [parse_number(value) for value in values]
        total = math.fsum(counts)
    except (TypeError, ValueError, OverflowError):
        counts, total = [], math.nan
    if len(counts) < 2 or not math.isfinite(total) or min(counts) < 0 or total <= 0:
        raise ValueError(f"{where}: a distribution must be 2 or more numbers of at least 0, not all 0, got {values}.")
    return [count / total for count in counts]


def read_text(path: Path) -> str:
    """Read all of a UTF-8 file; raise a ValueError that names the file if it is no text."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: a text file was expected, but it is none ({error}).") from error


def read_table(path: Path, needed: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Read the rows of a CSV table with a header.

    Args:
        path: File of the table.
        needed: Columns that it must have.

    Yields:
        (file and line on which the row begins, cells by column).

    Raises:
        ValueError: If it is no CSV table, lacks a column, or a row ends before the last column that has a name.
    """
    with open_csv(path) as rows:
        names = read_column_names(rows, path)
        check_columns(names, needed, source=str(path), expected=", ".join(needed))
        yield from (name_cells(row, names, path) for row in rows)


def read_sheet(path: Path) -> tuple[list[Any], list[tuple[str, list[Any]]]]:
    """Read the first sheet of an Excel file (.xlsx).

    Returns:
        The cells of the first row, and (file and line, cells) of each other row that is not empty.

    Raises:
        ValueError: If it is no such file.
        ImportError: If openpyxl is missing.
    """
    openpyxl = require("openpyxl", extra="train")
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        lines = [list(cells) for cells in book.worksheets[0].iter_rows(values_only=True)]
        book.close()
    except Exception as error:  # zip, XML and format errors of openpyxl share no base class
        raise ValueError(f"{path}: an Excel file (.xlsx) was expected, but it is none ({error}).") from error
    rows = [(f"{path}, line {number}", cells) for number, cells in enumerate(lines[1:], start=2)]
    return lines[0] if lines else [], [(where, cells) for where, cells in rows if any(c is not None for c in cells)]


def read_excel(path: Path, needed: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the rows of the first sheet of an Excel file (.xlsx) as `read_table` does."""
    header, rows = read_sheet(path)
    check_columns(header, needed, source=str(path), expected=", ".join(needed))
    for where, cells in rows:  # a row is as long as its last filled cell
        yield where, dict.fromkeys(header) | dict(zip(header, cells, strict=False))


def read_fields(path: Path, count: int, expected: str) -> Iterator[tuple[str, list[str]]]:
    """Read the blank-separated fields of each line of a text file.

    Args:
        path: File to read.
        count: Number of fields in a line.
        expected: Names of the fields, for the error message.

    Yields:
        (file and line, fields); empty lines are left out.

    Raises:
        ValueError: If it is no text, or a line has more or fewer fields.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        fields = line.split()
        if fields and len(fields) != count:
            raise ValueError(f"{path}, line {number}: {expected} were expected, got {line.strip()!r}.")
        if fields:
            yield f"{path}, line {number}", fields


def find_annotation_file(annotations: str, names: Sequence[str]) -> Path:
    """Find the file itself, or the first of its usual names in a folder; raise a ValueError if there is none."""
    path = Path(annotations)
    if path.is_file():
        return path
    found = [path / name for name in names if (path / name).is_file()]
    if not found:
        raise ValueError(f"{annotations}: no annotations there. Give {' or '.join(names)}, or a folder that holds it.")
    return found[0]


class Pictures:
    """Pictures found by name without regard to case; every folder is listed once.

    Args:
        annotations: File that names the pictures.
        image_root: Folder that the names start from. None takes the first of `usual` that is beside the annotations,
            or the folder of the annotations.
        usual: Names of folders that hold the pictures as published.
        skip_missing: Whether pictures that are not there are no error here, because they are left out later.
    """

    def __init__(self, annotations: Path, image_root: str | None, *, usual: Sequence[str], skip_missing: bool = False):
        if image_root is not None and not Path(image_root).is_dir():
            raise ValueError(f"`--image_root` {image_root}: no such folder. Give the one that holds the pictures.")
        folders = [Path(os.path.normpath(annotations.parent / name)) for name in usual]
        found = [folder for folder in folders if folder.is_dir()] or [annotations.parent]
        self.root = found[0] if image_root is None else Path(image_root)
        self.listings: dict[Path, dict[str, str]] = {}
        self.missing = MissingPictures(is_allowed=skip_missing)

    def find(self, name: str) -> str | None:
        """Find the path of a picture; None if it is not there."""
        path = self.root / name
        if path.parent not in self.listings:
            names = os.listdir(path.parent) if path.parent.is_dir() else []
            self.listings[path.parent] = {n.lower(): n for n in names} | {n: n for n in names}  # an exact name wins
        listing = self.listings[path.parent]
        listed = listing.get(path.name, listing.get(path.name.lower()))
        return None if listed is None else str(path.parent / listed)

    def require(self, name: Any, where: str) -> str:
        """Find the path of a picture, and note in `missing` if it is not there.

        Raises:
            ValueError: If there is no name; the message starts with `where`.
        """
        if not name:
            raise ValueError(f"{where}: the name of a picture was expected, but there is none.")
        found = self.find(str(name))
        if found is None:
            found = str(self.root / str(name))
            self.missing.note(found, where)
        return found


def list_column_kinds() -> dict[str, Any]:
    """Return the type of every column that rows may have, by the name of the column."""
    import datasets

    return {
        "image": datasets.Image(decode=False),
        "mos": datasets.Value("float64"),
        "distribution": datasets.List(datasets.Value("float64")),
        "box": datasets.List(datasets.Value("int64")),
        "group": datasets.Value("string"),
        "reference": datasets.Value("string"),
    }


def check_score(name: str, value: Any, where: str, score_range: Range) -> Any:
    """Return a `mos` in its range, or a `distribution`; raise a ValueError that starts with `where` for others."""
    if name == "distribution":
        return check_distribution(value, where=where)
    low, high = score_range or (-math.inf, math.inf)
    return check_number(value, name=name, where=where, low=low, high=high)


def check_range(score_range: Range) -> None:
    """Raise a ValueError if a range of scores is not (lowest, highest)."""
    if score_range is not None and not (len(score_range) == 2 and score_range[0] < score_range[1]):
        raise ValueError(f"`score_range` must be (lowest, highest), got {score_range}.")


def check_unit(names: Iterable[str], source: str, score_range: Range) -> None:
    """Raise a ValueError if a range is given for scores that have none."""
    if score_range is not None and "mos" not in names:
        raise ValueError(f"{source}: `score_range` bounds `mos`, but these data have distributions. Leave it out.")
