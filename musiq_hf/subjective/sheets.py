# SPDX-License-Identifier: Apache-2.0
"""Files of a plan: its cells, its presentations, and sheets on which viewers note their votes, empty and filled in.

Votes are grades of a scale from 0 to 10, with the words of `SCALE`. A sheet names no version: viewers must not know
what they see.
"""

import html
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, fields
from itertools import chain
from pathlib import Path
from typing import Any, get_args

from ..common.files import write_text
from ..common.outputs import PLAN, SESSIONS, SHEETS
from ..pictures.csv_rows import check_number
from .planner import Cell, Phase, Presentation, list_sessions, viewing_distance
from .tables import Numbers, read_columns, write_rows
from .votes import Votes, gather_votes

SESSION_NAMES = "panel*_session*"  # of the files of sessions
# Kinds of the values in the columns of plans, and of sheets, whose votes are empty.
PLAN_COLUMNS = dict.fromkeys((field.name for field in fields(Presentation)), str) | {
    "panel": int,
    "session": int,
    "start": float,
    "duration": float,
}
SHEET_COLUMNS = {"subject": str, "panel": int, "session": int, "vote": str, "A": float, "B": float}
DEGREES = ("severely annoying", "annoying", "clearly perceptible", "perceptible", "slightly perceptible")
# Words of the grades 0 to 10: how far a version differs from the reference.
SCALE = (*(f"{degree} {extent}" for degree in DEGREES for extent in ("everywhere", "somewhere")), "imperceptible")
MIN_VIEWERS = 9
ROOM = "Ambient light of 5 cd/m2, a display of 22 inches or more"
STYLE = (
    "body{font-family:sans-serif;margin:2em}table{border-collapse:collapse;margin:1em 0}"
    "td,th{border:1px solid;padding:.3em .8em;text-align:left}.votes td{min-width:4em}"
)


def read_cells(path: str | os.PathLike[str]) -> list[Cell]:
    """Read test cells from a CSV table.

    Args:
        path: File with columns `clip`, `first`, `second` and `quality`.

    Raises:
        ValueError: If a column, a name or a quality is missing or wrong; the message names file and line.
    """
    numbers, cells = Numbers(path), []
    for where, row in read_columns(path, ("clip", "first", "second", "quality")):
        quality = numbers.read(row["quality"], name="quality", where=where)
        if quality is None:
            raise ValueError(
                f"{where}: `quality` must be a number, got nothing. Give a mean score of both, or a rank."
            )
        _check_names(row, ("clip", "first", "second"), where)
        cells.append(Cell(row["clip"], row["first"], row["second"], quality))
    return cells


def _check_names(row: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    for name in names:
        if not str(row[name]).strip():
            raise ValueError(f"{where}: `{name}` must be a name, got nothing.")


def name_session(panel: int, session: int) -> str:
    """Return how the files of a session are named, without their endings."""
    return f"panel{panel}_session{session}"


def write_plan(folder: str | os.PathLike[str], plan: Sequence[Presentation]) -> None:
    """Write a plan and its sheets.

    Args:
        folder: Folder that gets plan.csv and the folder `sheets`, with a CSV table and a page to print for each
            session. Sheets and videos of an earlier plan are removed.
        plan: Presentations.
    """
    sheets = Path(folder) / SHEETS
    sheets.mkdir(parents=True, exist_ok=True)
    (Path(folder) / PLAN).unlink(missing_ok=True)
    for made in (sheets, Path(folder) / SESSIONS):
        for earlier in chain(made.glob(SESSION_NAMES), made.glob(f".{SESSION_NAMES}.tmp")):
            earlier.unlink()
    for (panel, session), part in list_sessions(plan).items():
        name = name_session(panel, session)
        rows = [("", panel, session, shown.vote, "", "") for shown in part]
        write_rows(sheets / f"{name}.csv", SHEET_COLUMNS, rows)
        write_text(sheets / f"{name}.html", _make_page(panel, session, part))
    # The plan goes first and comes last: where there is one, its sheets are whole.
    write_rows(Path(folder) / PLAN, PLAN_COLUMNS, map(astuple, plan))


def _make_page(panel: int, session: int, part: Sequence[Presentation]) -> str:
    """Return a page to print with the scale, and a line for each vote of a session."""
    title = html.escape(f"Panel {panel}, " + (f"session {session}" if session else "training"))
    grades = "".join(f"<tr><td>{grade}</td><td>{SCALE[grade]}</td></tr>" for grade in range(len(SCALE) - 1, -1, -1))
    votes = "".join(f"<tr><td>{html.escape(shown.vote)}</td><td></td><td></td></tr>" for shown in part)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n<p>Viewer: ____________________</p>\n"
        "<p>How visible are the differences from the reference? Note a grade for A and one for B.</p>\n"
        f"<table>{grades}</table>\n"
        f'<table class="votes"><tr><th>vote</th><th>A</th><th>B</th></tr>{votes}</table>\n</body></html>\n'
    )


def describe_plan(plan: Sequence[Presentation], display: tuple[int, int]) -> list[str]:
    """Return the timetable of a plan, and what the room must have, as lines of text.

    Args:
        plan: Presentations.
        display: Width and height of the display, in pixels.
    """
    ends = {(shown.panel, shown.session): shown.start + shown.duration for shown in plan}
    counts = Counter((shown.panel, shown.session, shown.phase) for shown in plan)
    lines = []
    for (panel, session), end in ends.items():
        phases = [phase for phase in get_args(Phase) if counts[panel, session, phase]]
        parts = " + ".join(f"{counts[panel, session, phase]} of {phase}" for phase in phases)
        lines.append(f"panel {panel}, session {session}: {parts}, {end / 60:.1f} min")
    heights, degrees = viewing_distance(*display)
    lines.append(
        f"Viewing distance {heights:.1f} picture heights, {degrees:.0f} degrees wide (display of "
        f"{display[0]}x{display[1]} pixels)."
    )
    lines.append(f"{ROOM}, and at least {MIN_VIEWERS} viewers whose votes count, all panels together.")
    return lines


def read_plan(path: str | os.PathLike[str]) -> list[Presentation]:
    """Read plan.csv, as `write_plan` writes it.

    Raises:
        ValueError: If a column is missing or a value is wrong; the message names file and line.
    """
    plan = []
    for where, row in read_columns(path, list(PLAN_COLUMNS)):
        panel, session, start, duration = (
            check_number(row[name], name=name, where=where, low=0)
            for name in ("panel", "session", "start", "duration")
        )
        phase = next((phase for phase in get_args(Phase) if phase == row["phase"]), None)
        if phase is None:
            raise ValueError(f"{where}: `phase` must be {', '.join(get_args(Phase))}, got {row['phase']!r}.")
        names = (row["clip"], row["a"], row["b"])
        plan.append(Presentation(int(panel), int(session), phase, row["vote"], start, duration, *names))
    return plan


def read_sheets(paths: Iterable[str | os.PathLike[str]]) -> list[dict[str, Any]]:
    """Read sheets that viewers have filled in.

    Args:
        paths: Sheets, or tables of the same columns with the votes of several viewers and sessions.

    Returns:
        Rows by the columns `subject`, `panel`, `session`, `vote`, `A` and `B`, and by `where`, file and line. An empty
        vote is None.

    Raises:
        ValueError: If a column is missing or a vote is no number; the message names file and line.
    """
    found: list[dict[str, Any]] = []
    for path in paths:
        numbers = Numbers(path)
        for where, row in read_columns(path, list(SHEET_COLUMNS)):
            votes = {name: numbers.read(row[name], name=name, where=where) for name in ("A", "B")}
            found.append({**row, **votes, "where": where})
    return found


def votes_from_sheets(rows: Iterable[Mapping[str, Any]], plan: Sequence[Presentation]) -> Votes:
    """Find out what the votes on sheets are about.

    Args:
        rows: Rows with `subject`, `panel`, `session`, `vote`, `A` and `B`, such as those of `read_sheets`. `A` and `B`
            are grades from 0 to 10, or None or empty. An entry `where` begins error messages.
        plan: Presentations.

    Returns:
        Votes of the test, those of training and stabilisation left out. The items are the versions. Several votes of
        a viewer on a version, from several cells, become their mean.

    Raises:
        ValueError: If a row belongs to no presentation, lacks its viewer or repeats a vote, or a grade is not within
            0 and 10. Also if fewer than 2 viewers vote, or nobody votes on a version.
    """
    shown = {(part.panel, part.session, part.vote): part for part in plan if part.phase == "test"}
    votes: list[tuple[str, str, float | None]] = []
    seen: dict[tuple[Any, ...], str] = {}
    for number, row in enumerate(rows, start=1):
        where, vote = str(row.get("where", f"row {number}")), str(row["vote"]).strip()
        grades = {name: row[name] for name in ("A", "B") if row[name] not in (None, "")}
        if vote.startswith(("S", "T")) or not grades:
            continue
        panel, session = (int(check_number(row[name], name=name, where=where)) for name in ("panel", "session"))
        if (panel, session, vote) not in shown:
            raise ValueError(
                f"{where}: the plan has no vote {vote!r} in session {session} of panel {panel}. Give the plan "
                "that the sheet was made of."
            )
        _check_names(row, ("subject",), where)
        subject, part = str(row["subject"]), shown[panel, session, vote]
        key = (subject, panel, session, vote)
        if key in seen:
            raise ValueError(f"{where}: {subject!r} votes on this in {seen[key]} too. Give each vote once.")
        seen[key] = where
        for name, item in (("A", part.a), ("B", part.b)):
            if name in grades:
                grade = check_number(grades[name], name=name, where=where, low=0, high=len(SCALE) - 1)
                votes.append((subject, item, grade))
    missing = {item for part in shown.values() for item in (part.a, part.b)} - {item for _, item, _ in votes}
    if votes and missing:
        raise ValueError(f"Nobody has voted on {min(missing)!r}. Give all sheets of a test at once.")
    return gather_votes(votes, source="sheets")
