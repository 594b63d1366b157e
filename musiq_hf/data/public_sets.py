# SPDX-License-Identifier: Apache-2.0
"""Readers of the public data sets of image quality: annotation files in, pictures with scores and splits out.

The paper describes most of them in section 4.1. Users import from `musiq_hf.data`. Every reader takes the annotation
file, or the folder in which it has its usual name, and three more arguments:

- `image_root` is the folder that the names of the pictures start from. None takes a folder with the usual name beside
  the annotations, or the folder of the annotations. Names are matched without regard to case.
- `split_seed` is the seed of the random protocol split, 80 % `train` and 20 % `test`. None takes the official split
  where there is one, and else seed 0.
- `skip_missing` keeps rows whose picture does not exist; fine-tuning leaves them out (`--skip_bad_images`). `load_ava`
  leaves them out itself.

It returns columns `image` (undecoded) and `mos`, or `distribution` (fractions that sum to 1). A row that is a
distorted copy or a patch of a picture has that picture's name as `reference`. All rows of one reference belong to one
side of every split.

It raises a ValueError for wrong columns, missing pictures, and scores outside of the data set's range. The message
names file and line, and says what was expected.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.utils import logging

from ..common.checks import check_choice
from ..pictures.csv_rows import check_number
from ..pictures.opening import decode_image, read_header
from .annotation_files import (
    Pictures,
    check_distribution,
    find_annotation_file,
    read_excel,
    read_fields,
    read_table,
    read_text,
)
from .splits import SPLITS, check_split_name, draw_parts, make_splits, read_listed_parts

if TYPE_CHECKING:
    import datasets


NUM_AVA_SCORES = 10
BIQ2021_PARTS = ("validation", "second", "none")
BIQ2021_FILES = {"Train (Images and MOS).csv": "train", "Test (Images and MOS).csv": "test"}
PAQ2PIQ_TRAIN = ("labels=640_padded.csv", "labels<=640_padded.csv")
PAQ2PIQ_TEST = ("labels640.csv", "labels>640.csv")
PAQ2PIQ_VALIDATION_FRACTION = 0.2  # part of the pictures outside of the test set, as in the official files
logger = logging.get_logger(__name__)


def load_koniq(
    annotations: str,
    *,
    image_root: str | None = None,
    split_seed: int | None = None,
    skip_missing: bool = False,
    distribution: bool = False,
) -> "datasets.DatasetDict":
    """Read KonIQ-10k: 10,073 photographs, scores 0..100.

    Args:
        annotations: File `koniq10k_distributions_sets.csv`, whose `set` is the official split (7,058 / 1,000 / 2,015),
            or `koniq10k_scores_and_distributions.csv`, which names none (and keeps the 0..100 scores in `MOS_zscore`).
        image_root: Folder of the pictures, see the module; usually `1024x768`, the pictures that the paper uses.
        split_seed: Seed of the split, see the module; the paper draws ten random splits.
        skip_missing: Whether missing pictures are no error, see the module.
        distribution: Whether rows hold the distribution over the scores 1..5 instead of `mos`.

    Returns:
        The splits.

    Raises:
        ValueError: If a column, a picture or a score is missing or wrong; the message names file and line.
    """
    path = find_annotation_file(
        annotations, ("koniq10k_distributions_sets.csv", "koniq10k_scores_and_distributions.csv")
    )
    pictures = Pictures(path, image_root, usual=("1024x768",), skip_missing=skip_missing)
    counts = [f"c{score}" for score in range(1, 6)]
    rows = []
    for where, cells in read_table(path, ["image_name", *(counts if distribution else ["MOS"])]):
        row: dict[str, Any] = {"image": pictures.require(cells["image_name"], where)}
        if distribution:
            row["distribution"] = check_distribution([cells[name] for name in counts], where=where)
        else:
            name = "MOS_zscore" if "MOS_zscore" in cells else "MOS"
            row["mos"] = check_number(cells[name], name=name, where=where, low=0, high=100)
        if "set" in cells:
            row["split"] = check_split_name(cells["set"], where=where)
        rows.append(row)
    return make_splits(rows, source=path, seed=split_seed, missing=pictures.missing)


def load_spaq(
    annotations: str, *, image_root: str | None = None, split_seed: int | None = None, skip_missing: bool = False
) -> "datasets.DatasetDict":
    """Read SPAQ: 11,125 photographs of smartphones, scores 0..100, no official split.

    Args:
        annotations: File `MOS and Image attribute scores.xlsx` (needs openpyxl), or `SPAQ_mos_std.txt` with lines of
            name, MOS and standard deviation.
        image_root: Folder of the pictures, see the module; usually `TestImage`.
        split_seed: Seed of the split, see the module.
        skip_missing: Whether missing pictures are no error, see the module.

    Returns:
        The splits.

    Raises:
        ValueError: If a column, a picture or a score is missing or wrong; the message names file and line.
    """
    excel = "MOS and Image attribute scores.xlsx"
    path = find_annotation_file(annotations, (excel, f"Annotations/{excel}", "SPAQ_mos_std.txt"))
    pictures = Pictures(path, image_root, usual=("TestImage", "../TestImage"), skip_missing=skip_missing)
    if path.suffix.lower() == ".xlsx":
        pairs = (
            (where, cells["Image name"], cells["MOS"]) for where, cells in read_excel(path, ["Image name", "MOS"])
        )
    else:
        expected = "a name, a MOS and a standard deviation"
        pairs = ((where, fields[0], fields[1]) for where, fields in read_fields(path, 3, expected))
    rows = [
        {
            "image": pictures.require(name, where),
            "mos": check_number(mos, name="MOS", where=where, low=0, high=100),
        }
        for where, name, mos in pairs
    ]
    return make_splits(rows, source=path, seed=split_seed, missing=pictures.missing)


def _read_paq2piq_patches(path: Path) -> Iterator[tuple[str, bool, list[dict[str, Any]]]]:
    """Read the patches of every picture.

    A box counts from the corner of the picture (`left_image`, `top_image`): files for padded pictures move both.

    Yields:
        Triples: name, whether `is_valid` marks it for validation, and its three patches with boxes and scores.
    """
    sides = ("left", "top", "right", "bottom")
    parts = ("patch_1", "patch_2", "patch_3")
    needed = ["name_image", "left_image", "top_image"]
    needed += [f"{name}_{part}" for part in parts for name in ("mos", *sides)]
    for where, cells in read_table(path, needed):
        left, top = (int(check_number(cells[n], name=n, where=where)) for n in ("left_image", "top_image"))
        patches = []
        for part in parts:
            mos = check_number(cells[f"mos_{part}"], name=f"mos_{part}", where=where, low=0, high=100)
            edges = [int(check_number(cells[f"{s}_{part}"], name=f"{s}_{part}", where=where)) for s in sides]
            box = [edge - start for edge, start in zip(edges, (left, top, left, top), strict=True)]
            if not (0 <= box[0] < box[2] and 0 <= box[1] < box[3]):
                raise ValueError(f"{where}: the box of {part} must be left < right, top < bottom, got {box}.")
            patches.append({"mos": mos, "box": box})
        yield cells["name_image"], cells.get("is_valid", "").strip().lower() in ("true", "1"), patches


def load_paq2piq(
    annotations: str, *, image_root: str | None = None, split_seed: int | None = None, skip_missing: bool = False
) -> "datasets.DatasetDict":
    """Read PaQ-2-PiQ (FLIVE, LIVE-FB): 39,810 pictures and three patches of each, scores 0..100.

    As in the paper, `train` holds full pictures and their patches (about 30,000 and 90,000), `validation` (about
    7,700) and `test` (1,827) full pictures only. Patches are not files: the column `box` holds left, top, right and
    bottom in pixels, or None for all of the picture. `open_row` cuts the box out when the row is read.

    Args:
        annotations: Folder of three files:
            - `labels_image.csv` has `name,mos` of every picture.
            - `labels640.csv` is the test set, pictures with a side over 640. Its columns are `name_image`, and `mos_`,
              `left_`, `top_`, `right_` and `bottom_` of each of `image`, `patch_1`, `patch_2` and `patch_3`.
            - `labels=640_padded.csv` has all other pictures, with the same columns and `is_valid`. It alone has the
              boxes of the training patches, and marks the official validation pictures.
        image_root: Folder of the pictures, see the module; usually `database`, with `voc_emotic_ava`, `blur_dataset`
            and `EE371R` below it.
        split_seed: Seed with which a fifth of the pictures outside of the test set is drawn for validation. With a
            seed, `labels=640_padded.csv` may be missing, and then there are no training patches. None takes the
            validation pictures that `is_valid` marks.
        skip_missing: Whether missing pictures are no error, see the module.

    Returns:
        The splits, with columns `image`, `reference` (the full picture), `mos` and `box`.

    Raises:
        ValueError: If a column, a picture or a score is missing or wrong; the message names file and line.
    """
    path = find_annotation_file(annotations, ("labels_image.csv",))
    pictures = Pictures(path, image_root, usual=("database",), skip_missing=skip_missing)
    test_file = find_annotation_file(str(path.parent), PAQ2PIQ_TEST)
    test = {name for name, _, _ in _read_paq2piq_patches(test_file)}
    train_file = next((path.parent / name for name in PAQ2PIQ_TRAIN if (path.parent / name).is_file()), None)
    if train_file is None and split_seed is None:
        raise ValueError(
            f"{path.parent}: {PAQ2PIQ_TRAIN[0]} is missing, which marks the validation pictures and has the boxes of "
            "the training patches. Add it, or give `split_seed` to draw validation pictures and train without patches."
        )
    boxed = (
        {} if train_file is None else {name: (v, patches) for name, v, patches in _read_paq2piq_patches(train_file)}
    )
    table = list(read_table(path, ["name", "mos"]))
    if split_seed is None:
        validation = {name for name, (is_valid, _) in boxed.items() if is_valid}
    else:
        others = sorted({cells["name"] for _, cells in table} - test)
        drawn = draw_parts(len(others), (PAQ2PIQ_VALIDATION_FRACTION, 1 - PAQ2PIQ_VALIDATION_FRACTION), split_seed)
        validation = {others[index] for index in drawn[0]}
    rows: list[dict[str, Any]] = []
    for where, cells in table:
        name = cells["name"]
        image = pictures.require(name, where)
        mos = check_number(cells["mos"], name="mos", where=where, low=0, high=100)
        split = "test" if name in test else "validation" if name in validation else "train"
        common = {"image": image, "reference": name, "split": split}
        rows.append({**common, "mos": mos, "box": None})
        if split == "train" and name in boxed:
            rows += ({**common, **patch} for patch in boxed[name][1])
    return make_splits(rows, source=path, seed=None, missing=pictures.missing)


def _read_ava_counts(path: Path) -> Iterator[tuple[str, str, Any]]:
    """Read file and line, id, and counts of the scores 1..10 of every picture of AVA."""
    if path.suffix.lower() != ".json":
        expected = "index, picture id, 10 counts, 2 tag ids and challenge id"
        for where, fields in read_fields(path, NUM_AVA_SCORES + 5, expected):
            yield where, fields[1], fields[2 : 2 + NUM_AVA_SCORES]
        return
    text = read_text(path)
    try:
        entries = json.loads(text)
        pairs = [(str(entry["image_id"]), entry["label"]) for entry in entries]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path}: a list of `image_id` and `label` was expected ({error!r}).") from error
    yield from ((f"{path}, entry {index}", *pair) for index, pair in enumerate(pairs))


def _read_ava_rows(path: Path, test_ids: set[str] | None) -> Iterator[dict[str, Any]]:
    """Read rows with ids in place of pictures; a JSON file's split is in its name."""
    named = next((split for split in SPLITS if split in path.stem), None) if path.suffix.lower() == ".json" else None
    for where, image_id, counts in _read_ava_counts(path):
        if not isinstance(counts, list) or len(counts) != NUM_AVA_SCORES:
            raise ValueError(f"{where}: {NUM_AVA_SCORES} counts were expected, got {counts}.")
        row = {"image": image_id, "distribution": check_distribution(counts, where=where)}
        if named is not None:
            row["split"] = named
        elif test_ids is not None:
            row["split"] = "test" if image_id in test_ids else "train"
        yield row


def _is_readable(path: str, *, decode_all: bool) -> bool:
    try:
        if decode_all:
            decode_image(path, path)
        else:
            read_header(path, path)
    except ValueError:
        return False
    return True


def _drop_unusable(
    rows: list[dict[str, Any]], pictures: Pictures, *, source: Path, decode_all: bool
) -> list[dict[str, Any]]:
    """Keep the rows whose pictures are there and can be read; warnings name the others."""
    found = [(row, pictures.find(f"{row['image']}.jpg")) for row in rows]
    with ThreadPoolExecutor() as pool:
        readable = list(pool.map(lambda f: f[1] is not None and _is_readable(f[1], decode_all=decode_all), found))
    kept = [{**row, "image": path} for (row, path), fine in zip(found, readable, strict=True) if fine]
    missing = [row["image"] for row, path in found if path is None]
    broken = [row["image"] for (row, path), fine in zip(found, readable, strict=True) if path and not fine]
    if rows and not kept:
        raise ValueError(
            f"{source}: none of its {len(rows)} pictures can be read from {pictures.root}. Check `--image_root`."
        )
    for kind, names in (("are missing", missing), ("cannot be decoded", broken)):
        if names:
            logger.warning("%s: pictures that %s are left out (%d): %s", source, kind, len(names), _join_first(names))
    return kept


def _join_first(names: list[str], *, count: int = 10) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def load_ava(
    annotations: str,
    *,
    image_root: str | None = None,
    split_seed: int | None = None,
    test_list: str | None = None,
    decode_all: bool = False,
) -> "datasets.DatasetDict":
    """Read AVA: 255,530 photographs with the counts of ten scores; rows hold a `distribution` over 1..10.

    Every copy of AVA has pictures (`<id>.jpg`) that are missing or cannot be decoded. They are left out, and a warning
    names them.

    Args:
        annotations: File `AVA.txt` (index, picture id, 10 counts, 2 tag ids, challenge id), or a JSON list of
            `image_id` and `label`. The name of a JSON file holds the split, as in `ava_labels_test.json`, and a folder
            may hold several of them.
        image_root: Folder of the pictures, see the module; usually `images`.
        split_seed: Seed of the split, see the module.
        test_list: File with the ids of the test pictures, one per line. None takes
            `aesthetics_image_lists/generic_test.jpgl` beside `AVA.txt`. Without either there is no official split.
        decode_all: Whether all of every picture is decoded now, which takes hours. Reading the headers alone takes
            minutes.

    Returns:
        The splits.

    Raises:
        ValueError: If a column or a score is missing or wrong, or no picture can be read; the message names the file.
    """
    folder = Path(annotations)
    files = sorted(folder.glob("ava_labels_*.json")) if folder.is_dir() else []
    if not files or (folder / "AVA.txt").is_file():
        files = [find_annotation_file(annotations, ("AVA.txt", "ava_labels_test.json"))]
    beside = files[0].parent / "aesthetics_image_lists" / "generic_test.jpgl"
    if test_list is not None and (split_seed is not None or files[0].suffix == ".json"):
        raise ValueError("`test_list` splits AVA.txt, without `split_seed`. Leave one out.")
    if test_list is not None and not Path(test_list).is_file():
        raise ValueError(f"{test_list}: no such file. Give a list of the ids of test pictures.")
    ids = Path(test_list) if test_list is not None else beside if beside.is_file() else None
    test_ids = None if ids is None else {Path(name).stem for name in read_text(ids).split()}
    pictures = Pictures(files[0], image_root, usual=("images", "image"))
    rows = [row for file in files for row in _read_ava_rows(file, test_ids)]
    rows = _drop_unusable(rows, pictures, source=files[0], decode_all=decode_all)
    return make_splits(rows, source=files[0], seed=split_seed)


def load_biq2021(
    annotations: str,
    *,
    image_root: str | None = None,
    split_seed: int | None = None,
    skip_missing: bool = False,
    validation_part: str = "validation",
) -> "datasets.DatasetDict":
    """Read BIQ2021: 12,000 photographs in three subsets; scores 0..100 (the files hold 0..1), `group` is the subset.

    The official files have no validation pictures. A list of the package takes two parts out of the 10,000 for
    training. For choices there are 1,000 pictures that mirror the mix of subsets and scores. For a second look there
    are 542 others, the validation pictures of `musiq-tiny-biq2021`. They are apart from the 1,000, because
    pictures that helped to choose are no second look. Neither part is in `train`, which keeps 8,458 pictures.

    Args:
        annotations: Folder of the official `Train (Images and MOS).csv` and `Test (Images and MOS).csv` (`Image
            Name,MOS`; 10,000 and 2,000 rows) or one of the two, or a CSV with columns `image,mos,split`. The authors'
            `Train.csv` and `Test.csv` hold another scale with values below 0 and are not read.
        image_root: Folder of the pictures, see the module; usually `Images`. Extensions there differ in case from the
            files', and names hold blanks and parentheses. One file is an MPO, of which the first picture is taken.
        split_seed: Seed of the split, see the module; it splits all pictures, listed or not.
        skip_missing: Whether missing pictures are no error, see the module.
        validation_part: Listed part of the official training pictures that is `validation`: "validation" (the 1,000)
            or "second" (the 542). "none" leaves all pictures in `train`.

    Returns:
        The splits, with columns `image`, `mos` and `group` ("ss01", "ss02", "ss03"; absent where pictures were
        renamed).

    Raises:
        ValueError: If a column, a picture or a score is missing or wrong; the message names file and line.
    """
    check_choice("validation_part", validation_part, BIQ2021_PARTS)
    parts = {} if split_seed is not None or validation_part == "none" else read_listed_parts("biq2021")
    folder = Path(annotations)
    files = [folder / name for name in BIQ2021_FILES if (folder / name).is_file()]
    files = files or [find_annotation_file(annotations, (*BIQ2021_FILES, "labels.csv"))]
    pictures = Pictures(files[0], image_root, usual=("Images", "images"), skip_missing=skip_missing)
    rows = []
    for file in files:
        split = BIQ2021_FILES.get(file.name)
        image, mos = ("image", "mos") if split is None else ("Image Name", "MOS")
        for where, cells in read_table(file, [image, mos, *(["split"] if split is None else [])]):
            subset = re.match(r"ss\d+", cells[image] or "", flags=re.IGNORECASE)
            part = parts.get(cells[image].lower()) if split == "train" else None
            if part not in (None, validation_part):
                continue
            rows.append(
                {
                    "image": pictures.require(cells[image], where),
                    "mos": 100 * check_number(cells[mos], name=mos, where=where, low=0, high=1),
                    "group": subset.group().lower() if subset else None,
                    "split": ("validation" if part else split) or check_split_name(cells["split"], where=where),
                }
            )
    if any(row["group"] is None for row in rows):  # pictures were renamed
        rows = [{name: value for name, value in row.items() if name != "group"} for row in rows]
    return make_splits(rows, source=files[0], seed=split_seed, missing=pictures.missing)


def load_tid2013(
    annotations: str, *, image_root: str | None = None, split_seed: int | None = None, skip_missing: bool = False
) -> "datasets.DatasetDict":
    """Read TID2013: 3,000 distorted copies of 25 pictures, scores 0..9.

    No reference picture is on both sides of a split.

    Args:
        annotations: File `mos_with_names.txt` with lines `5.51429 I01_01_1.bmp`.
        image_root: Folder of the pictures, see the module; usually `distorted_images`. The case of names
            differs between list and files.
        split_seed: Seed of the split, see the module.
        skip_missing: Whether missing pictures are no error, see the module.

    Returns:
        The splits, with columns `image`, `mos` and `reference`.

    Raises:
        ValueError: If a column, a picture or a score is missing or wrong; the message names file and line.
    """
    path = find_annotation_file(annotations, ("mos_with_names.txt",))
    pictures = Pictures(path, image_root, usual=("distorted_images",), skip_missing=skip_missing)
    rows = []
    for where, (mos, name) in read_fields(path, 2, "a MOS and a name"):
        if not re.fullmatch(r"i\d\d_\d\d_\d\.bmp", name, flags=re.IGNORECASE):
            raise ValueError(f"{where}: a name such as I01_01_1.bmp was expected, got {name!r}.")
        score = check_number(mos, name="MOS", where=where, low=0, high=9)
        rows.append({"image": pictures.require(name, where), "mos": score, "reference": name[:3].upper()})
    return make_splits(rows, source=path, seed=split_seed, missing=pictures.missing)


def load_kadid10k(
    annotations: str, *, image_root: str | None = None, split_seed: int | None = None, skip_missing: bool = False
) -> "datasets.DatasetDict":
    """Read KADID-10k: 10,125 distorted copies of 81 pictures, scores 1..5; higher is better, also where called DMOS.

    No reference picture is on both sides of a split.

    Args:
        annotations: File `dmos.csv` (`dist_img,ref_img,dmos,var`), or `FR_KADID_mos_std.txt` with lines of reference,
            distorted picture, MOS and standard deviation.
        image_root: Folder of the pictures, see the module; usually `images`.
        split_seed: Seed of the split, see the module.
        skip_missing: Whether missing pictures are no error, see the module.

    Returns:
        The splits, with columns `image`, `mos` and `reference`.

    Raises:
        ValueError: If a column, a picture or a score is missing or wrong; the message names file and line.
    """
    path = find_annotation_file(annotations, ("dmos.csv", "FR_KADID_mos_std.txt"))
    pictures = Pictures(path, image_root, usual=("images",), skip_missing=skip_missing)
    if path.suffix.lower() == ".csv":
        columns = ["ref_img", "dist_img", "dmos"]
        lines: Iterable[tuple[str, list[str]]] = (
            (where, [cells[name] for name in columns]) for where, cells in read_table(path, columns)
        )
    else:
        lines = read_fields(path, 4, "a reference, a distorted picture, a MOS and a standard deviation")
    rows = [
        {
            "image": pictures.require(fields[1], where),
            "mos": check_number(fields[2], name="MOS", where=where, low=1, high=5),
            "reference": fields[0].lower(),
        }
        for where, fields in lines
    ]
    return make_splits(rows, source=path, seed=split_seed, missing=pictures.missing)


DATA_SETS: dict[str, Callable[..., "datasets.DatasetDict"]] = {
    "ava": load_ava,
    "biq2021": load_biq2021,
    "biq2021_second": partial(load_biq2021, validation_part="second"),
    "kadid10k": load_kadid10k,
    "koniq": load_koniq,
    "paq2piq": load_paq2piq,
    "spaq": load_spaq,
    "tid2013": load_tid2013,
}
