# SPDX-License-Identifier: Apache-2.0
"""Tables of scores: read whole, written as they were, and refused with a sentence."""

import json
import math

import pyarrow
import pyarrow.parquet
import pytest
from hostile_names import list_names

from musiq_hf.common.tables import read_table, write_table
from musiq_hf.decisions import read_scores, write_scores

COLUMNS = {"key": str, "width": int, "score": float, "ensemble": float, "model": str, "signature": str, "error": str}
FORMATS = (".csv", ".jsonl", ".parquet")


def make_rows(models=("m",)):
    names = [name.encode("utf-8", "backslashreplace").decode() for name in list_names()]
    for place, name in enumerate(names):
        for model in models:
            score = None if place % 7 == 3 else place / 3
            error = f"{name}: no such file." if score is None else None
            yield name, 10 * place, score, score, model, f"{model}|weights:1", error


def write(path, rows):
    write_table(path, COLUMNS, rows)
    return str(path)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("other", FORMATS)
def test_all_columns_of_names_of_all_kinds_come_through_every_format(tmp_path, suffix, other):
    rows = list(make_rows())
    table = read_scores(write(tmp_path / f"in{suffix}", rows))
    assert table.keys.tolist() == [row[0] for row in rows]
    write_scores(tmp_path / f"out{other}", table)
    if suffix == other != ".parquet":
        assert (tmp_path / f"out{other}").read_bytes() == (tmp_path / f"in{suffix}").read_bytes()
    found = list(read_table(tmp_path / f"out{other}"))
    assert list(found[0]) == list(COLUMNS)
    for got, wanted in zip(found[1:], rows, strict=True):
        texts = ["" if value is None else str(value) for value in wanted]
        assert list(got.values()) == (texts if other == ".csv" else list(wanted))
    assert read_scores(tmp_path / f"out{other}").reasons.tolist() == [row[-1] or "" for row in rows]


def test_one_of_several_checkpoints_is_asked_for(tmp_path):
    path = write(tmp_path / "two.csv", make_rows(("m", "n")))
    with pytest.raises(ValueError, match=r"2 checkpoints \(m, n\). Choose one with --model, or .* --by"):
        read_scores(path)
    with pytest.raises(ValueError, match="no scores of o. It has those of m, n"):
        read_scores(path, model="o")
    assert set(read_scores(path, model="n").texts("model")) == {"n"}
    assert len(read_scores(path, by="ensemble")) == 50
    with pytest.raises(ValueError, match="2 checkpoints"):
        read_scores(path, by="width")
    assert read_scores(path, by="width", model="n").scores.tolist() == [10.0 * place for place in range(50)]


def test_scores_of_two_ways_are_refused(tmp_path):
    rows = [("a", 1, 1.0, 1.0, "m", "m|weights:1", None), ("b", 1, 1.0, 1.0, "m", "m|weights:2", None)]
    with pytest.raises(ValueError, match="made in 2 ways"):
        read_scores(write(tmp_path / "mixed.csv", rows))


def test_scores_that_are_none_have_a_reason(tmp_path):
    path = tmp_path / "odd.jsonl"
    lines = [{"key": "a", "score": 1}, {"key": "b", "score": math.nan}, {"key": "c"}, {"key": "d", "error": "e"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = read_scores(path)
    assert table.scores[0] == 1
    assert table.reasons.tolist() == ["", "the score is no finite number", "no score", "e"]


def test_texts_that_look_like_other_things_stay_texts(tmp_path):
    content = "\ufeffkey,score,note\n2020-01-01,007.50,NULL\nnull,1e1,\n"
    (tmp_path / "t.csv").write_text(content, encoding="utf-8")
    table = read_scores(tmp_path / "t.csv")
    assert table.scores.tolist() == [7.5, 10]
    write_scores(tmp_path / "o.csv", table)
    assert (tmp_path / "o.csv").read_text(encoding="utf-8") == content.removeprefix("\ufeff")
    (tmp_path / "t.jsonl").write_text('{"key": "2020-01-01", "score": 1, "more": [1]}\n')
    assert read_scores(tmp_path / "t.jsonl").keys.tolist() == ["2020-01-01"]


def test_a_parquet_file_keeps_its_types(tmp_path):
    rows = pyarrow.table({"key": ["a"], "score": pyarrow.array([1.5], pyarrow.float32()), "tags": [["x", "y"]]})
    pyarrow.parquet.write_table(rows, tmp_path / "in.parquet")
    write_scores(tmp_path / "out.parquet", read_scores(tmp_path / "in.parquet"))
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet").equals(rows)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "cannot be read as a table: it is empty"),
        ("t.csv", b"name,score\na,1\n", "has no column 'key'"),
        ("t.csv", b"key,mos\na,1\n", "has no column 'score'"),
        ("t.csv", b"key,score,key\na,1,b\n", "several columns 'key'"),
        ("t.csv", b"key,score\na,good\n", "row 1: score must be a number, got 'good'"),
        ("t.csv", b"key,score\na,1,2\n", "cannot be read as a table"),
        ("t.csv", b"key,score\n\xff,1\n", "cannot be read as a table"),
        ("t.jsonl", b"[1]\n", "cannot be read as a table"),
        ("t.jsonl", b"{", "cannot be read as a table"),
        ("t.parquet", b"PAR1", "cannot be read as a table"),
        ("t.txt", b"", "a table of scores is a .csv, .jsonl, .parquet file"),
        ("none.csv", None, "no such file"),
    ],
)
def test_other_files_are_refused_with_a_sentence(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        _ = read_scores(tmp_path / name).scores
