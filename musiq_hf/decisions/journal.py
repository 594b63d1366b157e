# SPDX-License-Identifier: Apache-2.0
"""Journal of moves: lines of JSON, each on the disk before its move is made.

The first line names the folder that files were moved to. Others are a move, `{"from": ..., "to": ...}`, or a folder
that was made for it, `{"made": ...}`. Paths are absolute; bytes that are not Unicode stay.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from ..common.files import check_output_file

KIND, VERSION = "musiq select", 1


class Transfer(NamedTuple):
    """File and its place.

    Attributes:
        source: Path of the file.
        target: Path that it gets.
    """

    source: str
    target: str


class MoveJournal:
    """Journal of the moves into one folder, read if it is there and then continued.

    Args:
        path: File of the journal.
        folder: Absolute path of the folder that files are moved to.

    Attributes:
        folder: The same path.
        moves: Moves that were noted, in order and each once.
        targets: Places of these moves.
        folders: Folders that were made for them.

    Raises:
        ValueError: If the file is no journal, or that of another folder.
    """

    def __init__(self, path: str | os.PathLike[str], folder: str):
        self.path, self.folder = Path(path), folder
        self.moves: dict[Transfer, None] = {}
        self.targets: set[str] = set()
        self.folders: list[str] = []
        check_output_file(self.path)
        size = self._read() if self.path.exists() else 0
        self._file = open(self.path, "ab")  # noqa: SIM115
        self._file.truncate(size)  # a killed run may have left half a line
        if not size:
            self._write([{"journal": KIND, "version": VERSION, "folder": folder}])

    @classmethod
    def open_existing(cls, path: str | os.PathLike[str]) -> Self:
        """Open a journal that is there.

        Raises:
            ValueError: If there is none.
        """
        if not Path(path).is_file():
            raise ValueError(f"{path}: no such file. Name the journal that `musiq select --move_to` wrote.")
        with open(path, "rb") as file:
            return cls(path, _read_head(file.readline(), path)["folder"])

    def _read(self) -> int:
        """Read the lines, and return the length of those that are whole, in bytes."""
        size = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file):
                if not line.endswith(b"\n"):
                    break
                if number:
                    self._take(_parse(line, self.path))
                else:
                    self._check(_read_head(line, self.path))
                size += len(line)
        if not size and self.path.stat().st_size > size and not _is_begun(self.path):
            raise ValueError(f"{self.path} is no journal of `musiq select`. Choose another name.")
        return size

    def _check(self, head: dict[str, Any]) -> None:
        if head["folder"] != self.folder:
            raise ValueError(
                f"{self.path} is the journal of moves to {head['folder']}, not to {self.folder}. Choose another one."
            )

    def _take(self, entry: dict[str, Any]) -> None:
        if "made" in entry:
            self.folders.append(entry["made"])
        else:
            move = Transfer(entry["from"], entry["to"])
            self.moves[move] = None
            self.targets.add(move.target)

    def note(self, moves: Sequence[Transfer], folders: Sequence[str]) -> None:
        """Note moves and folders that are about to be made, and wait until they are on the disk."""
        entries = [{"made": folder} for folder in folders]
        entries += [{"from": move.source, "to": move.target} for move in moves]
        if entries:
            self._write(entries)
            for entry in entries:
                self._take(entry)

    def _write(self, entries: Sequence[dict[str, Any]]) -> None:
        self._file.write(b"".join(json.dumps(entry).encode("ascii") + b"\n" for entry in entries))
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def _parse(line: bytes, path: object) -> dict[str, Any]:
    try:
        entry = json.loads(line)
        if isinstance(entry, dict) and (set(entry) in ({"made"}, {"from", "to"}) or "journal" in entry):
            return entry
    except ValueError:
        pass
    raise ValueError(f"{path} is no journal of `musiq select`, or is damaged. Choose another name.")


def _read_head(line: bytes, path: object) -> dict[str, Any]:
    """Read the first line.

    Raises:
        ValueError: If it is not that of a journal.
    """
    head = _parse(line, path)
    if head.get("journal") != KIND or head.get("version") != VERSION or not isinstance(head.get("folder"), str):
        raise ValueError(f"{path} is no journal of `musiq select` that this version reads. Choose another name.")
    return head


def _is_begun(path: Path) -> bool:
    """Return whether a file without a whole line is the beginning of a journal."""
    content = path.read_bytes()
    return json.dumps({"journal": KIND})[:-1].encode().startswith(content[:20])
