# SPDX-License-Identifier: Apache-2.0
"""Parts of pictures handed out to workers that may end at any moment, and their rows in the order of the pictures.

A worker that ends is started anew. The parts that it held are suspects, and each of them goes alone to a worker
without other work. One that ends this worker too is taken apart into its pictures. A picture that ends a worker once
more is a row with that error.
"""

import logging
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..pictures.decoding import CRASHED
from ..pictures.sources.parts import Part, read_part
from .engine import PictureScore
from .journal import describe_difference
from .rows import Entry, Terms, make_row

logger = logging.getLogger(__name__)

IN_FLIGHT = 3  # parts that a worker holds: one at work, and others so that it never waits
MAX_AHEAD = 512  # parts that are held in order, done ones included, while the first of them is not done
MAX_LOST = 20  # workers that may end one after the other without a part done in between
MAX_FAILED_STARTS = 3  # of these, while they load their checkpoints
PATIENCE = 60.0  # seconds before a line says that no worker has started


class WorkerLost(Exception):
    """End of a worker that still held work; the message is a sentence about the end."""


@dataclass(frozen=True)
class WorkerFacts:
    """Answer of a worker once it has loaded its checkpoints.

    Attributes:
        terms: Names and signatures of the checkpoints, and what else follows from them.
        threads: Number of threads that compute.
        node: Name of its machine.
    """

    terms: Terms
    threads: int
    node: str


class Pool(Protocol):
    """Workers, known by their numbers, and tickets of the work that they were given."""

    def start(self, worker: int) -> Any:
        """Start a worker, in place of the one of this number; the result of the ticket is `WorkerFacts`."""

    def submit(self, worker: int, part: Part) -> Any:
        """Give a part to a worker; the result of the ticket is the rows of its pictures."""

    def wait(self, tickets: Sequence[Any], timeout: float | None = None) -> Any:
        """Return one of the tickets whose work has ended; None after so many seconds."""

    def take(self, ticket: Any) -> Any:
        """Return the result of a ticket, or raise the error of the work, or `WorkerLost`."""


@dataclass(eq=False)
class _Task:
    """Part, and its rows or its error as soon as they are there."""

    part: Part
    is_suspect: bool = False
    entries: Sequence[Entry] | None = None
    error: Exception | None = None


class Dispatcher:
    """Workers of a pool, and the parts that they hold.

    Args:
        pool: Pool of the workers.
        num_workers: Number of workers, which are numbered from 0.

    Attributes:
        facts: Answer of the first worker; the others must agree with it.

    Raises:
        ValueError: If a checkpoint or the device cannot be used.
        OSError: If workers end again and again while they start.
    """

    def __init__(self, pool: Pool, num_workers: int):
        self._pool = pool
        self._starting: dict[Any, int] = {pool.start(worker): worker for worker in range(num_workers)}
        self._held: dict[int, list[_Task]] = {}  # tasks of each worker that is ready
        self._tickets: dict[Any, tuple[int, _Task]] = {}
        self._order: list[_Task] = []
        self._suspects: deque[_Task] = deque()
        self._has_more = True
        self._num_lost = self._num_failed_starts = 0
        self._first: WorkerFacts | None = None
        self.facts = self._await_first()

    def _await_first(self) -> WorkerFacts:
        """Wait for the first worker that is ready, and say so once if that takes long."""
        patience: float | None = PATIENCE
        while self._first is None:
            ticket = self._pool.wait(list(self._starting), patience)
            if ticket is None:
                logger.warning("No worker has started yet: other jobs may hold the cluster. Waiting for one.")
                patience = None
            else:
                self._end_start(ticket)
        return self._first

    def score(self, parts: Iterator[Part]) -> Generator[Entry, None, None]:
        """Score the pictures of parts, and yield the rows of each in the order of the parts.

        Raises:
            ValueError: If a worker would give other scores than the first, or the parts raise it.
            OSError: If workers end again and again, or the parts raise it.
        """
        while True:
            self._hand_out(parts)
            while self._order and (entries := _take_entries(self._order[0])) is not None:
                del self._order[0]
                yield from entries
            if not (self._order or self._has_more):
                return
            if self._tickets or self._starting:
                self._end_one(self._pool.wait([*self._starting, *self._tickets]))

    def _hand_out(self, parts: Iterator[Part]) -> None:
        """Give suspects to workers without other work, and new parts to the least loaded of the others."""
        workers = sorted(self._held, key=self._count_held)
        # A worker for each suspect gets no new part, so that it is soon without work.
        reserved, others = workers[: len(self._suspects)], workers[len(self._suspects) :]
        for worker in reserved:
            if not self._held[worker]:
                self._submit(worker, self._suspects.popleft())
        others = [worker for worker in others if not any(task.is_suspect for task in self._held[worker])]
        while others:
            worker = min(others, key=self._count_held)
            if self._count_held(worker) == IN_FLIGHT or (task := self._find_next(parts)) is None:
                break
            self._submit(worker, task)

    def _count_held(self, worker: int) -> int:
        return len(self._held[worker])

    def _find_next(self, parts: Iterator[Part]) -> _Task | None:
        """Find the next part; an error of the parts themselves takes its place in the order."""
        if not self._has_more or len(self._order) >= MAX_AHEAD:
            return None
        try:
            part = next(parts, None)
        except Exception as error:
            self._has_more = False
            self._order.append(_Task(Part("", _read_nothing, range(0)), error=error))
            return None
        if part is None:
            self._has_more = False
            return None
        self._order.append(_Task(part))
        return self._order[-1]

    def _submit(self, worker: int, task: _Task) -> None:
        self._held[worker].append(task)
        self._tickets[self._pool.submit(worker, task.part)] = (worker, task)

    def _end_one(self, ticket: Any) -> None:
        """Take the result of a ticket."""
        if ticket in self._starting:
            self._end_start(ticket)
            return
        worker, task = self._tickets.pop(ticket)
        try:
            task.entries = self._pool.take(ticket)
            self._num_lost = self._num_failed_starts = 0
        except WorkerLost as lost:
            self._tickets = {other: held for other, held in self._tickets.items() if held[0] != worker}
            tasks = self._held.pop(worker)
            self._restart(worker, lost)
            self._suspect(tasks)
            return
        except Exception as error:
            task.error, self._has_more = error, False
        self._held[worker].remove(task)

    def _end_start(self, ticket: Any) -> None:
        """Take the answer of a worker that has started, and check that it agrees with the first."""
        worker = self._starting.pop(ticket)
        try:
            facts = self._pool.take(ticket)
        except WorkerLost as lost:
            self._num_failed_starts += 1
            self._restart(worker, lost)
            return
        self._first = self._first or facts
        _check_agreement(self._first, facts)
        self._held[worker] = []

    def _restart(self, worker: int, lost: WorkerLost) -> None:
        """Start a worker in place of one that has ended, unless that has happened too often."""
        self._num_lost += 1
        if self._num_lost > MAX_LOST or self._num_failed_starts >= MAX_FAILED_STARTS:
            doing = "while they load the checkpoints" if self._num_failed_starts else "whatever they score"
            raise OSError(f"Workers end one after the other, {doing} ({lost}). The same command continues.")
        self._starting[self._pool.start(worker)] = worker

    def _suspect(self, tasks: Sequence[_Task]) -> None:
        """Mark the parts of a worker that has ended for a trial alone; one that was alone is taken apart."""
        for task in tasks:
            if not task.is_suspect:
                task.is_suspect = True
                self._suspects.append(task)
            elif len(task.part) == 1:
                task.entries = [self._make_crashed(task.part)]
            else:
                pictures = [_Task(part, is_suspect=True) for part in task.part.split()]
                place = self._order.index(task)
                self._order[place : place + 1] = pictures
                self._suspects.extendleft(reversed(pictures))

    def _make_crashed(self, part: Part) -> Entry:
        """Make the rows of a picture that ends whatever scores it."""
        ((key, _),) = read_part(part)
        row = make_row(PictureScore(key, error=f"{key}: {CRASHED}."))
        return self.facts.terms.place((row,) * len(self.facts.terms.names))


def _take_entries(task: _Task) -> Sequence[Entry] | None:
    """Return the rows of a task, or None if they are still to come; raise its error."""
    if task.error is not None:
        raise task.error
    return task.entries


def _read_nothing(rows: range) -> Iterator[Any]:
    return iter(())


def _check_agreement(first: WorkerFacts, other: WorkerFacts) -> None:
    """Raise a ValueError if a worker would write other rows than the first."""
    for name in ("signatures", "calibrations", "ranges", "has_std"):
        old, new = getattr(first.terms, name), getattr(other.terms, name)
        if old != new:
            raise ValueError(
                f"Workers disagree ({name} on {first.node}: {describe_difference(old, new)} on {other.node}). Install "
                "the same versions, and give the same checkpoints, on all machines of the cluster."
            )
    if first.threads != other.threads:
        raise ValueError(
            f"Workers compute with {first.threads} threads on {first.node}, and {other.threads} on {other.node}."
        )
