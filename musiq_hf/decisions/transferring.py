# SPDX-License-Identifier: Apache-2.0
"""Copies, links and moves of chosen pictures into a folder, with the structure of their own folder kept.

Nothing is overwritten or deleted. A file gets its name in one step, which fails if the name is taken. Killed at any
moment, the same call continues. Moves are noted in a journal before they are made, and `undo_moves` takes them back.
"""

import errno
import filecmp
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from ..common.files import hash_file, shorten_name
from .journal import MoveJournal, Transfer

Way = Literal["copy", "link", "symlink", "move"]
BYTE = re.compile(r"\\udc([89a-f][0-9a-f])")  # how tables show a byte of a name that is not Unicode
BATCH = 200  # moves that are noted at once, for each wait for the disk
STOPPING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # errors that every further file would meet
EXISTS = "is there already, and is not overwritten"


class Failure(NamedTuple):
    """Picture that was left where it is.

    Attributes:
        key: Name of the picture, or its path.
        reason: Sentence without a name, such as "no such file".
    """

    key: str
    reason: str


@dataclass
class TransferResult:
    """Outcome of copying, linking or moving.

    Attributes:
        done: Number of files that were put in their place now.
        found: Number of files that were there before, by an earlier run say.
        failures: Pictures that could not be put in their place.
    """

    done: int = 0
    found: int = 0
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """Files to put in their places.

    Attributes:
        transfers: Files and their places, in the order of the keys.
        root: Folder below which the structure is kept.
        failures: Keys that name no file of this machine, or none below the root.
    """

    transfers: list[Transfer]
    root: str
    failures: list[Failure]


def find_file(key: str, folder: str = "") -> str:
    """Return the absolute path of a key of a table; tables show bytes that are not Unicode with backslashes.

    Args:
        key: Path, absolute or in a folder.
        folder: Folder of relative keys; empty for the current one.
    """
    path = os.path.abspath(os.path.join(folder, key))
    if not os.path.lexists(path) and BYTE.search(path):
        return BYTE.sub(lambda match: chr(0xDC00 + int(match[1], 16)), path)
    return path


def plan_transfers(
    keys: Sequence[str], folder: str, *, among: Sequence[str] | None = None, root: str | None = None
) -> Plan:
    """Find the files of keys, and their places in a folder.

    Args:
        keys: Keys of the chosen pictures.
        folder: Folder to put them in.
        among: Keys of all pictures; the folder that they share is the root. None takes `keys`.
        root: Folder of relative keys, below which the structure is kept. None: keys are relative to the current
            folder, and the structure is kept below the folder that all keys share.

    Returns:
        Plan; a key that is given twice has one place.
    """
    local = [key for key in (keys if among is None else among) if "://" not in key]
    if root is not None:
        top = os.path.abspath(root)
    else:
        folders = {os.path.dirname(os.path.abspath(key)) for key in local}
        top = os.path.commonpath(folders) if folders else os.getcwd()
    transfers, failures, place = [], [], os.path.abspath(folder)
    for key in dict.fromkeys(keys):
        source = find_file(key, root or "")
        inside = os.path.relpath(source, top)
        if "://" in key:
            failures.append(Failure(key, "it is no file of this machine"))
        elif inside.split(os.sep)[0] == os.pardir:
            failures.append(Failure(key, f"it does not lie in {top}"))
        else:
            transfers.append(Transfer(source, os.path.join(place, inside)))
    return Plan(transfers, top, failures)


def transfer_files(
    transfers: Sequence[Transfer], folder: str, way: Way, *, journal: str | None = None
) -> TransferResult:
    """Copy, link or move files into a folder.

    Args:
        transfers: Files and their places, all below the folder.
        folder: Folder, which is made if it is not there.
        way: Way in which it is done; "link" makes hard links, "symlink" symbolic links by relative paths.
        journal: Journal of moves, which is continued if it is there; other ways take none.

    Returns:
        Numbers of files, and those that could not be put in their place. A place that holds the same content counts
        as done, except for moves, which would leave one file in place of two.

    Raises:
        ValueError: If the folder cannot be made or another process is at work in it, or the journal is another one's.
        OSError: If the disk is full, or cannot be written.
    """
    if (way == "move") != (journal is not None):
        raise ValueError("A journal is needed for moves, and for nothing else.")
    place, result = os.path.abspath(folder), TransferResult()
    if os.path.lexists(place) and not os.path.isdir(place):
        raise ValueError(f"{folder} is no folder. Choose another name.")
    if journal is None:
        _make_folders(_list_missing([place]))
        with _lock(place):
            for transfer in transfers:
                _attempt(result, transfer, way)
        return result
    with MoveJournal(journal, place) as moves:
        made = _list_missing([place])
        moves.note([], made)
        _make_folders(made)
        with _lock(place):
            iterator = iter(transfers)
            while batch := list(islice(iterator, BATCH)):
                _move_batch(batch, moves, result)
    return result


def undo_moves(journal: str) -> TransferResult:
    """Put all files of a journal back, and remove folders that were made for them and are empty again.

    Killed at any moment, the same call continues. The journal stays, and a file that is back already counts as found.

    Raises:
        ValueError: If it is no journal, or another process is at work in its folder.
        OSError: If the disk is full, or cannot be written.
    """
    result = TransferResult()
    with MoveJournal.open_existing(journal) as moves:
        if not os.path.isdir(moves.folder):
            places = [move for move in moves.moves if not os.path.lexists(move.source)]
            result.failures += [Failure(move.source, f"{move.target} is gone") for move in places]
            result.found = len(moves.moves) - len(places)
            return result
        with _lock(moves.folder):
            for move in reversed(list(moves.moves)):
                back = Transfer(move.target, move.source)
                with _noting(result, move.source):
                    _make_folders(_list_missing([os.path.dirname(move.source)]))
                    _put_back(back, result)
            for path in sorted(moves.folders, key=len, reverse=True):
                try:
                    os.rmdir(path)
                except OSError:  # it holds other files, or is gone
                    continue
    return result


def _attempt(result: TransferResult, transfer: Transfer, way: Way) -> None:
    """Copy or link one file, and note the outcome."""
    with _noting(result, transfer.source):
        if os.path.lexists(transfer.target):
            if not _is_same(transfer.source, transfer.target):
                raise FileExistsError(f"{transfer.target} {EXISTS}")
            _drop_temporary(transfer.target)
            result.found += 1
            return
        if not os.path.isfile(transfer.source):
            raise FileNotFoundError("no such file")
        _make_folders(_list_missing([os.path.dirname(transfer.target)]))
        _WAYS[way](transfer)
        result.done += 1


@contextmanager
def _noting(result: TransferResult, source: str) -> Iterator[None]:
    """Note an error of one file as its failure; an error that all would meet ends the run."""
    try:
        yield
    except OSError as error:
        if error.errno in STOPPING:
            raise
        result.failures.append(Failure(source, error.strerror or str(error)))


def _move_batch(batch: Sequence[Transfer], moves: MoveJournal, result: TransferResult) -> None:
    """Move some files: first all are noted, then all are moved."""
    free: list[Transfer] = []
    for transfer in batch:
        with _noting(result, transfer.source):
            if _find_move(transfer, moves):
                free.append(transfer)
            else:
                result.found += 1
    made = _list_missing(os.path.dirname(transfer.target) for transfer in free)
    moves.note([transfer for transfer in free if transfer.target not in moves.targets], made)
    _make_folders(made)
    for transfer in free:
        with _noting(result, transfer.source):
            _move(transfer)
            result.done += 1


def _find_move(transfer: Transfer, moves: MoveJournal) -> bool:
    """Return whether a file has to be moved; it need not if an earlier run has done so.

    Raises:
        OSError: If it cannot be moved.
    """
    is_noted, is_there = transfer.target in moves.targets, os.path.lexists(transfer.target)
    if not os.path.lexists(transfer.source):
        if is_noted and is_there:
            return False
        raise FileNotFoundError("no such file")
    if os.path.islink(transfer.source) or not os.path.isfile(transfer.source):
        raise FileNotFoundError("it is a link, or no regular file, and is not moved")
    if is_there and not (is_noted and _is_same(transfer.source, transfer.target)):
        raise FileExistsError(f"{transfer.target} {EXISTS}")
    return True


def _put_back(back: Transfer, result: TransferResult) -> None:
    """Move a file back, if it is not back already."""
    if os.path.lexists(back.source) and os.path.lexists(back.target) and not _is_same(back.source, back.target):
        raise FileExistsError(f"{back.source} and {back.target} differ, and nothing is overwritten")
    if os.path.lexists(back.source):
        _move(back)
        result.done += 1
    elif os.path.lexists(back.target):
        result.found += 1
    else:
        raise FileNotFoundError(f"{back.source} is gone")


def _move(transfer: Transfer) -> None:
    """Give a file its new name, and take the old one away; a new name with the same content is that of a killed run.

    Raises:
        OSError: If the new name is taken by another file.
    """
    if not os.path.lexists(transfer.target):
        try:
            os.link(transfer.source, transfer.target, follow_symlinks=False)
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno != errno.EXDEV:  # the file system has no hard links, or not of this file
                _rename(transfer)
                return
            _copy(transfer)
    elif not os.path.samefile(transfer.source, transfer.target):
        if hash_file(Path(transfer.source)) != hash_file(Path(transfer.target)):
            raise FileExistsError(f"{transfer.target} {EXISTS}")
    _drop_temporary(transfer.target)
    os.unlink(transfer.source)


def _rename(transfer: Transfer) -> None:
    """Rename a file where links cannot be made; the name is checked just before, not in the same step."""
    if os.path.lexists(transfer.target):
        raise FileExistsError(f"{transfer.target} {EXISTS}")
    try:
        os.rename(transfer.source, transfer.target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(transfer)
        os.unlink(transfer.source)


def _copy(transfer: Transfer) -> None:
    """Copy a file under a temporary name, compare it with its source, and give it its name if that is free."""
    temporary = _name_temporary(transfer.target)
    _drop_temporary(transfer.target)
    with open(transfer.source, "rb") as source, open(temporary, "xb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())
    if hash_file(Path(transfer.source)) != hash_file(Path(temporary)):
        raise OSError(errno.EIO, "the copy differs from the file, which may be in use")
    shutil.copystat(transfer.source, temporary)
    try:
        os.link(temporary, transfer.target)
    except FileExistsError:
        raise
    except OSError:
        _rename(Transfer(temporary, transfer.target))
    _sync_folder(os.path.dirname(transfer.target))
    _drop_temporary(transfer.target)


def _link(transfer: Transfer) -> None:
    """Make a hard link of the file itself, also where the source is a symbolic link."""
    try:
        os.link(os.path.realpath(transfer.source), transfer.target)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise OSError(errno.EXDEV, "hard links need one file system; add --symbolic, or use --copy_to") from error
        raise


def _link_symbolically(transfer: Transfer) -> None:
    """Make a symbolic link by a relative path, which stays right if both folders move together."""
    folder = os.path.realpath(os.path.dirname(transfer.target))
    os.symlink(os.path.relpath(os.path.realpath(transfer.source), folder), transfer.target)


_WAYS = {"copy": _copy, "link": _link, "symlink": _link_symbolically}


def _is_same(first: str, second: str) -> bool:
    """Return whether two paths lead to one file, or to files of the same content."""
    if not (os.path.isfile(first) and os.path.isfile(second)):
        return False
    return os.path.samefile(first, second) or filecmp.cmp(first, second, shallow=False)


def _name_temporary(target: str) -> str:
    """Return the temporary name of a file, the same one in each run, so that a killed run leaves nothing behind."""
    folder, name = os.path.split(target)
    return os.path.join(folder, f".{shorten_name(name)}.musiq-select.tmp")


def _drop_temporary(target: str) -> None:
    try:
        os.unlink(_name_temporary(target))
    except FileNotFoundError:
        return


def _list_missing(folders: Iterable[str]) -> list[str]:
    """Return the folders that are missing, and those above them, the highest first."""
    missing: dict[str, None] = {}
    for folder in dict.fromkeys(folders):
        above = []
        while folder not in missing and not os.path.lexists(folder):
            above.append(folder)
            folder = os.path.dirname(folder)
        missing.update(dict.fromkeys(reversed(above)))
    return list(missing)


def _make_folders(folders: Iterable[str]) -> None:
    for folder in folders:
        os.makedirs(folder, exist_ok=True)


def _sync_folder(folder: str) -> None:
    """Wait until the names in a folder are on the disk, where a folder can be opened."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _lock(folder: str) -> Iterator[None]:
    """Hold a folder for this process; the lock ends with the process, however that ends.

    Raises:
        ValueError: If another process holds it.
    """
    if os.name != "posix":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ValueError(f"Another command is at work in {folder}. Wait until it is done.") from error
    finally:
        os.close(descriptor)
