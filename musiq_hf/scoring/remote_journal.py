# SPDX-License-Identifier: Apache-2.0
"""Journals and tables of runs whose output is an object of a remote store, such as s3://bucket/scores.parquet.

Objects cannot be appended to. So the rows stand in a file of this machine and go out in parts: the objects
OUT.part/00000000.jsonl, 00000001.jsonl and so on. They are read back in order. The first line of each names its run
and the hash of all parts before it, so parts of two runs are never mixed.
"""

import hashlib
import json
import logging
import re
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from ..common.stores import StoreError, ask, describe_object_error
from .journal import WAS_CHANGED, Journal, Totals, make_table, read_totals
from .tables.forms import Rows

logger = logging.getLogger(__name__)
ROWS_OF_PART = 1000
SECONDS_OF_PART = 60
PART = re.compile(r"(\d{8})\.jsonl")


class Part(NamedTuple):
    """Part of a journal.

    Attributes:
        end: Length of the journal up to the end of this part, in bytes.
        digest: Hash of the journal up to there.
    """

    end: int
    digest: str


def check_remote_output(url: str) -> None:
    """Raise an error if a table cannot be put in the place of a URL.

    Raises:
        ValueError: If it is a folder, or may not be read.
        StoreError: If the store gives no answer.
    """
    if has_object(url, once=True) is None:
        raise ValueError(f"{url} is a folder. Give the table another name.")


def has_object(url: str, *, once: bool = False) -> bool | None:
    """Return whether there is an object; None if there is a folder of that name.

    Args:
        url: URL of the object.
        once: Whether a store that gives no answer is asked a single time.

    Raises:
        ValueError: If it may not be read.
        StoreError: If the store gives no answer.
    """
    try:
        about = ask(url, lambda store, path: _refresh(store).info(path), once=once)
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise _refuse(url, error) from error
    return None if about["type"] == "directory" else True


def write_remote_output(url: str) -> Totals:
    """Make a table of its finished journal by a single put, and remove the journal.

    Returns:
        Numbers of pictures.

    Raises:
        ValueError: If the journal lacks rows that it should have, or the table may not be written.
        StoreError: If the store gives no answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        journal, table = Path(folder, "journal"), Path(folder, "table")
        with open(journal, "wb") as file:
            file.writelines(content for _, content in _read_parts(f"{url}.part", _list_parts(f"{url}.part")))
        totals = read_totals(journal)
        if totals is None:
            raise ValueError(f"{url}.part {WAS_CHANGED.format(url)}")
        make_table(table, Path(url).suffix, [journal], totals.pictures)
        try:
            ask(url, lambda store, path: store.put_file(str(table), path))
        except (OSError, ValueError) as error:
            raise _refuse(url, error) from error
    _remove(f"{url}.part", _list_parts(f"{url}.part"))
    return totals


class RemoteJournal(Journal):
    """Journal that is kept in parts in a remote store.

    A kill costs the rows since the last part: 1,000, or those of 60 seconds. Another run on the same output is noticed
    when one of them writes a part that the other has written.

    Args:
        url: URL of the folder of the parts.
        settings: Settings that the run was started with, see `Journal`.
        renew: Whether a journal of a run with other settings is emptied, so that no ValueError is raised for it.

    Raises:
        ValueError: If the journal has other settings, or the store may not be written.
        StoreError: If the store gives no answer.
    """

    def __init__(self, url: str, settings: Mapping[str, Any], *, renew: bool = False):
        self._run = uuid.uuid4().hex
        self._parts, self._own = list[Part](), list[int]()
        self._num_unsaved, self._saved_at, self._is_lost = 0, monotonic(), False
        self._folder = tempfile.TemporaryDirectory(prefix="musiq-")
        try:
            path, self._numbers = Path(self._folder.name, "journal"), _list_parts(url)
            with open(path, "wb") as file:
                for part, content in _read_parts(url, self._numbers):
                    file.write(content)
                    self._parts.append(part)
            super().__init__(path, settings, renew=renew, name=url)
            self._drop_changed()
            self.save()
        except BaseException:
            with suppress(AttributeError):  # there is no file yet
                self._file.close()
            self._folder.cleanup()
            raise

    def _drop_changed(self) -> None:
        """Remove the parts that do not hold what the file has, and those of no use after a gap.

        What another run may have written since this one began is left alone.
        """
        self._digest, num_good = hashlib.sha256(), 0
        self._file.seek(0)
        for part in self._parts:
            digest = self._digest.copy()
            digest.update(self._file.read(part.end - self._file.tell()))
            if part.end > self._size or digest.hexdigest() != part.digest:
                break
            self._digest, num_good = digest, num_good + 1
        del self._parts[num_good:]
        _remove(self.name, [number for number in self._numbers if number >= num_good])
        self._numbers = list(range(num_good))

    def append(self, entry: Rows) -> None:
        """Add the rows of a picture; they go out with those of others."""
        super().append(entry)
        self._num_unsaved += 1
        if self._num_unsaved >= ROWS_OF_PART or monotonic() - self._saved_at >= SECONDS_OF_PART:
            self.save()

    def save(self, *, once: bool = False) -> None:
        """Write a part with all rows that are in none.

        Args:
            once: Whether a store that gives no answer is asked a single time.

        Raises:
            ValueError: If another run has written this part, or it may not be written.
            StoreError: If the store gives no answer.
        """
        last = self._parts[-1] if self._parts else Part(0, hashlib.sha256().hexdigest())
        if last.end == self._size:
            return
        self._file.seek(last.end)
        content = self._file.read(self._size - last.end)
        head = json.dumps({"run": self._run, "after": last.digest}).encode() + b"\n"
        number = len(self._parts)
        try:
            ask(_name_part(self.name, number), partial(_write_new, head + content, number == 0), once=once)
        except FileExistsError:
            self._is_lost = True
            raise ValueError(f"{self.name}: another run is writing it. Wait for it, or end it.") from None
        except (OSError, ValueError) as error:
            self._is_lost = True
            raise _refuse(self.name, error) from error
        self._num_unsaved, self._saved_at = 0, monotonic()
        self._digest.update(content)
        self._parts.append(Part(self._size, self._digest.hexdigest()))
        self._numbers.append(number)
        self._own.append(number)

    def clear(self, settings: Mapping[str, Any]) -> None:
        """Remove all rows and parts, and begin anew with some settings."""
        super().clear(settings)
        self._drop_changed()
        self.save()

    def finish(self) -> None:
        """Note that no picture is missing, and write the last part.

        Raises:
            ValueError: If another run has written this part.
            StoreError: If the store gives no answer.
        """
        super().finish()
        self.save()

    def close(self) -> None:
        """Write what is in no part yet, if that can be done at once, and remove what this run wrote without rows."""
        if not self._is_lost:
            with suppress(StoreError, ValueError):
                self.save(once=True)
        if self._num_unsaved:
            logger.warning(
                "%s: the last %d rows could not be written, and are scored again.", self.name, self._num_unsaved
            )
        if not self.pictures and not self.is_finished:
            with suppress(StoreError):
                _remove(self.name, self._own, once=True)
        super().close()
        self._folder.cleanup()


def _refresh(store: Any) -> Any:
    """Return a file system that has forgotten what it listed earlier."""
    store.invalidate_cache()
    return store


def _name_part(url: str, number: int) -> str:
    return f"{url}/{number:08}.jsonl"


def _refuse(url: str, error: Exception) -> Exception:
    """Return the error to raise in place of one of the store; a failure of the store stays what it is."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, PermissionError):
        return ValueError(f"{url}: may not be read or written. Check the permissions and the credentials.")
    if isinstance(error, FileNotFoundError):
        return ValueError(f"{url}: the bucket or folder does not exist. Make it first, or choose another output.")
    return ValueError(f"{url}: {describe_object_error(error)}.")


def _write_new(content: bytes, makes_folder: bool, store: Any, path: str) -> None:
    """Write an object, or raise a FileExistsError if there is one with another content.

    Between the look and the writing another run may write it. What it reads back then shows that.
    """
    try:
        found = _refresh(store).cat_file(path)
    except FileNotFoundError:
        if makes_folder:
            with suppress(FileExistsError):  # object stores have no folders, and look for the bucket alone
                store.mkdir(path.rpartition("/")[0], create_parents=False)
        store.pipe_file(path, content)
        return
    if found != content:  # else this run wrote it, and the answer was lost
        raise FileExistsError(path)


def _list_parts(url: str) -> list[int]:
    """List the numbers of the parts of a journal, in order."""
    try:
        names = ask(url, lambda store, path: _refresh(store).ls(path, detail=False))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        raise _refuse(url, error) from error
    matches = (PART.fullmatch(name.rpartition("/")[2]) for name in names)
    return sorted(int(match[1]) for match in matches if match is not None)


def _read_parts(url: str, numbers: Sequence[int]) -> Iterator[tuple[Part, bytes]]:
    """Read parts of a journal in order, up to the first one that is missing or does not follow the one before.

    Yields:
        Part, and the lines of the journal in it.
    """
    digest, end = hashlib.sha256(), 0
    for expected, number in enumerate(numbers):
        if number != expected:
            return
        try:
            stored: bytes = ask(_name_part(url, number), lambda store, path: store.cat_file(path))
            head, _, content = stored.partition(b"\n")
            after = json.loads(head)["after"]
        except StoreError:
            raise
        except (OSError, ValueError, TypeError, KeyError):  # it is gone in this moment, or damaged
            return
        if after != digest.hexdigest():
            return
        digest.update(content)
        end += len(content)
        yield Part(end, digest.hexdigest()), content


def _remove(url: str, numbers: Sequence[int], *, once: bool = False) -> None:
    """Remove parts of a journal, and its folder if nothing else is in it.

    The first one goes first: without it the others are of no use, so a kill leaves no part of a journal.
    """

    def request(store: Any, path: str) -> None:
        for group in (numbers[:1], numbers[1:]):
            if group:
                with suppress(FileNotFoundError):
                    store.rm([_name_part(path, number) for number in group])
        if numbers[0] == 0:
            with suppress(OSError):  # object stores have no folders
                store.rmdir(path)

    if numbers:
        ask(url, request, once=once)
