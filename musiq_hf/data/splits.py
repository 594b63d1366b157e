# SPDX-License-Identifier: Apache-2.0
"""Splits of scored pictures: names, random parts, and rows that are held out."""

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.files import data_directory
from ..pictures.opening import resolve_cell
from .annotation_files import MissingPictures, list_column_kinds, read_table

if TYPE_CHECKING:
    import datasets

NO_GROUPS = "none"
SPLITS = ("train", "validation", "test")
# Words for the splits, as `datasets` knows them.
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
PROTOCOL = {"train": 0.8, "test": 0.2}  # random splits of KonIQ-10k and SPAQ in the paper


def is_whole(splits: Mapping[str, "datasets.Dataset"]) -> bool:
    """Return whether data name no splits, so that all rows are in one."""
    return list(splits) == ["train"] and "split" not in splits["train"].column_names


def choose_split(splits: Mapping[str, "datasets.Dataset"], split: str | None, *, source: str) -> str:
    """Choose the split to measure on.

    Args:
        splits: Rows by the names of their splits.
        split: Name of the wanted split, or a word of `SPLIT_WORDS` for it. None takes "test", or "validation" if there
            is no "test", or all rows of data that name no splits.
        source: Name of the data in the error message.

    Raises:
        ValueError: If there is no such split.
    """
    names = list(splits)
    if split is not None:
        for name in (split, SPLIT_WORDS.get(split.strip().lower())):
            if name in names:
                return name
    else:
        for default in ("test", "validation", *(names if is_whole(splits) else ())):
            if default in names:
                return default
    wanted = "no `test` or `validation` split" if split is None else f"no split {split!r}"
    raise ValueError(f"{source} has {wanted}, only {', '.join(sorted(names))}. Name one of them with `--split`.")


def choose_groups(rows: "datasets.Dataset", group_by: str | None, *, source: str) -> list[str] | None:
    """Return the group of each picture, within which correlations are measured as well.

    Args:
        rows: Rows of pictures.
        group_by: Column with the groups; None takes `group` if there is one, and "none" makes no groups.
        source: Name of the data in the error message.

    Returns:
        A name for each row, empty where the row has none; None if there are no groups.

    Raises:
        ValueError: If there is no such column.
    """
    if group_by == NO_GROUPS or (group_by is None and "group" not in rows.column_names):
        return None
    column = group_by or "group"
    if column not in rows.column_names:
        raise ValueError(
            f"`--group_by {column}`: {source} has no such column, only {', '.join(rows.column_names)}. "
            f"Name one of them, or {NO_GROUPS}."
        )
    return ["" if value is None else str(value) for value in rows[column]]


def split_data(
    splits: "datasets.DatasetDict", *, holdout_fraction: float | None, seed: int
) -> tuple["datasets.Dataset", "datasets.Dataset"]:
    """Return the training pictures, and those that choose the best epoch.

    Whole references are held out where there is a column `reference`.

    Args:
        splits: Splits by name.
        holdout_fraction: Part of `train` that is held out; 0 takes the `validation` split instead. None stands for 0
            if there is a `validation` split, for 0.1 if not.
        seed: Seed of the order in which rows are drawn.

    Raises:
        ValueError: If there is no `train` split, or no pictures that choose the epoch.
    """
    if "train" not in splits:
        raise ValueError(f"A `train` split is needed, got {sorted(splits)}. Name it in the `split` column.")
    fraction = holdout_fraction
    if fraction is None:
        fraction = 0.0 if "validation" in splits else 0.1
    if fraction == 0:
        if "validation" not in splits:
            raise ValueError("`holdout_fraction=0` chooses the best epoch on a `validation` split, but there is none.")
        return splits["train"], splits["validation"]
    train = splits["train"]
    if len(train) < 2:
        raise ValueError("At least 2 training pictures are needed: one to train on, one to hold out. Give more data.")
    by, firsts = find_reference_column(train), find_first_rows(train)
    # No copy, patch or other row of a held-out picture is trained on.
    if by is not None or len(set(firsts)) < len(firsts):
        parts = split_at_random(train, fractions={"train": 1 - fraction, "test": fraction}, seed=seed, by=by)
    else:
        parts = train.train_test_split(test_size=fraction, seed=seed)
    return parts["train"], parts["test"]


def check_split_name(name: Any, *, where: str) -> str:
    """Return the split that a word of `SPLIT_WORDS` stands for, in whatever case it is written.

    Raises:
        ValueError: If it is no such word; the message lists them all.
    """
    split = SPLIT_WORDS.get(str(name).strip().lower())
    if split is None:
        others = ", ".join(word for word in SPLIT_WORDS if word not in SPLITS)
        got = "nothing" if name is None else repr(name)
        raise ValueError(f"{where}: splits are {', '.join(SPLITS)}, also named {others}, got {got}. Rename it.")
    return split


def read_split_names(rows: "datasets.Dataset", *, where: str) -> list[str]:
    """Read the splits in the column `split`; raise a ValueError for a name that stands for none."""
    return [check_split_name(name, where=where) for name in rows["split"]]


def part_rows(rows: "datasets.Dataset", names: Sequence[str]) -> dict[str, "datasets.Dataset"]:
    """Part rows by the names of their splits, in the order of `SPLITS`; a split without rows is left out."""
    chosen = {split: [i for i, name in enumerate(names) if name == split] for split in SPLITS}
    return {split: rows.select(indices) for split, indices in chosen.items() if indices}


def draw_parts(count: int, fractions: Sequence[float], seed: int) -> list[np.ndarray]:
    """Part the numbers 0..count - 1 into fractions, drawn in the order that the seed gives."""
    ends = np.round(np.cumsum(fractions) * count).astype(int)
    # RandomState, because its stream is frozen: a seed gives the same split with every version of NumPy.
    return np.split(np.random.RandomState(seed).permutation(count), ends[:-1])


def draw_strata(
    groups: Sequence[str], scores: Sequence[float], *, count: int, seed: int, excluded: frozenset[int] = frozenset()
) -> list[int]:
    """Draw rows that have the mix of all rows: every group by its part, and within it every score by its part.

    The rows of a group are ordered by score and cut into runs of nearly equal length; one row is drawn from each.

    Args:
        groups: Group of each row.
        scores: Score of each row.
        count: Number of rows to draw.
        seed: Seed of the drawing.
        excluded: Rows that count for the mix but are not drawn.

    Returns:
        Numbers of the drawn rows, ascending.

    Raises:
        ValueError: If `count` does not lie between 1 and the number of rows, or a run holds excluded rows alone.
    """
    if not 1 <= count <= len(groups):
        raise ValueError(f"`count` must lie between 1 and the {len(groups)} rows, got {count}.")
    members = {name: [row for row, group in enumerate(groups) if group == name] for name in sorted(set(groups))}
    exact = {name: count * len(rows) / len(groups) for name, rows in members.items()}
    quotas = {name: int(part) for name, part in exact.items()}
    for name in sorted(exact, key=lambda name: quotas[name] - exact[name])[: count - sum(quotas.values())]:
        quotas[name] += 1  # the largest remainders are rounded up
    generator, drawn = np.random.RandomState(seed), []
    for name, rows in members.items():
        ordered = sorted(rows, key=lambda row: (scores[row], row))
        ends = np.round(np.arange(quotas[name] + 1) * len(rows) / max(quotas[name], 1)).astype(int).tolist()
        for start, end in zip(ends[:-1], ends[1:], strict=True):
            allowed = [row for row in ordered[start:end] if row not in excluded]
            if not allowed:
                raise ValueError(f"`excluded` leaves nothing to draw near score {scores[ordered[start]]} of {name!r}.")
            drawn.append(allowed[generator.randint(len(allowed))])
    return sorted(drawn)


def read_listed_parts(name: str) -> dict[str, str]:
    """Read the parts of a public data set that a list of the package names.

    Args:
        name: Name of the data set, as in `configuration/splits`.

    Returns:
        Part by name of the picture, in lower case: "validation", or "second" for the second look.
    """
    table = read_table(data_directory("splits") / f"{name}.csv", ["image", "part"])
    return {cells["image"].lower(): cells["part"] for _, cells in table}


def find_reference_column(rows: "datasets.Dataset") -> str | None:
    """Return the column that names the picture of which a row is a copy or patch; None if there is none.

    A model that has learnt one copy knows the others, so all copies belong to one side of every split.
    """
    return "reference" if "reference" in rows.column_names else None


def identify_pictures(rows: "datasets.Dataset") -> list[str | bytes]:
    """Return for each row what only rows with the same picture share: its file, or a hash of its bytes."""
    import datasets

    if isinstance(rows.features["image"], datasets.Image):
        rows = rows.cast_column("image", datasets.Image(decode=False))
    return [_identify(cell) for cell in rows["image"]]


def find_first_rows(rows: "datasets.Dataset") -> list[int]:
    """Return for each row the number of the first row with the same picture."""
    if "image" not in rows.column_names:
        return list(range(len(rows)))
    first: dict[str | bytes, int] = {}
    return [first.setdefault(picture, row) for row, picture in enumerate(identify_pictures(rows))]


def _identify(cell: Any) -> str | bytes:
    """Return what two cells with the same picture share."""
    found = resolve_cell(cell)
    if isinstance(found, BytesIO):
        return hashlib.sha256(found.getbuffer()).digest()
    return os.path.realpath(found or "")


def split_at_random(
    rows: "datasets.Dataset", *, fractions: Mapping[str, float], seed: int, by: str | None = None
) -> "datasets.DatasetDict":
    """Split rows at random, the same way for the same seed.

    Args:
        rows: Rows to split.
        fractions: Part of the rows (with `by`: of the groups) in each split, by its name; they sum to 1.
        seed: Seed of the order in which rows are drawn.
        by: Column whose equal values stay together (the reference picture of a distorted one); None draws single
            pictures, and all rows of a picture stay together.

    Returns:
        A split for each name, rows in their old order.

    Raises:
        ValueError: If fractions do not sum to 1, the column or a value in it is missing, or a split would be empty.
    """
    import datasets

    if not fractions or min(fractions.values()) <= 0 or not math.isclose(math.fsum(fractions.values()), 1):
        raise ValueError(f"`fractions` must be positive and sum to 1, got {dict(fractions)}.")
    if by is not None and by not in rows.column_names:
        raise ValueError(f"`by` must be one of the columns {rows.column_names}, got {by!r}.")
    keys: list[Any] = find_first_rows(rows) if by is None else rows[by][:]
    if None in keys:
        raise ValueError(f"Row {keys.index(None)} has no `{by}`. Name it in every row, or leave out the column.")
    units = sorted(set(keys))
    parts = draw_parts(len(units), list(fractions.values()), seed)
    if not all(len(part) for part in parts):
        kind = by or "picture"
        raise ValueError(f"{len(units)} {kind}s are too few for the splits {dict(fractions)}. Give more data.")
    home = {units[unit]: name for name, part in zip(fractions, parts, strict=True) for unit in part}
    indices: dict[str, list[int]] = {name: [] for name in fractions}
    for index, key in enumerate(keys):
        indices[home[key]].append(index)
    return datasets.DatasetDict({name: rows.select(chosen) for name, chosen in indices.items()})


def make_splits(
    rows: list[dict[str, Any]], *, source: Path, seed: int | None, missing: MissingPictures | None = None
) -> "datasets.DatasetDict":
    """Make splits of the rows of a public data set.

    Args:
        rows: Rows with the same columns, see `list_column_kinds`, and perhaps a `split`, which is taken out.
        source: Annotation file, for the error message.
        seed: Seed of the protocol split, which keeps rows of one `reference` together. None splits by `split` where
            rows have one, and else takes seed 0.
        missing: Pictures that were looked for and are missing; None if none was.

    Raises:
        ValueError: If there are no rows, or pictures are missing.
    """
    import datasets

    if missing is not None:
        missing.check()
    if not rows:
        raise ValueError(f"{source}: no rows. Give the whole annotation file.")
    names = [row.pop("split", None) for row in rows]
    kinds = list_column_kinds()
    features = datasets.Features({name: kinds[name] for name in rows[0]})
    table = datasets.Dataset.from_dict({name: [row[name] for row in rows] for name in features}, features=features)
    if seed is None and names[0] is not None:
        return datasets.DatasetDict(part_rows(table, names))
    return split_at_random(table, fractions=PROTOCOL, seed=seed or 0, by=find_reference_column(table))
