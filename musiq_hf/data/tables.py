# SPDX-License-Identifier: Apache-2.0
"""Tables of scored pictures, CSV, Excel and parquet: columns, pictures and scores checked row by row."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..pictures.csv_rows import check_columns, check_row, find_delimiter, open_csv, read_column_names, to_point
from ..pictures.opening import resolve_cell
from ..pictures.sources.tables import holds_bytes, holds_cells, holds_text
from .annotation_files import (
    MissingPictures,
    Range,
    check_distribution,
    check_score,
    check_unit,
    list_column_kinds,
    read_sheet,
)
from .columns import TableOptions
from .splits import part_rows, read_split_names

if TYPE_CHECKING:
    import datasets

ROWS_TO_CHECK = 1000
EXCEL_SUFFIXES = (".xlsx", ".xlsm")
EXPECTED = (
    "`image` (a path or a picture) and `mos` (a number) or `distribution` (a list of numbers; in a CSV columns `c1`, "
    "`c2`, ...), and may have `split`, `group` and `reference`. `--image_column`, `--score_column` and "
    "`--split_column` take other names"
)


def check_scored_columns(names: list[str], source: str) -> None:
    """Raise a ValueError that names the columns which scored pictures lack."""
    score = "distribution" if "distribution" in names else "mos"
    check_columns(names, ("image", score), source=source, expected=EXPECTED)


@contextmanager
def _open_table(path: Path) -> Iterator[tuple[list[str], Iterator[tuple[str, list[str]]]]]:
    """Open a CSV table, or the first sheet of an Excel file: the names of its columns, and its rows as texts.

    A row is (file and line, cells). Numbers with a decimal comma get a point where no comma stands between cells.
    """
    if path.suffix.lower() in EXCEL_SUFFIXES:
        header, lines = read_sheet(path)
        yield _to_texts(header), ((where, _to_texts(cells)) for where, cells in lines)
        return
    with open_csv(path) as rows:
        yield read_column_names(rows, path), ((check_row(row, path), row.cells) for row in rows)


def _to_texts(cells: Sequence[Any]) -> list[str]:
    return ["" if cell is None else str(cell) for cell in cells]


def read_score_table(
    path: Path,
    image_root: Path,
    score_range: Range,
    *,
    options: TableOptions,
    missing: MissingPictures,
    picture: str = "image",
) -> "datasets.Dataset":
    """Read a CSV or Excel table of scored pictures, and check every row.

    Args:
        path: File with columns for pictures and `mos`, or the counts `c1`..`cn` of the scores 1..n.
        image_root: Folder that paths of pictures start from.
        score_range: Lowest and highest possible `mos`; None allows any number.
        options: Names of the columns.
        missing: Gatherer of the pictures that do not exist.
        picture: Usual name of the column with the paths of pictures.

    Returns:
        Rows with columns `image` (a path) and `mos` or `distribution` (fractions), and all others as texts; an empty
        cell is None.

    Raises:
        ValueError: If a column or a score is missing or wrong, or a row names no picture; the message names file and
            line.
    """
    import datasets

    has_decimal_commas = path.suffix.lower() not in EXCEL_SUFFIXES and find_delimiter(path) != ","
    with _open_table(path) as (header, rows):
        names = options.rename(header, source=str(path), picture=picture)
        counts = _list_count_columns(names, path)
        score = "distribution" if counts else "mos"
        check_columns([*names, score] if counts else names, (picture, score), source=str(path), expected=EXPECTED)
        others = [name for name in names if name and name not in ("image", picture, score, *counts)]
        columns: dict[str, list[Any]] = {name: [] for name in ("image", score, *others)}
        for where, texts in rows:
            cells = _name_cells(names, texts, where)
            columns["image"].append(resolve_picture({"path": cells[picture]}, image_root, where, missing))
            values = [to_point(cells[name], has_decimal_commas) for name in counts or [score]]
            columns[score].append(check_score(score, values if counts else values[0], where, score_range))
            for name in others:
                columns[name].append(cells[name])
    known = list_column_kinds()
    features = {name: known[name] if name in ("image", score) else datasets.Value("string") for name in columns}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def _list_count_columns(names: list[str], path: Path) -> list[str]:
    """Return the columns with the counts of the scores 1..n in this order; none if there is a column `mos`."""
    counts = [name for name in names if re.fullmatch(r"c[1-9]\d*", name)] if "mos" not in names else []
    ordered = [f"c{score}" for score in range(1, len(counts) + 1)]
    check_columns(counts, ordered, source=str(path), expected="the counts of all scores, c1 to cn")
    return ordered


def _name_cells(names: list[str], cells: list[str], where: str) -> dict[str, str | None]:
    """Return the cells of a row by column, None where they are empty; raise a ValueError if there are too many."""
    if any(cells[len(names) :]):
        raise ValueError(
            f"{where}: the row has {len(cells)} cells for {len(names)} columns. Quote texts that hold what stands "
            "between cells."
        )
    return dict.fromkeys(names) | {name: cell or None for name, cell in zip(names, cells, strict=False)}


def resolve_picture(
    cell: dict[str, Any] | None, image_root: Path, where: str, missing: MissingPictures
) -> dict[str, Any]:
    """Return a cell with the bytes of its picture, or the path of its file; note a file that does not exist.

    Args:
        cell: Bytes, path or both, see `resolve_cell`.
        image_root: Folder that a path starts from.
        where: Beginning of the error message: file and line.
        missing: Gatherer of the pictures that do not exist.

    Raises:
        ValueError: If the cell has neither bytes nor path.
    """
    found = resolve_cell(cell, str(image_root))
    if cell is None or found is None:
        raise ValueError(f"{where}: a picture or the name of one was expected, but there is none.")
    if not isinstance(found, str):
        return cell
    path = str(Path(found))
    if not os.path.isfile(path):
        missing.note(path, where)
    return {"bytes": None, "path": path}


def make_table_features(schema: Any, names: Sequence[str]) -> "datasets.Features":
    """Return the types of the columns of a table, read alike however Arrow stores their texts and bytes.

    Args:
        schema: Arrow schema of the table.
        names: Usual name of each column, see `TableOptions.rename`.
    """
    import datasets
    import pyarrow  # type: ignore[import-untyped]

    # datasets before 5.2 knows no bytes of a fixed size.
    plain = [field.with_type(pyarrow.binary()) if holds_bytes(field.type) else field for field in schema]
    features = datasets.Features.from_arrow_schema(pyarrow.schema(plain, schema.metadata))
    for field, name in zip(schema, names, strict=True):
        is_text, is_binary = holds_text(field.type), holds_bytes(field.type)
        if name in ("group", "reference", "split") and (is_text or is_binary):
            features[field.name] = datasets.Value("string")
        if name == "image" and (is_text or is_binary):
            features[field.name] = datasets.Value("string" if is_text else "binary")
        if name == "image" and holds_cells(field.type):
            features[field.name] = datasets.Image(decode=False)
    return features


def rename_columns(rows: Any, options: TableOptions, source: str, *, picture: str = "image") -> Any:
    """Give the columns of a data set or stream their usual names; one of numbers in lists is a `distribution`.

    Args:
        rows: Data set or stream whose columns are known.
        options: Names of the columns.
        source: Name of the data in error messages.
        picture: Usual name of the column with pictures.
    """
    import datasets

    names = list(rows.features)
    lists = (datasets.List, datasets.LargeList)
    is_list = isinstance(rows.features.get(options.score_column or "mos"), lists)
    score = "distribution" if is_list else "mos"
    changes = dict(zip(names, options.rename(names, source=source, picture=picture, score=score), strict=True))
    rows = rows.remove_columns([name for name in names if not changes[name]])
    return rows.rename_columns({name: new for name, new in changes.items() if new not in ("", name)})


def _mark_pictures(rows: Any, source: str) -> Any:
    """Mark the pictures of a data set or stream as undecoded."""
    import datasets

    kind = make_table_features(rows.features.arrow_schema, list(rows.features))["image"]
    try:
        if not isinstance(kind, datasets.Image) and kind != rows.features["image"]:
            rows = rows.cast_column("image", kind)
        return rows.cast_column("image", datasets.Image(decode=False))
    except (NotImplementedError, TypeError, ValueError) as error:  # the errors that Arrow raises
        raise ValueError(f"{source}: `image` must hold pictures or their paths, got {kind}.") from error


def has_paths(rows: Any) -> bool:
    """Return whether the column `image` holds texts, which are paths, and no pictures."""
    return holds_text(rows.features.arrow_schema.field("image").type)


def check_rows(
    rows: "datasets.Dataset", source: str, image_root: Path, score_range: Range, missing: MissingPictures
) -> "datasets.Dataset":
    """Check every row; pictures whose bytes are in the rows are checked later, when they are opened.

    Args:
        rows: Rows with columns `image` (paths or pictures) and `mos` or `distribution`.
        source: Name of the data in error messages.
        image_root: Folder that paths start from.
        score_range: Lowest and highest possible `mos`; None allows any number.
        missing: Gatherer of the pictures that do not exist.

    Returns:
        Rows with columns `image` (undecoded) and `mos` or `distribution` (fractions that sum to 1), and all others.

    Raises:
        ValueError: If a column or a score is missing or wrong, or a row has no picture.
    """
    check_scored_columns(list(rows.features), source)
    rows = _mark_pictures(rows, source)
    if not _has_all_bytes(rows):

        def resolve(cell: dict[str, Any] | None, index: int) -> dict[str, Any]:
            return {"image": resolve_picture(cell, image_root, f"{source}, row {index}", missing)}

        # What has been cached says nothing about the files that are there now.
        rows = rows.map(
            resolve, input_columns="image", with_indices=True, features=rows.features, load_from_cache_file=False
        )
    return check_scores(rows, source, score_range)


def _has_all_bytes(rows: "datasets.Dataset") -> bool:
    """Return whether every cell of `image` holds the bytes of its picture; the bytes themselves are not read."""
    import pyarrow.compute as compute  # type: ignore[import-untyped]

    for batch in rows.select_columns("image").with_format("arrow").iter(ROWS_TO_CHECK):
        lengths = compute.binary_length(compute.struct_field(batch["image"], "bytes"))
        if not compute.all(compute.fill_null(compute.greater(lengths, 0), False)).as_py():
            return False
    return True


def check_scores(rows: "datasets.Dataset", source: str, score_range: Range) -> "datasets.Dataset":
    """Check the scores of every row as `check_rows` does, and return them as floating-point numbers."""
    check_unit(rows.features, source, score_range)
    if "mos" in rows.column_names:
        numbers = [check_score("mos", mos, f"{source}, row {i}", score_range) for i, mos in enumerate(rows["mos"])]
        feature = list_column_kinds()["mos"]
        if rows.features["mos"] != feature:  # whole numbers, or texts of numbers
            rows = rows.remove_columns("mos").add_column("mos", numbers, feature=feature)
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
    return rows


def check_stream(
    rows: "datasets.IterableDataset", source: str, image_root: Path, score_range: Range, missing: MissingPictures
) -> "datasets.IterableDataset":
    """Check the columns of a stream now, and each row, as `check_rows` does, when it is read.

    A missing picture is then an error of its own row, unless it is allowed.
    """
    import datasets

    check_scored_columns(list(rows.features), source)
    check_unit(rows.features, source, score_range)
    if "split" in rows.features:
        raise ValueError(f"{source}: a stream cannot be parted by a `split` column. Give a file for each split.")
    rows = _mark_pictures(rows, source)
    scores = [name for name in ("mos", "distribution") if name in rows.features]
    features = datasets.Features({**rows.features, **{name: list_column_kinds()[name] for name in scores}})

    def convert(row: dict[str, Any], index: int) -> dict[str, Any]:
        where = f"{source}, row {index}"
        checked = {name: check_score(name, row[name], where, score_range) for name in scores}
        own = MissingPictures(is_allowed=missing.is_allowed)
        image = resolve_picture(row["image"], image_root, where, own)
        own.check()
        return {"image": image, **checked}

    return rows.map(convert, with_indices=True, features=features)


def split_by_column(rows: "datasets.Dataset", source: str) -> dict[str, "datasets.Dataset"]:
    """Part rows by their column `split`, if there is one; else all are "train"."""
    if "split" not in rows.column_names:
        return {"train": rows}
    return dict(sorted(part_rows(rows, read_split_names(rows, where=source)).items()))
