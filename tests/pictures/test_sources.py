# SPDX-License-Identifier: Apache-2.0
"""Where pictures come from: keys and their order, and what is missing, odd or damaged."""

import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from musiq_hf import MusiqImageProcessor
from musiq_hf.models.musiq import image_loading_musiq
from musiq_hf.pictures import finding
from musiq_hf.pictures.lazy import LazyPicture
from musiq_hf.pictures.sources import check_sources, count_sources, find_sources
from musiq_hf.pictures.table_sources import Columns
from musiq_hf.scoring.engine import score_pictures


def pixels(seed):
    return np.random.default_rng(seed).integers(0, 256, (12, 17, 3), dtype=np.uint8)


def png(seed):
    file = io.BytesIO()
    Image.fromarray(pixels(seed)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working directory, which keys start from."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, content=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(0) if content is None else content)
    return path


def keys(*paths, **kwargs):
    found = [key for key, _ in find_sources(paths, **kwargs)]
    assert count_sources(paths, **kwargs) == len(found)
    assert [key for key, _ in find_sources(paths, **kwargs)] == found
    return found


def outcomes(*paths, **kwargs):
    """Key, and pixels or error, of every picture."""
    results = {}
    for key, picture in find_sources(paths, **kwargs):
        assert key not in results
        try:
            results[key] = np.array(picture.open())
        except ValueError as error:
            results[key] = str(error)
    return results


def write_tar(path, members):
    """An archive of (name, bytes)."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


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


def test_tar_members_are_read_in_place(place):
    members = [("b/1.png", png(1)), ("b/1.json", b"{}"), ("../evil.png", png(2)), ("/root.png", png(3))]
    write_tar(place / "shard.tar", members)
    with tarfile.open(place / "shard.tar", "a") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "b/1.png"
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("folder.png/"))
    found = outcomes("shard.tar")
    assert list(found) == ["shard.tar::b/1.png", "shard.tar::../evil.png", "shard.tar::/root.png"]
    assert all((found[key] == pixels(seed)).all() for seed, key in enumerate(found, start=1))
    assert os.listdir(place) == ["shard.tar"] and "evil.png" not in os.listdir(place.parent)
    assert count_sources(["shard.tar"]) == 3


def test_headers_of_tar_members_are_forgotten(place, monkeypatch):
    write_tar(place / "shard.tar", [(f"{i}.png", b"") for i in range(50)])
    held, forward = [], tarfile.TarFile.next

    def watched(archive):
        held.append(len(archive.members))
        return forward(archive)

    monkeypatch.setattr(tarfile.TarFile, "next", watched)
    assert len(list(find_sources(["shard.tar"]))) == 50
    assert max(held) <= 1


def damage(content, start, data):
    return content[:start] + data + content[start + len(data) :]


# The header of the second member starts at byte 1536: one block of header and two of data.
@pytest.mark.parametrize(
    ("change", "readable", "reason"),
    [
        (lambda raw: damage(raw, 1536, b"\xff" * 512), 1, "no header and no end mark at byte 1536"),
        (lambda raw: raw[:1700], 1, "no header and no end mark at byte 1536"),
        (lambda raw: raw[:1536], 1, "no end mark at byte 1536"),
        (lambda raw: raw[:1100], 0, "unexpected end of data"),
        (lambda raw: raw[:0], 0, "empty file"),
        (lambda raw: b"no archive" * 200, 0, "invalid header"),
        (lambda raw: damage(raw, 124, b"77777777777\x00"), 0, "bad checksum"),
    ],
)
def test_a_damaged_archive_is_read_up_to_the_damage(place, change, readable, reason):
    raw = write_tar(place / "shard.tar", [(f"{i}.png", png(i)) for i in range(3)]).read_bytes()
    assert len(png(0)) in range(513, 1025)
    (place / "shard.tar").write_bytes(change(raw))
    write(place / "z.png")
    found = outcomes("shard.tar", "z.png")
    errors = {key: value for key, value in found.items() if isinstance(value, str)}
    assert len(found) - len(errors) == readable + 1 and isinstance(found["z.png"], np.ndarray)
    problem = errors.pop("shard.tar")
    assert "the archive is damaged" in problem and reason in problem
    assert all("ends within this member" in error for error in errors.values())


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


@pytest.mark.parametrize(
    ("paths", "column", "message"),
    [
        (["missing"], None, "missing: no such file or folder, and no picture"),
        (["photos/*.jpg"], None, r"photos/\*.jpg: no such file or folder, and no picture"),
        (["notes.txt"], None, r"notes.txt: a picture .* was expected. Leave it out"),
        (["shard.tar.gz"], None, r"shard.tar.gz: a picture .* was expected"),
        (["photos"], "image", "--column names a column .* but none is given. Drop it"),
        (["t.csv"], None, "t.csv: a column image or path .* was expected in the first line, got mos, other"),
        (["t.csv"], "wrong", "t.csv: a column wrong with paths was expected"),
        (["*.parquet"], None, r"One column of pictures \(bytes\) is needed \(columns of pictures: one, two;"),
        (["t.parquet"], "n", "no column of pictures 'n'"),
    ],
)
def test_mistakes_are_found_at_once(place, paths, column, message):
    write(place / "photos" / "a.png")
    write(place / "notes.txt")
    write(place / "shard.tar.gz")
    (place / "t.csv").write_text("mos,other\n1,a.png\n")
    pyarrow.parquet.write_table(pyarrow.table({"one": [b"a"], "two": [b"b"], "n": [1]}), "t.parquet")
    with pytest.raises(ValueError, match=message):
        check_sources(paths, columns=Columns(column))
    check_sources(["*", "photos/*"], columns=Columns("mos"))  # a column of `t.csv`, which is not the first match


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


@pytest.mark.parametrize("error", [struct.error("short"), IndexError("x"), MemoryError(), RecursionError("deep")])
def test_whatever_a_decoder_raises_is_one_sentence(error):
    def fail(*arguments):
        raise error

    with pytest.raises(ValueError, match=rf"^a.png: cannot be read or decoded \({type(error).__name__}"):
        LazyPicture("a.png", fail).open()


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


def test_a_lazy_picture_travels_undecoded_and_is_read_where_it_is_opened(tmp_path):
    Image.new("RGB", (7, 5), "red").save(tmp_path / "a.png")
    ((key, lazy),) = find_sources([str(tmp_path)])
    sent = pickle.dumps(lazy)
    assert len(sent) < 1000
    copy = pickle.loads(sent)
    assert copy.name == key and np.array_equal(copy.open(), lazy.open()) and copy.open().size == (7, 5)
    os.remove(tmp_path / "a.png")
    with pytest.raises(ValueError, match="a.png: no such file"):
        copy.open()


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
