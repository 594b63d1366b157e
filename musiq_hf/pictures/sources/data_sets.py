# SPDX-License-Identifier: Apache-2.0
"""Pictures of Hugging Face data sets: folders that `save_to_disk` has written, and data sets of the Hub, streamed."""

import os
import re
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from typing import Any, NamedTuple

from ..lazy import LazyPicture, Source, describe_error, make_unreadable
from .tables import Columns, choose_key, find_picture_column, open_cell, read_arrow

SAVED, HUB = "saved data set", "data set of the Hub"
SAVED_FILES = ("state.json", "dataset_info.json")  # `datasets` writes them beside the Arrow files of each split
HUB_FILE = "hf://"
ARCHIVES = ("zip://", "tar://")  # whose members `datasets` names as zip://member::hf://file
HUB_PREFIX = "hf://datasets/"
# Form of a path: hf://datasets/owner/name, then perhaps /configuration, @revision and :split.
HUB_PATH = re.compile(HUB_PREFIX + r"(\w[\w.-]*/\w[\w.-]*)(?:/([\w.-]+))?(?:@([^:@]+))?(?::([\w.]+))?")


def is_saved(folder: str) -> bool:
    """Return whether a folder is a data set, or one of its splits, that `save_to_disk` has written."""
    return all(os.path.isfile(os.path.join(folder, name)) for name in SAVED_FILES)


def check_saved(folder: str, columns: Columns) -> None:
    """Raise a ValueError if a column is missing; a data set that cannot be read becomes a row with its error later."""
    import datasets

    try:
        schema = datasets.load_from_disk(folder).features.arrow_schema
    except Exception:  # damaged files provoke errors of all kinds
        return
    find_picture_column(schema, columns, folder)


def read_saved(folder: str, columns: Columns, rows: range | None = None) -> Iterator[Source]:
    """Read a picture per row, named by its key or as `folder::row`; None reads all rows.

    A data set that cannot be opened is one row with the error. Rows that cannot be read are rows with theirs.

    Raises:
        ValueError: If a column is missing.
    """
    import datasets

    try:
        loaded = datasets.load_from_disk(folder)  # memory-mapped
        schema = loaded.features.arrow_schema
    except Exception as error:  # damaged files provoke errors of all kinds
        yield make_unreadable(folder, f"cannot be read as a data set ({describe_error(error)}).")
        return
    name = find_picture_column(schema, columns, folder)
    selected = loaded.select_columns(columns.list_names(name)).with_format("arrow")
    for row in range(len(loaded)) if rows is None else rows:
        try:
            (source,) = read_arrow(selected[row : row + 1], name, columns, path=folder, row=row, folder=folder)
        except Exception as error:
            source = make_unreadable(f"{folder}::{row}", f"cannot be read ({describe_error(error)}).")
        yield source


def count_saved_rows(folder: str, columns: Columns) -> int | None:
    """Return the number of rows of a saved data set; None if it cannot be opened, or a column is missing."""
    import datasets

    try:
        loaded = datasets.load_from_disk(folder)
        find_picture_column(loaded.features.arrow_schema, columns, folder)
        return len(loaded)
    except Exception:  # damaged files provoke errors of all kinds
        return None


def count_saved(folder: str) -> int:
    """Return the number of rows of a saved data set."""
    import datasets

    try:
        return len(datasets.load_from_disk(folder))
    except Exception:  # a damaged data set is one row, with the error
        return 1


class HubPath(NamedTuple):
    """Parts of `hf://datasets/owner/name/configuration@revision:split`; all but the first may be missing.

    Attributes:
        name: Owner and name.
        configuration: Configuration of the data set.
        revision: Branch, tag or commit.
        split: Name of a split.
    """

    name: str
    configuration: str | None
    revision: str | None
    split: str | None

    @classmethod
    def parse(cls, path: str) -> "HubPath":
        """Part a path, or raise a ValueError if it is not written so."""
        match = HUB_PATH.fullmatch(path)
        if match is None:
            raise ValueError(
                f"{path}: a data set of the Hub is written {HUB_PREFIX}owner/name, and after it, as needed, "
                "/configuration, @revision and :split."
            )
        return cls(*match.groups())


def _load_splits(path: str) -> dict[str, Any]:
    """Load the wanted splits as streams, reading only the files that describe them.

    Raises:
        ValueError: If the data set, its configuration or the split is missing, or cannot be reached.
    """
    import datasets

    hub_path = HubPath.parse(path)
    try:
        # The prefix keeps `datasets` from taking a local folder of that name.
        loaded = datasets.load_dataset(
            HUB_PREFIX + hub_path.name, hub_path.configuration, revision=hub_path.revision, streaming=True
        )
    except Exception as error:  # the libraries for data sets and for the network raise errors of all kinds
        raise ValueError(f"{path}: cannot be opened ({describe_error(error)}).") from error
    if hub_path.split is None:
        return dict(loaded)
    if hub_path.split not in loaded:
        raise ValueError(f"{path}: there is no split {hub_path.split!r}, only {', '.join(loaded)}.")
    return {hub_path.split: loaded[hub_path.split]}


def _select_columns(path: str, split: Any, columns: Columns) -> tuple[Any, str]:
    """Reduce a split to its pictures, undecoded, and its keys.

    Returns:
        The split, and the name of the column with the pictures.

    Raises:
        ValueError: If the split cannot be read, or a column is missing.
    """
    import datasets

    try:
        if split.features is None:  # some data sets tell their columns only with the first rows
            split = split._resolve_features()
        schema = split.features.arrow_schema
    except Exception as error:
        raise ValueError(f"{path}: cannot be read ({describe_error(error)}).") from error
    name = find_picture_column(schema, columns, path, takes_paths=False)  # of the Hub none is a path of this machine
    selected = split.select_columns(columns.list_names(name))
    if isinstance(split.features[name], datasets.Image):
        selected = selected.cast_column(name, datasets.Image(decode=False))
    return selected, name


def check_hub(path: str, columns: Columns) -> None:
    """Raise a ValueError if there is no such data set, split or column."""
    for split in _load_splits(path).values():
        _select_columns(path, split, columns)


def read_hub(path: str, columns: Columns) -> Iterator[Source]:
    """Read a picture per row, named by its key or as `hf://datasets/owner/name:split::row`.

    Raises:
        ValueError: If there is no such data set, split or column, or it cannot be reached.
        OSError: If the connection breaks. The rows so far are kept, and the same command continues.
    """
    hub_path = HubPath.parse(path)
    for split_name, split in _load_splits(path).items():
        rows, name = _select_columns(path, split, columns)
        whole = path if hub_path.split else f"{path}:{split_name}"
        cells = enumerate(iter(rows))
        while True:
            try:
                row, cell = next(cells)
            except StopIteration:
                break
            except Exception as error:  # most often the connection has broken, and the rows so far are not lost
                raise OSError(
                    f"{path}: cannot be read on ({describe_error(error)}). The same command continues."
                ) from error
            key = choose_key(cell[columns.key] if columns.key else None, f"{whole}::{row}")
            yield key, LazyPicture(key, partial(_open_remote, cell[name], key))


def is_hub_file(path: str) -> bool:
    """Return whether a path leads to a file of the Hub, or into an archive there, as `datasets` writes it."""
    *archives, file_path = path.split("::")
    return file_path.startswith(HUB_FILE) and all(archive.startswith(ARCHIVES) for archive in archives)


def read_hub_file(path: str) -> BytesIO:
    """Read a file of the Hub, or a member of an archive there."""
    import fsspec  # type: ignore[import-untyped]  # a dependency of datasets

    with fsspec.open(path, "rb") as file:
        return BytesIO(file.read())


def _open_remote(cell: dict[str, Any] | bytes | None, name: str) -> str | BytesIO:
    """Return the bytes of a cell, or of the file of the Hub that it names.

    A data set from the Hub must not name files of this machine, so such a name is refused.
    """
    cell = {"bytes": cell} if isinstance(cell, bytes) else cell or {}
    path = cell.get("path") or ""
    if not cell.get("bytes") and is_hub_file(path):
        return read_hub_file(path)
    if not cell.get("bytes") and path:
        raise ValueError(f"{name}: its file is not one of the Hub ({path}).")
    return open_cell(cell.get("bytes"), name, "")


def count_hub(path: str) -> int | None:
    """Return the number of rows of a data set of the Hub; None if the data set does not tell it."""
    count = 0
    for name, split in _load_splits(path).items():
        known = (split.info.splits or {}).get(name)
        if known is None:
            return None
        count += known.num_examples
    return count
