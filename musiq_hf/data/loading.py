# SPDX-License-Identifier: Apache-2.0
"""Pictures with opinion scores: tables, imagefolder, parquet, WebDataset and Hub data, and the public data sets."""

import glob
import inspect
import itertools
import os
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..pictures.finding import find_pictures
from ..pictures.lazy import check_path
from .annotation_files import MissingPictures, Range, check_range, check_score, check_unit
from .columns import TableOptions
from .image_folders import METADATA, read_image_folder
from .public_sets import DATA_SETS
from .shards import make_shard_features, read_shards
from .split_files import find_split_files
from .splits import PROTOCOL, check_split_name, find_reference_column, split_at_random
from .tables import (
    EXCEL_SUFFIXES,
    EXPECTED,
    check_rows,
    check_scored_columns,
    check_scores,
    check_stream,
    has_paths,
    make_table_features,
    read_score_table,
    rename_columns,
    split_by_column,
)

if TYPE_CHECKING:
    import datasets

PATTERNS = {"parquet": "*.parquet", "webdataset": "*.tar"}
TABLE_SUFFIXES = (".csv", ".tsv", *EXCEL_SUFFIXES)
OTHER_SHEETS = (".xls", ".xlsb", ".ods", ".numbers")
OWNED = "`--image_root` belongs to a CSV, or to parquet files with paths, but {} is none. Leave it out."
UNNAMED = (
    "`--image_column`, `--score_column` and `--split_column` name columns of one's own tables, but {} is none. Leave "
    "them out."
)
# Error messages for arguments that a format does not take.
REFUSALS = {
    "image_root": OWNED,
    "options": UNNAMED,
    "streaming": "{}: parquet files, WebDataset shards and Hub data can be streamed. Leave it out.",
}
USUAL = TableOptions()
HUB_OR_FOLDER = "an imagefolder or a data set of the Hub"
Splits = dict[str, Any]  # data sets or streams by the names of their splits


def _find_format(data: str) -> str:
    """Return the format of data, a key of `READERS`; raise a ValueError for files that do not exist."""
    path = Path(data)
    if path.is_dir():
        found = (
            name for name, pattern in PATTERNS.items() if {file.name for file in path.rglob(pattern)} - {*METADATA}
        )
        return next(found, "imagefolder")
    suffix = path.suffix.lower()
    name = {Path(pattern).suffix: name for name, pattern in PATTERNS.items()}.get(suffix)
    if suffix in OTHER_SHEETS:
        raise ValueError(f"{data}: of spreadsheets, .xlsx files are read. Save it as one, or as CSV.")
    if path.is_file():
        return name or "table"
    if suffix in TABLE_SUFFIXES or (name and not glob.glob(data)):
        raise ValueError(f"{data}: no such file. Give a table with {EXPECTED}.")
    return name or "hub"


def _locate_files(data: str, pattern: str) -> dict[str, list[str]]:
    """Return the files of a file, a pattern or a folder by their splits, which only the names in a folder tell."""
    if Path(data).is_dir():
        return find_split_files(Path(data), pattern)
    return {"train": [data] if Path(data).is_file() else sorted(glob.glob(data, recursive=True))}


def _load(builder: str, *, data: str, kind: str, **arguments: Any) -> Splits:
    """Load splits as `datasets` reads them.

    Args:
        builder: Name of the builder of `datasets`, or of a data set on the Hub.
        data: Name of the data in error messages.
        kind: Kind of the data in error messages.
        **arguments: Arguments of `datasets.load_dataset`.

    Raises:
        ValueError: If the data cannot be read.
    """
    import datasets

    try:
        return datasets.load_dataset(builder, **arguments)
    except (OSError, ValueError, IndexError, tarfile.TarError, datasets.exceptions.DatasetsError) as error:
        cause = error.__cause__ or error  # datasets says only that generation failed
        raise ValueError(f"{data} cannot be read as {kind}: {cause}") from error


def _load_files(builder: str, files: dict[str, list[str]], **arguments: Any) -> Splits:
    """Load files as `_load` does; a file whose name has square brackets or stars is no pattern."""
    for path in itertools.chain.from_iterable(files.values()):
        check_path(path, path)
    escaped = {split: [glob.escape(os.path.abspath(path)) for path in paths] for split, paths in files.items()}
    return _load(builder, data_files=escaped, **arguments)


def _read_schema(path: str, data: str, kind: str) -> Any:
    """Read the Arrow schema of a parquet file, or raise a ValueError as `_load` does."""
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        return pyarrow.parquet.read_schema(check_path(path, path))
    except (OSError, pyarrow.ArrowException) as error:
        raise ValueError(f"{data} cannot be read as {kind}: {error}") from error


def _check_filled(splits: Splits, data: str) -> None:
    """Raise a ValueError if a split has no rows."""
    for split, rows in splits.items():
        if not len(rows):
            raise ValueError(f"{data}, split {split}: no rows. Give at least one picture and its score.")


def _check_splits(splits: Splits, data: str, check: Callable[..., Any], *arguments: Any) -> Splits:
    """Check the names of splits, and apply a check to the rows of each one."""
    checked: Splits = {}
    for name, rows in splits.items():
        split = check_split_name(name, where=data)
        if split in checked:
            raise ValueError(f"{data}: {name!r} is another name of a split that it has already ({split}). Join them.")
        checked[split] = check(rows, f"{data}, split {name}", *arguments)
    return checked


def _read_table(data: str, *, image_root: str | None, options: TableOptions, score_range: Range) -> Splits:
    root = Path(data).parent if image_root is None else Path(image_root)
    missing = MissingPictures(is_allowed=options.skip_missing)
    rows = read_score_table(Path(data), root, score_range, options=options, missing=missing)
    _check_filled({"train": rows}, data)
    missing.check()
    return _check_splits(split_by_column(rows, data), data, check_scores, score_range)


def _read_parquet(
    data: str, *, image_root: str | None, streaming: bool, options: TableOptions, score_range: Range
) -> Splits:
    kind, files = "parquet files", _locate_files(data, PATTERNS["parquet"])
    first = next(iter(files.values()))[0]
    folder = Path(data) if Path(data).is_dir() else Path(first).parent
    root = folder if image_root is None else Path(image_root)
    schema = _read_schema(first, data, kind)
    features = make_table_features(schema, options.rename(schema.names, source=data))
    splits = _load_files("parquet", files, data=data, kind=kind, streaming=streaming, features=features)
    splits = {split: rename_columns(rows, options, data) for split, rows in splits.items()}
    missing = MissingPictures(is_allowed=options.skip_missing)
    if not streaming:
        _check_filled(splits, data)
        if list(splits) == ["train"]:
            splits = split_by_column(splits["train"], data)

    def check(rows: Any, source: str) -> Any:
        check_scored_columns(list(rows.features), source)
        if image_root is not None and not has_paths(rows):
            raise ValueError(OWNED.format(data))
        return (check_stream if streaming else check_rows)(rows, source, root, score_range, missing)

    checked = _check_splits(splits, data, check)
    missing.check()
    return checked


def _read_webdataset(data: str, *, streaming: bool, score_range: Range) -> Splits:
    kind, files = "webdataset files", _locate_files(data, PATTERNS["webdataset"])
    probe = _load_files("webdataset", files, data=data, kind=kind, streaming=True)
    features = make_shard_features(next(iter(probe.values())).features)
    splits = _load_files("webdataset", files, data=data, kind=kind, streaming=streaming, features=features)
    if not streaming:
        _check_filled(splits, data)
    return _check_splits(splits, data, read_shards, score_range)


def _read_imagefolder(data: str, *, options: TableOptions, score_range: Range) -> Splits:
    return read_image_folder(Path(data), score_range, options)


def _read_hub(data: str, *, streaming: bool, options: TableOptions, score_range: Range) -> Splits:
    splits = _load(data, data=data, kind=HUB_OR_FOLDER, streaming=streaming)
    missing = MissingPictures(is_allowed=options.skip_missing)
    if not streaming:
        _check_filled(splits, data)

    def check(rows: Any, source: str) -> Any:
        if rows.features is None:
            rows = rows._resolve_features()  # a stream of JSON lines, say, tells its columns only when read
        rows = rename_columns(rows, options, source)
        return (check_stream if streaming else check_rows)(rows, source, Path(data), score_range, missing)

    checked = _check_splits(splits, data, check)
    missing.check()
    return checked


# Readers by format. A reader takes the data, `score_range`, and those arguments of `REFUSALS` that its format knows.
READERS: Mapping[str, Callable[..., Splits]] = {
    "table": _read_table,
    "parquet": _read_parquet,
    "webdataset": _read_webdataset,
    "imagefolder": _read_imagefolder,
    "hub": _read_hub,
}


def load_scored_images(
    data: str,
    *,
    image_root: str | None = None,
    streaming: bool = False,
    score_range: Range = None,
    options: TableOptions = USUAL,
) -> "datasets.DatasetDict | datasets.IterableDatasetDict":
    """Read pictures and their mean opinion scores, or score distributions.

    Args:
        data: Name of the data. Parquet files and shards may be one file, a pattern (`"data/*.tar"`), or a folder whose
            file names tell the splits. The forms are:
            - A CSV file with columns `image` and `mos`, and perhaps `split`, `group` and `reference`. The counts
              `c1`..`cn` of the scores 1..n may stand in place of `mos`. Semicolons or tabs may stand between cells,
              and numbers may then have a decimal comma.
            - An Excel file (.xlsx) whose first sheet has such columns (needs openpyxl).
            - Parquet files with such columns. `image` is a picture or a path, and a list `distribution` may stand in
              place of `mos`.
            - WebDataset shards (.tar). A sample is a picture and a json with `mos` or `distribution`, or a picture and
              a txt or cls with the score.
            - A folder of pictures with tables metadata.csv, metadata.jsonl or metadata.parquet in it or below it,
              which have `file_name` and `mos`. Folders below it may be named for splits.
            - The id of a data set on the Hub.
        image_root: Folder that paths in a CSV or in parquet files start from; None takes the folder of the file.
        streaming: Whether rows are read and checked one by one, as they are used (parquet, shards, Hub).
        score_range: Lowest and highest possible `mos`; None allows any number.
        options: Names of the columns, and what is done about missing pictures.

    Returns:
        A `datasets.DatasetDict` (`IterableDatasetDict` if `streaming`) of the splits, "train" if the data name none.
        Columns are `image` (undecoded), `mos` or `distribution` (fractions that sum to 1), and `group` and `reference`
        if the data have them. Rows of one `reference` are copies or patches of one picture, and no random split parts
        them.

    Raises:
        ValueError: If an argument does not go with the format, or a column, a picture or a score is missing or wrong.
            The message names file and line, and says what was expected. Rows of a stream raise when they are read.
    """
    import datasets

    check_range(score_range)
    reader = READERS[_find_format(data)]
    arguments: dict[str, Any] = {"image_root": image_root, "streaming": streaming, "options": options}
    known = inspect.signature(reader).parameters
    # Shards hold their pictures: none is missing, whatever is done about it.
    unset = (None, False, USUAL, replace(USUAL, skip_missing=True))
    for name in [name for name in arguments if name not in known]:
        if arguments.pop(name) not in unset:
            raise ValueError(REFUSALS[name].format(data))
    splits = reader(data, score_range=score_range, **arguments)
    return (datasets.IterableDatasetDict if streaming else datasets.DatasetDict)(splits)


def _check_known(splits: "datasets.DatasetDict", source: str, score_range: Range) -> None:
    """Raise a ValueError if scores of a public data set leave a range that is narrower than the reader's own."""
    for split, rows in splits.items():
        where = f"{source}, split {split}"
        check_unit(rows.column_names, where, score_range)
        for row, mos in enumerate(rows["mos"] if score_range is not None else ()):
            check_score("mos", mos, f"{where}, row {row}", score_range)


def load_data(
    data: str,
    *,
    dataset: str = "scores",
    image_root: str | None = None,
    split_seed: int | None = None,
    score_range: Range = None,
    options: TableOptions = USUAL,
) -> "datasets.DatasetDict":
    """Read one's own scores or a public data set by its name, as the command line does.

    Args:
        data: Data that `load_scored_images` reads, or the annotation file of a public data set, or its folder.
        dataset: Kind of the data: "scores", or one of `DATA_SETS`.
        image_root: Folder that the names of pictures start from.
        split_seed: Seed of the random protocol split, 80 % `train` and 20 % `test`. It keeps rows of one `reference`
            together if there is such a column; of PaQ-2-PiQ it draws the validation pictures. None takes the splits
            that the data name, or the official ones, or seed 0 where a public data set has none.
        score_range: Lowest and highest possible `mos`, of a public data set in the unit of its reader. None allows any
            number, or the data set's own range.
        options: Names of the columns of one's own table, and what is done about missing pictures.

    Returns:
        The splits.

    Raises:
        ValueError: If there is no such data set, its files are wrong, or a score lies outside of its range.
    """
    check_range(score_range)
    if dataset in DATA_SETS:
        if options.list_given():
            raise ValueError(UNNAMED.format(f"`--dataset {dataset}`"))
        # AVA's reader leaves out missing pictures in any case.
        skipping = {"skip_missing": True} if options.skip_missing and dataset != "ava" else {}
        known = DATA_SETS[dataset](data, image_root=image_root, split_seed=split_seed, **skipping)
        _check_known(known, data, score_range)
        return known
    if dataset != "scores":
        raise ValueError(f"`dataset` must be scores, {', '.join(DATA_SETS)}, got {dataset!r}.")
    splits = load_scored_images(data, image_root=image_root, score_range=score_range, options=options)
    if split_seed is None:
        return splits
    import datasets

    rows = datasets.concatenate_datasets(list(splits.values()))
    return split_at_random(rows, fractions=PROTOCOL, seed=split_seed, by=find_reference_column(rows))


def load_pictures(data: str, *, image_root: str | None = None, options: TableOptions = USUAL) -> "datasets.Dataset":
    """Read pictures without scores: all files below a folder, or the train pictures of scored data.

    Args:
        data: Folder, see `find_pictures`, or data that `load_scored_images` reads.
        image_root: Folder that paths in a CSV or in parquet files start from; None takes the folder of the file.
        options: Names of the columns, and what is done about missing pictures.

    Returns:
        Rows with the column `image` (undecoded), those of a folder in the order of their names.

    Raises:
        ValueError: If there is no picture.
    """
    import datasets

    if not Path(data).is_dir():
        splits = load_scored_images(data, image_root=image_root, options=options)
        if "train" not in splits:
            raise ValueError(f"{data}: a `train` split is needed, got {sorted(splits)}. Rename one.")
        return splits["train"].select_columns("image")
    if image_root is not None:
        raise ValueError(OWNED.format(data))
    if options.list_given():
        raise ValueError(UNNAMED.format(data))
    files = [str(path) for path in find_pictures(data)]
    return datasets.Dataset.from_dict({"image": files}).cast_column("image", datasets.Image(decode=False))
