# SPDX-License-Identifier: Apache-2.0
"""Files that are written whole, under names of any length, without following a link."""

import os

import pytest

from musiq_hf.common.files import NAME_BYTES, SUFFIX_BYTES, check_output_file, replace_file, shorten_name, write_text


@pytest.mark.parametrize("size", [200, 250, NAME_BYTES])
def test_names_of_every_length_are_written(tmp_path, size):
    path = tmp_path / (chr(233) * 50 + "x" * (size - 105) + ".html")
    assert len(os.fsencode(path.name)) == size
    write_text(path, "page")
    assert path.read_text() == "page" and os.listdir(tmp_path) == [path.name]


def test_only_long_names_are_shortened_and_each_in_its_own_way():
    longest = "a" * (NAME_BYTES - SUFFIX_BYTES)
    assert shorten_name(longest) == longest
    names = [shorten_name(f"{longest}{end}") for end in ("1", "2", "\u65e5\u672c", os.fsdecode(b"\xff"))]
    assert len(set(names)) == 4
    assert all(len(os.fsencode(name)) <= NAME_BYTES - SUFFIX_BYTES for name in names)
    shorten_name("\u65e5" * 200).encode()  # no character is cut in two


def test_a_link_under_the_temporary_name_is_not_followed(tmp_path):
    (tmp_path / "mine").write_text("precious")
    (tmp_path / f".page.html.{os.getpid()}.tmp").symlink_to("mine")
    write_text(tmp_path / "page.html", "page")
    assert (tmp_path / "mine").read_text() == "precious" and (tmp_path / "page.html").read_text() == "page"
    assert sorted(os.listdir(tmp_path)) == ["mine", "page.html"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replace_file(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["page.html"]


def test_what_cannot_be_replaced_is_refused(tmp_path):
    check_output_file(tmp_path / "new.csv")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "link.csv").symlink_to("folder.csv")
    for name in ("folder.csv", "link.csv"):
        with pytest.raises(ValueError, match=f"{name} is a folder. Give the file another name"):
            check_output_file(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ValueError, match="pipe.csv is no regular file"):
        check_output_file(tmp_path / "pipe.csv")
    (tmp_path / "a.png").touch()
    (tmp_path / "broken").symlink_to("nowhere")
    for name in ("a.png", "a.png/b/c", "broken"):
        with pytest.raises(
            ValueError, match=f"{name.partition('/')[0]} is no folder, so no file can be written in it"
        ):
            check_output_file(tmp_path / name / "x.csv")
    with pytest.raises(ValueError, match="the name is longer than 255 bytes. Shorten it"):
        check_output_file(tmp_path / ("a" * 252 + ".csv"))
