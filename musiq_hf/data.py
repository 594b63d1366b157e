# SPDX-License-Identifier: Apache-2.0
"""Pictures with opinion scores: CSV, imagefolder, parquet, WebDataset and Hub data, and the public data sets."""

import glob
import math
import os
import re
import tarfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from .annotation_files import (
    PROTOCOL,
    SPLITS,
    check_columns,
    check_distribution,
    check_number,
    check_split_name,
    column_kinds,
    reference_column,
    split_at_random,
)
from .datasets_iqa import (
    DATA_SETS,
    load_ava,
    load_biq2021,
    load_kadid10k,
    load_koniq,
    load_paq2piq,
    load_spaq,
    load_tid2013,
)
from .presets import Preset, decoder_of

if TYPE_CHECKING:
    import datasets

__all__ = [
    "DATA_SETS",
    "SPLITS",
    "find_pictures",
    "load_ava",
    "load_biq2021",
    "load_data",
    "load_kadid10k",
    "load_koniq",
    "load_paq2piq",
    "load_pictures",
    "load_scored_images",
    "load_spaq",
    "load_tid2013",
    "open_picture",
    "open_row",
    "split_at_random",
]

EXPECTED = (
    "`image` (a path or a picture) and `mos` (a number) or `distribution` (a list of numbers; in a CSV columns `c1`, "
    "`c2`, ...), and may have `split`, `group` and `reference`"
)
IDENTIFIED_ONLY = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}  # Pillow opens these and cannot decode them by itself
PATTERNS = {"parquet": "*.parquet", "webdataset": "*.tar"}
OWNED = "`--image_root` belongs to a CSV, or to parquet files with paths, but {} is none. Leave it out."

Range = tuple[float, float] | None  # lowest and highest possible score


def _check_score(name: str, value: Any, where: str, score_range: Range) -> Any:
    """A score (`mos`) within its range or a distribution, or a ValueError that starts with `where`."""
    if name == "distribution":
        return check_distribution(value, where=where)
    low, high = score_range or (-math.inf, math.inf)
    return check_number(value, name=name, where=where, low=low, high=high)


def _check_range(score_range: Range) -> None:
    if score_range is not None and not (len(score_range) == 2 and score_range[0] < score_range[1]):
        raise ValueError(f"`score_range` must be (lowest, highest), got {score_range}.")


def _check_unit(names: Iterable[str], source: str, score_range: Range) -> None:
    """Raise a ValueError if a range is given for scores that have none."""
    if score_range is not None and "mos" not in names:
        raise ValueError(f"{source}: `score_range` bounds `mos`, but these data have distributions. Leave it out.")


def _check_columns(names: list[str], source: str) -> None:
    score = "distribution" if "distribution" in names else "mos"
    check_columns(names, ("image", score), source=source, expected=EXPECTED)


def _read_csv(path: Path, image_root: Path, score_range: Range) -> "datasets.Dataset":
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
    _check_columns(list(table.columns), str(path))
    score = "mos" if "mos" in table.columns else "distribution"
    pictures, scores = [], []
    for row, (name, value) in enumerate(zip(table["image"], table[score], strict=True), start=2):  # line 1: header
        where = f"{path}, line {row}"
        cell = {"bytes": None, "path": None if pandas.isna(name) else str(name)}
        pictures.append(_resolve(cell, image_root, where)["path"])
        scores.append(_check_score(score, value, where, score_range))
    table["image"], table[score] = pictures, scores
    return datasets.Dataset.from_pandas(table, preserve_index=False)


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
            place["features"] = _tar_features(next(iter(probe.values())).features)
        return datasets.load_dataset(name, streaming=streaming, **place)
    except (OSError, ValueError, IndexError, tarfile.TarError, datasets.exceptions.DatasetsError) as error:
        kind = "an imagefolder or a data set of the Hub" if name in ("hub", "imagefolder") else f"{name} files"
        cause = error.__cause__ or error  # datasets says only that generation failed
        raise ValueError(f"{data} cannot be read as {kind}: {cause}") from error


def _tar_features(features: "datasets.Features") -> "datasets.Features":
    """What is in shards, scores as floats: `datasets` takes a score type from five samples and cuts off decimals."""
    import datasets

    changed = {
        name: datasets.Image(decode=False) if isinstance(kind, datasets.Image) else kind
        for name, kind in features.items()
    }
    if isinstance(changed.get("json"), dict):
        changed["json"] = {name: column_kinds().get(name, kind) for name, kind in changed["json"].items()}
    return datasets.Features(changed)


def _from_tar(rows: Any, source: str, score_range: Range) -> Any:
    """Rows of shards, one field per file extension, with the columns of all other data."""
    import datasets

    fields = rows.features
    pictures = [name for name, kind in fields.items() if isinstance(kind, datasets.Image)]
    labels = fields["json"] if isinstance(fields.get("json"), dict) else {}
    score = next((name for name in ("mos", "distribution") if name in labels), "mos")
    text = None if score in labels else next((name for name in ("txt", "cls") if name in fields), None)
    if not pictures or (text is None and score not in labels):
        raise ValueError(
            f"{source}: every sample needs a picture (jpg, png, ...) and a json file with `mos` or `distribution`, or "
            f"a txt or cls file with the score, got {sorted(fields)}."
        )
    _check_unit([score], source, score_range)
    optional = [name for name in ("group", "reference", "box") if name in labels]

    def convert(row: dict[str, Any]) -> dict[str, Any]:
        where = f"{source}, sample {row['__key__']}"
        own = (row.get("json") or {}) | ({} if text is None else {score: row[text]})
        cell = next((row[name] for name in pictures if row[name] is not None), None)
        if cell is None:
            raise ValueError(f"{where}: a picture ({', '.join(pictures)}) was expected, but there is none.")
        rest = {name: own.get(name) for name in optional}
        return {"image": cell, score: _check_score(score, own.get(score), where, score_range), **rest}

    kinds = {name: column_kinds()[name] for name in ("image", score, *optional)}
    return rows.map(convert, remove_columns=list(fields), features=datasets.Features(kinds))


def _resolve(cell: dict[str, Any] | None, image_root: Path, where: str) -> dict[str, Any]:
    """A cell whose picture is there: in the row, or in a file."""
    if not cell or not (cell["bytes"] or cell["path"]):
        raise ValueError(f"{where}: a picture or the name of one was expected, but there is none.")
    if cell["bytes"]:
        return cell
    path = str(image_root / str(cell["path"]))
    if not os.path.isfile(path):
        raise ValueError(f"{where}: picture {path} does not exist. Check `--image_root`.")
    return {"bytes": None, "path": path}


def _check_rows(rows: "datasets.Dataset", source: str, image_root: Path, score_range: Range) -> "datasets.Dataset":
    """Check every score, and every picture that is a path; pictures in the rows are checked when they are opened."""
    import datasets

    if getattr(rows.features["image"], "dtype", None) == "string":
        cells = ({"bytes": None, "path": name} for name in rows["image"])
        paths = [_resolve(cell, image_root, f"{source}, row {i}")["path"] for i, cell in enumerate(cells)]
        rows = rows.remove_columns("image").add_column("image", paths)
    if "mos" in rows.column_names:
        for row, mos in enumerate(rows["mos"]):
            _check_score("mos", mos, f"{source}, row {row}", score_range)
    if "distribution" in rows.column_names:
        parts = [check_distribution(own, where=f"{source}, row {i}") for i, own in enumerate(rows["distribution"])]
        for row, part in enumerate(parts):
            if len(part) != len(parts[0]):
                raise ValueError(
                    f"{source}, row {row}: `distribution` must have {len(parts[0])} numbers as in row 0, "
                    f"got {len(part)}."
                )
        feature = column_kinds()["distribution"]
        rows = rows.remove_columns("distribution").add_column("distribution", parts, feature=feature)
    try:
        return rows.cast_column("image", datasets.Image(decode=False))
    except (NotImplementedError, TypeError, ValueError) as error:  # what Arrow raises
        kind = rows.features["image"]
        raise ValueError(f"{source}: `image` must hold pictures or their paths, got {kind}.") from error


def _check_lazily(
    rows: "datasets.IterableDataset", source: str, image_root: Path, score_range: Range
) -> "datasets.IterableDataset":
    """Likewise of a stream, row by row as it is read."""
    import datasets

    rows = rows.cast_column("image", datasets.Image(decode=False))
    scores = [name for name in ("mos", "distribution") if name in rows.features]
    features = datasets.Features({**rows.features, **{name: column_kinds()[name] for name in scores}})

    def convert(row: dict[str, Any], index: int) -> dict[str, Any]:
        where = f"{source}, row {index}"
        checked = {name: _check_score(name, row[name], where, score_range) for name in scores}
        return {"image": _resolve(row["image"], image_root, where), **checked}

    return rows.map(convert, with_indices=True, features=features)


def _by_split_column(rows: "datasets.Dataset", source: str) -> dict[str, "datasets.Dataset"]:
    if "split" not in rows.column_names:
        return {"train": rows}
    names = [check_split_name(str(name).strip(), where=source) for name in rows["split"]]
    return {name: rows.select([i for i, own in enumerate(names) if own == name]) for name in sorted(set(names))}


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

    _check_range(score_range)
    name, files = _find_files(data)
    if image_root is not None and name not in ("csv", "parquet"):
        raise ValueError(OWNED.format(data))
    if streaming and name in ("csv", "imagefolder"):
        raise ValueError(f"{data}: parquet files, WebDataset shards and Hub data can be streamed. Leave it out.")
    root = Path(image_root) if image_root is not None else Path(files[0]).parent if files else Path(data)
    if name == "csv":
        loaded = {"train": _read_csv(Path(files[0]), root, score_range)}
    else:
        loaded = _load(name, data, files, streaming)
    for split, rows in loaded.items():
        if not streaming and not len(rows):
            raise ValueError(f"{data}, split {split}: no rows. Give at least one picture and its score.")
    if name in ("csv", "parquet") and list(loaded) == ["train"] and not streaming:
        loaded = _by_split_column(loaded["train"], data)
    splits = {}
    for split, rows in loaded.items():
        check_split_name(split, where=data)
        source = f"{data}, split {split}"
        if name == "webdataset":
            splits[split] = _from_tar(rows, source, score_range)
            continue
        if streaming and rows.features is None:
            rows = rows._resolve_features()  # a stream of JSON lines, say, tells its columns only when read
        _check_columns(list(rows.features), source)
        _check_unit(rows.features, source, score_range)
        if streaming and "split" in rows.features:
            raise ValueError(f"{source}: a stream cannot be parted by a `split` column. Give a file for each split.")
        if name == "parquet" and image_root is not None and rows.features["image"].dtype != "string":
            raise ValueError(OWNED.format(data))
        splits[split] = (_check_lazily if streaming else _check_rows)(rows, source, root, score_range)
    return (datasets.IterableDatasetDict if streaming else datasets.DatasetDict)(splits)


def _check_known(splits: "datasets.DatasetDict", source: str, score_range: Range) -> None:
    """Whether a range is that of a public data set, whose readers know their own."""
    for split, rows in splits.items():
        where = f"{source}, split {split}"
        _check_unit(rows.column_names, where, score_range)
        for row, mos in enumerate(rows["mos"] if score_range is not None else ()):
            _check_score("mos", mos, f"{where}, row {row}", score_range)


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
    _check_range(score_range)
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


def find_pictures(folder: str | os.PathLike[str]) -> list[Path]:
    """Files below a folder whose extensions are those of formats that Pillow decodes, sorted by path.

    Raises:
        ValueError: If there is no such folder, or no picture in it.
    """
    if not os.path.isdir(folder):
        raise ValueError(f"{folder}: no such folder. Give a folder of pictures.")
    kinds = Image.registered_extensions().items()  # of formats that can only be written, too
    known = {suffix for suffix, kind in kinds if kind in Image.OPEN and kind not in IDENTIFIED_ONLY}
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in known and path.is_file())
    if not files:
        raise ValueError(f"{folder} holds no picture. Give a folder of PNG, JPEG or other files that Pillow reads.")
    return files


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


def open_picture(cell: dict[str, Any] | None, preset: Preset = "default") -> Any:
    """Open an undecoded image cell ({"bytes", "path"}) by a preset, as whatever scores pictures.

    Raises:
        ValueError: If it cannot be decoded; the message names the file.
    """
    if not cell or not (cell["bytes"] or cell["path"]):
        raise ValueError("A row has no picture. Leave it out, or give its file.")
    name = cell["path"] or "picture in the data set"
    return decoder_of(preset)(BytesIO(cell["bytes"]) if cell["bytes"] else name, name)


def open_row(row: dict[str, Any], preset: Preset = "default") -> Any:
    """Open the picture of a row, and cut out its `box` (left, top, right, bottom in pixels) if it has one.

    Raises:
        ValueError: If the picture cannot be decoded, or the box is not inside of it; the message names the file.
    """
    picture, box = open_picture(row["image"], preset), row.get("box")
    if box is None:
        return picture
    width, height = picture.size
    left, top, right, bottom = box
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        name = row["image"]["path"] or "picture in the data set"
        raise ValueError(f"{name}: the box {box} must lie inside of its {width}x{height} pixels. Check the labels.")
    return picture.crop((left, top, right, bottom))
