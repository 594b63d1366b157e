# SPDX-License-Identifier: Apache-2.0
import csv
import re

import numpy as np
import pytest

from musiq_hf.subjective import (
    Cell,
    describe_plan,
    plan_sessions,
    read_cells,
    read_plan,
    read_sheets,
    votes_from_sheets,
    write_plan,
)
from musiq_hf.subjective.sheets import SCALE

CELLS = [Cell(f"c{n % 4}", f"c{n % 4}_a{n}.png", f"c{n % 4}_b{n}.png", float(n)) for n in range(12)]
GRADES = {
    name: grade for grade, name in enumerate(sorted(part for cell in CELLS for part in (cell.first, cell.second)))
}


@pytest.fixture
def plan():
    return plan_sessions(CELLS, max_minutes=8, num_panels=2)


def fill_in(plan, viewers=(("ann", 1), ("bob", 1), ("cem", 2))):
    """Rows of viewers who give each version the grade of its place in the alphabet, up to 10."""
    return [
        {
            "subject": name,
            "panel": shown.panel,
            "session": shown.session,
            "vote": shown.vote,
            "A": GRADES[shown.a] % 11,
            "B": GRADES[shown.b] % 11,
        }
        for name, panel in viewers
        for shown in plan
        if shown.panel == panel
    ]


def test_votes_find_their_versions_whatever_was_exchanged(plan):
    votes = votes_from_sheets(fill_in(plan), plan)
    assert (votes.items, votes.subjects) == (tuple(GRADES), ("ann", "bob", "cem"))
    assert (votes.values == np.array([[grade % 11] * 3 for grade in GRADES.values()])).all()


def test_a_version_of_several_cells_gets_the_mean_of_its_votes():
    cells = [Cell("c", "x", "y", 1.0), Cell("d", "x", "z", 2.0), Cell("e", "v", "w", 3.0)]
    plan = plan_sessions(cells, num_training=0)
    grades = {"c": 4, "d": 9, "e": 1}
    rows = [
        (name, part.panel, part.session, part.vote, grades[part.clip], grades[part.clip])
        for name in ("ann", "bob")
        for part in plan
    ]
    names = ("subject", "panel", "session", "vote", "A", "B")
    votes = votes_from_sheets([dict(zip(names, row, strict=True)) for row in rows], plan)
    assert votes.items == ("v", "w", "x", "y", "z") and votes.values[:, 0].tolist() == [1, 1, 6.5, 4, 9]


def test_files_hold_the_plan_and_sheets_without_names(plan, tmp_path):
    (tmp_path / "sheets").mkdir()
    (tmp_path / "sheets" / "panel9_session9.csv").write_text("of an earlier plan")
    write_plan(tmp_path, plan)
    assert read_plan(tmp_path / "plan.csv") == plan
    names = sorted(path.name for path in (tmp_path / "sheets").iterdir())
    sessions = sorted({(shown.panel, shown.session) for shown in plan})
    assert len(sessions) == 6
    assert names == sorted(f"panel{p}_session{s}.{end}" for p, s in sessions for end in ("csv", "html"))
    texts = [path.read_text() for path in (tmp_path / "sheets").iterdir()]
    assert not any(name in text for name in GRADES for text in texts)
    page = (tmp_path / "sheets" / "panel2_session1.html").read_text()
    rows = re.findall(r"<tr><td>(\w+)</td><td></td><td></td></tr>", page)
    assert rows == [shown.vote for shown in plan if (shown.panel, shown.session) == (2, 1)]
    assert len(SCALE) == 11 and all(
        f"<tr><td>{grade}</td><td>{words}</td></tr>" in page for grade, words in enumerate(SCALE)
    )
    assert (SCALE[0], SCALE[9], SCALE[10]) == (
        "severely annoying everywhere",
        "slightly perceptible somewhere",
        "imperceptible",
    )


def test_a_plan_is_gone_before_its_sheets_are(plan, tmp_path, monkeypatch):
    write_plan(tmp_path, plan)
    monkeypatch.setattr("musiq_hf.subjective.sheets.write_text", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_plan(tmp_path, plan)
    assert not (tmp_path / "plan.csv").exists()


def test_sheets_that_are_filled_in_become_votes(plan, tmp_path):
    write_plan(tmp_path, plan)
    filled = []
    for name, panel in (("ann", 1), ("bob", 2)):
        for sheet in sorted((tmp_path / "sheets").glob(f"panel{panel}_*.csv")):
            with open(sheet, newline="") as file:
                rows = list(csv.DictReader(file))
            shown = [part for part in plan if part.panel == panel and part.session == int(rows[0]["session"])]
            for row, part in zip(rows, shown, strict=True):
                assert not row["subject"] + row["A"] + row["B"]
                row |= {"subject": name, "A": str(GRADES[part.a] % 11), "B": str(GRADES[part.b] % 11)}
            filled.append(tmp_path / f"{name}_{sheet.name}")
            with open(filled[-1], "w", newline="") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)
    votes = votes_from_sheets(read_sheets(filled), plan)
    assert votes.subjects == ("ann", "bob") and (votes.values[:, 0] == votes.values[:, 1]).all()


def test_empty_votes_and_those_of_training_and_stabilisation_do_not_count(plan):
    rows = fill_in(plan)
    for row in rows:
        if row["vote"][0] in "ST":
            row |= {"subject": "", "A": 99, "B": "no grade"}
    empty = next(row for row in rows if row["subject"] == "ann" and row["vote"] == "1")
    empty |= {"A": "", "B": None}
    votes = votes_from_sheets(rows, plan)
    assert np.isnan(votes.values[:, 0]).sum() == 2 and np.isfinite(votes.values[:, 1:]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vote": "30"}, "sheet.csv, line 9: the plan has no vote '30' in session 1 of panel 1"),
        ({"session": "7"}, "the plan has no vote '1' in session 7 of panel 1"),
        ({"A": "11"}, r"line 9: `A` must be a number in 0..10, got 11"),
        ({"B": "good"}, r"line 9: `B` must be a number in 0..10, got good"),
        ({"subject": " "}, "line 9: `subject` must be a name, got nothing"),
        ({"panel": ""}, "line 9: `panel` must be a number, got nothing"),
        ({"subject": "bob"}, "'bob' votes on this in .* too"),
    ],
)
def test_wrong_rows_are_one_sentence(plan, change, message):
    rows = fill_in(plan)
    row = next(row for row in rows if (row["subject"], row["session"], row["vote"]) == ("ann", 1, "1"))
    row |= {"where": "sheet.csv, line 9", **change}
    with pytest.raises(ValueError, match=message):
        votes_from_sheets(rows, plan)


def test_missing_sheets_are_noticed(plan):
    rows = [row for row in fill_in(plan) if row["session"] != 1]
    with pytest.raises(ValueError, match="Nobody has voted on 'c.*png'. Give all sheets of a test at once"):
        votes_from_sheets(rows, plan)
    with pytest.raises(ValueError, match="votes of at least 2 viewers are needed, got those of 0"):
        votes_from_sheets([], plan)


def test_cells_are_read_and_their_mistakes_have_lines(tmp_path):
    path = tmp_path / "cells.csv"
    path.write_text("clip,first,second,quality\npark,park_x.mp4,park_y.mp4,61.5\n")
    assert read_cells(path) == [Cell("park", "park_x.mp4", "park_y.mp4", 61.5)]
    for line, message in (
        ("park,a,b,", "line 2: `quality` must be a number, got nothing"),
        ("park,a,b,fine", "line 2: `quality` must be a number, got fine"),
        ("park,,b,3", "line 2: `first` must be a name"),
    ):
        path.write_text(f"clip,first,second,quality\n{line}\n")
        with pytest.raises(ValueError, match=message):
            read_cells(path)
    path.write_text("clip,first,second\n")
    with pytest.raises(ValueError, match=r"columns \['quality'\] are missing"):
        read_cells(path)


def test_plans_that_were_changed_are_refused(plan, tmp_path):
    write_plan(tmp_path, plan)
    path = tmp_path / "plan.csv"
    path.write_text(path.read_text().replace("training", "practice", 1))
    with pytest.raises(ValueError, match="line 2: `phase` must be training, stabilisation, test, got 'practice'"):
        read_plan(path)


def test_the_timetable_says_what_the_room_must_have(plan):
    lines = describe_plan(plan, (1920, 1080))
    assert lines[0] == "panel 1, session 0: 4 of training, 2.4 min"
    assert lines[1] == "panel 1, session 1: 4 of stabilisation + 6 of test, 6.1 min"
    assert "Viewing distance 3.2 picture heights, 31 degrees wide" in lines[-2]
    assert "at least 9 viewers" in lines[-1] and "5 cd/m2" in lines[-1] and "22 inches" in lines[-1]
