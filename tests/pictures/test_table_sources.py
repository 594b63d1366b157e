# SPDX-License-Identifier: Apache-2.0
"""Rows of parquet files and CSV tables: their keys, and what is missing or damaged."""

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from picture_files import damage, keys, outcomes, pixels, png, write

from musiq_hf.pictures.sources import check_sources
from musiq_hf.pictures.table_sources import Columns


@pytest.mark.parametrize("layout", ["datasets", "binary", "large_binary", "paths"])
def test_rows_of_parquet_files(place, layout):
    cells = [png(1), png(2), None, png(4)]
    kind = {"binary": pyarrow.binary(), "large_binary": pyarrow.large_binary()}.get(layout)
    if kind is None:
        for i, cell in enumerate(cells):
            if cell is not None:
                write(place / "data" / f"{i}.png", cell)
        is_path = layout == "paths"
        cells = [
            None if cell is None else {"bytes": None if is_path else cell, "path": f"{i}.png"}
            for i, cell in enumerate(cells)
        ]
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


def test_a_csv_that_is_none_further_down_is_a_row(place):
    write(place / "a.png")
    (place / "t.csv").write_bytes(b"image\na.png\n" + b"x" * 20_000 + b"\xff\xfe.png\n")
    found = outcomes("t.csv")
    assert "what follows cannot be read as CSV" in found["t.csv"]


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
