# SPDX-License-Identifier: Apache-2.0
import os
from pathlib import Path

import pytest
from PIL import Image

from musiq_hf.pictures import finding
from musiq_hf.pictures.finding import PICTURE_SUFFIXES, find_pictures
from musiq_hf.pictures.sources.paths import find_sources


def draw(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 5)).save(path, format="PNG")
    return path


def names_of(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in find_pictures(folder)]


def test_pictures_of_a_folder_are_those_that_can_be_opened(tmp_path):
    photos = tmp_path / "photos"
    for index in range(4):
        draw(photos / f"{index}.png")
    draw(photos / "below" / "A.JPG")
    Image.new("RGB", (5, 5)).save(photos / "album.pdf")
    for name in ("notes.txt", "data.h5", "clip.mpg"):
        (photos / name).write_bytes(b"none")
    (photos / "folder.png").mkdir()
    assert [path.name for path in find_pictures(photos)] == ["0.png", "1.png", "2.png", "3.png", "A.JPG"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no picture. Give a folder of PNG, JPEG or other pictures"):
        find_pictures(tmp_path / "empty")
    with pytest.raises(ValueError, match="absent: no such folder"):
        find_pictures(tmp_path / "absent")


def test_all_commands_find_the_same_pictures_in_the_order_of_their_paths(tmp_path):
    for name in (
        "b.JPG",
        "a/z.png",
        "a/c/1.tiff",
        "a b/x.bmp",
        *(f"d/{suffix}{suffix}" for suffix in PICTURE_SUFFIXES),
    ):
        draw(tmp_path / name.replace("d/.", "d/"))
    for name in (".hidden.png", ".thumbnails/a.png", "a/.x/b.png", "r.pdf", "s.eps"):
        draw(tmp_path / name)
    found = find_pictures(tmp_path)
    assert found == sorted(found) and {path.suffix.lower() for path in found} == set(PICTURE_SUFFIXES)
    assert [str(path) for path in found] == [key for key, _ in find_sources([str(tmp_path)])]


def test_links_are_followed_once_and_only_files_are_found(tmp_path):
    draw(tmp_path / "other" / "2.png")
    photos = draw(tmp_path / "photos" / "a" / "1.png").parents[1]
    (photos / "a" / "up").symlink_to(photos, target_is_directory=True)
    (photos / "b").symlink_to(photos / "a", target_is_directory=True)
    (photos / "c").symlink_to(tmp_path / "other", target_is_directory=True)
    (photos / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(photos / "pipe.png")
    assert names_of(photos) == ["a/1.png", "c/2.png"]


def test_folders_that_cannot_be_listed_are_left_out(tmp_path, monkeypatch):
    for name in ("locked/a.png", "z.png"):
        draw(tmp_path / name)
    list_entries = finding._list_entries

    def refuse(folder):
        if folder.endswith("locked"):
            raise PermissionError(folder)
        return list_entries(folder)

    monkeypatch.setattr(finding, "_list_entries", refuse)
    assert names_of(tmp_path) == ["z.png"]


def test_files_that_are_left_out_are_counted_by_their_endings(tmp_path, caplog):
    for name in (
        "a.png",
        "b.txt",
        "c.TXT",
        "below/d.txt",
        "below/e.xmp",
        "LICENSE",
        "\x1b]0;title.\x07",
        ".hidden.txt",
    ):
        draw(tmp_path / name)
    find_pictures(tmp_path)
    counts = "3 .txt, 1 .xmp, 1 with odd endings, 1 without ending"
    expected = f"6 files were left out (endings that pictures do not have): {counts}"
    assert caplog.messages == [expected]
    caplog.clear()
    list(find_sources([str(tmp_path)]))
    assert caplog.messages == [expected]
    caplog.clear()
    find_pictures(draw(tmp_path / "pure" / "a.png").parent)
    assert caplog.messages == []


def test_many_endings_make_one_short_line(tmp_path, caplog):
    draw(tmp_path / "a.png")
    for index in range(12):
        draw(tmp_path / f"{index}.x{index:02}")
    find_pictures(tmp_path)
    (message,) = caplog.messages
    assert message.startswith("12 files were left out (endings that pictures do not have): 1 .x00, 1 .x01")
    assert message.endswith("1 .x07, 4 with other endings")
