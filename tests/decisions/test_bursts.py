# SPDX-License-Identifier: Apache-2.0
"""Bursts: what is taken within seconds and looks alike, by EXIF times or the order of the files."""

import numpy as np
import pytest
from PIL import ExifTags, Image

from musiq_hf.decisions import Amount, BurstSettings, Conditions, ScoreTable, add_bursts, find_bursts, select_rows
from musiq_hf.decisions.thumbnails import PictureError, open_small, read_time
from musiq_hf.pictures import make_picture

pytest.importorskip("imagehash", reason="needs the extra bursts")


@pytest.fixture
def save(tmp_path):
    """Save a frame of a scene, shifted by some pixels, with a time in seconds, and return its path."""
    scenes = {}

    def write(name, scene, *, shift=0, seconds=None, turned=False):
        if scene not in scenes:
            scenes[scene] = make_picture(seed=scene, width=240, height=200)
        frame = scenes[scene].crop((shift, 0, 200 + shift, 200))
        exif = frame.getexif()
        if seconds is not None:
            part = exif.get_ifd(ExifTags.IFD.Exif)
            whole, fraction = divmod(seconds, 1)
            part[ExifTags.Base.DateTimeOriginal] = f"2024:05:01 10:00:{int(whole):02d}"
            part[ExifTags.Base.SubsecTimeOriginal] = f"{round(100 * fraction):02d}"
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        frame.save(path, exif=exif)
        return str(path)

    return write


def test_times_and_likeness_make_a_burst(save):
    paths = [
        save("a.jpg", 1, seconds=0),
        save("b.jpg", 1, shift=4, seconds=2.5),
        save("c.jpg", 2, seconds=3),  # another scene
        save("d.jpg", 1, seconds=30),  # too late
        save("e.jpg", 1, shift=6, seconds=1),  # its place is between the first two
    ]
    assert find_bursts(paths).tolist() == [1, 1, 2, 3, 1]
    assert find_bursts(paths, BurstSettings(seconds=1)).tolist() == [1, 2, 3, 4, 1]
    assert find_bursts(paths, BurstSettings(distance=64)).tolist() == [1, 1, 1, 2, 1]


def test_without_times_neighbours_of_a_folder_are_compared(save, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"none")
    paths = [
        save("a.png", 1),
        save("b.png", 1, shift=3),
        save("c.png", 2),
        save("d.png", 1),
        str(tmp_path / "bad.jpg"),
        save("e/a.png", 2),
        save("f.jpg", 2, seconds=1),
    ]
    assert find_bursts(paths).tolist() == [1, 1, 2, 3, 4, 5, 6]


def test_the_best_of_each_burst_is_kept(save):
    import pyarrow

    paths = [save("a.png", 1), save("b.png", 1, shift=3), save("c.png", 2)]
    rows = pyarrow.table({"key": paths, "score": [1.0, 2.0, 0.0]})
    table = add_bursts(ScoreTable(rows), paths)
    assert table.texts("burst").tolist() == ["1", "1", "2"]
    assert select_rows(table, Conditions(top=Amount.read("1"), per="burst")).chosen.tolist() == [1, 2]


def test_times_that_are_none_are_passed_over(save):
    assert read_time(save("a.jpg", 1)) is None
    assert read_time("none.jpg") is None
    path = save("b.jpg", 1, seconds=2.25)
    assert read_time(path).microsecond == 250_000
    with Image.open(path) as image:
        exif = image.getexif()
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "    :  :     :  :  "
        image.save(path, exif=exif)
    assert read_time(path) is None


def test_small_copies_are_upright_rgb_and_of_any_mode(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("L", (300, 100), 200).save(tmp_path / "turned.jpg", exif=exif)
    assert open_small(str(tmp_path / "turned.jpg"), 60).size == (20, 60)
    Image.fromarray(np.full((50, 80), 32768, dtype=np.uint16)).save(tmp_path / "deep.png")
    small = open_small(str(tmp_path / "deep.png"), 40)
    assert (small.mode, small.size) == ("RGB", (40, 25)) and small.getpixel((5, 5)) == (128, 128, 128)
    for name, content in (("none.png", None), ("bad.png", b"none")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(PictureError, match="it cannot be shown"):
            open_small(str(tmp_path / name), 40)


@pytest.mark.parametrize("settings", [{"seconds": -1}, {"seconds": float("nan")}, {"distance": 65}, {"distance": -1}])
def test_bounds_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=f"`{next(iter(settings))}` must"):
        BurstSettings(**settings)
