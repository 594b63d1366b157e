# SPDX-License-Identifier: Apache-2.0
"""Parts of pictures: read in any process and in their order, they are what `find_sources` finds."""

import itertools
import pickle
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from picture_files import damage, pixels, png, write

from musiq_hf.pictures.sources import data_sets
from musiq_hf.pictures.sources.parts import find_parts, read_part, take_every
from musiq_hf.pictures.sources.paths import find_sources
from musiq_hf.pictures.sources.tables import Columns

HUB_SET = "hf://datasets/photos/many"
PATHS = [
    "photos",
    "photos/*",
    "photos/0.png",
    "missing.png",
    "shard.tar",
    "torn.tar",
    "paths.csv",
    "bytes.parquet",
    "paths.parquet",
    "bad_page.parquet",
    "torn.parquet",
    "saved",
    "torn_saved",
    HUB_SET,
]


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A folder with pictures in files, archives, tables and data sets, some of them damaged."""
    place = tmp_path_factory.mktemp("everything")
    for row in range(5):
        write(place / "photos" / f"{row}.png", png(row))
    write(place / "photos" / "notes.txt")
    write(place / "photos" / "broken.png", b"no picture")
    cells = [png(row) for row in range(11)]
    ids = [f"id{row // 2}" for row in range(11)]
    table = pyarrow.table({"image": cells, "id": ids})
    pyarrow.parquet.write_table(table, place / "bytes.parquet", row_group_size=4, compression="none")
    content = (place / "bytes.parquet").read_bytes()
    write(place / "torn.parquet", content[:-20])
    # The pages of pictures in the second row group become unreadable.
    start = pyarrow.parquet.ParquetFile(place / "bytes.parquet").metadata.row_group(1).column(0).data_page_offset
    write(place / "bad_page.parquet", damage(content, start, b"\xff" * 8))
    paths = {"image": [f"photos/{row}.png" for row in range(5)], "id": ids[:5]}
    pyarrow.parquet.write_table(pyarrow.table(paths), place / "paths.parquet", row_group_size=2)
    write(place / "paths.csv", b"image,id\n" + b"".join(b"photos/%d.png,x%d\n" % (row, row) for row in (3, 1, 9)))
    with tarfile.open(place / "shard.tar", "w") as tar:
        for name in ("photos/0.png", "photos/notes.txt", "photos/1.png", "photos/broken.png"):
            tar.add(place / name, name)
    write(place / "torn.tar", (place / "shard.tar").read_bytes()[:1800])
    saved = datasets.Dataset.from_dict({"image": cells, "id": ids})
    saved.save_to_disk(place / "saved")
    saved.save_to_disk(place / "torn_saved")
    for file in (place / "torn_saved").glob("*.arrow"):
        file.write_bytes(file.read_bytes()[:100])
    return place


@pytest.fixture
def streamed(monkeypatch, everything):
    """A data set of the Hub, which a saved one stands in for, and the working directory."""
    monkeypatch.chdir(everything)
    rows = datasets.load_from_disk("saved").to_iterable_dataset()
    monkeypatch.setattr(data_sets, "_load_splits", lambda path: {"train": rows, "test": rows.take(2)})


def describe(sources):
    """Keys and contents, or the error that reading raises."""
    found = []
    for key, picture in sources:
        try:
            content = picture.read()
            found.append((key, picture.name, content if isinstance(content, str) else content.getvalue()))
        except ValueError as error:
            found.append((key, picture.name, str(error)))
    return found


def outcome(function):
    """Sources as far as they come, and the error that ends them."""
    found = []
    try:
        for source in function():
            found.append(source)
    except ValueError as error:
        return describe(found), str(error)
    return describe(found), None


def read_parts(paths, columns, size):
    for part in find_parts(paths, columns=columns, size=size):
        yield from read_part(pickle.loads(pickle.dumps(part)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    paths=st.lists(st.sampled_from(PATHS), min_size=1, max_size=5),
    columns=st.sampled_from([Columns(), Columns(key="id"), Columns("image")]),
    size=st.sampled_from([1, 2, 3, 64]),
)
def test_all_parts_in_order_are_all_sources(streamed, caplog, paths, columns, size):
    expected = outcome(lambda: find_sources(paths, columns=columns))
    warnings = list(caplog.messages)
    caplog.clear()
    assert outcome(lambda: read_parts(paths, columns, size)) == expected
    assert caplog.messages == warnings
    caplog.clear()


def test_every_kind_of_path_is_among_them(streamed):
    """The property above would hold of error rows alone."""
    for path, number in zip(PATHS[:7] + PATHS[7:], (6, 6, 1, 1, 3, 2, 3, 11, 5, 11, 1, 11, 1, 13), strict=True):
        found = describe(read_parts([path], Columns(), 4))
        assert len(found) == number, path
    errors = [content for _, _, content in describe(read_parts(["bad_page.parquet"], Columns(), 3))]
    assert [isinstance(content, str) for content in errors] == [False] * 4 + [True] * 4 + [False] * 3


def test_parts_hold_no_bytes_of_files_and_few_pictures(streamed):
    big = max(len(png(row)) for row in range(11))
    paths = [path for path in PATHS if path != HUB_SET]
    for size in (1, 3):
        parts = list(find_parts(paths, size=size))
        assert {len(part) for part in parts} <= set(range(1, size + 1))
        assert all(len(pickle.dumps(part)) < 700 + size * 400 for part in parts)
        assert not any(png(0)[20:60] in pickle.dumps(part) for part in parts)
    assert big > 400
    assert [len(part) for part in find_parts([HUB_SET], size=64)] == [8, 5]


def test_a_large_row_group_has_sixteen_parts(place):
    pyarrow.parquet.write_table(pyarrow.table({"image": [b"x"] * 3200}), "t.parquet", row_group_size=1600)
    assert [len(part) for part in find_parts(["t.parquet"], size=64)] == [100] * 32


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(1, 7),
    first=st.integers(0, 60),
    step=st.integers(1, 9),
    paths=st.permutations(["photos", "bytes.parquet", "saved", "paths.csv"]),
)
def test_every_nth_picture_is_taken_across_parts(streamed, size, first, step, paths):
    parts = list(take_every(find_parts(paths, size=size), first, step))
    assert all(len(part) for part in parts)
    found = describe(source for part in parts for source in read_part(part))
    assert found == describe(itertools.islice(find_sources(paths), first, None, step))


def test_a_part_splits_into_its_pictures(streamed):
    for part in find_parts(["photos", "bytes.parquet", "saved"], size=4):
        single = part.split()
        assert [len(one) for one in single] == [1] * len(part)
        assert describe(source for one in single for source in read_part(one)) == describe(read_part(part))


def test_what_was_changed_since_it_was_found_is_no_part(place):
    pyarrow.parquet.write_table(pyarrow.table({"image": [png(row) for row in range(6)]}), "t.parquet")
    part = list(find_parts(["t.parquet"], size=4))[1]
    pyarrow.parquet.write_table(pyarrow.table({"image": [png(0)]}), "t.parquet")
    with pytest.raises(ValueError, match="t.parquet: 2 rows were expected, got 0. It was changed during the run"):
        list(read_part(part))
    Path("t.parquet").unlink()
    with pytest.raises(ValueError, match="t.parquet: no such file"):
        list(read_part(part))


def test_pictures_of_parts_are_those_of_files(streamed):
    (part,) = find_parts(["photos/3.png"])
    ((key, picture),) = read_part(part)
    assert key == "photos/3.png" and np.array_equal(np.array(picture.open()), pixels(3))
