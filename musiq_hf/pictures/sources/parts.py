# SPDX-License-Identifier: Apache-2.0
"""Pictures of paths in parts that other processes read, so that bytes of files need not travel between them.

A part has the keys and places of files, members of archives and lines of CSV tables. It has the numbers
of rows of parquet files and saved data sets. Data sets of the Hub are streams, so their rows travel with their bytes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ...common.stores import is_remote
from ..finding import LeftOutFiles
from ..lazy import LeftOutFile, Source
from .data_sets import HUB, SAVED, count_saved_rows, read_saved
from .paths import DEFAULT_COLUMNS, READERS, check_found, find_files
from .tables import ROWS_AT_ONCE, Columns, count_group_rows, read_row_group

PARTS_OF_GROUP = 16  # parts of a large row group, each of which is read past the rows before it
# Past rows of a remote file means that they are fetched: with four parts 2.5 times the file, of few rows only once.
STORED_PARTS_OF_GROUP, ROWS_OF_STORED_PART = 4, 128


@dataclass(frozen=True)
class Part:
    """Run of pictures that another process can read.

    Attributes:
        name: Path of the file or data set, for error messages.
        read: Function that yields the sources of some rows of it; it can be sent to another process.
        rows: Numbers of these rows.
    """

    name: str
    read: Callable[[range], Iterator[Source]]
    rows: range

    def __len__(self) -> int:
        return len(self.rows)

    def split(self) -> list["Part"]:
        """Return a part of its own for each picture."""
        return [replace(self, rows=self.rows[index : index + 1]) for index in range(len(self))]


def find_parts(paths: Sequence[str], *, columns: Columns = DEFAULT_COLUMNS, size: int = 64) -> Iterator[Part]:
    """Find the pictures of `find_sources`, in its order, in parts that `read_part` reads.

    Args:
        paths: Paths, as `find_sources` takes them. Those that are relative start from the working directory of the
            process that reads.
        columns: Columns of tables and data sets that are read.
        size: Pictures of a part, at least 1. A row group of a parquet file has 16 parts at most, which may be larger.
            One of a remote file has 4 at most, of at least 128 pictures.

    Raises:
        ValueError: If there is no picture at all.
        StoreError: If a remote store gives no answer. It is an OSError.
    """
    found, left_out = False, LeftOutFiles()
    run: list[Source] = []
    try:
        for path, kind in find_files(paths):
            ranges = RANGES.get(kind, _find_no_ranges)(path, columns, size)
            if ranges is not None:
                yield from _end_run(run)
                for part in ranges:
                    found = True
                    yield part
                continue
            longest = min(size, ROWS_AT_ONCE) if kind == HUB else size
            for source in READERS[kind](path, columns):
                if isinstance(source, LeftOutFile):
                    left_out.add(source.name)
                    continue
                found = True
                run.append(source)
                if len(run) >= longest:
                    yield from _end_run(run)
    except Exception:
        yield from _end_run(run)  # what was found before the error comes before it
        raise
    yield from _end_run(run)
    check_found(paths, found, left_out)


def read_part(part: Part) -> Iterator[Source]:
    """Read keys and pictures of a part.

    Raises:
        ValueError: If there are fewer of them than were found.
    """
    number = 0
    for source in part.read(part.rows):
        number += 1
        yield source
    if number != len(part):
        raise ValueError(f"{part.name}: {len(part)} rows were expected, got {number}. It was changed during the run.")


def take_every(parts: Iterator[Part], first: int, step: int) -> Iterator[Part]:
    """Take one of every `step` pictures of parts, from number `first` on, counted over all parts from 0."""
    for part in parts:
        rows = part.rows[first::step]
        if rows:
            yield replace(part, rows=rows)
        first = first - len(part) if first >= len(part) else (first - len(part)) % step


def _end_run(run: list[Source]) -> Iterator[Part]:
    """Yield the part of a run, if there is one, and empty the run."""
    if run:
        yield Part(run[0][0], partial(_take, tuple(run)), range(len(run)))
        run.clear()


def _take(sources: Sequence[Source], rows: range) -> Iterator[Source]:
    return (sources[row] for row in rows)


def _find_no_ranges(path: str, columns: Columns, size: int) -> None:
    return None


def _find_group_ranges(path: str, columns: Columns, size: int) -> Iterator[Part] | None:
    """Find the parts of a parquet file; None if it cannot be read, or has paths, which are short enough to travel."""
    groups = count_group_rows(path, columns)
    return None if groups is None else _part_groups(path, columns, size, groups)


def _part_groups(path: str, columns: Columns, size: int, groups: Sequence[int]) -> Iterator[Part]:
    least, most = (ROWS_OF_STORED_PART, STORED_PARTS_OF_GROUP) if is_remote(path) else (1, PARTS_OF_GROUP)
    for group, num_rows in enumerate(groups):
        read = partial(read_row_group, path, columns, group)
        yield from _cut_rows(Part(path, read, range(num_rows)), max(size, least, -(-num_rows // most)))


def _find_saved_ranges(folder: str, columns: Columns, size: int) -> Iterator[Part] | None:
    """Find the parts of a saved data set; None if it cannot be read."""
    num_rows = count_saved_rows(folder, columns)
    whole = range(num_rows or 0)
    return None if num_rows is None else _cut_rows(Part(folder, partial(read_saved, folder, columns), whole), size)


def _cut_rows(whole: Part, size: int) -> Iterator[Part]:
    return (replace(whole, rows=whole.rows[first : first + size]) for first in range(0, len(whole), size))


RANGES: dict[str, Callable[[str, Columns, int], Iterator[Part] | None]] = {
    ".parquet": _find_group_ranges,
    SAVED: _find_saved_ranges,
}
