# SPDX-License-Identifier: Apache-2.0
"""Pictures of remote stores: what is found in which order, and what an error of a store becomes."""

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from fsspec import AbstractFileSystem
from picture_files import keys, outcomes, pixels, png

from musiq_hf import MusiqImageProcessor
from musiq_hf.common.stores import StoreError
from musiq_hf.pictures import Columns
from musiq_hf.pictures.lazy import LazyPicture
from musiq_hf.pictures.sources.paths import check_sources, count_sources, find_sources
from musiq_hf.scoring.engine import score_with_several

NAMES = ("b.JPG", "a/z.png", "a/c/1.tiff", "a/c.gif", "a-b/2.png", "a.webp", "a b?#%/[1].png")
OTHERS = ("notes.txt", ".hidden.png", ".thumbnails/a.png", "a/shard.tar", "a/t.csv")


def pack(*names):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for seed, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size = len(png(seed))
            archive.addfile(member, io.BytesIO(png(seed)))
    return file.getvalue()


def make_parquet(rows):
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


def test_a_folder_gives_what_the_same_folder_gives_here(place, store, caplog):
    for name in (*NAMES, *OTHERS):
        (place / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "photos" / name).write_bytes(png(0))
        store.pipe_file(f"/photos/{name}", png(0))
    store.pipe_file("/photos2/x.png", png(0))
    expected = keys("photos")
    assert len(expected) == len(NAMES)
    left_out = caplog.messages[0]
    caplog.clear()
    for folder in ("flaky://photos", "flaky://photos/"):
        check_sources([folder])
        assert [key.removeprefix("flaky://") for key in keys(folder)] == expected
    assert caplog.messages[0] == left_out
    assert keys("flaky://photos/a/c") == ["flaky://photos/a/c/1.tiff"]
    assert keys("flaky://")[-1] == "flaky://photos2/x.png"


@pytest.mark.parametrize("pattern", ["20*/*.png", "20*", "**/*", "2024/*", "2024/**", "odd[1].png", "2023/?.png"])
def test_a_pattern_gives_what_the_same_pattern_gives_here(place, store, pattern):
    for name in ("2023/a.png", "2024/b.png", "2024/deep/c.png", "2024/d.txt", "2024/.e.png", "odd[1].png"):
        Path(name).parent.mkdir(exist_ok=True, parents=True)
        Path(name).write_bytes(png(0))
        store.pipe_file(f"/{name}", png(0))
    check_sources([f"flaky://{pattern}"])
    assert [key.removeprefix("flaky://") for key in keys(f"flaky://{pattern}")] == keys(pattern)


def test_pictures_are_those_of_the_store(store):
    store.pipe_file("/photos/1.png", png(1))
    store.pipe_file("/photos/2.png", b"none")
    store.pipe_file("/photos/scan", png(2))
    found = outcomes("flaky://photos/1.png", "flaky://photos/2.png", "flaky://photos/scan", "flaky://photos/3.png")
    assert np.array_equal(found["flaky://photos/1.png"], pixels(1))
    assert np.array_equal(found["flaky://photos/scan"], pixels(2))
    assert "flaky://photos/2.png: not a picture that Pillow can read" in found["flaky://photos/2.png"]
    assert found["flaky://photos/3.png"] == "flaky://photos/3.png: no such file."


def test_mistakes_are_sentences_before_any_work(store):
    store.pipe_file("/photos.png/1.png", png(1))
    store.pipe_file("/t.csv", b"image\n1.png\n")
    for name, words in {
        "none.png": "flaky://none.png: no such file or folder",
        "none": "flaky://none: no such file or folder",
        "none/*.png": "no such file or folder",
        "photos.png/*.csv": "no such file or folder",
        "photos.png": "its name ends as that of a picture. Write a slash behind it.",
    }.items():
        with pytest.raises(ValueError, match=words):
            check_sources([f"flaky://{name}"])
    check_sources(["flaky://none.png", "flaky://none", "flaky://none/*.png"], allow_missing=True)
    assert outcomes("flaky://none")["flaky://none"].startswith("flaky://none: no such file or folder")
    assert keys("flaky://photos.png/") == ["flaky://photos.png/1.png"]
    with pytest.raises(ValueError, match="t.csv: a column mos with paths was expected"):
        check_sources(["flaky://t.csv"], columns=Columns("mos"))
    with pytest.raises(ValueError, match="fsspec knows no s4://"):
        check_sources(["s4://b"])
    store.failures += [OSError("refused")]
    with pytest.raises(StoreError, match="Check the address, and the credentials"):
        check_sources(["flaky://photos"])
    store.of_paths["/photos"] = PermissionError("forbidden")
    with pytest.raises(ValueError, match="flaky://photos: may not be read or listed"):
        check_sources(["flaky://photos"])


def test_a_saved_data_set_is_refused(store):
    for name in ("state.json", "dataset_info.json", "data.arrow"):
        store.pipe_file(f"/all/saved/{name}", b"{}")
    with pytest.raises(ValueError, match="flaky://all/saved: a folder of `save_to_disk`, which is not read from a"):
        list(find_sources(["flaky://all"]))


def test_archives_and_parquet_files_are_read_in_place(store):
    store.pipe_file("/in/a.tar", pack("x.png", "deep/y.png", "notes.txt"))
    store.pipe_file("/in/cut.tar", pack("x.png", "y.png")[:2200])
    rows = [{"image": {"bytes": png(0), "path": None}}, {"image": None}, {"image": {"bytes": None, "path": "1.png"}}]
    store.pipe_file("/in/t.parquet", make_parquet(rows))
    store.pipe_file("/in/1.png", png(1))
    check_sources(["flaky://in/*.tar", "flaky://in/t.parquet"], columns=Columns("image"))
    found = outcomes("flaky://in/a.tar", "flaky://in/cut.tar", "flaky://in/*.parquet", "flaky://in/none.tar")
    tar, cut, table = (f"flaky://in/{name}::" for name in ("a.tar", "cut.tar", "t.parquet"))
    assert list(found)[:2] == [f"{tar}x.png", f"{tar}deep/y.png"]
    assert np.array_equal(found[f"{tar}deep/y.png"], pixels(1)) and np.array_equal(found[f"{cut}x.png"], pixels(0))
    assert "the archive is damaged" in found["flaky://in/cut.tar"]
    assert np.array_equal(found[f"{table}0"], pixels(0)) and np.array_equal(found[f"{table}2"], pixels(1))
    assert "the row has no picture" in found[f"{table}1"]
    assert found["flaky://in/none.tar"].startswith("flaky://in/none.tar: no such file or folder")


def test_a_table_names_files_of_its_store(store, place):
    store.pipe_file("/in/1.png", png(1))
    cells = ["1.png", "../in/1.png", "flaky://in/1.png", "2.png", "/etc/passwd", "memory://x.png", "file:///x.png"]
    table = "id,image\n" + "".join(f"{number},{cell}\n" for number, cell in enumerate(cells))
    store.pipe_file("/in/t.csv", table.encode())
    check_sources(["flaky://in/t.csv"], columns=Columns(key="id"))
    found = outcomes("flaky://in/t.csv", columns=Columns(key="id"))
    assert all(np.array_equal(found[key], pixels(1)) for key in "012")
    assert found["3"] == "3: 2.png: no such file."
    assert all("a table of flaky:// names files of its own store alone" in found[key] for key in "456")
    Path("t.csv").write_text("image\nflaky://in/1.png\nflaky://me:secret@in/2.png\ns4://in/1.png\n")
    found = outcomes("t.csv")
    assert np.array_equal(found["flaky://in/1.png"], pixels(1)) and "secret" not in str(found)
    assert "the address holds a user name and a password" in found["flaky://in/2.png"]
    assert "fsspec knows no s4://" in found["s4://in/1.png"]


def test_a_store_that_fails_is_no_error_of_a_picture(store):
    store.pipe_file("/1.png", png(1))
    store.of_paths["*"] = OSError("gone")
    ((_, picture),) = find_sources(["flaky://1.png"])
    with pytest.raises(StoreError, match="flaky://1.png: the store gives no answer, tried 3 times"):
        pickle.loads(pickle.dumps(picture)).open()


@pytest.mark.parametrize("name", ["photos", "*.csv", "a.tar", "t.csv", "t.parquet"])
def test_a_store_that_fails_ends_the_search_at_any_request(store, name):
    for path, content in {
        "/photos/1.png": png(1),
        "/a.tar": pack("x.png"),
        "/t.csv": b"image\n1.png\n",
        "/t.parquet": make_parquet([{"image": png(0)}]),
    }.items():
        store.pipe_file(path, content)
    paths = [f"flaky://{name}"]
    for find in (lambda: [key for key, _ in find_sources(paths)], lambda: count_sources(paths)):
        store.requests.clear()
        expected = find()
        for number in range(len(store.requests)):
            store.failures[:] = [None] * number + [OSError("gone")] * 2
            assert find() == expected  # two failures are waited for
            store.failures[:] = [None] * number + [OSError("gone")] * 3
            with pytest.raises(StoreError):
                find()
            store.failures.clear()


def test_a_folder_that_cannot_be_listed_is_not_left_out(store, monkeypatch):
    monkeypatch.setattr(type(store), "find", AbstractFileSystem.find)  # it leaves such folders out unless it is told
    store.pipe_file("/photos/1.png", png(1))
    store.pipe_file("/photos/deep/2.png", png(2))
    assert keys("flaky://photos") == ["flaky://photos/1.png", "flaky://photos/deep/2.png"]
    store.of_paths["/photos/deep"] = OSError("gone")
    for path in ("flaky://photos", "flaky://photos/**/*.png"):
        with pytest.raises(StoreError, match="gone"):
            list(find_sources([path]))


def fail():
    raise StoreError("the store gives no answer")


@pytest.mark.parametrize("in_processes", [False, True])
def test_a_store_that_fails_ends_a_run_after_the_rows_before_it(in_processes, tiny_model):
    model = tiny_model()
    sources = [("1", pixels(1)), ("2", pixels(2)), ("3", LazyPicture("3", fail)), ("4", pixels(4))]
    rows = score_with_several(
        sources,
        [(model, MusiqImageProcessor.from_config(model.config))] * 2,
        num_workers=1,
        in_processes=in_processes,
        max_tokens=100_000,
    )
    assert [next(rows)[0].key, next(rows)[1].key] == ["1", "2"]
    with pytest.raises(StoreError, match="^the store gives no answer$"):
        next(rows)
