# SPDX-License-Identifier: Apache-2.0
"""Rows of parquet files and CSV tables: their keys, and what is missing or damaged."""

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from picture_files import damage, keys, outcomes, pixels, png, write

from musiq_hf.pictures.sources.paths import check_sources, count_sources, find_sources
from musiq_hf.pictures.sources.tables import Columns

TEXTS = {
    "string": pyarrow.string(),
    "large_string": pyarrow.large_string(),
    "string_view": pyarrow.string_view(),
    "categories": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
}
BYTES = {
    "binary": pyarrow.binary(),
    "large_binary": pyarrow.large_binary(),
    "binary_view": pyarrow.binary_view(),
    "fixed": pyarrow.binary(1000),
    "dictionary": pyarrow.dictionary(pyarrow.int32(), pyarrow.binary()),
}


@pytest.mark.parametrize("layout", ["datasets", "paths", *TEXTS, *BYTES])
def test_rows_of_parquet_files(place, layout):
    cells = [png(1), png(2), None, png(4)]
    kind = (TEXTS | BYTES).get(layout)
    if layout == "fixed":
        cells = [None if cell is None else cell.ljust(1000, b"\0") for cell in cells]
    if layout not in BYTES:
        for i, cell in enumerate(cells):
            if cell is not None:
                write(place / "data" / f"{i}.png", cell)
        cells = [
            None if cell is None else {"bytes": cell if layout == "datasets" else None, "path": f"{i}.png"}
            for i, cell in enumerate(cells)
        ]
    if layout in TEXTS:
        cells = [cell and cell["path"] for cell in cells]
    if kind is None:
        kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    (place / "data").mkdir(exist_ok=True)
    table = pyarrow.table({"mos": [1, 2, 3, 4], "image": pyarrow.array(cells, kind)})
    pyarrow.parquet.write_table(table, "data/a.parquet", row_group_size=3)
    found = outcomes("data/a.parquet")
    assert list(found) == [f"data/a.parquet::{row}" for row in range(4)]
    assert all((found[f"data/a.parquet::{row}"] == pixels(row + 1)).all() for row in (0, 1, 3))
    assert found["data/a.parquet::2"] == "data/a.parquet::2: the row has no picture."
    assert keys("data/*.parquet", columns=Columns("image")) == list(found)


def test_a_damaged_row_group_costs_its_rows_alone(place):
    table = pyarrow.table({"picture": pyarrow.array([png(i) for i in range(6)], pyarrow.binary())})
    pyarrow.parquet.write_table(table, "a.parquet", row_group_size=2, use_dictionary=False, compression="none")
    column = pyarrow.parquet.read_metadata("a.parquet").row_group(1).column(0)
    raw = (place / "a.parquet").read_bytes()
    (place / "a.parquet").write_bytes(damage(raw, column.data_page_offset, b"\xff" * 16))
    found = outcomes("a.parquet")
    assert list(found) == [f"a.parquet::{row}" for row in range(6)]
    assert [isinstance(value, str) for value in found.values()] == [False, False, True, True, False, False]
    assert "a.parquet::3: cannot be read (" in found["a.parquet::3"]
    (place / "a.parquet").write_bytes(raw[:-30])
    ((key, error),) = outcomes("a.parquet").items()
    assert key == "a.parquet" and "cannot be read as parquet" in error


def test_csv_tables_name_pictures_beside_them(place):
    write(place / "data" / "a.png", png(1))
    write(place / "data" / "in, side" / "b.png", png(2))
    text = '\ufeffmos,file_name\n1,a.png\n2,"in, side/b.png"\n3,missing.png\n4\n\n5,\n'
    (place / "data" / "labels.csv").write_text(text, encoding="utf-8")
    found = outcomes("data/labels.csv")
    assert list(found) == ["a.png", "in, side/b.png", "missing.png"] + [f"data/labels.csv::line {i}" for i in (5, 7)]
    assert (found["a.png"] == pixels(1)).all() and (found["in, side/b.png"] == pixels(2)).all()
    assert found["missing.png"] == "missing.png: no such file."
    assert "the line has no path" in found["data/labels.csv::line 5"]
    (place / "data" / "other.csv").write_text("mine\na.png\n", encoding="utf-8")
    assert keys("data/other.csv", columns=Columns("mine")) == ["a.png"]


@pytest.mark.parametrize(
    ("row", "lines", "reason"),
    [
        (b"x" * 140_000, 1, "a cell over 131,072 characters"),
        (b"b.png," + b"x" * 5_000_000, 1, "a line over 4,194,304 characters"),
        (b'b.png,"' + b"x\n" * 80_000 + b'"', 80_001, "a cell over 131,072 characters"),
        (b'"' + b"x" * 5_000_000 + b'\n,",a.png', 2, "a line over 4,194,304 characters"),
        (b"caf\xe9.png", 1, "bytes that are not UTF-8"),
        (b'a.png,"\xff\n\xfe"', 2, "bytes that are not UTF-8"),
        (b'"a.png" ,1', 1, "',' expected after '\"'"),
    ],
    ids=["cell", "line", "quoted", "quoted_line", "latin", "quoted_latin", "after_quote"],
)
def test_a_broken_row_of_a_csv_costs_that_row_alone(place, row, lines, reason):
    write(place / "a.png", png(1))
    (place / "t.csv").write_bytes(b'image,note\na.png,"two\r\nlines"\n' + row + b"\n\na.png\nb.png\n\xff\n")
    rows = [(key, picture) for key, picture in find_sources(["t.csv"])]
    assert [key for key, _ in rows] == ["a.png", "t.csv::line 4", "a.png", "b.png", f"t.csv::line {7 + lines}"]
    assert np.array_equal(rows[2][1].open(), pixels(1))
    with pytest.raises(ValueError, match=f"^t.csv::line 4: the row .*{reason}"):
        rows[1][1].open()
    assert count_sources(["t.csv"]) == 5


def test_a_quote_that_is_never_closed_is_a_row(place):
    write(place / "a.png")
    for rest in (b"a.png\n", b"a.png\n" * 30_000):
        (place / "t.csv").write_bytes(b'image\na.png\n"a.png\n' + rest)
        assert "a quote is never closed" in outcomes("t.csv")["t.csv::line 3"]
    (place / "t.csv").write_bytes(b"image,caf\xe9\na.png,1\n")
    assert "line 1: the row has bytes that are not UTF-8" in outcomes("t.csv")["t.csv"]


def test_keys_can_come_from_a_column(place):
    write(place / "a.png")
    (place / "t.csv").write_text("image,id\na.png,7\na.png,\na.png\n")
    table = pyarrow.table({"image": [png(1), png(2)], "name": ["one", None], "number": [11, 12]})
    pyarrow.parquet.write_table(table, "t.parquet")
    assert keys("t.csv", columns=Columns(key="id")) == ["7", "a.png", "a.png"]
    assert keys("t.parquet", "a.png", columns=Columns(key="name")) == ["one", "t.parquet::1", "a.png"]
    found = outcomes("t.parquet", columns=Columns(key="number"))
    assert list(found) == ["11", "12"] and np.array_equal(found["12"], pixels(2))
    for path in ("t.csv", "t.parquet"):
        with pytest.raises(ValueError, match=f"{path}: no column 'mos' for the keys, only image, "):
            check_sources([path], columns=Columns(key="mos"))
    with pytest.raises(ValueError, match="the column 'image' has the pictures and cannot have the keys"):
        check_sources(["t.parquet"], columns=Columns(key="image"))
    with pytest.raises(ValueError, match="--key names a column .'id'. of a table or data set, but none is given"):
        check_sources(["a.png"], columns=Columns(key="id"))


@pytest.mark.parametrize("kind", [*TEXTS.values(), pyarrow.binary(), pyarrow.large_binary()], ids=str)
def test_keys_are_texts_of_any_kind_and_are_not_parsed(place, kind):
    names = ["NA", "None", "007", "1e3"]
    values = [name.encode() for name in names] if kind not in TEXTS.values() else names
    table = pyarrow.table({"image": [png(1)] * 4, "key": pyarrow.array(values, kind)})
    pyarrow.parquet.write_table(table, "t.parquet")
    assert keys("t.parquet", columns=Columns("image", "key")) == names
    (place / "t.csv").write_text("image,key\n" + "".join(f"a.png,{name}\n" for name in names))
    assert keys("t.csv", columns=Columns(key="key")) == names


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_errors_name_key_and_path(place, kind):
    (place / "t.csv").write_text("image,id\ngone.png,x3\n")
    pyarrow.parquet.write_table(pyarrow.table({"image": ["gone.png"], "id": ["x3"]}), "t.parquet")
    assert outcomes(f"t.{kind}", columns=Columns(key="id")) == {"x3": "x3: gone.png: no such file."}


def test_a_column_of_paths_is_read_where_no_column_has_pictures(place):
    write(place / "a.png", png(3))
    pyarrow.parquet.write_table(pyarrow.table({"mos": [1.0], "file_name": ["a.png"], "mine": ["b.png"]}), "t.parquet")
    check_sources(["t.parquet"])
    assert np.array_equal(outcomes("t.parquet")["t.parquet::0"], pixels(3))
    assert outcomes("t.parquet", columns=Columns("mine", "mine")) == {"b.png": "b.png: no such file."}
    pyarrow.parquet.write_table(pyarrow.table({"mine": ["a.png"]}), "t.parquet")
    with pytest.raises(ValueError, match="One column of pictures .bytes. is needed .columns of pictures: none"):
        check_sources(["t.parquet"])


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_semicolons_and_tabs_stand_between_cells_where_the_header_has_them(place, delimiter):
    write(place / "a.png")
    text = f'note{delimiter}image\n"x{delimiter}y, z"{delimiter}a.png\n'
    (place / "a.csv").write_text(text)
    assert keys("a.csv") == ["a.png"]
