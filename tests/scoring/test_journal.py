# SPDX-License-Identifier: Apache-2.0
"""Journals that survive a kill at any byte, and the tables made of them."""

import csv
import json
import os
from contextlib import closing

import pyarrow.parquet
import pytest

from musiq_hf.scoring.journal import (
    Journal,
    check_no_other_journal,
    fcntl,
    name_journals,
    name_shard,
    write_output,
)
from musiq_hf.scoring.rows import ScoreRow
from musiq_hf.scoring.tables.forms import COLUMNS

SETTINGS = {
    "models": ["musiq-test"],
    "signatures": ["sig|1"],
    "std": True,
    "weights": None,
    "percentile": False,
    "paths": ("photos",),
    "dtype": "float32",
}
ROWS = [
    ScoreRow("photos/a.png", 30, 20, 55.25, 0.5525, 1.5),
    ScoreRow('photos/"b",\n2.png', 7, 8, 1 / 3, 0.0, None),
    ScoreRow("photos/ü\u2028.png", error="photos/ü\u2028.png: not a picture."),
    ScoreRow("photos/z.png", 1, 2, -3.5e-12, 0.0, 0.25),
]


def sources(rows=ROWS):
    return ((row.key, None) for row in rows)


def go_on(output, rows=ROWS, settings=SETTINGS, index=0, count=1):
    """Continue or start a run, and make the output."""
    journals = name_journals(output, count)
    journal = Journal(journals[index], settings)
    by_key = {row.key: row for row in rows}
    try:
        if not journal.is_finished:
            rest = sources(rows)
            journal.check_done(rest)
            for key, _ in rest:
                journal.append((by_key[key],))
            journal.finish()
    finally:
        journal.close()
    return write_output(output, journals, temporary=output.with_name(f"{journals[index].name}.tmp"))


def read_back(path):
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    kinds = {"width": int, "height": int, **dict.fromkeys(("score", "score_0_1", "std", "ensemble"), float)}
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {name: kinds.get(name, str)(value) if value else None for name, value in row.items()}
            for row in csv.DictReader(file)
        ]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ".CSV"])
def test_every_format_holds_every_value(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr("musiq_hf.common.tables.ROWS_OF_GROUP", 3)
    output = tmp_path / "new" / f"scores{suffix}"
    assert go_on(output) == (4, 1)
    if suffix != ".jsonl":  # its lines may hold a line separator of Unicode, where `splitlines` cuts
        rows = read_back(output.rename(output.with_suffix(suffix.lower())))
    else:
        rows = [json.loads(line) for line in output.read_text(encoding="utf-8").split("\n")[:-1]]
    assert list(rows[0]) == list(COLUMNS)
    for row, own in zip(rows, ROWS, strict=True):
        values = own._asdict() | {"model": "musiq-test", "signature": "sig|1"}
        assert row == {name: values[name] for name in COLUMNS}
    assert len(os.listdir(output.parent)) == 1  # neither a journal nor a temporary file
    if suffix == ".parquet":
        assert pyarrow.parquet.read_metadata(output).num_row_groups == 2


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("weights", [None, (1.0, 3.0)])
def test_several_checkpoints_have_a_row_each_and_with_weights_one_more_column(tmp_path, suffix, weights):
    settings = SETTINGS | {"models": ["a", "b"], "signatures": ["a|1", "b|2"], "weights": weights}
    output, mean = tmp_path / f"scores{suffix}", None if weights is None else 0.75
    with closing(Journal(name_journals(output, 1)[0], settings)) as journal:
        journal.append(tuple(ROWS[0]._replace(score=score, ensemble=mean) for score in (1.5, 2.5)))
        journal.append((ROWS[1], ROWS[1]._replace(score=None, error="too large")))
        journal.finish()
    assert write_output(output, name_journals(output, 1), temporary=tmp_path / "tmp") == (2, 1)
    rows = read_back(output)
    assert [(row["key"], row["model"], row["signature"]) for row in rows] == [
        (key, *made_with) for key in (ROWS[0].key, ROWS[1].key) for made_with in (("a", "a|1"), ("b", "b|2"))
    ]
    assert [row["score"] for row in rows] == [1.5, 2.5, 1 / 3, None]
    assert list(rows[0]) == [*COLUMNS, *(["ensemble"] if weights else [])]
    assert weights is None or [row["ensemble"] for row in rows] == [0.75, 0.75, None, None]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_output_without_rows_has_its_columns(tmp_path, suffix):
    output = tmp_path / f"scores{suffix}"
    assert go_on(output, rows=[]) == (0, 0)
    if suffix == ".csv":
        assert output.read_text() == ",".join(COLUMNS) + "\n"
    else:
        assert pyarrow.parquet.read_table(output).column_names == list(COLUMNS)


def test_a_run_cut_off_at_any_byte_gives_the_same_table(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)  # hundreds take seconds
    whole = tmp_path / "whole.csv"
    go_on(whole)
    journal = Journal(tmp_path / "journal", SETTINGS)
    for row in ROWS:
        journal.append((row,))
    journal.finish()
    journal.close()
    content = (tmp_path / "journal").read_bytes()
    output = tmp_path / "scores.csv"
    for length in range(len(content) + 1):
        (tmp_path / "scores.csv.part").write_bytes(content[:length])
        assert go_on(output) == (4, 1), length
        assert output.read_bytes() == whole.read_bytes(), length
        assert not (tmp_path / "scores.csv.part").exists()
        output.unlink()


def test_damage_in_the_middle_costs_what_follows_it_and_no_more(tmp_path):
    output, part = tmp_path / "scores.csv", tmp_path / "scores.csv.part"
    journal = Journal(part, SETTINGS)
    for row in ROWS:
        journal.append((row,))
    journal.close()
    lines = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join([*lines[:3], b"\0" * len(lines[3][:-1]) + b"\n", lines[4]]))
    journal = Journal(part, SETTINGS)
    assert (journal.pictures, journal.errors, journal.is_finished) == (2, 0, False)
    journal.close()
    assert go_on(output) == (4, 1)


def test_a_kill_after_the_last_row_leaves_only_the_table_to_make(tmp_path, monkeypatch):
    output = tmp_path / "scores.csv"

    def fail(*arguments):
        raise KeyboardInterrupt

    for step in ("replace", "fsync"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(os, step, fail)
            go_on(output)
        assert not output.exists()
    journal = Journal(tmp_path / "scores.csv.part", SETTINGS)
    assert journal.is_finished
    journal.close()
    content = (tmp_path / "scores.csv.part").read_bytes()
    assert go_on(output) == (4, 1)
    table = output.read_bytes()
    (tmp_path / "scores.csv.part").write_bytes(content)  # killed between rename and removal
    assert go_on(output) == (4, 1) and output.read_bytes() == table
    assert os.listdir(tmp_path) == ["scores.csv"]


def test_a_run_with_other_settings_is_not_continued(tmp_path):
    part = tmp_path / "scores.csv.part"
    journal = Journal(part, SETTINGS)
    journal.append((ROWS[0],))
    journal.close()
    before = part.read_bytes()
    with pytest.raises(ValueError, match=r"unfinished run with other settings \(dtype: float32, now bfloat16\)"):
        Journal(part, SETTINGS | {"dtype": "bfloat16"})
    assert part.read_bytes() == before
    with pytest.raises(ValueError, match=r"other settings \(signatures: 1, now 2\)"):
        Journal(part, SETTINGS | {"signatures": ["sig|2"]})
    with pytest.raises(ValueError, match=r"other settings \(models: \['musiq-test'\], now \['a', 'b'\]\)"):
        Journal(part, SETTINGS | {"models": ["a", "b"]})
    Journal(part, SETTINGS).close()


def test_a_journal_without_rows_binds_nobody_and_is_removed(tmp_path):
    part = tmp_path / "scores.csv.part"
    journal = Journal(part, SETTINGS)
    content = part.read_bytes()
    journal.close()
    assert not part.exists()
    part.write_bytes(content)  # killed before the first row
    other = SETTINGS | {"dtype": "bfloat16"}
    journal = Journal(part, other)
    journal.append((ROWS[0],))
    journal.close()
    assert json.loads(part.read_bytes().splitlines()[0])["dtype"] == "bfloat16"


def test_a_foreign_file_is_left_alone(tmp_path):
    part = tmp_path / "scores.csv.part"
    for content in (b"half a download\nof something", b"half a download"):
        part.write_bytes(content)
        with pytest.raises(ValueError, match="not a file of an unfinished run. Move it away"):
            Journal(part, SETTINGS)
        assert part.read_bytes() == content


@pytest.mark.parametrize("target", ["mine", "nothing"])
def test_a_link_in_the_place_of_the_journal_is_refused(tmp_path, target):
    (tmp_path / "mine").touch()  # not even an empty file is written to
    part = tmp_path / "scores.csv.part"
    part.symlink_to(target)
    with pytest.raises(ValueError, match="scores.csv.part holds the rows of a run, but a link is there. Remove it"):
        Journal(part, SETTINGS)
    assert sorted(os.listdir(tmp_path)) == ["mine", "scores.csv.part"] and not (tmp_path / "mine").read_bytes()
    part.unlink()
    os.mkfifo(part)
    with pytest.raises(ValueError, match="a folder or device is there"):
        Journal(part, SETTINGS)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_link_under_the_temporary_name_is_not_followed(tmp_path, suffix):
    (tmp_path / "mine").write_text("precious")
    output = tmp_path / f"scores{suffix}"
    (tmp_path / f"scores{suffix}.part.tmp").symlink_to("mine")
    assert go_on(output) == (4, 1)
    assert (tmp_path / "mine").read_text() == "precious" and not output.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["mine", output.name]


@pytest.mark.parametrize("size", [215, 246, 251, 255])
@pytest.mark.parametrize("count", [1, 2])
def test_outputs_with_long_names(tmp_path, size, count):
    output = tmp_path / ("s" * (size - 4) + ".csv")
    for index in range(count):
        result = go_on(output, ROWS[index::count], SETTINGS, index, count)
    assert result == (4, 1) and os.listdir(tmp_path) == [output.name]
    name_journals(output, 3)[0].touch()
    with pytest.raises(ValueError, match="unfinished run with another number of processes"):
        check_no_other_journal(output, name_journals(output, count))


@pytest.mark.skipif(fcntl is None, reason="needs file locks")
def test_two_runs_never_write_one_journal(tmp_path):
    first = Journal(tmp_path / "part", SETTINGS)
    with pytest.raises(ValueError, match="another run is writing it"):
        Journal(tmp_path / "part", SETTINGS)
    first.append((ROWS[0],))
    first.close()
    Journal(tmp_path / "part", SETTINGS).close()


@pytest.mark.parametrize("what", ["file", "folder", "moved"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_journal_that_is_deleted_during_the_run_loses_nothing(tmp_path, what, count):
    go_on(tmp_path / "one.csv")
    output = tmp_path / "new" / "scores.csv"
    journals = name_journals(output, count)
    for index, path in enumerate(journals):
        with closing(Journal(path, SETTINGS)) as journal:
            for row in ROWS[index::count]:
                journal.append((row,))
            if what == "moved":
                path.rename(tmp_path / "elsewhere")
            else:
                path.unlink()
            if what == "folder" and not os.listdir(output.parent):
                output.parent.rmdir()
            journal.finish()
        result = write_output(output, journals, temporary=output.with_name("tmp"))
    assert result == (4, 1)
    assert output.read_bytes() == (tmp_path / "one.csv").read_bytes()


@pytest.mark.parametrize("do", ["truncate", "append", "replace", "link"])
def test_a_journal_that_is_changed_during_the_run_is_an_error(tmp_path, do):
    part = tmp_path / "scores.csv.part"
    with closing(Journal(part, SETTINGS)) as journal:
        journal.append((ROWS[0],))
        if do == "truncate":
            part.write_bytes(b"")
        elif do == "append":
            part.write_bytes(part.read_bytes() + b"[]\n")
        else:
            part.unlink()
            (tmp_path / "other").write_text("of another run")
            (part.write_text if do == "replace" else part.symlink_to)("other")
        journal.append((ROWS[1],))
        with pytest.raises(ValueError, match=r"scores.csv.part(: another file has taken| was changed during the run)"):
            journal.finish()
    assert (tmp_path / "other").exists() is (do in ("replace", "link"))


def test_a_run_without_rows_leaves_the_journal_of_another_run(tmp_path):
    part = tmp_path / "scores.csv.part"
    with closing(Journal(part, SETTINGS)):
        part.unlink()
        with closing(Journal(part, SETTINGS)) as other:
            other.append((ROWS[0],))
    assert part.exists()


def test_rows_that_are_missing_at_the_end_are_an_error(tmp_path):
    part, output = tmp_path / "scores.csv.part", tmp_path / "scores.csv"
    with pytest.raises(ValueError, match="scores.csv.part was deleted or changed before .*scores.csv was made"):
        write_output(output, [part], temporary=tmp_path / "tmp")
    with closing(Journal(part, SETTINGS)) as journal:
        for row in ROWS:
            journal.append((row,))
        journal.finish()
    part.write_bytes(part.read_bytes().replace(b"photos/z", b'photos"z'))
    with pytest.raises(ValueError, match="only 3 of 4 pictures have rows. Run again"):
        write_output(output, [part], temporary=tmp_path / "tmp")
    assert not output.exists() and go_on(output) == (4, 1)


@pytest.mark.parametrize(("now", "key"), [(ROWS[1:], 'photos/"b",\n2.png'), (ROWS[:1], "nothing")])
def test_changed_inputs_are_not_mixed(tmp_path, now, key):
    journal = Journal(tmp_path / "part", SETTINGS)
    for row in ROWS[:2]:
        journal.append((row,))
    with pytest.raises(ValueError, match="the pictures have changed since the run began") as caught:
        journal.check_done(sources(now))
    assert f"{key} is there" in str(caught.value)
    journal.close()


@pytest.mark.parametrize("count", [2, 3, 6])
def test_several_processes_write_the_table_of_one(tmp_path, count):
    go_on(tmp_path / "one.csv")
    output = tmp_path / "scores.csv"
    order = list(range(count))[::-1]  # whoever comes last makes the table
    for index in order[:-1]:
        assert go_on(output, ROWS[index::count], SETTINGS | {"share": index}, index, count) is None
        assert not output.exists()
    assert go_on(output, ROWS[0::count], SETTINGS | {"share": 0}, 0, count) == (4, 1)
    assert output.read_bytes() == (tmp_path / "one.csv").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["one.csv", "scores.csv"]


def test_a_run_is_not_mixed_with_one_of_other_processes(tmp_path):
    output = tmp_path / "scores.csv"
    (tmp_path / "scores.csv.2-of-3.part").touch()
    (tmp_path / "other.csv.part").touch()
    check_no_other_journal(output, name_journals(output, 3))
    for count in (1, 2):
        with pytest.raises(ValueError, match=r"scores.csv.2-of-3.part is of an unfinished run with another number"):
            check_no_other_journal(output, name_journals(output, count))


def test_names(tmp_path):
    assert name_shard(tmp_path / "scores.v2.csv", 3, 8) == tmp_path / "scores.v2.3-of-8.csv"


@pytest.mark.parametrize("key", ["a\rb.png", "a\nb.png", "a\r\nb.png", "\r", 'a"\r,b.png', "a\r\n"])
def test_line_breaks_in_keys_are_quoted_and_lines_end_with_a_line_feed(tmp_path, key):
    rows = [ROWS[0]._replace(key=key), ROWS[0]._replace(key="z.png")]
    output = tmp_path / "scores.csv"
    go_on(output, rows)
    assert [row["key"] for row in read_back(output)] == [key, "z.png"]
    content = output.read_bytes()
    assert content.startswith((",".join(COLUMNS) + "\n").encode()) and content.endswith(b"|1,\n")
    assert content.count(b"\r") == key.count("\r")
