# SPDX-License-Identifier: Apache-2.0
"""Pictures with opinion scores: CSV, imagefolder, parquet, WebDataset and Hub data, and the public data sets."""

import glob
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..pictures.finding import find_pictures
from .annotation_files import Range, check_range, check_score, check_unit
from .public_sets import DATA_SETS
from .shards import rows_of_shards, tar_features
from .splits import PROTOCOL, check_split_name, reference_column, split_at_random
from .tables import EXPECTED, check_rows, check_scored_columns, check_stream, part_by_split, read_scores_csv

if TYPE_CHECKING:
    import datasets


PATTERNS = {"parquet": "*.parquet", "webdataset": "*.tar"}
OWNED = "`--image_root` belongs to a CSV, or to parquet files with paths, but {} is none. Leave it out."


def _find_files(data: str) -> tuple[str, list[str]]:
    """How `datasets` names the format of the data, and their files (none: a folder, or a name on the Hub)."""
    path = Path(data)
    if path.is_dir():
        return next((name for name, pattern in PATTERNS.items() if any(path.rglob(pattern))), "imagefolder"), []
    name = {Path(pattern).suffix: name for name, pattern in PATTERNS.items()}.get(path.suffix.lower())
    if path.is_file():
        return name or "csv", [data]
    files = sorted(glob.glob(data)) if name else []
    if not files and (name or path.suffix.lower() == ".csv"):
        raise ValueError(f"{data}: no such file. Give a table with {EXPECTED}.")
    return name or "hub", files


def _load(name: str, data: str, files: list[str], streaming: bool) -> Any:
    """Splits as `datasets` reads them, pictures undecoded."""
    import datasets

    place: dict[str, Any] = {"data_files": {"train": files}} if files else {"data_dir": data}
    try:
        if name == "hub":
            return datasets.load_dataset(data, streaming=streaming)
        if name == "webdataset":
            probe = datasets.load_dataset(name, streaming=True, **place)
            place["features"] = tar_features(next(iter(probe.values())).features)
        return datasets.load_dataset(name, streaming=streaming, **place)
    except (OSError, ValueError, IndexError, tarfile.TarError, datasets.exceptions.DatasetsError) as error:
        kind = "an imagefolder or a data set of the Hub" if name in ("hub", "imagefolder") else f"{name} files"
        cause = error.__cause__ or error  # datasets says only that generation failed
        raise ValueError(f"{data} cannot be read as {kind}: {cause}") from error


def load_scored_images(
    data: str, *, image_root: str | None = None, streaming: bool = False, score_range: Range = None
) -> "datasets.DatasetDict | datasets.IterableDatasetDict":
    """Read pictures and their mean opinion scores, or score distributions.

    Args:
        data: One of: a CSV file with columns `image`, `mos` (or the counts `c1`..`cn` of the scores 1..n) and
            optionally `split`, `group` and `reference`; parquet files with such columns (`distribution` is a list;
            `image` is a picture or a path); WebDataset shards (.tar) whose samples are a picture and a json with
            `mos` or `distribution`, or a txt or cls with the score; a folder that `datasets` reads as an imagefolder
            (metadata with `file_name`, `mos`); a data set id on the Hub. Parquet files and shards may be one file, a
            pattern (`"data/*.tar"`), or a folder whose file names tell the splits.
        image_root: Directory that paths start from; None = that of the CSV or parquet file.
        streaming: Whether rows are read, and checked, one by one as they are used (parquet, shards, Hub).
        score_range: Lowest and highest possible `mos`; None = any number.

    Returns:
        A `datasets.DatasetDict` (`IterableDatasetDict` if `streaming`) of the splits, "train" if the data name none,
        with columns `image` (undecoded), `mos` or `distribution` (fractions that sum to 1), and if there are any
        `group` and `reference` (what picture rows are copies or patches of: no random split parts them).

    Raises:
        ValueError: If a column, a picture or a score is missing or wrong; the message names file, line and
            expectation. In a stream when the row is read.
    """
    import datasets

    check_range(score_range)
    name, files = _find_files(data)
    if image_root is not None and name not in ("csv", "parquet"):
        raise ValueError(OWNED.format(data))
    if streaming and name in ("csv", "imagefolder"):
        raise ValueError(f"{data}: parquet files, WebDataset shards and Hub data can be streamed. Leave it out.")
    root = Path(image_root) if image_root is not None else Path(files[0]).parent if files else Path(data)
    if name == "csv":
        loaded = {"train": read_scores_csv(Path(files[0]), root, score_range)}
    else:
        loaded = _load(name, data, files, streaming)
    for split, rows in loaded.items():
        if not streaming and not len(rows):
            raise ValueError(f"{data}, split {split}: no rows. Give at least one picture and its score.")
    if name in ("csv", "parquet") and list(loaded) == ["train"] and not streaming:
        loaded = part_by_split(loaded["train"], data)
    splits = {}
    for split, rows in loaded.items():
        check_split_name(split, where=data)
        source = f"{data}, split {split}"
        if name == "webdataset":
            splits[split] = rows_of_shards(rows, source, score_range)
            continue
        if streaming and rows.features is None:
            rows = rows._resolve_features()  # a stream of JSON lines, say, tells its columns only when read
        check_scored_columns(list(rows.features), source)
        check_unit(rows.features, source, score_range)
        if streaming and "split" in rows.features:
            raise ValueError(f"{source}: a stream cannot be parted by a `split` column. Give a file for each split.")
        if name == "parquet" and image_root is not None and rows.features["image"].dtype != "string":
            raise ValueError(OWNED.format(data))
        splits[split] = (check_stream if streaming else check_rows)(rows, source, root, score_range)
    return (datasets.IterableDatasetDict if streaming else datasets.DatasetDict)(splits)


def _check_known(splits: "datasets.DatasetDict", source: str, score_range: Range) -> None:
    """Whether a range is that of a public data set, whose readers know their own."""
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
) -> "datasets.DatasetDict":
    """Read one's own scores or a public data set by its name, as the command line does.

    Args:
        data: What `load_scored_images` reads ("scores"), or the annotation file, or its folder, of a data set.
        dataset: "scores", or one of `DATA_SETS`.
        image_root: Directory that the names of pictures start from.
        split_seed: None = the splits that the data name, or the official ones (seed 0 where there are none); a number
            = the random protocol split of this seed, 80 % `train` and 20 % `test` (PaQ-2-PiQ: of validation pictures),
            of whole references if there is a column `reference`.
        score_range: Lowest and highest possible `mos`, of a public data set in the unit of its reader; None = any
            number, or the data set's own range.

    Returns:
        The splits.

    Raises:
        ValueError: If there is no such data set, its files are wrong, or a score lies outside of its range.
    """
    check_range(score_range)
    if dataset in DATA_SETS:
        known = DATA_SETS[dataset](data, image_root=image_root, split_seed=split_seed)
        _check_known(known, data, score_range)
        return known
    if dataset != "scores":
        raise ValueError(f"`dataset` must be scores, {', '.join(DATA_SETS)}, got {dataset!r}.")
    splits = load_scored_images(data, image_root=image_root, score_range=score_range)
    if split_seed is None:
        return splits
    import datasets

    rows = datasets.concatenate_datasets(list(splits.values()))
    return split_at_random(rows, fractions=PROTOCOL, seed=split_seed, by=reference_column(rows))


def load_pictures(data: str, *, image_root: str | None = None) -> "datasets.Dataset":
    """Pictures without scores: all files below a folder, or the train pictures of scored data.

    Args:
        data: Folder, or what `load_scored_images` reads.
        image_root: Directory that the paths of a CSV start from; None = the CSV's own directory.

    Returns:
        Rows with the column `image` (undecoded), files in the order of their names.

    Raises:
        ValueError: If there is no picture.
    """
    import datasets

    if not Path(data).is_dir():
        splits = load_scored_images(data, image_root=image_root)
        if "train" not in splits:
            raise ValueError(f"{data}: a `train` split is needed, got {sorted(splits)}. Rename one.")
        return splits["train"].select_columns("image")
    if image_root is not None:
        raise ValueError(OWNED.format(data))
    files = [str(path) for path in find_pictures(data)]
    return datasets.Dataset.from_dict({"image": files}).cast_column("image", datasets.Image(decode=False))
