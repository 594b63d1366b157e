# SPDX-License-Identifier: Apache-2.0
"""Pictures of remote stores, found by the URLs of objects, of folders and of patterns; see `common.stores`.

A folder of an object store is what its names have in front. It is listed as a whole, so all names are held in memory.
"""

import glob
import posixpath
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple

from ...common.stores import ask, describe_object_error, has_search
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
    start = _end(url)
    names = [found.removeprefix(start) for found in _list_all(url)]
    _check_no_data_set(start, names)
    for name in sorted(names, key=lambda name: name.split("/")):
        if not _is_hidden(name):
            yield start + name, PICTURE if has_picture_suffix(name) else LEFT_OUT


def match_stored(url: str) -> Iterator[StoredEntry]:
    """List the files that match a pattern, and folders unless `**` finds their files anyway, in the order of names.

    Raises:
        ValueError: If the store may not be listed.
        StoreError: If the store gives no answer.
    """
    fixed = url[: url.index(next(sign for sign in url if sign in "*?["))]
    root = fixed[: fixed.rindex("/") + 1]
    pattern = url.removeprefix(root).split("/")
    if "**" in pattern:
        files = (StoredEntry(found, is_folder=False) for found in _list_all(root))
        matches = [entry for entry in files if _has_match(entry.url.removeprefix(root).split("/"), pattern)]
    else:
        matches = list(_expand(root, pattern))
    takes_hidden = _is_hidden(url.removeprefix(root))
    for entry in sorted(matches):
        if takes_hidden or not _is_hidden(entry.url.removeprefix(root)):
            yield entry


def _has_match(parts: list[str], pattern: list[str]) -> bool:
    """Return whether a name matches a pattern, both parted at slashes; `**` stands for any number of parts."""
    if not (parts and pattern):
        return set(pattern) <= {"**"} and not parts
    if pattern[0] == "**":
        return _has_match(parts, pattern[1:]) or _has_match(parts[1:], pattern)
    return fnmatchcase(parts[0], pattern[0]) and _has_match(parts[1:], pattern[1:])


def _expand(url: str, pattern: list[str]) -> Iterator[StoredEntry]:
    """List what matches a pattern without `**` that starts from a folder."""
    for entry in _list_folder(url):
        if fnmatchcase(entry.url.removeprefix(_end(url)), pattern[0]):
            if len(pattern) == 1:
                yield entry
            elif entry.is_folder:
                yield from _expand(entry.url, pattern[1:])


def _is_hidden(name: str) -> bool:
    """Return whether the name of a file, or of a folder on its way, begins with a dot."""
    return any(part.startswith(".") for part in name.split("/"))


def _end(url: str) -> str:
    """Return the URL of a folder with one slash at its end."""
    return url if url.endswith("/") else url + "/"


def _list_all(url: str) -> list[str]:
    """List the files below a folder and those below it."""
    if has_search(url):
        return [entry.url for entry in _list(url, lambda store, path: store.find(path, detail=True).values())]
    files, folders = list[str](), [url]
    while folders:
        for entry in _list_folder(folders.pop()):
            (folders if entry.is_folder else files).append(entry.url)
    return files


def _list_folder(url: str) -> list[StoredEntry]:
    """List what is in a folder itself."""
    return _list(url, lambda store, path: store.ls(path, detail=True))


def _list(url: str, find: Callable[[Any, str], Iterable[dict[str, Any]]]) -> list[StoredEntry]:
    """List what a function of a store finds in a folder; nothing if there is no such folder."""

    def request(store: Any, path: str) -> tuple[str, list[tuple[str, bool]]]:
        store.invalidate_cache()
        found = [(about["name"], about["type"] == "directory") for about in find(store, path)]
        store.invalidate_cache()  # it holds much about each object
        return path.strip("/"), found

    try:
        start, found = ask(url, request)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        raise _refuse(url, error) from error
    listed = []
    for name, is_folder in found:
        inner = name.strip("/").removeprefix(start).strip("/")
        if inner and (is_folder or not name.endswith("/")):  # a folder may be marked by an object of its name
            listed.append(StoredEntry(_end(url) + inner, is_folder))
    return listed


def _check_no_data_set(start: str, names: list[str]) -> None:
    """Raise a ValueError if the files below a folder are those of a saved data set."""
    folders = [{posixpath.dirname(name) for name in names if posixpath.basename(name) == file} for file in SAVED_FILES]
    for folder in sorted(set.intersection(*folders)):
        raise ValueError(
            f"{start}{folder}: a folder of `save_to_disk`, which is not read from a remote store. Copy it to this "
            "machine first, or save the data set as parquet files."
        )
