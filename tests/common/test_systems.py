# SPDX-License-Identifier: Apache-2.0
import re

import pytest

from musiq_hf.common.systems import System, read_systems


def test_systems_are_named_by_folder_or_stem_or_by_hand(make):
    make("ref/a.png", "bicubic x2.0/a.png", "n/a.png", "ref.png", "net.v1.png", "x=y.png")
    assert read_systems("ref", ["bicubic x2.0/", "mine=n"]) == [System("bicubic x2.0", "bicubic x2.0/"), ("mine", "n")]
    assert [system.name for system in read_systems("ref.png", ["net.v1.png", "x=y.png"])] == ["net.v1", "x=y"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("ref", "a", "b/a"), "a and b/a are both named a. Name one otherwise: NAME=b/a"),
        (("ref", "gone"), "gone: no such file or folder."),
        (("gone", "a"), "gone: no such file or folder."),
        (("ref", "x=gone"), "gone: no such file or folder."),
        (("ref", "a/x.png"), "ref is a folder and a/x.png is a file. Give all files, or all folders."),
        (("a/x.png", "a"), "a/x.png is a file and a is a folder."),
        (("ref", " =a"), "a system needs a name before the sign =."),
        (("ref",), "At least one system is needed."),
    ],
)
def test_mistakes_in_systems_are_sentences(make, words, sentence):
    make("ref/x.png", "a/x.png", "b/a/x.png")
    with pytest.raises(ValueError, match=re.escape(sentence)):
        read_systems(words[0], words[1:])
