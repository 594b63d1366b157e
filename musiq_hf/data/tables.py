# SPDX-License-Identifier: Apache-2.0
"""Tables of scored pictures, CSV and parquet: columns, pictures and scores checked row by row."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..pictures.opening import resolve_cell
from .annotation_files import Range, check_columns, check_distribution, check_score, check_unit, list_column_kinds
from .splits import check_split_name

if TYPE_CHECKING:
    import datasets

EXPECTED = (
    "`image` (a path or a picture) and `mos` (a number) or `distribution` (a list of numbers; in a CSV columns `c1`, "
    "`c2`, ...), and may have `split`, `group` and `reference`"
)


def check_scored_columns(names: list[str], source: str) -> None:
    """Raise a ValueError that names the columns which scored pictures lack."""
    score = "distribution" if "distribution" in names else "mos"
    check_columns(names, ("image", score), source=source, expected=EXPECTED)


def read_scores_csv(path: Path, image_root: Path, score_range: Range) -> "datasets.Dataset":
    """Read a CSV of scored pictures, and check every row.

    Args:
        path: CSV file with columns `image` and `mos`, or the counts `c1`..`cn` of the scores 1..n.
        image_root: Folder that paths of pictures start from.
        score_range: Lowest and highest possible `mos`; None allows any number.

    Returns:
        Rows with columns `image` (a path that exists) and `mos` or `distribution` (fractions), and all others.

    Raises:
        ValueError: If a column, a picture or a score is missing or wrong; the message names file and line.
    """
    import datasets
    import pandas  # a dependency of datasets

    try:
        table = pandas.read_csv(path)
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a CSV table ({error}). It needs a header and {EXPECTED}.") from error
    counts = [name for name in table.columns if re.fullmatch(r"c[1-9]\d*", name)] if "mos" not in table.columns else []
    if counts:
        ordered = [f"c{score}" for score in range(1, len(counts) + 1)]
        check_columns(counts, ordered, source=str(path), expected="the counts of all scores, c1 to cn")
        table["distribution"] = table[ordered].to_numpy().tolist()
        table = table.drop(columns=ordered)
    check_scored_columns(list(table.columns), str(path))
    score = "mos" if "mos" in table.columns else "distribution"
    pictures, scores = [], []
    for row, (name, value) in enumerate(zip(table["image"], table[score], strict=True), start=2):  # line 1: header
        where = f"{path}, line {row}"
        cell = None if pandas.isna(name) else {"bytes": None, "path": str(name)}
        pictures.append(resolve_picture(cell, image_root, where)["path"])
        scores.append(check_score(score, value, where, score_range))
    table["image"], table[score] = pictures, scores
    return datasets.Dataset.from_pandas(table, preserve_index=False)


def resolve_picture(cell: dict[str, Any] | None, image_root: Path, where: str) -> dict[str, Any]:
    """Return a cell whose picture is there: its bytes in the row, or the path of a file that exists.

    Args:
        cell: Bytes, path or both, see `resolve_cell`.
        image_root: Folder that a path starts from.
        where: Beginning of the error message: file and line.

    Raises:
        ValueError: If there is no picture.
    """
    found = resolve_cell(cell, str(image_root))
    if cell is None or found is None:
        raise ValueError(f"{where}: a picture or the name of one was expected, but there is none.")
    if not isinstance(found, str):
        return cell
    path = str(Path(found))
    if not os.path.isfile(path):
        raise ValueError(f"{where}: picture {path} does not exist. Check `--image_root`.")
    return {"bytes": None, "path": path}


def has_paths(rows: Any) -> bool:
    """Return whether the column `image` holds texts, which are paths, and no pictures."""
    return getattr(rows.features["image"], "dtype", None) in ("string", "large_string")


def check_rows(rows: "datasets.Dataset", source: str, image_root: Path, score_range: Range) -> "datasets.Dataset":
    """Check every row; pictures whose bytes are in the rows are checked later, when they are opened.

    Args:
        rows: Rows with columns `image` (paths or pictures) and `mos` or `distribution`.
        source: Name of the data in error messages.
        image_root: Folder that paths start from.
        score_range: Lowest and highest possible `mos`; None allows any number.

    Returns:
        Rows with columns `image` (undecoded) and `mos` or `distribution` (fractions that sum to 1), and all others.

    Raises:
        ValueError: If a column, the file of a picture or a score is missing or wrong.
    """
    check_scored_columns(list(rows.features), source)
    check_unit(rows.features, source, score_range)
    if has_paths(rows):
        cells = ({"bytes": None, "path": name} for name in rows["image"])
        paths = [resolve_picture(cell, image_root, f"{source}, row {i}")["path"] for i, cell in enumerate(cells)]
        rows = rows.remove_columns("image").add_column("image", paths)
    return check_scores(rows, source, score_range)


def check_scores(rows: "datasets.Dataset", source: str, score_range: Range) -> "datasets.Dataset":
    """Check the scores of every row as `check_rows` does, and mark the pictures as undecoded."""
    import datasets

    check_unit(rows.features, source, score_range)
    if "mos" in rows.column_names:
        for row, mos in enumerate(rows["mos"]):
            check_score("mos", mos, f"{source}, row {row}", score_range)
    if "distribution" in rows.column_names:
        parts = [check_distribution(part, where=f"{source}, row {i}") for i, part in enumerate(rows["distribution"])]
        for row, part in enumerate(parts):
            if len(part) != len(parts[0]):
                raise ValueError(
                    f"{source}, row {row}: `distribution` must have {len(parts[0])} numbers as in row 0, "
                    f"got {len(part)}."
                )
        feature = list_column_kinds()["distribution"]
        rows = rows.remove_columns("distribution").add_column("distribution", parts, feature=feature)
    try:
        return rows.cast_column("image", datasets.Image(decode=False))
    except (NotImplementedError, TypeError, ValueError) as error:  # the errors that Arrow raises
        kind = rows.features["image"]
        raise ValueError(f"{source}: `image` must hold pictures or their paths, got {kind}.") from error


def check_stream(
    rows: "datasets.IterableDataset", source: str, image_root: Path, score_range: Range
) -> "datasets.IterableDataset":
    """Check the columns of a stream now, and each row, as `check_rows` does, when it is read."""
    import datasets

    if rows.features is None:
        rows = rows._resolve_features()  # a stream of JSON lines, say, tells its columns only when read
    check_scored_columns(list(rows.features), source)
    check_unit(rows.features, source, score_range)
    if "split" in rows.features:
        raise ValueError(f"{source}: a stream cannot be parted by a `split` column. Give a file for each split.")
    rows = rows.cast_column("image", datasets.Image(decode=False))
    scores = [name for name in ("mos", "distribution") if name in rows.features]
    features = datasets.Features({**rows.features, **{name: list_column_kinds()[name] for name in scores}})

    def convert(row: dict[str, Any], index: int) -> dict[str, Any]:
        where = f"{source}, row {index}"
        checked = {name: check_score(name, row[name], where, score_range) for name in scores}
        return {"image": resolve_picture(row["image"], image_root, where), **checked}

    return rows.map(convert, with_indices=True, features=features)


def split_by_column(rows: "datasets.Dataset", source: str) -> dict[str, "datasets.Dataset"]:
    """Part rows by their column `split`, if there is one; else all are "train"."""
    if "split" not in rows.column_names:
        return {"train": rows}
    names = [check_split_name(str(name).strip(), where=source) for name in rows["split"]]
    return {split: rows.select([i for i, name in enumerate(names) if name == split]) for split in sorted(set(names))}
