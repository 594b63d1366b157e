# SPDX-License-Identifier: Apache-2.0
import sys

import pytest
from scored import KONIQ, write

from musiq_hf.data import load_koniq, load_spaq, load_tid2013
from musiq_hf.data.annotation_files import read_fields, read_table


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("image_name", "picture", r"sets.csv: columns \['image_name'\] are missing, got \['picture'"),
        ("2.jpg", "9.jpg", r"sets.csv, line 4: picture .*9.jpg does not exist. Check `--image_root`"),
        (",62,", ",620,", r"sets.csv, line 4: `MOS` must be a number in 0..100, got 620"),
        (",62,", ",high,", r"sets.csv, line 4: `MOS` must be a number in 0..100, got high"),
        ("validation", "holdout", r"line 4: splits are train, validation, test, also named .*, got 'holdout'"),
    ],
)
def test_mistakes_in_a_table_name_file_and_line(koniq, old, new, message):
    write(koniq / "koniq10k_distributions_sets.csv", KONIQ.replace(old, new))
    with pytest.raises(ValueError, match=message):
        load_koniq(str(koniq))


def test_wrong_distribution_names_its_line(koniq):
    write(koniq / "koniq10k_distributions_sets.csv", KONIQ.replace("0.5,0.0", "-0.5,0.0"))
    with pytest.raises(ValueError, match="line 2: a distribution must be 2 or more numbers of at least 0"):
        load_koniq(str(koniq), distribution=True)


def test_absent_annotations_folders_and_rows_are_named(koniq, tmp_path):
    with pytest.raises(ValueError, match=r"no annotations there. Give mos_with_names.txt, or a folder"):
        load_tid2013(str(koniq))
    with pytest.raises(ValueError, match="`--image_root` nowhere: no such folder"):
        load_koniq(str(koniq), image_root="nowhere")
    write(koniq / "koniq10k_distributions_sets.csv", KONIQ.splitlines()[0])
    with pytest.raises(ValueError, match="no rows. Give the whole annotation file"):
        load_koniq(str(koniq))
    (tmp_path / "mos_with_names.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ValueError, match="mos_with_names.txt: a text file was expected"):
        load_tid2013(str(tmp_path))


def test_missing_openpyxl_is_answered_with_its_pip_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(
        ImportError, match=r'openpyxl is needed here. Install it with: pip install "musiq_hf\[train\]"'
    ):
        load_spaq(write(tmp_path / "scores.xlsx", ""))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            KONIQ + "1.jpg,0,0\n",
            r"sets.csv, line 6: the row ends before \['c3', .*, 'MOS', 'SD', 'set'\]. Give a cell",
        ),
        (KONIQ + "1.jpg,0,0,0,0,0,100,60,0.5\n", r"sets.csv, line 6: the row ends before \['set'\]"),
        (KONIQ + '"' + "x" * 200_000, r"sets.csv, line 6: the row cannot be read as CSV \(a quote is never closed"),
        ("", r"sets.csv: columns \['image_name', 'MOS'\] are missing, got \[\]"),
    ],
    ids=["short", "no_split", "open_quote", "empty"],
)
def test_broken_tables_are_answered_in_one_sentence(koniq, text, message):
    write(koniq / "koniq10k_distributions_sets.csv", text)
    with pytest.raises(ValueError, match=message):
        load_koniq(str(koniq))


def test_tables_may_have_a_byte_order_mark_empty_lines_and_further_cells(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbfname,mos,\r\n\r\n"a, b.png",1\r\nc.png,2,,more\r\n')
    rows = list(read_table(path, ["name", "mos"]))
    assert [where.rsplit(", ", 1)[1] for where, _ in rows] == ["line 3", "line 4"]
    assert [(cells["name"], cells["mos"]) for _, cells in rows] == [("a, b.png", "1"), ("c.png", "2")]
    path.write_bytes(b"name,mos\na.png,1\n\xff\xfe.png,2\n")
    with pytest.raises(ValueError, match="a.csv, line 3: the row has bytes that are not UTF-8. Save the table"):
        list(read_table(path, ["name", "mos"]))


def test_lines_of_fields_are_those_of_an_editor(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("a\u2028 1\r\n\r\nc\x0b 2\r\n".encode())
    assert [where for where, _ in read_fields(path, 2, "")] == [f"{path}, line 1", f"{path}, line 3"]
