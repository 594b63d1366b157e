# SPDX-License-Identifier: Apache-2.0
"""The commands of subjective tests, from the words to the files."""

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from golden_subjective import DIRECTORY, reference, votes_file
from PIL import Image
from places import ROOT

from musiq_hf import MusiqImageProcessor
from musiq_hf.cli import main
from musiq_hf.common.tables import read_table
from musiq_hf.data import load_scored_images


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def musiq(monkeypatch, capsys):
    """(exit code, output, errors) of a command; the classes of models, which it does not use, are not registered."""
    monkeypatch.setattr("musiq_hf.models.auto.register", lambda: None)

    def run(*words):
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return run


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def load(path):
    return [*read_table(Path(path))][1:]


def test_votes_become_scores_that_training_reads(musiq, folder):
    names = [f"p{number}.png" for number in range(4)]
    lines = ["item,ann,bob,cem", "p0.png,1,2,1", "p1.png,2,3,3", "p2.png,4,4,5", "p3.png,5,5,5"]
    (folder / "votes.csv").write_text("\n".join(lines) + "\n")
    for name in names:
        Image.new("RGB", (8, 8)).save(folder / name)
    code, printed, errors = musiq("mos", "votes.csv", "-o", "scores/mos.csv")
    assert (code, printed) == (0, "scores/mos.csv: 4 items, 0 without a score\n")
    assert errors == "The votes of 3 viewers count; at least 9 are recommended.\n"
    rows = load_scored_images("scores/mos.csv", image_root=".")["train"]
    assert rows["mos"] == pytest.approx([4 / 3, 8 / 3, 13 / 3, 5])
    assert [cell["path"] for cell in rows["image"]] == names


def test_all_files_of_a_test_are_written(musiq, folder):
    words = ("--screen", "correlation", "--viewers", "v.csv", "--figure", "v.png", "--estimator", "marginal")
    code, printed, errors = musiq("mos", votes_file("planted"), "-o", "m.csv", *words)
    assert (code, printed) == (0, "m.csv: 60 items, 0 without a score\n")
    assert errors == "Screening by correlation left out v03, v07, v16.\n"
    assert [row["subject"] for row in read("v.csv") if row["kept"] == "False"] == ["v03", "v07", "v16"]
    assert Image.open("v.png").format == "PNG"
    code, _, errors = musiq("mos", votes_file("planted"), "--viewers", "v.csv")
    assert code == 2 and "v.csv exists already. Add --overwrite to replace it" in errors
    code, printed, errors = musiq("mos", votes_file("planted"), "--viewers", "v.csv", "--overwrite")
    assert code == 0 and printed.splitlines()[1].split()[-1] == "i000" and len(printed.splitlines()) == 61
    assert {row["kept"] for row in read("v.csv")} == {"True"}


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_tables_have_the_formats_of_scores(musiq, folder, suffix):
    words = ("mos", votes_file("expert"), "--viewers")
    assert musiq(*words, "v.csv", "-o", "m.csv")[0] == 0
    assert musiq(*words, f"v{suffix}", "-o", f"m{suffix}")[0] == 0
    for name in "mv":
        plain, others = read(f"{name}.csv"), load(f"{name}{suffix}")
        assert [{key: "" if value is None else str(value) for key, value in row.items()} for row in others] == plain
    assert load(f"v{suffix}")[0]["kept"] is True
    assert musiq("pairs", DIRECTORY / "pairs_partial.csv", "-o", f"scale{suffix}")[0] == 0
    assert len(load(f"scale{suffix}")) == 7 and isinstance(load(f"scale{suffix}")[0]["score"], float)
    if suffix == ".parquet":
        for row in load("m.parquet"):
            Image.new("RGB", (8, 8)).save(f"{row['image']}.png")
            (folder / f"{row['image']}.png").rename(row["image"])
        assert load_scored_images("m.parquet", image_root=".")["train"]["mos"] == pytest.approx(
            [row["mos"] for row in load("m.parquet")]
        )


def test_an_item_without_a_score_is_exit_code_1(musiq, folder):
    shown = ["item,ann,bob,cem,odd", *(f"i{n},{n},{n},{n},{(7 * n) % 5}" for n in range(8)), "last,,,,3"]
    (folder / "votes.csv").write_text("\n".join(shown) + "\n")
    code, printed, _ = musiq("mos", "votes.csv", "--screen", "correlation")
    assert code == 1 and "last: No viewer who voted on it is left" in printed
    assert musiq("mos", "votes.csv")[0] == 0


def test_a_plan_and_its_sheets_become_scores(musiq, folder):
    cells = [f"clip{n % 5},clip{n % 5}_a{n},clip{n % 5}_b{n},{n}" for n in range(10)]
    (folder / "cells.csv").write_text("\n".join(["clip,first,second,quality", *cells]) + "\n")
    code, printed, _ = musiq("plan-session", "cells.csv", "-o", "plan", "--display", "3840x2160", "--training", "2")
    assert code == 0 and printed.splitlines()[0] == "panel 1, session 0: 2 of training, 1.2 min"
    assert "Viewing distance 1.6 picture heights, 58 degrees" in printed
    for name, grade in (("ann", 3), ("bob", 5)):
        rows = [row | {"subject": name, "A": grade, "B": grade + 1} for row in read("plan/sheets/panel1_session1.csv")]
        with open(f"{name}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    code, _, errors = musiq("mos", "ann.csv", "bob.csv")
    assert code == 2 and "One table of votes is read, got 2. Several are the sheets of a plan: add --plan" in errors
    assert musiq("mos", "ann.csv", "bob.csv", "--plan", "plan/plan.csv", "-o", "mos.csv")[0] == 0
    shown_as_a = {row["a"] for row in read("plan/plan.csv") if row["phase"] == "test"}
    assert len(read("mos.csv")) == 20
    assert all(float(row["mos"]) == (4 if row["image"] in shown_as_a else 5) for row in read("mos.csv"))
    code, _, errors = musiq("plan-session", "cells.csv", "-o", "plan")
    assert code == 2 and "plan.csv exists already. Add --overwrite" in errors
    assert musiq("plan-session", "cells.csv", "-o", "plan", "--overwrite", "--panels", "2")[0] == 0
    assert len(list((folder / "plan" / "sheets").glob("*.csv"))) == 4


@pytest.mark.slow
def test_the_document_leads_from_votes_to_a_model_in_two_commands(folder, tiny_model, capsys):
    text = (ROOT / "docs" / "subjective.md").read_text()
    exec(re.search(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[1], {})
    lines = re.search(r"^```sh\n(musiq mos .*?)^```$", text, re.MULTILINE | re.DOTALL)[1].splitlines()
    model = tiny_model(score_range=(1, 5))
    model.save_pretrained("tiny")
    MusiqImageProcessor.from_config(model.config).save_pretrained("tiny")
    extra = {"mos": [], "finetune": ["--model", "tiny", "--max_steps", "2", "--batch_size", "4"]}
    for line in lines:
        _, *words = shlex.split(line)
        assert main([*words, *extra.pop(words[0])]) == 0
    assert not extra
    captured = capsys.readouterr()
    assert "Screening by correlation left out viewer6." in captured.err and Image.open("viewers.png").format == "PNG"
    assert 0 < json.loads(captured.out[captured.out.index("{\n") :])["selection"]["num_pictures"] < 40
    assert main(["score", "photos/scene9_blur0.png", "-m", "runs/mine"]) == 0
    assert "photos/scene9_blur0.png" in capsys.readouterr().out


def test_a_plan_becomes_videos_and_goes_on_where_it_was_ended(musiq, folder):
    cells = [f"clip{n % 2},a,{version},{n}" for n, version in enumerate("bbcc")]
    (folder / "cells.csv").write_text("\n".join(["clip,first,second,quality", *cells]) + "\n")
    for name in (f"clip{n}/{version}.png" for n in range(2) for version in ("reference", "a", "b", "c")):
        (folder / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16)).save(folder / "clips" / name)
    words = ("plan-session", "cells.csv", "-o", "plan", "--clip_seconds", "0.1", "--training", "2")
    assert musiq(*words, "--render", "clip")[::2] == (
        2,
        "musiq plan-session: clip: no such folder. Give the folder of the clips.\n"
        "Example: musiq plan-session cells.csv -o plan\n",
    )
    (folder / "clips" / "clip1" / "c.png").rename("c.png")
    code, printed, errors = musiq(*words, "--render", "clips")
    assert (code, printed) == (2, "") and "1 of 8 clips are missing, the first is clips/clip1/c.*." in errors
    assert not (folder / "plan").exists()
    (folder / "c.png").rename(folder / "clips" / "clip1" / "c.png")
    code, printed, _ = musiq(*words, "--render", "clips")
    assert code == 0 and printed.endswith("plan/sessions: 2 videos\n")
    sheet = folder / "plan" / "sheets" / "panel1_session1.csv"
    sheet.write_text("votes")
    (folder / "plan" / "sessions" / "panel1_session0.mp4").unlink()
    code, printed, _ = musiq(*words, "--render", "clips")
    assert code == 0 and printed.endswith("plan/sessions: 1 videos, 1 were there\n") and sheet.read_text() == "votes"
    code, _, errors = musiq(*words, "--render", "clips", "--seed", "1")
    assert code == 2 and "plan.csv is another plan than that of these arguments" in errors
    assert sheet.read_text() == "votes"
    assert musiq(*words, "--seed", "1", "--overwrite")[0] == 0
    assert not list((folder / "plan" / "sessions").iterdir()) and sheet.read_text() != "votes"


def test_comparisons_become_a_scale(musiq, folder):
    words = ("pairs", DIRECTORY / "pairs_complete.csv", "--model", "thurstone")
    code, printed, _ = musiq(*words, "-o", "scale.csv")
    assert (code, printed) == (0, "scale.csv: 7 items\n")
    assert [float(row["score"]) for row in read("scale.csv")] == pytest.approx(
        reference("pairs_complete", "thurstone/score"), abs=1e-6
    )
    code, printed, _ = musiq(*words, "--unit", "jod")
    first = reference("pairs_complete", "thurstone/score")[0] / 0.67449
    assert code == 0 and float(printed.splitlines()[1].split()[0]) == pytest.approx(first, abs=0.006)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("mos", "votes.csv", "-o", "mos.txt"),
            "mos.txt: a .csv or .jsonl or .parquet file is written. Change the end of",
        ),
        (("mos", "votes.csv", "--figure", "a.pdf"), "a.pdf: a .png file is written"),
        (("mos", "votes.csv", "-o", "a.csv", "--viewers", "a.csv"), "a.csv is named twice, and would be lost"),
        (("mos", "votes.csv", "-o", "votes.csv", "--overwrite"), "votes.csv is named twice, and would be lost"),
        (("mos", "none.csv"), "none.csv"),
        (("mos", "votes.csv", "--estimator", "marginal", "--interval", "t"), "`interval` belongs to means"),
        (("pairs", "votes.csv"), "votes.csv: columns ['winner', 'loser'] are missing"),
        (("pairs", "votes.csv", "-o", "scale.json"), "scale.json: a .csv or .jsonl or .parquet file is written"),
        (("plan-session", "votes.csv", "-o", "plan"), "columns ['clip', 'first', 'second', 'quality'] are missing"),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(musiq, folder, words, message):
    shutil.copy(votes_file("expert"), "votes.csv")
    code, printed, errors = musiq(*words)
    assert (code, printed) == (2, "") and errors.startswith(f"musiq {words[0]}: ") and message in errors
    assert [path.name for path in folder.iterdir()] == ["votes.csv"]
    assert (folder / "votes.csv").read_bytes() == votes_file("expert").read_bytes()


def test_a_size_that_is_none_is_refused_by_the_words(musiq, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["plan-session", "cells.csv", "-o", "plan", "--display", "1080p"])
    assert (
        stop.value.code == 2 and "must be WIDTHxHEIGHT in pixels, as 1920x1080, got 1080p" in capsys.readouterr().err
    )
