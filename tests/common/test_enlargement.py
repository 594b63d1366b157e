# SPDX-License-Identifier: Apache-2.0
import os

import numpy as np
import pytest

from musiq_hf.common.enlargement import Target, check_copies


@pytest.mark.parametrize(
    ("target", "size", "expected"),
    [
        ({"scale": 2.7}, (101, 33), (273, 89)),
        ({"scale": 1}, (101, 33), (101, 33)),
        ({"scale": 2.5}, (1, 3), (2, 8)),  # halves go to even numbers, as in Python
        ({"size": (300, 40)}, (101, 33), (300, 40)),
        ({"longer_side": 300}, (100, 33), (300, 99)),
        ({"longer_side": 300}, (33, 100), (99, 300)),
        ({"longer_side": 100}, (100, 1), (100, 1)),
        ({"longer_side": 2731}, (853, 640), (2731, 2049)),
    ],
)
def test_a_target_gives_the_size(target, size, expected):
    assert Target(**target).find_size(size, "a.png") == expected


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({}, "One of `scale`, `size` and `longer_side` is needed, got none. Give one."),
        ({"scale": 2.0, "longer_side": 9}, "is needed, got scale and longer_side. Give one."),
        ({"scale": 0.5}, "`scale` must be a number between 1 and 64, got 0.5."),
        ({"scale": 65}, "`scale` must be a number between 1 and 64, got 65."),
        ({"scale": float("nan")}, "`scale` must be a number between 1 and 64, got nan."),
        ({"size": (0, 4)}, "`size` must be a width and a height of at least 1 pixel, got (0, 4)."),
        ({"size": (4,)}, "`size` must be a width and a height of at least 1 pixel, got (4,)."),
        ({"scale": "2"}, "`scale` must be a number between 1 and 64, got 2."),
        ({"scale": True}, "`scale` must be a number between 1 and 64, got True."),
        ({"size": 40}, "`size` must be a width and a height of at least 1 pixel, got 40."),
        ({"size": (40.5, 70)}, "`size` must be a width and a height of at least 1 pixel, got (40.5, 70)."),
        ({"longer_side": 0}, "`longer_side` must be a whole number of pixels from 1, got 0."),
        ({"longer_side": 50.7}, "`longer_side` must be a whole number of pixels from 1, got 50.7."),
        ({"longer_side": "50"}, "`longer_side` must be a whole number of pixels from 1, got 50."),
        ({"longer_side": float("nan")}, "`longer_side` must be a whole number of pixels from 1, got nan."),
    ],
)
def test_a_target_that_says_no_size_is_refused(target, message):
    with pytest.raises(ValueError) as error:
        Target(**target)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ({"scale": 2.0}, "scale:2"),
        ({"scale": np.float64(2.7)}, "scale:2.7"),
        ({"scale": 2.7000001}, "scale:2.7000001"),
        ({"size": [40, 70]}, "size:40x70"),
        ({"longer_side": 1234567}, "longer_side:1234567"),
    ],
)
def test_texts_of_targets_differ_where_sizes_may(target, text):
    assert str(Target(**target)) == text


@pytest.mark.parametrize(
    ("target", "size", "message"),
    [
        ({"size": (300, 32)}, (101, 33), "a.png: 101x33 pixels would become 300x32, which shrinks."),
        ({"longer_side": 100}, (101, 33), "a.png: 101x33 pixels would become 100x33, which shrinks."),
        ({"size": (6465, 33)}, (101, 33), "a.png: 101x33 to 6465x33 pixels is more than 64 times. Ask for less."),
        ({"scale": 64}, (300, 200), "19200x12800, and the limit is 128 megapixels. Ask for less, or cut the picture"),
    ],
)
def test_a_picture_that_cannot_have_the_size_is_refused(target, size, message):
    with pytest.raises(ValueError) as error:
        Target(**target).find_size(size, "a.png")
    assert message in str(error.value)


def test_copies_never_go_into_a_folder_that_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.makedirs("photos/below")
    open("photo.png", "w").close()
    os.symlink("photos/below", "link")
    check_copies("photos-large", ["photos", "photo.png"])
    check_copies(".", ["photo.png"])
    for folder in ("photos", "photos/below/large", "link", "./photos/../photos"):
        with pytest.raises(ValueError, match="lies in photos, so that the next run would enlarge copies"):
            check_copies(folder, ["photo.png", "photos"])
    with pytest.raises(ValueError, match="absent: no such file or folder"):
        check_copies("out", ["photos", "absent"])
    with pytest.raises(ValueError, match="photo.png is no folder"):
        check_copies("photo.png", ["photos"])
