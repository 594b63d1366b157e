# SPDX-License-Identifier: Apache-2.0
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest

from musiq_hf.subjective import Cell, cell_seconds, plan_sessions, viewing_distance


def make_cells(count, num_clips, seed=0):
    qualities = np.random.default_rng(seed).permutation(count)
    names = [f"clip{place % num_clips}" for place in range(count)]
    return [
        Cell(clip, f"{clip}_a{place}", f"{clip}_b{place}", float(qualities[place])) for place, clip in enumerate(names)
    ]


def key(shown):
    return shown.clip, frozenset((shown.a, shown.b))


def by_session(plan):
    sessions = defaultdict(list)
    for shown in plan:
        sessions[shown.panel, shown.session].append(shown)
    return sessions


@pytest.fixture(scope="module")
def cells():
    return make_cells(70, 10)


@pytest.fixture(scope="module")
def plan(cells):
    return plan_sessions(cells, num_panels=3)


def test_every_panel_sees_every_cell_once_in_an_order_of_its_own(cells, plan):
    orders = [[key(shown) for shown in plan if (shown.panel, shown.phase) == (panel, "test")] for panel in (1, 2, 3)]
    wanted = {(cell.clip, frozenset((cell.first, cell.second))) for cell in cells}
    assert all(len(order) == 70 and set(order) == wanted for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_sessions_are_the_fewest_that_fit_alike_in_size_and_spread_clips(plan):
    sizes = defaultdict(list)
    for (panel, session), shown in by_session(plan).items():
        tests = [part for part in shown if part.phase == "test"]
        assert shown[-1].start + shown[-1].duration <= 20 * 60
        if session:
            sizes[panel].append(len(tests))
            clips = Counter(part.clip for part in tests)
            assert set(clips.values()) <= {2, 3} and len(clips) == 10  # 7 cells of each clip in 3 sessions
        else:
            assert not tests
    assert [sorted(part) for part in sizes.values()] == [[23, 23, 24]] * 3


def test_presentations_follow_each_other_with_their_numbers(plan):
    for (_, session), shown in by_session(plan).items():
        assert [part.start for part in shown] == pytest.approx([36.5 * place for place in range(len(shown))])
        assert {part.duration for part in shown} == {36.5}
        tests = [str(number) for number in range(1, len(shown) - 3)]
        expected = [f"S{number}" for number in range(1, 5)] + tests if session else [f"T{n}" for n in range(1, 5)]
        assert [part.vote for part in shown] == expected
        phases = {"S": "stabilisation", "T": "training"}
        assert all(part.phase == phases.get(part.vote[0], "test") for part in shown)


def test_no_clip_comes_twice_in_a_row(plan):
    for shown in by_session(plan).values():
        assert all(one.clip != following.clip for one, following in pairwise(shown))


def test_stabilisation_has_the_worst_the_best_and_two_from_the_middle_of_four_clips(cells, plan):
    quality = {(cell.clip, frozenset((cell.first, cell.second))): cell.quality for cell in cells}
    orders = set()
    for (_, session), shown in by_session(plan).items():
        if session:
            low, *middle, high = sorted(quality[key(part)] for part in shown[:4])
            assert (low, high) == (0, 69) and all(23 <= value < 47 for value in middle)
            assert len({part.clip for part in shown[:4]}) == 4
            orders.add(tuple(np.argsort([quality[key(part)] for part in shown[:4]])))
    assert len(orders) > 1


def test_half_of_the_test_cells_are_exchanged_and_training_shows_them_the_other_way(cells, plan):
    first = {(cell.clip, frozenset((cell.first, cell.second))): cell.first for cell in cells}
    for panel in (1, 2, 3):
        tests = [shown for shown in plan if (shown.panel, shown.phase) == (panel, "test")]
        assert sum(shown.a != first[key(shown)] for shown in tests) == 35
        training = [shown for shown in plan if (shown.panel, shown.phase) == (panel, "training")]
        shown_as = {key(shown): shown.a for shown in tests}
        assert all(shown.b == shown_as[key(shown)] for shown in training)
        order = [key(shown) for shown in tests]
        places = [order.index(key(shown)) for shown in training]
        assert places != sorted(places)


def test_training_shows_a_wide_range(cells, plan):
    quality = {(cell.clip, frozenset((cell.first, cell.second))): cell.quality for cell in cells}
    for panel in (1, 2, 3):
        shown = [quality[key(part)] for part in plan if (part.panel, part.phase) == (panel, "training")]
        assert max(shown) - min(shown) > 35


def test_a_seed_gives_one_plan(cells, plan):
    assert plan_sessions(cells, num_panels=3) == plan
    assert plan_sessions(cells, num_panels=3, seed=1) != plan
    assert plan_sessions(cells, num_panels=1) == [shown for shown in plan if shown.panel == 1]


@pytest.mark.parametrize(("count", "num_sessions"), [(28, 1), (29, 2), (56, 2), (57, 3)])
def test_twenty_minutes_hold_28_cells_beside_stabilisation(count, num_sessions):
    found = plan_sessions(make_cells(count, 7), num_training=0)
    assert {shown.session for shown in found} == set(range(1, num_sessions + 1))


@pytest.mark.parametrize("seed", range(60))
def test_an_order_is_found_wherever_there_is_one(seed):
    rng = np.random.default_rng(seed)
    count, num_clips = int(rng.integers(2, 16)), int(rng.integers(2, 5))
    clips = [f"clip{number}" for number in rng.integers(num_clips, size=count)]
    cells = [Cell(clip, f"a{place}", f"b{place}", float(rng.random())) for place, clip in enumerate(clips)]
    if 2 * max(Counter(clips).values()) > count + 1:
        with pytest.raises(ValueError, match="No order of"):
            plan_sessions(cells, num_training=0, seed=seed)
    elif 2 * max(Counter(clips).values()) <= count:
        for shown in by_session(plan_sessions(cells, num_training=min(4, count), seed=seed)).values():
            assert all(one.clip != following.clip for one, following in pairwise(shown))


def test_times_and_distances():
    assert cell_seconds() == 36.5 and cell_seconds(8) == 30.5
    # Distances in heights and angles in degrees, as tables give them.
    for (width, height), (heights, degrees) in {
        (1920, 1080): (3.2, 31),
        (3840, 2160): (1.6, 58),
        (7680, 4320): (0.8, 96),
        (1280, 720): (4.8, 21),
        (640, 480): (7, 11),
    }.items():
        found = viewing_distance(width, height)
        assert found[0] == pytest.approx(heights, abs=0.2) and found[1] == pytest.approx(degrees, abs=1)
    with pytest.raises(ValueError, match="at least 1x1 pixels, got 0x4"):
        viewing_distance(0, 4)
    with pytest.raises(ValueError, match="`clip_seconds` must be above 0, got nan"):
        cell_seconds(float("nan"))


TWO = [Cell("c", "a", "b", 1.0), Cell("d", "a", "b", 2.0)]


@pytest.mark.parametrize(
    ("cells", "settings", "message"),
    [
        ([], {}, "A plan needs at least one cell, got none"),
        ([*TWO, Cell("c", "b", "a", 3.0)], {}, "The cell 'c', 'b', 'a' is given twice"),
        ([Cell("c", "a", "a", 1.0)], {}, "shows 'a' twice"),
        ([Cell("c", "a", "b")], {}, "has no quality, which chooses the cells of stabilisation"),
        (TWO, {"max_minutes": 2.5}, "has room for 4 cells of 36.5 s, of which 4 are for stabilisation"),
        (TWO, {"max_minutes": 0}, "`max_minutes` must be above 0"),
        (TWO, {"clip_seconds": -1}, "`clip_seconds` must be above 0"),
        (TWO, {"num_training": 3}, "takes 0 to 2 cells, got 3"),
        (TWO, {"num_panels": 0}, "`num_panels` must be at least 1"),
        (TWO, {"seed": -1}, "`seed` must be at least 0"),
        ([Cell("c", "a", str(n), n) for n in range(6)] + TWO[1:], {}, "6 are of the clip 'c'"),
        (TWO[:1], {"num_training": 0}, "No order of 1 cells"),
    ],
)
def test_plans_that_cannot_be_are_refused(cells, settings, message):
    with pytest.raises(ValueError, match=message):
        plan_sessions(cells, **settings)
