# SPDX-License-Identifier: Apache-2.0
"""Plans of expert viewing (after BT.500): which test cells each panel sees, in which order, and when.

A cell shows two versions of a clip after their reference. Clips are equally long. In order: 0.5 s of grey, reference,
0.5 s with "A", version A, 0.5 s with "B", version B, 5 s to vote.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Literal

import numpy as np

Phase = Literal["training", "stabilisation", "test"]
SECONDS_OF_MESSAGE, SECONDS_TO_VOTE, SHOWINGS = 0.5, 5.0, 3
NUM_STABILISATION = 4  # the worst cell, the best one, and two from the middle
TRAINING_DRAWS = 20  # from which the one with the widest range of qualities is taken
ARC_MINUTE = math.pi / (180 * 60)  # in radians; what an eye with full vision resolves


@dataclass(frozen=True)
class Cell:
    """Two versions of one clip, a test cell.

    Attributes:
        clip: Name of the clip; cells of one clip are never shown in a row.
        first: Name of one version.
        second: Name of the other version.
        quality: Expected quality of both, higher is better, in any unit. It chooses the cells of stabilisation alone.
    """

    clip: str
    first: str
    second: str
    quality: float | None = None


@dataclass(frozen=True)
class Presentation:
    """Showing of a cell.

    Attributes:
        panel: Number of the panel, from 1: people who sit together.
        session: Number of the session, from 1; 0 is the training.
        phase: "training", "stabilisation" or "test"; only votes of the test count.
        vote: Number of the vote within the session as screen and sheet show it, such as "T1", "S1" or "1".
        start: Begin, in seconds from the begin of the session.
        duration: Length, in seconds, voting included.
        clip: Name of the clip, which is the reference.
        a: Name of the version that is shown as A.
        b: Name of the version that is shown as B.
    """

    panel: int
    session: int
    phase: Phase
    vote: str
    start: float
    duration: float
    clip: str
    a: str
    b: str


def cell_seconds(clip_seconds: float = 10.0) -> float:
    """Return how long a cell of clips of some length takes, in seconds: 6.5 s and three times the clip."""
    if not (math.isfinite(clip_seconds) and clip_seconds > 0):
        raise ValueError(f"`clip_seconds` must be above 0, got {clip_seconds}.")
    return SHOWINGS * (SECONDS_OF_MESSAGE + clip_seconds) + SECONDS_TO_VOTE


def list_sessions(plan: Sequence[Presentation]) -> dict[tuple[int, int], list[Presentation]]:
    """Return the presentations of each session by the numbers of its panel and its own."""
    sessions: dict[tuple[int, int], list[Presentation]] = {}
    for shown in plan:
        sessions.setdefault((shown.panel, shown.session), []).append(shown)
    return sessions


def viewing_distance(width: int, height: int) -> tuple[float, float]:
    """Return the distance at which one pixel is one minute of arc, and the picture's horizontal angle from there.

    Args:
        width: Columns of the display, in pixels.
        height: Rows of the display, in pixels.

    Returns:
        Distance in heights of the picture, and angle in degrees.

    Raises:
        ValueError: If a size is below 1.
    """
    if min(width, height) < 1:
        raise ValueError(f"A display has at least 1x1 pixels, got {width}x{height}.")
    heights = 1 / (height * math.tan(ARC_MINUTE))
    return heights, math.degrees(2 * math.atan(width / (2 * height * heights)))


def _check_cells(cells: Sequence[Cell]) -> None:
    if not cells:
        raise ValueError("A plan needs at least one cell, got none.")
    seen = set()
    for cell in cells:
        if cell.first == cell.second:
            raise ValueError(f"A cell of the clip {cell.clip!r} shows {cell.first!r} twice. Name two versions.")
        if cell.quality is None or not math.isfinite(cell.quality):
            raise ValueError(
                f"The cell {cell.clip!r}, {cell.first!r}, {cell.second!r} has no quality, which chooses the cells of "
                "stabilisation. Give the mean score of the two, or a rank."
            )
        key = (cell.clip, frozenset((cell.first, cell.second)))
        if key in seen:
            raise ValueError(f"The cell {cell.clip!r}, {cell.first!r}, {cell.second!r} is given twice. Give it once.")
        seen.add(key)


def _count_sessions(num_cells: int, *, seconds: float, max_minutes: float, num_training: int) -> int:
    """Return the number of sessions; raise a ValueError if a session, or the training, has no room."""
    if not (math.isfinite(max_minutes) and max_minutes > 0):
        raise ValueError(f"`max_minutes` must be above 0, got {max_minutes}.")
    room = math.floor(max_minutes * 60 / seconds + 1e-9)
    if room <= NUM_STABILISATION:
        raise ValueError(
            f"A session of {max_minutes:g} minutes has room for {room} cells of {seconds:g} s, of which "
            f"{NUM_STABILISATION} are for stabilisation. Allow more minutes, or shorten the clips."
        )
    if not 0 <= num_training <= min(room, num_cells):
        raise ValueError(
            f"The training (`num_training`, --training) takes 0 to {min(room, num_cells)} cells, got {num_training}: "
            f"there are {num_cells} cells, and a session has room for {room}. Name fewer, or add cells."
        )
    return math.ceil(num_cells / (room - NUM_STABILISATION))


def _arrange(cells: Sequence[Cell], generator: np.random.Generator, before: str | None = None) -> list[Cell] | None:
    """Draw an order in which no clip comes twice in a row; None if there is none.

    Args:
        cells: Cells to order.
        generator: Source of chance.
        before: Clip that is shown right before; None for nothing.
    """
    left = [cells[place] for place in generator.permutation(len(cells))]
    counts = Counter(cell.clip for cell in left)
    if any(2 * count > len(left) + (clip != before) for clip, count in counts.items()):
        return None
    order: list[Cell] = []
    while left:
        # A clip that fills more than half of what is left must come now; else an order always stays possible.
        pressing = [cell for cell in left if 2 * counts[cell.clip] > len(left)]
        chosen = next(cell for cell in pressing or left if cell.clip != before)
        left.remove(chosen)
        counts[chosen.clip] -= 1
        order.append(chosen)
        before = chosen.clip
    return order


def _refuse_order(cells: Sequence[Cell]) -> ValueError:
    clip, count = Counter(cell.clip for cell in cells).most_common(1)[0]
    return ValueError(
        f"No order of {len(cells)} cells keeps cells of one clip apart: {count} are of the clip {clip!r}. Add cells "
        "of other clips, or leave some out."
    )


def _deal(cells: Sequence[Cell], num_sessions: int, generator: np.random.Generator) -> list[list[Cell]]:
    """Part cells into sessions of equal size, each clip's spread over all, in a random order of the sessions."""
    shuffled = [cells[place] for place in generator.permutation(len(cells))]
    counts = Counter(cell.clip for cell in shuffled)
    # Sorting is stable: clips of one size keep a random order. The largest clip goes to the largest sessions.
    ranks = {clip: rank for rank, (clip, _) in enumerate(counts.most_common())}
    ordered = sorted(shuffled, key=lambda cell: ranks[cell.clip])
    return [ordered[start::num_sessions] for start in generator.permutation(num_sessions)]


def _choose_stabilisation(cells: Sequence[Cell], generator: np.random.Generator) -> list[Cell]:
    """Choose the worst cell, the best one and two from the middle third, of as many clips as possible.

    The two come from more cells if those of the middle third are too few, or cannot be kept apart.
    """
    shuffled = [cells[place] for place in generator.permutation(len(cells))]
    ranked = sorted(shuffled, key=lambda cell: cell.quality or 0)
    third = len(ranked) // 3
    for pool in (ranked[third : len(ranked) - third], ranked[1:-1], ranked):
        pairs = list(combinations(pool, 2))
        choices = [[ranked[0], ranked[-1], *pairs[place]] for place in generator.permutation(len(pairs))]
        if choices and (chosen := max(choices, key=_rate_clips)) and _rate_clips(chosen)[1] >= -2:
            return chosen
    raise _refuse_order(cells)


def _rate_clips(cells: Sequence[Cell]) -> tuple[int, int]:
    """Return the number of clips, and minus the number of cells of the clip that has most."""
    counts = Counter(cell.clip for cell in cells)
    return len(counts), -max(counts.values())


def _order_session(stabilisation: Sequence[Cell], tests: Sequence[Cell], generator: np.random.Generator) -> list[Cell]:
    """Return the order of a session, stabilisation first."""
    orders = list(permutations(stabilisation))
    for place in generator.permutation(len(orders)):
        first = orders[place]
        if all(one.clip != next_one.clip for one, next_one in zip(first, first[1:], strict=False)):
            rest = _arrange(tests, generator, before=first[-1].clip)
            if rest is not None:
                return [*first, *rest]
    raise _refuse_order([*stabilisation, *tests])


def _choose_training(tests: Sequence[Cell], num_training: int, generator: np.random.Generator) -> list[Cell]:
    """Choose cells of a wide range of qualities, in an order other than that of the test."""
    orders = [_arrange(tests, generator) for _ in range(TRAINING_DRAWS)]
    drawn = [order[:num_training] for order in orders if order is not None]
    if not drawn:
        raise _refuse_order(tests)

    def find_range(cells: Sequence[Cell]) -> float:
        qualities = [cell.quality or 0 for cell in cells]
        return max(qualities, default=0) - min(qualities, default=0)

    chosen = max(drawn, key=find_range)
    places = [tests.index(cell) for cell in chosen]
    return chosen[::-1] if places == sorted(places) else chosen


class _Panel:
    """Plan of one panel: the order of its cells, and which of them are exchanged."""

    def __init__(self, number: int, seconds: float, generator: np.random.Generator):
        self._number, self._seconds, self._generator = number, seconds, generator
        self._exchanged: set[Cell] = set()

    def plan(self, cells: Sequence[Cell], num_sessions: int, num_training: int) -> list[Presentation]:
        """Return the training and the sessions, in order."""
        generator = self._generator
        num_exchanged = (len(cells) + int(generator.integers(2))) // 2
        self._exchanged = {cells[place] for place in generator.permutation(len(cells))[:num_exchanged]}
        sessions = [
            _order_session(_choose_stabilisation(cells, generator), part, generator)
            for part in _deal(cells, num_sessions, generator)
        ]
        tests = [cell for session in sessions for cell in session[NUM_STABILISATION:]]
        training = _choose_training(tests, num_training, generator)
        plan = [self._present(0, "training", place, cell) for place, cell in enumerate(training)]
        for number, session in enumerate(sessions, start=1):
            for place, cell in enumerate(session):
                phase: Phase = "stabilisation" if place < NUM_STABILISATION else "test"
                plan.append(self._present(number, phase, place, cell))
        return plan

    def _present(self, session: int, phase: Phase, place: int, cell: Cell) -> Presentation:
        if phase == "test":
            vote, is_exchanged = str(place - NUM_STABILISATION + 1), cell in self._exchanged
        elif phase == "stabilisation":
            vote, is_exchanged = f"S{place + 1}", bool(self._generator.integers(2))
        else:
            vote, is_exchanged = f"T{place + 1}", cell not in self._exchanged
        a, b = (cell.second, cell.first) if is_exchanged else (cell.first, cell.second)
        return Presentation(self._number, session, phase, vote, place * self._seconds, self._seconds, cell.clip, a, b)


def plan_sessions(
    cells: Sequence[Cell],
    *,
    clip_seconds: float = 10.0,
    max_minutes: float = 20.0,
    num_training: int = 4,
    num_panels: int = 1,
    seed: int = 0,
) -> list[Presentation]:
    """Plan the sessions of a test.

    Each panel sees every cell once, in an order of its own, in as few sessions as their length allows. Sizes of
    sessions differ by at most 1, and the cells of a clip are spread over them. A session begins with four cells of
    stabilisation: the worst, the best and two from the middle third. No clip comes twice in a row. In half of the
    test cells of a panel A and B are exchanged. The training shows cells in another order, with A and B exchanged.

    Args:
        cells: Test cells, each with its expected quality.
        clip_seconds: Length of the clips.
        max_minutes: Longest session, stabilisation included.
        num_training: Number of cells in the training; 0 leaves it out.
        num_panels: Number of panels, >= 1.
        seed: Seed of all that is left to chance.

    Returns:
        The presentations by panel, session and time. The same arguments give the same plan.

    Raises:
        ValueError: If there is no cell, or one is given twice or lacks its quality. Also if an argument is out of its
            range, a session has no room, or no order keeps the cells of a clip apart.
    """
    _check_cells(cells)
    if num_panels < 1:
        raise ValueError(f"`num_panels` must be at least 1, got {num_panels}.")
    if seed < 0:
        raise ValueError(f"`seed` must be at least 0, got {seed}.")
    seconds = cell_seconds(clip_seconds)
    num_sessions = _count_sessions(len(cells), seconds=seconds, max_minutes=max_minutes, num_training=num_training)
    panels = [_Panel(number, seconds, np.random.default_rng([seed, number])) for number in range(1, num_panels + 1)]
    return [shown for panel in panels for shown in panel.plan(list(cells), num_sessions, num_training)]
