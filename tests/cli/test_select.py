# SPDX-License-Identifier: Apache-2.0
"""`musiq select` and `musiq gate` from the words to files, lines and exit statuses."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hostile_names import list_names
from PIL import Image
from places import ROOT

from musiq_hf.cli import main
from musiq_hf.common.tables import write_table
from musiq_hf.scoring import load_quality, make_signature, score_pictures, write_calibration

pytestmark = pytest.mark.usefixtures("alone")
COLUMNS = {"key": str, "score": float, "model": str, "signature": str, "error": str, "camera": str}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """(exit code, output, errors) of a command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        return main(list(map(str, words))), *capsys.readouterr()

    return call


def make_table(path="scores.csv", names=("a", "b/c", "b/d", "e")):
    """Write pictures of one colour, and a table that gives them the scores 0, 10, ...; the last one has an error."""
    rows = []
    for place, name in enumerate(names):
        key = f"photos/{name}.png"
        os.makedirs(os.path.dirname(key), exist_ok=True)
        Image.new("RGB", (40, 30), (place, 0, 0)).save(key)
        score = None if place == len(names) - 1 else 10.0 * place
        error = f"{key}: no such file." if score is None else None
        rows.append((key, score, "m", "m|weights:1", error, "xy"[place % 2]))
    write_table(Path(path), COLUMNS, rows)


def read_keys(path):
    with open(path, newline="", encoding="utf-8") as file:
        return [row["key"] for row in csv.DictReader(file)]


def test_chosen_rows_are_printed_or_written_and_the_others_are_counted(run):
    make_table()
    code, printed, errors = run("select", "scores.csv", "--min", "10")
    assert (code, printed) == (0, "photos/b/c.png\nphotos/b/d.png\n")
    assert errors == (
        "2 of 4 pictures chosen.\n"
        "1 have no score and are not chosen; --unscored FILE lists them:\n"
        "  1: no such file.\n"
    )
    code, printed, errors = run("select", "scores.csv", "--bottom", "1", "-o", "o.csv", "--unscored", "u.csv")
    assert (code, printed) == (0, "") and "--unscored" not in errors
    assert read_keys("o.csv") == ["photos/a.png"] and read_keys("u.csv") == ["photos/e.png"]
    with open("o.csv") as chosen, open("scores.csv") as table:
        assert chosen.readlines() == table.readlines()[:2]
    code, _, errors = run("select", "scores.csv", "-o", "o.csv")
    assert code == 2 and "o.csv exists already. Add --overwrite" in errors
    assert run("select", "scores.csv", "--top", "1", "--per", "camera", "-o", "o.csv", "--overwrite")[0] == 0
    assert read_keys("o.csv") == ["photos/b/c.png", "photos/b/d.png"]


def test_files_are_copied_linked_moved_and_put_back(run):
    make_table()
    assert run("select", "scores.csv", "--min", "10", "--copy_to", "best")[0] == 0
    assert sorted(os.listdir("best/b")) == ["c.png", "d.png"]  # below the folder that all keys share
    assert run("select", "scores.csv", "--min", "20", "--link_to", "links", "--symbolic", "--root", ".")[0] == 0
    assert os.readlink("links/photos/b/d.png") == "../../../photos/b/d.png"
    code, _, errors = run("select", "scores.csv", "--move_to", "moved", "--max", "5")
    assert code == 0 and "1 file moved to moved; --undo moved.journal.jsonl puts them back.\n" in errors
    assert not os.path.exists("photos/a.png")
    code, _, errors = run("select", "scores.csv", "--move_to", "moved", "--max", "5")
    assert code == 0 and "0 files moved" in errors and "1 were so before" in errors
    assert run("select", "--undo", "moved.journal.jsonl")[0] == 0
    assert os.path.exists("photos/a.png") and not os.path.exists("moved")
    os.remove("photos/b/c.png")
    code, _, errors = run("select", "scores.csv", "--min", "10", "--copy_to", "again")
    assert code == 1 and "1 left as they are:\n" in errors and "photos/b/c.png: no such file\n" in errors


def test_names_of_all_kinds_pass_through_every_output(tmp_path, monkeypatch, capfdbinary):
    monkeypatch.chdir(tmp_path)
    rows = []
    os.mkdir("photos")
    for place, name in enumerate(list_names()):
        with open(f"photos/{name}", "wb") as file:
            file.write(os.fsencode(name))
        key = f"photos/{name}".encode("utf-8", "backslashreplace").decode()
        rows.append((key, float(place), "m", "m|weights:1", None, "x"))
    write_table(Path("scores.parquet"), COLUMNS, rows)
    words = ["select", "scores.parquet", "-o", "o.csv", "--copy_to", "out", "--report", "page.html", "--null"]
    assert main(words) == 0
    printed = capfdbinary.readouterr().out
    assert printed == b"".join(b"./photos/" + os.fsencode(name) + b"\0" for name in list_names())
    assert sorted(os.listdir("out")) == sorted(list_names())
    assert read_keys("o.csv") == [row[0] for row in rows]
    with open("page.html", encoding="utf-8") as file:
        page = file.read()
    assert "<script" not in page and "<img src=x" not in page and "&lt;script&gt;alert(1)" in page
    assert main(["select", "scores.parquet"]) == 0
    printed = capfdbinary.readouterr().out
    assert printed.count(b"\n") == 50 and b"\x1b" not in printed


def test_a_folder_is_scored_first_and_a_move_goes_on_after_its_pictures_have_gone(run, checkpoint):
    make_table()
    words = ("select", "photos", "-m", checkpoint, "--device", "cpu", "--move_to", "moved")
    code, _, errors = run(*words, "--top", "2")
    assert code == 0 and "2 files moved to moved" in errors
    assert len(read_keys("moved.scores.csv")) == 4
    code, _, errors = run(*words, "--top", "2")
    assert code == 0 and "2 were so before" in errors
    code, _, errors = run("select", "photos", "--copy_to", "photos/best")
    assert code == 2 and "photos/best lies in photos" in errors


def test_percentiles_come_from_the_table_or_the_checkpoint_beside_it(run, checkpoint, tmp_path):
    model, processor = load_quality(checkpoint)
    folder = tmp_path / "mine"
    folder.mkdir()
    known = write_calibration(folder, np.arange(101.0), model=model, processor=processor, data="line")
    signature = make_signature(model, processor, checkpoint=str(folder))
    rows = [(f"{place}", place / 2, str(folder), signature, None, "x") for place in range(0, 200, 7)]
    write_table(Path("s.csv"), COLUMNS, rows)
    code, printed, _ = run("select", "s.csv", "--percentile", "50")
    assert code == 0
    assert printed.split() == [key for key, score, *_ in rows if known.percentile(score) >= 50]
    write_table(
        Path("o.csv"), COLUMNS, [(*row[:3], signature.replace("weights:", "weights:0"), *row[4:]) for row in rows]
    )
    code, _, errors = run("select", "o.csv", "--percentile", "50")
    assert code == 2 and "is of other scores: weights differ" in errors
    write_table(Path("n.csv"), COLUMNS, [(*row[:2], "none", *row[3:]) for row in rows])
    code, _, errors = run("select", "n.csv", "--percentile", "50")
    assert code == 2 and "No calibration.json of none is found here" in errors
    write_table(Path("p.csv"), {"key": str, "score": float, "percentile": float}, [("a", 1.0, 49.9), ("b", 2, 50)])
    assert run("select", "p.csv", "--percentile", "50")[:2] == (0, "b\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "A table of scores, or a folder of pictures, is needed."),
        (["none.csv"], "none.csv: no such file or folder"),
        (["scores.csv", "--min", "3", "--max", "2"], "Exchange --min and --max"),
        (["scores.csv", "--top", "ten"], "A number as 100 or a share as 10% is needed, got ten"),
        (["scores.csv", "--copy_to", "a", "--move_to", "b"], "--copy_to and --move_to exclude each other"),
        (["scores.csv", "--symbolic"], "--symbolic is of --link_to"),
        (["scores.csv", "--journal", "j"], "--journal is of --move_to"),
        (["scores.csv", "-o", "scores.csv", "--overwrite"], "scores.csv is the input too, and would be lost"),
        (["scores.csv", "-o", "o.txt"], "a .csv or .jsonl or .parquet file is written"),
        (["scores.csv", "--report", "o.txt"], "a report is HTML"),
        (["scores.csv", "--undo", "j"], "Drop an input"),
        (["scores.csv", "--bursts", "--top", "1"], "--bursts takes the best one of each burst, and --top others"),
        (["scores.csv", "--scores", "s.csv"], "the input is a table. Drop it"),
        (["scores.csv", "--distance", "65"], "`distance` must lie between 0 and 64 bits"),
        (["scores.csv", "--copy_to", "scores.csv"], "scores.csv is no folder"),
        (["--undo", "none"], "none: no such file"),
    ],
)
def test_mistakes_are_one_sentence_before_anything_is_done(run, words, message):
    make_table()
    before = sorted(os.listdir())
    code, printed, errors = run("select", *words)
    assert (code, printed) == (2, "") and message in errors
    assert errors.startswith("musiq select: ") and sorted(os.listdir()) == before


@pytest.mark.slow
def test_a_table_is_selected_from_without_pytorch(tmp_path):
    write_table(tmp_path / "s.csv", COLUMNS, [("a", 1.0, "m", "m|weights:1", None, "x")])
    words = [sys.executable, "-X", "importtime", "-m", "musiq_hf.cli", "select", str(tmp_path / "s.csv"), "--top", "1"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "a\n")
    assert "pyarrow" in done.stderr and " torch" not in done.stderr and "transformers" not in done.stderr


@pytest.fixture
def gate(run, checkpoint, tmp_path):
    """(exit status, lines, errors) of `musiq gate`, and the scores of the pictures in `photos`."""
    make_table()
    model, processor = load_quality(checkpoint)
    files = ["photos/a.png", "photos/b/c.png", "photos/b/d.png", "photos/e.png"]
    scores = [row.score for row in score_pictures(files, model=model, processor=processor)]

    def call(*words, model=checkpoint):
        code, printed, errors = run("gate", *words, "-m", model, "--device", "cpu")
        return code, printed.splitlines(), errors

    return call, sorted(scores)


def test_the_exit_status_says_whether_all_pass(gate):
    call, scores = gate
    code, lines, errors = call("photos", f"--min={scores[0]!r}")  # a score that equals it passes
    assert code == 0 and [line.split()[0] for line in lines] == ["pass"] * 4
    assert "4 pictures: 4 pass, 0 fail, 0 without a score. A score of at least" in errors
    assert "How often people are of another opinion is not known" in errors
    code, lines, _ = call("photos", f"--min={scores[-1]!r}", "--json")
    found = [json.loads(line) for line in lines]
    assert code == (0 if scores[0] == scores[-1] else 1)
    assert [row["passes"] for row in found] == [row["score"] >= scores[-1] for row in found]
    with open("photos/bad.png", "w") as file:
        file.write("none")
    code, lines, errors = call("photos", f"--min={scores[0]!r}")
    assert code == 2 and sum(line.startswith("error: photos/bad.png") for line in lines) == 1
    assert "1 without a score" in errors
    os.mkdir("empty")
    assert call("empty", "--min", "1")[0] == 2


def test_a_gate_by_the_calibration_says_its_error(gate, checkpoint, tmp_path):
    call, scores = gate
    folder = shutil.copytree(checkpoint, tmp_path / "calibrated")
    model, processor = load_quality(checkpoint)
    values = np.linspace(scores[0] - 1, scores[-1] + 1, 101)
    opinions = values[::-1]
    write_calibration(folder, values, model=model, processor=processor, data="line", opinions=opinions)
    code, lines, errors = call("photos", "--expect_fail_rate", "0.99", "--json", model=str(folder))
    assert code == 1
    assert json.loads(lines[0])["threshold"] == pytest.approx(values[99], abs=1e-4)
    assert "Of 101 pictures (line), 99% score lower. People rated 100% of those that pass below" in errors
    assert "and 2% of those that fail at or above it" in errors
    code, _, errors = call("photos", "--expect_fail_rate", "0.1")
    assert code == 2 and "holds no calibration.json" in errors


@pytest.mark.parametrize("words", [[], ["--min", "1", "--expect_fail_rate", ".1"], ["--expect_fail_rate", "5"]])
def test_a_gate_without_a_threshold_is_a_mistake(run, words):
    make_table()
    code, printed, errors = run("gate", "photos", *words)
    assert (code, printed) == (2, "") and errors.startswith("musiq gate: ")


def test_a_page_has_the_groups_of_all_that_is_chosen(run):
    make_table()
    assert run("select", "scores.csv", "--per", "camera", "--report", "page.html")[:2] == (0, "")
    page = Path("page.html").read_text()
    assert "<td>x</td><td>2</td>" in page and "<td>y</td><td>1</td>" in page
    assert run("select", "scores.csv", "--per", "camera")[0] == 2


def test_the_best_of_a_burst_comes_with_a_warning(run, monkeypatch):
    pytest.importorskip("imagehash", reason="needs the extra bursts")
    make_table()  # pictures of one colour are alike, and two of them are neighbours in a folder
    code, printed, errors = run("select", "scores.csv", "--bursts")
    assert (code, printed) == (0, "photos/a.png\nphotos/b/d.png\n")
    assert "the best score is often not the best picture" in errors and "below 80%" in errors
    monkeypatch.setitem(sys.modules, "imagehash", None)
    code, _, errors = run("select", "scores.csv", "--bursts")
    assert code == 2 and 'pip install "musiq_hf[bursts]"' in errors
