# SPDX-License-Identifier: Apache-2.0

import pytest

from musiq_hf.assessment.pairing import Match, match_files
from musiq_hf.common.systems import System


def test_files_match_by_relative_paths_without_suffix_in_the_order_of_keys(make):
    make(
        "ref/b.png", "ref/d/x.png", "ref/d.mkv", "one/b.JPG", "one/d/x.webp", "one/d.mp4", "two/b.png", "two/extra.png"
    )
    make("two/notes.txt", "two/.hidden.png")
    assert match_files("ref", [System("1", "one"), System("2", "two/")]) == [
        Match("b.png", "ref/b.png", ("one/b.JPG", "two/b.png")),
        Match("d.mkv", "ref/d.mkv", ("one/d.mp4", None)),
        Match("d/x.png", "ref/d/x.png", ("one/d/x.webp", None)),
        Match("extra.png", None, (None, "two/extra.png")),
    ]


def test_single_files_match_whatever_they_are_named(make):
    make("ref.png", "a.jpg", "b.gif")
    matches = match_files("ref.png", [System("a", "a.jpg"), System("b", "b.gif")])
    assert matches == [Match("ref.png", "ref.png", ("a.jpg", "b.gif"))]


def test_two_files_that_differ_in_suffix_alone_are_refused(make):
    make("ref/a.png", "sys/a.png", "sys/a.webp", "empty/x.txt")
    with pytest.raises(ValueError, match="^sys: a.png and a.webp differ in their suffixes alone"):
        match_files("ref", [System("s", "sys")])
    with pytest.raises(ValueError, match="^empty holds no picture and no video"):
        match_files("ref", [System("s", "empty")])
