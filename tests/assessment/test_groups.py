# SPDX-License-Identifier: Apache-2.0
import re

import pytest

from musiq_hf.assessment.groups import find_edges, find_third, read_groups, read_opinions

KEYS = ["a.png", "b.v2.png", "d/c.png"]


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return (tmp_path / "t.csv").write_text


def test_groups_are_read_with_and_without_suffixes_and_strange_keys_are_named(write):
    write("genre,key,motion\nsport,a,high\nnews,b.v2.png,\ntoon,gone.png,low\n")
    table = read_groups("t.csv", KEYS)
    assert table.columns == ("genre", "motion")
    assert table.values == {"a.png": ("sport", "high"), "b.v2.png": ("news", None)}
    assert table.notes == ("t.csv: 1 key of it matches no file: gone.png.", "t.csv: 1 key without a group: d/c.png.")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("key\na\n", "t.csv: key and at least one column of groups, as key,group were expected, got key with 1 rows."),
        ("key,group\n", "got key,group with 0 rows."),
        ("name,group\na,x\n", "got name,group with 1 rows."),
        ("key,error\na,x\n", "t.csv: 'error' cannot name a column of groups. Rename it."),
        ("key,group\na,x\na.png,y\n", "t.csv, line 3: a.png is named twice. Give each key one row."),
        ("key,group\na,all\n", "t.csv, line 2: the group all is that of all keys. Give this one another name."),
        ("key,group\nx,y\n", "t.csv: no key of it matches a file, such as a.png, b.v2.png, d/c.png."),
        ("key,all\na,x\n", "t.csv: 'all' cannot name a column of groups. Rename it."),
        ("key,thirds of cf\na,x\n", "t.csv: 'thirds of cf' cannot name a column of groups. Rename it."),
        ("key,cf\na,low\n", "t.csv, line 2: the group cf: low is that of thirds of cf. Give this one another name."),
        (
            "key,group,mood\na,mood: x,y\nd/c,z,x\n",
            "t.csv, line 3: the group mood: x is that of the column group. Give this one another name.",
        ),
    ],
)
def test_wrong_tables_of_groups_are_refused(write, text, sentence):
    write(text)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        read_groups("t.csv", KEYS, taken=("error",), bins=("cf",))


def test_opinions_are_read_by_key_and_system(write):
    write("key;system;mos\na;one;3,5\nd/c.png;two;4\nd/c;three;1\nx;one;2\n")
    table = read_opinions("t.csv", KEYS, ["one", "two"])
    assert table.values == {("a.png", "one"): 3.5, ("d/c.png", "two"): 4.0}
    assert table.notes == ("t.csv: 1 key of it matches no file: x.", "t.csv: no system is named three.")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("key,mos\na,1\n", "columns ['system'] are missing"),
        ("key,system,mos\na,one,\n", "line 2: `mos` must be a number, got nothing. Leave the row out."),
        ("key,system,mos\na,one,good\n", "line 2: `mos` must be a number, got good."),
        ("key,system,mos\na,one,1\na.png,one,2\n", "line 3: a.png of one is named twice. Give each one row."),
        ("key,system,mos\nx,one,1\n", "no key of it matches a file"),
        (
            "key,system,mos\na,two,1\nb.v2,three,1\n",
            "t.csv: no row of these files has a system that is compared, such as one; it has three, two.",
        ),
    ],
)
def test_wrong_tables_of_opinions_are_refused(write, text, sentence):
    write(text)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        read_opinions("t.csv", KEYS, ["one"])


def test_thirds_have_equal_parts():
    values = [5.0, 1.0, 9.0, 3.0, 7.0, 2.0]
    edges = find_edges(values)
    assert [find_third(value, edges) for value in values] == ["middle", "low", "high", "middle", "high", "low"]
