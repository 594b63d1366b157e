# SPDX-License-Identifier: Apache-2.0
"""Parts handed out to workers that live in this process and end when a test says so."""

import itertools
from collections import deque
from dataclasses import replace

import pytest

from musiq_hf.pictures.decoding import CRASHED
from musiq_hf.pictures.sources.parts import Part
from musiq_hf.scoring import dispatch
from musiq_hf.scoring.dispatch import IN_FLIGHT, Dispatcher, WorkerFacts, WorkerLost
from musiq_hf.scoring.rows import ScoreRow, Terms

TERMS = Terms(["a"], ["a|weights:1"], [(0, 100)], [None], False, None, False)
FACTS = WorkerFacts(TERMS, 1, "first")


def read(rows):
    return ((f"{row}.png", None) for row in rows)


def make_parts(count, size):
    return (Part("photos", read, range(start, min(start + size, count))) for start in range(0, count, size))


def make_entry(key):
    return (ScoreRow(key, 1, 1, float(key.split(".")[0])),)


class FakePool:
    """Workers that score at once or end at once, in an order that a test may choose.

    Args:
        poison: Numbers of the pictures that end their worker.
        pick: Function that chooses the next of the waiting tickets to end.
        facts: Answers of the workers that start, in order; the last one is repeated. An exception is raised.
    """

    def __init__(self, poison=(), pick=lambda tickets: 0, facts=(FACTS,)):
        self.poison, self.pick = set(poison), pick
        self.facts = deque(facts)
        self.work, self.held, self.ready = {}, {}, set()
        self.submitted, self.starts = [], []
        self.numbers = itertools.count()

    def start(self, worker):
        self.starts.append(worker)
        self.held[worker] = []
        self.ready.discard(worker)
        facts = self.facts[0] if len(self.facts) == 1 else self.facts.popleft()
        return self.add(worker, facts)

    def submit(self, worker, part):
        assert len(self.held[worker]) < IN_FLIGHT
        self.submitted.append((worker, list(part.rows), len(self.held[worker])))
        entries = [make_entry(key) for key, _ in part.read(part.rows)]
        self.held[worker].append(part)
        lost = WorkerLost("it ended") if self.poison & set(part.rows) else entries
        return self.add(worker, lost, part)

    def add(self, worker, result, part=None):
        ticket = next(self.numbers)
        self.work[ticket] = (worker, result, part)
        return ticket

    def wait(self, tickets, timeout=None):
        assert tickets and len(set(tickets)) == len(tickets)
        return tickets[self.pick(tickets) % len(tickets)]

    def take(self, ticket):
        worker, result, part = self.work.pop(ticket)
        if part is not None:
            self.held[worker].remove(part)
        elif not isinstance(result, Exception):
            self.ready.add(worker)
        if isinstance(result, Exception):
            raise result
        return result


def score(pool, count=50, size=4, workers=2):
    return list(Dispatcher(pool, workers).score(make_parts(count, size)))


def expected(count=50, poison=()):
    crashed = {row: (ScoreRow(f"{row}.png", error=f"{row}.png: {CRASHED}."),) for row in poison}
    return [crashed.get(row, make_entry(f"{row}.png")) for row in range(count)]


def strip(entries):
    return [(entry[0]._replace(score_0_1=None),) for entry in entries]


ORDERS = {
    "first": lambda tickets: 0,
    "last": lambda tickets: -1,
    "mixed": lambda tickets: 7 * len(tickets) // 3 + sum(tickets),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_rows_come_in_the_order_of_the_pictures(order, workers):
    pool = FakePool(pick=ORDERS[order])
    assert score(pool, workers=workers) == expected()
    assert pool.starts == list(range(workers))
    assert [rows for _, rows, _ in pool.submitted] == [list(range(i, min(i + 4, 50))) for i in range(0, 50, 4)]


@pytest.mark.parametrize("order", ORDERS)
def test_the_least_loaded_worker_gets_the_next_part_and_none_has_more_than_three(order):
    pool = FakePool(pick=ORDERS[order])
    submit, loads = pool.submit, []

    def watch(worker, part):
        load = len(pool.held[worker])
        assert load == min(len(pool.held[other]) for other in pool.ready)
        loads.append(load)
        return submit(worker, part)

    pool.submit = watch
    assert len(list(Dispatcher(pool, 3).score(make_parts(400, 4)))) == 400
    assert set(loads) == set(range(IN_FLIGHT)) and (order == "last" or pool.ready == {0, 1, 2})


def test_parts_are_found_no_faster_than_they_are_scored(monkeypatch):
    monkeypatch.setattr(dispatch, "MAX_AHEAD", 5)
    taken = []

    def parts():
        for part in make_parts(400, 4):
            taken.append(part)
            yield part

    done = 0
    for _ in Dispatcher(FakePool(pick=ORDERS["last"]), 4).score(parts()):
        done += 1
        assert len(taken) <= done // 4 + 6


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("poison", [(13,), (0,), (49,), (12, 13, 14), (3, 4, 30)])
def test_a_picture_that_ends_its_worker_costs_its_own_row(poison, workers, order):
    pool = FakePool(poison, ORDERS[order])
    assert strip(score(pool, workers=workers)) == expected(poison=poison)
    alone = [rows for _, rows, load in pool.submitted if len(rows) == 1]
    assert all([picture] in alone for picture in poison)


def test_suspects_are_alone_in_their_worker():
    pool = FakePool((13,))
    holding = []
    submit = pool.submit

    def watch(worker, part):
        ticket = submit(worker, part)
        holding.append((list(part.rows), [list(held.rows) for held in pool.held[worker]]))
        return ticket

    pool.submit = watch
    score(pool, workers=2)
    seen = {}
    for rows, held in holding:
        if tuple(rows) in seen or len(rows) == 1:
            assert held == [rows]
        seen[tuple(rows)] = True
    assert len([rows for rows, _ in holding if rows == [12, 13, 14, 15]]) == 2
    assert [rows for rows, _ in holding if len(rows) == 1] == [[12], [13], [14], [15]]


def test_a_worker_that_is_killed_once_costs_nothing():
    pool = FakePool()
    submit = pool.submit

    def kill_once(worker, part):
        ticket = submit(worker, part)
        if list(part.rows) == [16, 17, 18, 19] and len(pool.starts) == 2:
            pool.work[ticket] = (worker, WorkerLost("killed"), part)
        return ticket

    pool.submit = kill_once
    assert score(pool) == expected()
    assert len(pool.starts) == 3


def test_workers_that_all_end_stop_the_run():
    with pytest.raises(OSError, match=r"end one after the other, whatever they score \(it ended\). The same command"):
        score(FakePool(range(50)))


def test_workers_that_end_while_they_start_stop_the_run():
    pool = FakePool(facts=[FACTS, WorkerLost("no memory")])
    with pytest.raises(OSError, match=r"while they load the checkpoints \(no memory\). The same command continues"):
        list(Dispatcher(pool, 2).score(make_parts(4000, 4)))
    with pytest.raises(OSError, match="while they load the checkpoints"):
        Dispatcher(FakePool(facts=[WorkerLost("no memory")]), 2)
    assert score(FakePool(facts=[WorkerLost("once"), FACTS])) == expected()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            replace(FACTS, terms=replace(TERMS, signatures=["a|weights:2"]), node="b"),
            r"disagree \(signatures on first: weights:1, now weights:2 on b\). Install the same versions",
        ),
        (replace(FACTS, terms=replace(TERMS, ranges=[(0, 1)])), r"disagree \(ranges on first: "),
        (replace(FACTS, threads=2, node="b"), "compute with 1 threads on first, and 2 on b"),
    ],
)
def test_workers_that_would_give_other_scores_stop_the_run(other, message):
    with pytest.raises(ValueError, match=message):
        score(FakePool(facts=[FACTS, other]))


def test_a_mistake_of_the_first_worker_is_raised_as_it_is():
    with pytest.raises(ValueError, match="no such checkpoint"):
        Dispatcher(FakePool(facts=[ValueError("no such checkpoint")]), 2)


@pytest.mark.parametrize("order", ORDERS)
def test_rows_before_an_error_come_first(order):
    def broken_parts():
        yield from make_parts(12, 4)
        raise ValueError("the list of files is damaged")

    for parts, error in ((broken_parts(), ValueError), (make_parts(24, 4), OSError)):
        pool = FakePool(pick=ORDERS[order])
        submit = pool.submit

        def fail(worker, part, pool=pool, submit=submit, error=error):
            ticket = submit(worker, part)
            if error is OSError and part.rows[0] == 12:
                pool.work[ticket] = (worker, OSError("the store is gone"), part)
            return ticket

        pool.submit = fail
        rows = []
        with pytest.raises(error, match="damaged|gone"):
            for row in Dispatcher(pool, 2).score(parts):
                rows.append(row)
        assert rows == expected(12)


def test_a_run_may_be_closed_early():
    pool = FakePool()
    rows = Dispatcher(pool, 2).score(make_parts(400, 4))
    assert next(rows) == make_entry("0.png")
    rows.close()
    assert len(pool.submitted) < 10 and next(rows, None) is None


def test_waiting_for_the_first_worker_is_said_once(caplog):
    pool = FakePool()
    wait, timeouts = pool.wait, []

    def be_late(tickets, timeout=None):
        timeouts.append(timeout)
        return wait(tickets) if timeout is None else None

    pool.wait = be_late
    assert Dispatcher(pool, 1).facts == FACTS
    assert timeouts == [dispatch.PATIENCE, None]
    assert [record.getMessage()[:30] for record in caplog.records] == ["No worker has started yet: oth"]
