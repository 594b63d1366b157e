# SPDX-License-Identifier: Apache-2.0
"""Where pictures come from: keys and their order, and what is missing, odd or damaged."""

import os
import socket

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from picture_files import keys, outcomes, pixels, png, write

from musiq_hf import MusiqImageProcessor
from musiq_hf.data import load_scored_images
from musiq_hf.models.musiq import image_loading_musiq
from musiq_hf.pictures import finding
from musiq_hf.pictures.sources.paths import check_sources, count_sources, find_sources
from musiq_hf.pictures.sources.tables import Columns
from musiq_hf.scoring.engine import score_pictures


def test_folders_are_searched_in_the_order_of_names(place):
    for name in ("b.JPG", "a/z.png", "a/c/1.tiff", "a/c.gif", "a.webp", "d.bmp", "e.jpeg", "f.tif"):
        write(place / "photos" / name)
    for name in ("notes.txt", ".hidden.png", ".thumbnails/a.png", "a/shard.tar", "labels.csv"):
        write(place / "photos" / name)
    (place / "photos" / "folder.png").mkdir()
    inside = ["a/c/1.tiff", "a/c.gif", "a/z.png", "a.webp", "b.JPG", "d.bmp", "e.jpeg", "f.tif"]
    assert keys("photos") == [f"photos/{name}" for name in inside]
    assert keys("photos/b.JPG", "photos/a/c") == ["photos/b.JPG", "photos/a/c/1.tiff"]


def test_loops_of_links_end_and_every_folder_is_visited_once(place):
    write(place / "photos" / "a" / "1.png")
    write(place / "other" / "2.png")
    (place / "photos" / "a" / "up").symlink_to(place / "photos", target_is_directory=True)
    (place / "photos" / "b").symlink_to(place / "photos" / "a", target_is_directory=True)
    (place / "photos" / "c").symlink_to(place / "other", target_is_directory=True)
    (place / "photos" / "self.png").symlink_to("self.png")
    (place / "photos" / "gone.png").symlink_to("nowhere.png")
    found = outcomes("photos", "other")
    assert list(found) == ["photos/a/1.png", "photos/c/2.png", "photos/gone.png", "photos/self.png"]
    assert found["photos/gone.png"] == "photos/gone.png: no such file."
    assert found["photos/self.png"] == "photos/self.png: no such file."


def test_patterns_find_what_can_hold_pictures(place):
    for name in ("2023/a.png", "2024/b.png", "2024/deep/c.png", "2024/d.txt"):
        write(place / name)
    assert keys("20*/*.png") == ["2023/a.png", "2024/b.png"]
    assert keys("20*") == ["2023/a.png", "2024/b.png", "2024/deep/c.png"]
    assert keys("**/*") == ["2023/a.png", "2024/b.png", "2024/deep/c.png"]
    assert keys("2024/*") == ["2024/b.png", "2024/deep/c.png"]
    write(place / "odd[1].png")
    assert keys("odd[1].png") == ["odd[1].png"]


def test_what_is_no_regular_file_is_an_error_and_never_waited_for(place):
    (place / "photos").mkdir()
    os.mkfifo(place / "photos" / "pipe.png")
    assert outcomes("photos") == {"photos/pipe.png": "photos/pipe.png: not a regular file."}


@pytest.mark.parametrize("kind", ["fifo", "link_to_fifo", "socket", "endless", "dangling"])
@pytest.mark.parametrize("name", ["t.csv", "t.tar", "t.parquet"])
def test_a_table_or_archive_that_is_no_regular_file_is_a_row(place, name, kind):
    if kind in ("fifo", "link_to_fifo"):
        os.mkfifo("pipe" if kind == "link_to_fifo" else name)
    if kind in ("link_to_fifo", "endless"):
        os.symlink("pipe" if kind == "link_to_fifo" else "/dev/zero", name)
    if kind == "dangling":
        os.symlink("gone", name)
    with socket.socket(socket.AF_UNIX) as server:
        if kind == "socket":
            server.bind(name)
        check_sources([name])
        reason = "no such file" if kind == "dangling" else "not a regular file"
        ((key, error),) = outcomes(name).items()
        assert key == name and error.startswith(f"{name}: cannot be read as ") and reason in error
        assert keys(name, columns=Columns()) == [name]
        with pytest.raises(ValueError, match="no such file|not a regular file"):
            load_scored_images(name)


def test_a_folder_that_cannot_be_listed_is_a_row(place, monkeypatch):
    write(place / "photos" / "locked" / "a.png")
    write(place / "photos" / "z.png")
    listing = finding._list_entries

    def refuse(folder):
        if folder.endswith("locked"):
            raise PermissionError(folder)
        return listing(folder)

    monkeypatch.setattr(finding, "_list_entries", refuse)
    found = outcomes("photos")
    assert list(found) == ["photos/locked", "photos/z.png"] and "cannot be listed" in found["photos/locked"]


def test_names_that_are_not_unicode_can_be_written_anywhere(place):
    (place / "photos").mkdir()
    with open(os.fsencode(place / "photos") + b"/caf\xe9.png", "wb") as file:
        file.write(png(3))
    ((key, found),) = outcomes("photos").items()
    assert key == "photos/caf\\udce9.png" and (found == pixels(3)).all()


@pytest.mark.parametrize(
    ("paths", "column", "message"),
    [
        (["missing"], None, "missing: no such file or folder, and no picture"),
        (["photos/*.jpg"], None, r"photos/\*.jpg: no such file or folder, and no picture"),
        (["photos"], "image", "--column names a column .* but none is given. Drop it"),
        (["t.csv"], None, "t.csv: a column image or path .* was expected in the first line, got mos, other"),
        (["t.csv"], "wrong", "t.csv: a column wrong with paths was expected"),
        (["*.parquet"], None, r"One column of pictures \(bytes\) is needed \(columns of pictures: one, two;"),
        (["t.parquet"], "n", "no column of pictures 'n'"),
    ],
)
def test_mistakes_are_found_at_once(place, paths, column, message):
    write(place / "photos" / "a.png")
    (place / "t.csv").write_text("mos,other\n1,a.png\n")
    pyarrow.parquet.write_table(pyarrow.table({"one": [b"a"], "two": [b"b"], "n": [1]}), "t.parquet")
    with pytest.raises(ValueError, match=message):
        check_sources(paths, columns=Columns(column))
    check_sources(["*", "photos/*"], columns=Columns("mos"))  # a column of `t.csv`, which is not the first match


def test_a_named_file_is_a_picture_or_a_row_with_an_error(place):
    write(place / "notes.txt", b"notes")
    write(place / "shard.tar.gz", b"\x1f\x8b\x08 packed")
    write(place / "photo.large")
    check_sources(["notes.txt", "shard.tar.gz", "photo.large"])
    found = outcomes("notes.txt", "shard.tar.gz", "photo.large")
    assert (found["photo.large"] == pixels(0)).all()
    assert found["notes.txt"] == "notes.txt: not a picture that Pillow can read. Convert it to PNG or JPEG."
    assert found["shard.tar.gz"] == "shard.tar.gz: a compressed archive, not a picture. Unpack it."


def test_what_a_pattern_leaves_out_is_counted(place, caplog):
    for name in ("photos/a.png", "photos/b.txt", "photos/c.json"):
        write(place / name)
    assert list(outcomes("photos/*")) == ["photos/a.png"]
    assert caplog.messages == ["2 files were left out (endings that pictures do not have): 1 .json, 1 .txt"]
    with pytest.raises(ValueError, match="photos/\\*.txt: no such file or folder, and no picture"):
        check_sources(["photos/*.txt"])


def test_nothing_at_all_is_a_mistake_and_damage_is_not(place):
    (place / "empty").mkdir()
    check_sources(["empty"])
    with pytest.raises(ValueError, match="There is no picture in empty. Folders are searched for pictures only"):
        list(find_sources(["empty"]))
    for name in ("a.csv", "a.parquet", "a.tar"):
        (place / name).write_bytes(b"\xff\xfe damaged")
    check_sources(["*.parquet", "a.csv", "a.tar"], columns=Columns("image"))
    assert set(outcomes("a.csv", "a.parquet", "a.tar")) == {"a.csv", "a.parquet", "a.tar"}


def test_pictures_are_read_when_they_are_decoded(place, tiny_model):
    paths = [str(write(place / "photos" / f"{i}.png", png(i))) for i in range(3)]
    sources = list(find_sources([str(place / "photos")]))
    os.remove(paths[1])
    model = tiny_model()
    processor = MusiqImageProcessor.from_config(model.config)
    rows = list(score_pictures(sources, model=model, processor=processor))
    expected = list(score_pictures(paths, model=model, processor=processor))
    assert [rows[0], rows[2]] == [expected[0], expected[2]]
    assert rows[1].error == f"{paths[1]}: no such file."
    ((_, small),) = find_sources([paths[0]])
    (row,) = score_pictures([small], model=model, processor=processor, shorter_side=6)
    assert (row.height, row.width) == (6, 8)


def test_urls_are_downloaded_where_they_are_decoded(monkeypatch):
    url = "https://example.com/a.jpg?size=1"
    monkeypatch.setattr(image_loading_musiq.httpx, "get", lambda url, **options: Answer(url))
    check_sources([url])
    assert count_sources([url]) == 1
    (own, missing) = find_sources([url, "http://example.com/missing.png"])
    assert own[0] == url and np.array_equal(np.array(own[1].open()), pixels(3))
    with pytest.raises(ValueError, match="^http://example.com/missing.png: cannot be downloaded .404"):
        missing[1].open()


class Answer:
    """What a server answers."""

    def __init__(self, url):
        self.url, self.content = url, png(3)

    def raise_for_status(self):
        if "missing" in self.url:
            raise image_loading_musiq.httpx.HTTPError("404")
        return self


def test_a_folder_is_walked_beforehand_only_for_a_named_column(place, monkeypatch):
    write(place / "photos" / "deep" / "a.png")
    listed, scandir = [], os.scandir

    def listing(path):
        listed.append(str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", listing)
    check_sources(["photos"])
    check_sources(["photos"], columns=Columns())
    assert listed == []
    for columns in (Columns("other"), Columns(key="other")):
        listed.clear()
        with pytest.raises(ValueError, match=r"names a column \('other'\) of a table or data set, but none is given"):
            check_sources(["photos"], columns=columns)
        assert listed == ["photos", os.path.join("photos", "deep")]
