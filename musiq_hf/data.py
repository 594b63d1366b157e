# SPDX-License-Identifier: Apache-2.0
"""Pictures with opinion scores: CSV, imagefolder, parquet, WebDataset and Hub data, and the public data sets."""

import glob
import os
import re
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
from .image_loading_musiq import decode_image

if TYPE_CHECKING:
    import datasets

__all__ = [
    "DATA_SETS",
    "SPLITS",
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
    "`c2`, ...), and may have `split` and `group`"
)
PATTERNS = {"parquet": "*.parquet", "webdataset": "*.tar"}
OWNED = "`--image_root` belongs to a CSV, or to parquet files with paths, but {} is none. Leave it out."


def _check_score(name: str, value: Any, where: str) -> Any:
    """A score (`mos`) or a distribution, or a ValueError that starts with `where`."""
    return check_number(value, name="mos", where=where) if name == "mos" else check_distribution(value, where=where)


def _check_columns(names: list[str], source: str) -> None:
    score = "distribution" if "distribution" in names else "mos"
    check_columns(names, ("image", score), source=source, expected=EXPECTED)


def _read_csv(path: Path, image_root: Path) -> "datasets.Dataset":
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
    table["image"] = [str(image_root / str(name)) for name in table["image"]]
    score = "mos" if "mos" in table.columns else "distribution"
    scores = []
    for row, (image, value) in enumerate(zip(table["image"], table[score], strict=True), start=2):  # line 1: header
        if not os.path.isfile(image):
            raise ValueError(f"{path}, line {row}: picture {image} does not exist. Check `--image_root`.")
        scores.append(_check_score(score, value, f"{path}, line {row}"))
    table[score] = scores
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
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
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


def _from_tar(rows: Any, source: str) -> Any:
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
    optional = [name for name in ("group", "box") if name in labels]

    def convert(row: dict[str, Any]) -> dict[str, Any]:
        where = f"{source}, sample {row['__key__']}"
        own = (row.get("json") or {}) | ({} if text is None else {score: row[text]})
        cell = next((row[name] for name in pictures if row[name] is not None), None)
        if cell is None:
            raise ValueError(f"{where}: a picture ({', '.join(pictures)}) was expected, but there is none.")
        rest = {name: own.get(name) for name in optional}
        return {"image": cell, score: _check_score(score, own.get(score), where), **rest}

    kinds = {name: column_kinds()[name] for name in ("image", score, *optional)}
    return rows.map(convert, remove_columns=list(fields), features=datasets.Features(kinds))


def _resolve(cell: dict[str, Any], image_root: Path, where: str) -> dict[str, Any]:
    """A cell whose picture is there: in the row, or in a file."""
    if cell["bytes"]:
        return cell
    path = str(image_root / str(cell["path"]))
    if not os.path.isfile(path):
        raise ValueError(f"{where}: picture {path} does not exist. Check `--image_root`.")
    return {"bytes": None, "path": path}


def _check_rows(rows: "datasets.Dataset", source: str, image_root: Path) -> "datasets.Dataset":
    """Check every score, and every picture that is a path; pictures in the rows are checked when they are opened."""
    import datasets

    if getattr(rows.features["image"], "dtype", None) == "string":
        cells = ({"bytes": None, "path": name} for name in rows["image"])
        paths = [_resolve(cell, image_root, f"{source}, row {i}")["path"] for i, cell in enumerate(cells)]
        rows = rows.remove_columns("image").add_column("image", paths)
    if "mos" in rows.column_names:
        for row, mos in enumerate(rows["mos"]):
            check_number(mos, name="mos", where=f"{source}, row {row}")
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
    return rows.cast_column("image", datasets.Image(decode=False))


def _check_lazily(rows: "datasets.IterableDataset", source: str, image_root: Path) -> "datasets.IterableDataset":
    """Likewise of a stream, row by row as it is read."""
    import datasets

    rows = rows.cast_column("image", datasets.Image(decode=False))
    scores = [name for name in ("mos", "distribution") if name in rows.features]
    features = datasets.Features({**rows.features, **{name: column_kinds()[name] for name in scores}})

    def convert(row: dict[str, Any], index: int) -> dict[str, Any]:
        where = f"{source}, row {index}"
        checked = {name: _check_score(name, row[name], where) for name in scores}
        return {"image": _resolve(row["image"], image_root, where), **checked}

    return rows.map(convert, with_indices=True, features=features)


def _by_split_column(rows: "datasets.Dataset", source: str) -> dict[str, "datasets.Dataset"]:
    if "split" not in rows.column_names:
        return {"train": rows}
    names = [check_split_name(str(name).strip(), where=source) for name in rows["split"]]
    return {name: rows.select([i for i, own in enumerate(names) if own == name]) for name in sorted(set(names))}


def load_scored_images(
    data: str, *, image_root: str | None = None, streaming: bool = False
) -> "datasets.DatasetDict | datasets.IterableDatasetDict":
    """Read pictures and their mean opinion scores, or score distributions.

    Args:
        data: One of: a CSV file with columns `image`, `mos` (or the counts `c1`..`cn` of the scores 1..n) and
            optionally `split` and `group`; parquet files with such columns (`distribution` is a list; `image` is a
            picture or a path); WebDataset shards (.tar) whose samples are a picture and a json with `mos` or
            `distribution`, or a txt or cls with the score; a folder that `datasets` reads as an imagefolder (metadata
            with `file_name`, `mos`); a data set id on the Hub. Parquet files and shards may be one file, a pattern
            (`"data/*.tar"`), or a folder whose file names tell the splits.
        image_root: Directory that paths start from; None = that of the CSV or parquet file.
        streaming: Whether rows are read, and checked, one by one as they are used (parquet, shards, Hub).

    Returns:
        A `datasets.DatasetDict` (`IterableDatasetDict` if `streaming`) of the splits, "train" if the data name none,
        with columns `image` (undecoded), `mos` or `distribution` (fractions that sum to 1), and `group` if there is
        one.

    Raises:
        ValueError: If a column, a picture or a score is missing or wrong; the message names file, line and
            expectation. In a stream when the row is read.
    """
    import datasets

    name, files = _find_files(data)
    if image_root is not None and name not in ("csv", "parquet"):
        raise ValueError(OWNED.format(data))
    if streaming and name in ("csv", "imagefolder"):
        raise ValueError(f"{data}: parquet files, WebDataset shards and Hub data can be streamed. Leave it out.")
    root = Path(image_root) if image_root is not None else Path(files[0]).parent if files else Path(data)
    loaded = {"train": _read_csv(Path(files[0]), root)} if name == "csv" else _load(name, data, files, streaming)
    if name in ("csv", "parquet") and list(loaded) == ["train"] and not streaming:
        loaded = _by_split_column(loaded["train"], data)
    splits = {}
    for split, rows in loaded.items():
        check_split_name(split, where=data)
        source = f"{data}, split {split}"
        if name == "webdataset":
            splits[split] = _from_tar(rows, source)
            continue
        if streaming and rows.features is None:
            rows = rows._resolve_features()  # a stream of JSON lines, say, tells its columns only when read
        _check_columns(list(rows.features), source)
        if streaming and "split" in rows.features:
            raise ValueError(f"{source}: a stream cannot be parted by a `split` column. Give a file for each split.")
        if name == "parquet" and image_root is not None and rows.features["image"].dtype != "string":
            raise ValueError(OWNED.format(data))
        splits[split] = (_check_lazily if streaming else _check_rows)(rows, source, root)
    return (datasets.IterableDatasetDict if streaming else datasets.DatasetDict)(splits)


def load_data(
    data: str, *, dataset: str = "scores", image_root: str | None = None, split_seed: int | None = None
) -> "datasets.DatasetDict":
    """Read one's own scores or a public data set by its name, as the command line does.

    Args:
        data: What `load_scored_images` reads ("scores"), or the annotation file, or its folder, of a data set.
        dataset: "scores", or one of `DATA_SETS`.
        image_root: Directory that the names of pictures start from.
        split_seed: None = the splits that the data name, or the official ones (seed 0 where there are none); a number
            = the random protocol split of this seed, 80 % `train` and 20 % `test` (PaQ-2-PiQ: of validation pictures).

    Returns:
        The splits.

    Raises:
        ValueError: If there is no such data set, or its files are wrong.
    """
    if dataset in DATA_SETS:
        return DATA_SETS[dataset](data, image_root=image_root, split_seed=split_seed)
    if dataset != "scores":
        raise ValueError(f"`dataset` must be scores, {', '.join(DATA_SETS)}, got {dataset!r}.")
    splits = load_scored_images(data, image_root=image_root)
    if split_seed is None:
        return splits
    import datasets

    return split_at_random(datasets.concatenate_datasets(list(splits.values())), fractions=PROTOCOL, seed=split_seed)


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
    known = Image.registered_extensions()
    files = sorted(str(path) for path in Path(data).rglob("*") if path.suffix.lower() in known and path.is_file())
    if not files:
        raise ValueError(f"{data} holds no picture. Give a folder of JPEG, PNG or other files that Pillow reads.")
    return datasets.Dataset.from_dict({"image": files}).cast_column("image", datasets.Image(decode=False))


def open_picture(cell: dict[str, Any]) -> Any:
    """Open an undecoded image cell ({"bytes", "path"}) with the loader that scores everything else.

    Raises:
        ValueError: If it cannot be decoded; the message names the file.
    """
    name = cell["path"] or "picture in the data set"
    return decode_image(BytesIO(cell["bytes"]) if cell["bytes"] else name, name)


def open_row(row: dict[str, Any]) -> Any:
    """Open the picture of a row, and cut out its `box` (left, top, right, bottom in pixels) if it has one.

    Raises:
        ValueError: If the picture cannot be decoded, or the box is not inside of it; the message names the file.
    """
    picture, box = open_picture(row["image"]), row.get("box")
    if box is None:
        return picture
    width, height = picture.size
    left, top, right, bottom = box
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        name = row["image"]["path"] or "picture in the data set"
        raise ValueError(f"{name}: the box {box} must lie inside of its {width}x{height} pixels. Check the labels.")
    return picture.crop((left, top, right, bottom))
