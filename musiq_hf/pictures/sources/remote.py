# SPDX-License-Identifier: Apache-2.0
"""Pictures of remote stores, found by the URLs of objects, of folders and of patterns; see `common.stores`.

A folder of an object store is what its names have in front. It is listed as a whole, so all names are held in memory.
"""

import glob
import posixpath
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from ...common.stores import ask, describe_object_error
from ..finding import LEFT_OUT, PICTURE, has_picture_suffix
from .data_sets import SAVED_FILES


class StoredEntry(NamedTuple):
    """File or folder of a store.

    Attributes:
        url: Its URL, which begins as that of the folder or pattern that led to it.
        is_folder: Whether it is a folder.
    """

    url: str
    is_folder: bool


def find_stored_kind(url: str, *, once: bool = False) -> Literal["file", "folder"] | None:
    """Return what a URL leads to; None if there is nothing of this very name.

    Args:
        url: URL of an object or folder.
        once: Whether a store that gives no answer is asked a single time.

    Raises:
        ValueError: If the store may not be asked for it.
        StoreError: If the store gives no answer.
    """

    def request(store: Any, path: str) -> Any:
        store.invalidate_cache()  # what an earlier run in this process has listed
        return store.info(path)["type"]

    try:
        return "folder" if ask(url, request, once=once) == "directory" else "file"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise _refuse(url, error) from error


def _refuse(url: str, error: Exception) -> Exception:
    """Return the error to raise in place of one of the store; a failure of the store stays what it is."""
    if isinstance(error, PermissionError):
        return ValueError(f"{url}: may not be read or listed. Check the permissions and the credentials.")
    return ValueError(f"{url}: {describe_object_error(error)}.") if type(error) is ValueError else error


def has_pattern(url: str) -> bool:
    """Return whether a URL has signs of a pattern, which may be a part of a name all the same."""
    return glob.has_magic(url)


def walk_stored(url: str) -> Iterator[tuple[str, str]]:
    """List a folder and those below it, in the order of a folder of the same names on this machine.

    Hidden files and folders are left out.

    Yields:
        URL and kind, `PICTURE` or `LEFT_OUT` by the ending of the name.

    Raises:
        ValueError: If it holds a saved data set, or may not be listed.
        StoreError: If the store gives no answer.
    """
    names = sorted(entry.url.removeprefix(_end(url)).split("/") for entry in _list_stored(url, ""))
    _check_no_data_set(url, names)
    for parts in names:
        if not any(part.startswith(".") for part in parts):
            name = "/".join(parts)
            yield _end(url) + name, PICTURE if has_picture_suffix(name) else LEFT_OUT


def match_stored(url: str) -> Iterator[StoredEntry]:
    """List the files that match a pattern, and folders unless `**` finds their files anyway, in the order of names.

    Raises:
        ValueError: If the store may not be listed.
        StoreError: If the store gives no answer.
    """
    fixed = url[: url.index(next(sign for sign in url if sign in "*?["))]
    root = fixed[: fixed.rindex("/") + 1]
    takes_hidden = "/." in url.removeprefix(root[:-1])
    for entry in sorted(_list_stored(root, url.removeprefix(root))):
        is_hidden = any(part.startswith(".") for part in entry.url.removeprefix(root).split("/"))
        if (takes_hidden or not is_hidden) and not (entry.is_folder and "**" in url):
            yield entry


def _end(url: str) -> str:
    """Return the URL of a folder with one slash at its end."""
    return url if url.endswith("/") else url + "/"


def _list_stored(url: str, pattern: str) -> list[StoredEntry]:
    """List all files below a folder, or files and folders that match a pattern that starts from it."""

    def request(store: Any, path: str) -> tuple[str, dict[str, Any]]:
        store.invalidate_cache()
        options = {"detail": True} | _raise_errors(store)
        if not pattern:
            return path, store.find(path, **options)
        return path, store.glob(f"{path.rstrip('/')}/{pattern}" if path else pattern, **options)

    try:
        path, found = ask(url, request)
    except (OSError, ValueError) as error:
        raise _refuse(url, error) from error
    start = path.strip("/")
    listed = []
    for name, about in found.items():
        inner = name.strip("/").removeprefix(start).strip("/")
        if inner and not name.endswith("/"):  # some stores mark a folder by an object of its name
            listed.append(StoredEntry(_end(url) + inner, about.get("type") == "directory"))
    return listed


def _raise_errors(store: Any) -> dict[str, str]:
    """Return the option that keeps fsspec's own walk from leaving out folders that cannot be listed.

    Stores that list all names at once have no walk, and no such option.
    """
    from fsspec import AbstractFileSystem  # type: ignore[import-untyped]
    from fsspec.asyn import AsyncFileSystem  # type: ignore[import-untyped]

    kind = type(store)
    walks = kind._find is AsyncFileSystem._find if store.async_impl else kind.find is AbstractFileSystem.find
    return {"on_error": "raise"} if walks else {}


def _check_no_data_set(url: str, names: list[list[str]]) -> None:
    """Raise a ValueError if the files below a folder are those of a saved data set."""
    folders = [{posixpath.dirname("/".join(parts)) for parts in names if parts[-1] == file} for file in SAVED_FILES]
    for folder in sorted(set.intersection(*folders)):
        raise ValueError(
            f"{_end(url)}{folder}: a folder of `save_to_disk`, which is not read from a remote store. Copy it to this "
            "machine first, or save the data set as parquet files."
        )
