# SPDX-License-Identifier: Apache-2.0
"""Journals of runs that make tables of scores, and that may be killed at any moment.

While a run goes on, its rows stand in a journal beside the output: a line of settings, then a line for each picture.
A kill can only cut off the last line. At the end the output is made of the journal and put in its place by one rename.
"""

import itertools
import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import IO, Any, NamedTuple

from transformers.utils import logging

from ..common.files import shorten_name
from .tables.forms import SCORES, Rows, TableForm

try:
    import fcntl
except ImportError:  # Windows has no fcntl: two runs at once on one output go unnoticed there
    fcntl = None  # type: ignore[assignment]

logger = logging.get_logger(__name__)
JOURNAL_OF = "journal_of"  # with what every journal begins, and the command whose rows it holds
THREADS = "threads"  # setting that may change in a run, because it moves the last digits of scores alone
WAS_CHANGED = "was deleted or changed before {} was made of it. Run again."
START_ANEW = "or, if no run is at work on it, delete the file, or add --overwrite, to start anew."


class Totals(NamedTuple):
    """Numbers of pictures in a table, or in a part of it.

    Attributes:
        pictures: Number of pictures that have rows.
        errors: Number of these pictures with an error in one of their rows.
    """

    pictures: int
    errors: int


def name_shard(path: Path | str, index: int, count: int) -> Path | str:
    """Return the output of one shard of several: `scores.2-of-8.csv`; `index` counts from 1, and a URL is a text."""
    start, suffix = os.path.splitext(path)
    name = f"{start}.{index}-of-{count}{suffix}"
    return name if isinstance(path, str) else Path(name)


def name_journals(output: Path, count: int) -> list[Path]:
    """Return the journals of the `count` processes that write one output together."""
    name = shorten_name(output.name)
    if count == 1:
        return [output.with_name(f"{name}.part")]
    return [output.with_name(f"{name}.{index}-of-{count}.part") for index in range(1, count + 1)]


def check_no_other_journal(output: Path, journals: Sequence[Path], *, remove: bool = False) -> None:
    """Raise a ValueError if an unfinished run with another number of processes writes the same output.

    Args:
        output: Output of the run.
        journals: Journals of this run.
        remove: Whether the journals of another run are removed, unless it is at work.
    """
    name = re.compile(re.escape(shorten_name(output.name)) + r"(\.\d+-of-\d+)?\.part")
    for path in sorted(output.parent.glob("*.part")):
        if not name.fullmatch(path.name) or path in journals:
            continue
        if remove:
            with closing(Journal(path, {}, renew=True)):
                path.unlink()
        else:
            raise ValueError(
                f"{path} is of an unfinished run with another number of processes. Repeat its command to continue it, "
                f"{START_ANEW}"
            )


def _open_journal(path: Path) -> IO[bytes]:
    """Open or make a file for reading and appending; raise a ValueError if something else than a file is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = os.lstat(path).st_mode if os.path.lexists(path) else stat.S_IFREG
    if not stat.S_ISREG(kind):
        raise ValueError(
            f"{path} holds the rows of a run, but a {'link' if stat.S_ISLNK(kind) else 'folder or device'} is there. "
            "Remove it, or choose another output."
        )
    # A link that someone puts there in this moment is not followed either.
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "a+b")


class Journal:
    """Rows of a run so far, which the next run continues; one process at a time writes them.

    Args:
        path: File of the journal, made with its folder if missing. A torn last line is cut off.
        settings: Settings that the run was started with, which shape the output. A run that is continued with other
            "threads" says so, and goes on.
        form: Form of the table, and of the rows.
        renew: Whether a journal of a run with other settings is emptied, so that no ValueError is raised for it.
        name: Name of the journal in messages; None takes the path.

    Attributes:
        pictures: Number of pictures that are scored.
        errors: Number of these pictures with an error in one of their rows.
        is_finished: Whether no picture is missing.

    Raises:
        ValueError: If the journal has other settings, the file is no journal, or another run is writing it. Also if
            the path is a link or a folder.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        *,
        form: TableForm = SCORES,
        renew: bool = False,
        name: str | None = None,
    ):
        self.path, self._form, self._renew, self.name = path, form, renew, name or str(path)
        self.pictures, self.errors, self.is_finished = 0, 0, False
        self._file = _open_journal(path)
        try:
            self._lock()
            self._size = self._read(json.loads(json.dumps(settings)))
            self._file.truncate(self._size)
            if not self._size:
                self._write({JOURNAL_OF: form.command, **settings})
        except BaseException:
            self._file.close()
            raise

    def _lock(self) -> None:
        """Lock the file until it is closed, or the process ends in any way."""
        try:
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{self.name}: another run is writing it. Wait for it, or end it.") from None
        except OSError:
            pass  # some network file systems have no locks

    def _read(self, settings: dict[str, Any]) -> int:
        """Count the rows, check the settings, and return the length of the undamaged part, in bytes."""
        self._file.seek(0)
        head = self._file.readline()
        magic = json.dumps({JOURNAL_OF: self._form.command}).encode().removesuffix(b"}")
        if not head.startswith(magic[: len(head)]):
            raise ValueError(f"{self.name}: not a file of an unfinished run. Move it away, or choose another output.")
        if not head.endswith(b"\n"):
            return 0
        end = len(head)
        for line in self._file:
            entry = _parse(line, self._form)
            if entry is None:
                break
            end += len(line)
            if isinstance(entry, Totals):
                self.is_finished = True
                break
            self.pictures += 1
            self.errors += _has_error(entry)
        if self._may_go_on({THREADS: settings.get(THREADS), **json.loads(head)}, settings):
            return end
        self._forget()
        return 0

    def _may_go_on(self, begun: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
        """Return whether the rows that are there are kept; raise a ValueError if others must not be removed."""
        changed = [name for name in settings if begun.get(name) != settings[name]]
        if changed and not self.pictures and not self.is_finished:
            return False
        if THREADS in changed:
            changed.remove(THREADS)
            if not changed and not self.is_finished:
                logger.warning(
                    "%s was begun with %s threads and goes on with %s: the last digits of scores can differ.",
                    *(self.name, begun[THREADS], settings[THREADS]),
                )
        if changed and not self._renew:
            raise ValueError(
                f"{self.name} is of an unfinished run with other settings ({changed[0]}: "
                f"{describe_difference(begun.get(changed[0]), settings[changed[0]])}). Repeat its command to "
                f"continue it, {START_ANEW}"
            )
        return not changed

    def _write(self, entry: Any) -> None:
        self._size += self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()  # the system keeps it even if this process is killed

    def _forget(self) -> None:
        self.pictures, self.errors, self.is_finished = 0, 0, False

    def clear(self, settings: Mapping[str, Any]) -> None:
        """Remove all rows, and begin anew with some settings."""
        self._forget()
        self._file.truncate(0)
        self._size = 0
        self._write({JOURNAL_OF: self._form.command, **settings})

    def find_change(self, sources: Iterator[tuple[str, Any]]) -> tuple[str, str] | None:
        """Take as many sources as there are pictures with rows, and compare their keys.

        Returns:
            The first key that is expected and the one that is there; None if all are the same.
        """
        self._file.seek(0)
        for entry in itertools.islice(_read_entries(self._file, self._form), self.pictures):
            key = next(sources, ("nothing", None))[0]
            if key != entry[0].key:
                return entry[0].key, key
        return None

    def check_done(self, sources: Iterator[tuple[str, Any]]) -> None:
        """Take the sources that have rows already; those that are left have none.

        Raises:
            ValueError: If they are not the pictures that the rows are about.
        """
        change = self.find_change(sources)
        if change is not None:
            raise ValueError(
                f"{self.name}: the pictures have changed since the run began ({change[0]} was expected, {change[1]} "
                f"is there). Restore them to continue it, {START_ANEW}"
            )

    def append(self, entry: Rows) -> None:
        """Add the rows of a picture, all or none."""
        self._write(entry)
        self.pictures += 1
        self.errors += _has_error(entry)

    def finish(self) -> None:
        """Note that no picture is missing, and write the file anew if someone has deleted it.

        Raises:
            ValueError: If someone has changed the file, or has put another one in its place.
        """
        if not self.is_finished:
            self._write(Totals(self.pictures, self.errors)._asdict())
        self.is_finished = True
        if os.fstat(self._file.fileno()).st_size != self._size:
            raise ValueError(f"{self.name} was changed during the run: it lacks scores. Delete it, and run again.")
        if not os.path.lexists(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file.seek(0)
            with open(self.path, "xb") as copy:
                shutil.copyfileobj(self._file, copy)
        elif not self._is_in_place():
            raise ValueError(
                f"{self.name}: another file has taken its place, and the scores of this run are lost. Wait for the "
                "run that writes it, or run again."
            )

    def _is_in_place(self) -> bool:
        """Return whether the path still leads to the open file."""
        try:
            return os.path.samestat(os.lstat(self.path), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Close the file, so that another process can continue, and remove a journal without rows."""
        is_empty = not self.pictures and not self.is_finished and self._is_in_place()
        self._file.close()
        if is_empty:
            self.path.unlink(missing_ok=True)


def describe_difference(old: Any, new: Any) -> str:
    """Describe how two values of a setting differ; of signatures, name only the parts that do."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = next(pair for pair in zip(old, new, strict=True) if pair[0] != pair[1])
        parts = [pair for pair in zip(str(old).split("|"), str(new).split("|"), strict=False) if pair[0] != pair[1]]
        return "; ".join(f"{before}, now {after}" for before, after in parts)
    return f"{old}, now {new}"


def _has_error(entry: Rows) -> bool:
    return any(row.error is not None for row in entry)


def _parse(line: bytes, form: TableForm) -> Rows | Totals | None:
    """Parse a line of a journal; return None if it is torn or damaged."""
    try:
        content = json.loads(line) if line.endswith(b"\n") else None
        if isinstance(content, dict):
            return Totals(**content)
        return tuple(form.row(*row) for row in content) if content else None
    except (ValueError, TypeError):
        return None


def _read_entries(file: IO[bytes], form: TableForm) -> Iterator[Rows]:
    """Yield the rows that an open journal holds, picture by picture."""
    next(file, None)
    for line in file:
        entry = _parse(line, form)
        if not isinstance(entry, tuple) or isinstance(entry, Totals):
            return
        yield entry


def read_totals(journal: Path) -> Totals | None:
    """Read the totals of a finished journal; return None if it is unfinished or missing."""
    try:
        with open(journal, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 200))  # the last line is shorter
            lines = file.readlines()
    except FileNotFoundError:
        return None
    entry = _parse(lines[-1], SCORES) if lines else None  # totals are the same in all forms
    return entry if isinstance(entry, Totals) else None


def write_output(
    output: Path, journals: Sequence[Path], *, temporary: Path, form: TableForm = SCORES
) -> Totals | None:
    """Make the output of finished journals, and remove the journals.

    Args:
        output: File of the table, replaced if it exists.
        journals: Journals of all n processes: the first has inputs 1, n + 1, ..., the second 2, n + 2, ...
        temporary: File in which the output is written before it is renamed; no other process may use it. What is
            there is removed; a link is not followed.
        form: Form of the table.

    Returns:
        Numbers of pictures; None if a process is still at work, or another one has made the output.

    Raises:
        ValueError: If a journal lacks rows that it should have.
    """
    totals = [read_totals(journal) for journal in journals]
    finished = [part for part in totals if part is not None]
    if len(journals) == 1 and not finished:
        raise ValueError(f"{journals[0]} {WAS_CHANGED.format(output)}")
    if len(finished) < len(journals):
        return None
    result = Totals(sum(part.pictures for part in finished), sum(part.errors for part in finished))
    temporary.unlink(missing_ok=True)
    try:
        make_table(temporary, output.suffix, journals, result.pictures, form=form)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # it must be on the disk before the journals are removed
        os.replace(temporary, output)
    except FileNotFoundError:
        if len(journals) > 1 and output.exists():
            return None
        raise
    finally:
        temporary.unlink(missing_ok=True)
    for journal in journals:
        journal.unlink(missing_ok=True)
    return result


def make_table(
    path: Path, suffix: str, journals: Sequence[Path], num_pictures: int, *, form: TableForm = SCORES
) -> None:
    """Make a table of finished journals, in the format of a suffix.

    Args:
        path: File of the table, which must not exist yet.
        suffix: Ending that names the format.
        journals: Journals of all n processes: the first has inputs 1, n + 1, ..., the second 2, n + 2, ...
        num_pictures: Number of pictures that have rows in them.
        form: Form of the table.

    Raises:
        ValueError: If a journal lacks rows that it should have.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(open(journal, "rb")) for journal in journals]
        head = json.loads(files[0].readline())
        files[0].seek(0)
        entries = _count_out(_take_turns([_read_entries(file, form) for file in files]), num_pictures, journals)
        form.write(path, suffix, entries, head)


def _count_out(entries: Iterable[Rows], expected: int, journals: Sequence[Path]) -> Iterator[Rows]:
    """Yield the entries of the journals, and raise a ValueError if there are not as many as expected."""
    number = 0
    for entry in entries:
        number += 1
        yield entry
    if number != expected:
        names = ", ".join(map(str, journals))
        raise ValueError(f"{names}: only {number} of {expected} pictures have rows. Run again to score the others.")


def _take_turns(readers: Sequence[Iterator[Rows]]) -> Iterator[Rows]:
    """Yield the rows of one picture from each reader in turn, until a reader has no more."""
    for reader in itertools.cycle(readers):
        entry = next(reader, None)
        if entry is None:
            return
        yield entry
