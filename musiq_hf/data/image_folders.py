# SPDX-License-Identifier: Apache-2.0
"""Folders of pictures whose scores stand in tables beside them, as `datasets` knows them by the name imagefolder."""

import glob
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..pictures.csv_rows import check_columns
from ..pictures.lazy import check_path
from .annotation_files import MissingPictures, Range, check_score, read_text
from .columns import TableOptions
from .split_files import is_hidden
from .splits import SPLIT_WORDS, part_rows, read_split_names
from .tables import check_rows, check_scores, read_score_table, rename_columns, resolve_picture

if TYPE_CHECKING:
    import datasets

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
EXPECTED = "`file_name` and `mos` (a number) or `distribution`, and may have `split`, `group` and `reference`"


def read_image_folder(folder: Path, score_range: Range, options: TableOptions) -> dict[str, "datasets.Dataset"]:
    """Read the pictures that the metadata of a folder, and of the folders below it, name.

    A column `split` tells the split of a picture. Without one it is the innermost of its folders with the name of a
    split, such as "test", and "train" if there is none. Names that only hold such a word tell nothing.

    Args:
        folder: Folder with a file metadata.csv, metadata.jsonl or metadata.parquet in it or below it.
        score_range: Lowest and highest possible `mos`; None allows any number.
        options: Names of the columns, and what is done about missing pictures.

    Returns:
        Rows of each split, with columns `image`, `mos` or `distribution`, and all others.

    Raises:
        ValueError: If there are no metadata, or a column, a picture or a score is missing or wrong.
    """
    import datasets

    missing = MissingPictures(is_allowed=options.skip_missing)
    tables = [
        _read_metadata(path, score_range, options, missing)
        for path in sorted(folder.rglob("metadata.*"))
        if path.name in METADATA and not is_hidden(path.relative_to(folder))
    ]
    if not tables:
        raise ValueError(
            f"{folder}: no {', '.join(METADATA)} below it, nor parquet or tar files. Scored pictures need such a "
            f"table with {EXPECTED}."
        )
    missing.check()
    rows = datasets.concatenate_datasets(tables)
    if "split" in rows.column_names:
        names = read_split_names(rows, where=str(folder))
    else:
        names = [_find_split(Path(cell["path"]).relative_to(folder)) for cell in rows["image"]]
    if not names:
        raise ValueError(f"{folder}: no rows in its metadata. Give at least one picture and its score.")
    # Of all tables together, whose distributions must be of one length.
    return part_rows(check_scores(rows, str(folder), score_range), names)


def _find_split(path: Path) -> str:
    return next((SPLIT_WORDS[name] for name in reversed(path.parent.parts) if name in SPLIT_WORDS), "train")


def _read_metadata(
    path: Path, score_range: Range, options: TableOptions, missing: MissingPictures
) -> "datasets.Dataset":
    """Read one table, whose paths start from its folder and must not leave it."""
    import datasets

    check_path(str(path), str(path))
    if path.suffix == ".csv":
        rows = read_score_table(path, path.parent, score_range, options=options, missing=missing, picture="file_name")
    elif path.suffix == ".jsonl":
        rows = _read_json_lines(path, score_range, options, missing)
    else:
        try:
            table = datasets.Dataset.from_parquet(glob.escape(os.path.abspath(path)))
        except Exception as error:  # damaged files provoke errors of all kinds
            raise ValueError(f"{path} cannot be read as parquet: {error.__cause__ or error}") from error
        table = rename_columns(table, options, str(path), picture="file_name")
        check_columns(table.column_names, ["file_name"], source=str(path), expected=EXPECTED)
        rows = check_rows(table.rename_column("file_name", "image"), str(path), path.parent, score_range, missing)
    for cell in rows["image"]:
        if os.path.relpath(cell["path"] or path, path.parent).startswith(".."):
            raise ValueError(f"{path}: `file_name` must lie in the folder of the table, got {cell['path']}. Move it.")
    return rows


def _read_json_lines(
    path: Path, score_range: Range, options: TableOptions, missing: MissingPictures
) -> "datasets.Dataset":
    """Read a table of one JSON object a line, and check every row."""
    import datasets

    rows: list[dict[str, Any]] = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            row = _rename_fields(_parse_object(line, where), options, where)
            rows.append(_check_object(row, where, path.parent, score_range, missing))
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    if not rows:
        raise ValueError(f"{path}: no rows. Give at least one picture and its score.")
    try:
        return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image(decode=False))
    except (TypeError, ValueError, KeyError) as error:  # the errors that Arrow raises
        raise ValueError(f"{path}: rows of one kind were expected ({error}). It needs {EXPECTED}.") from error


def _parse_object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: a JSON object was expected ({error}).") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where}: a JSON object was expected, got {line.strip()[:100]}.")
    return row


def _rename_fields(row: dict[str, Any], options: TableOptions, where: str) -> dict[str, Any]:
    """Return a row whose fields have their usual names."""
    score = "distribution" if isinstance(row.get(options.score_column or "mos"), list) else "mos"
    names = options.rename(list(row), source=where, picture="file_name", score=score)
    return {name: value for name, value in zip(names, row.values(), strict=True) if name}


def _check_object(
    row: dict[str, Any], where: str, folder: Path, score_range: Range, missing: MissingPictures
) -> dict[str, Any]:
    """Return a row with the cell of its picture and checked score."""
    score = "distribution" if "distribution" in row else "mos"
    check_columns(list(row), ("file_name", score), source=where, expected=EXPECTED)
    name = row.pop("file_name")
    if name is not None and not isinstance(name, str):
        raise ValueError(f"{where}: `file_name` must be a text, got {name!r}.")
    image = resolve_picture({"path": name}, folder, where, missing)
    return {**row, "image": image, score: check_score(score, row[score], where, score_range)}
