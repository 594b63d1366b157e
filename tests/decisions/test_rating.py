# SPDX-License-Identifier: Apache-2.0
"""Stars for photographs: which sidecars are written, which are left alone, and runs that are continued."""

import csv
import errno
import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sidecar_files import SIDECARS, describe, packet

from musiq_hf import MusiqImageProcessor
from musiq_hf.cli import main
from musiq_hf.decisions import RatingSettings, rating_job, sidecars
from musiq_hf.decisions.packets import read_tags
from musiq_hf.decisions.sidecars import OUR_RATING, RATING, SCORE
from musiq_hf.metrics.calibration import Calibration
from musiq_hf.scoring import write_calibration
from musiq_hf.scoring.tables.row_jobs import measure_rows, run_rows

INTERVALS = (-3.0, -1.0, 1.0, 3.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("rate") / "musiq-test"
    model = tiny_model(score_range=(-10, 10))
    model.save_pretrained(folder)
    MusiqImageProcessor.from_config(model.config).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder `photos` with four pictures, one of them below it, in which the tests are."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(3)
    for number, name in enumerate(("a.jpg", "b.png", "c.jpg", "below/d.jpg")):
        path = Path("photos", name)
        path.parent.mkdir(exist_ok=True)
        spread = 30 * number + 1
        Image.fromarray(generator.integers(128 - spread, 128 + spread, (24, 32, 3), dtype=np.uint8)).save(path)
    return tmp_path


@pytest.fixture
def rate(photos, checkpoint):
    """Rows of a rating of `photos`, by their names."""

    def run(**options):
        settings = RatingSettings(
            ["photos"], **{"model": checkpoint, "sidecars": True, "intervals": INTERVALS} | options
        )
        return {Path(row.key).name: row for (row,) in measure_rows(settings.make_job())}

    return run


@pytest.fixture
def scored(monkeypatch):
    """Numbers of the pictures that were scored, one of each run."""
    numbers, score = [], rating_job.Scorers.score

    def count(self, sources):
        numbers.append(0)
        for entry in score(self, sources):
            numbers[-1] += 1
            yield entry

    monkeypatch.setattr(rating_job.Scorers, "score", count)
    return numbers


def write_rating_of(name, rating):
    Path("photos", name).write_text(packet(describe("xmp", f'xmp:Rating="{rating}"')))


def read(name):
    return read_tags(Path("photos", name).read_bytes())


def hash_pictures():
    paths = sorted(path for path in Path("photos").rglob("*") if path.suffix in (".jpg", ".png"))
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_stars_go_beside_pictures_that_stay_as_they_are(rate, scored):
    before = hash_pictures()
    rows = rate()
    assert hash_pictures() == before
    assert {row.state for row in rows.values()} == {"made"} and len(rows) == 4
    for name, row in rows.items():
        tags = read(f"{'below/' if name == 'd.jpg' else ''}{name}.xmp")
        assert tags[RATING] == tags[OUR_RATING] == row.rating == str(row.stars) and float(tags[SCORE]) == row.score
        assert row.stars == 1 + sum(row.score >= low for low in INTERVALS)
    again = rate()
    assert {row.state for row in again.values()} == {"there"} and scored == [4, 0]
    assert [row[:5] for row in again.values()] == [row[:5] for row in rows.values()]


def test_other_intervals_need_no_new_scores(rate, scored):
    rows = rate()
    middle = sorted(row.score for row in rows.values())[2]
    rows = rate(intervals=(middle - 1e-4, middle - 5e-5, middle - 1e-5, middle))
    assert sorted(row.stars for row in rows.values()) == [1, 1, 5, 5] and scored == [4, 0]
    assert {name: read(f"{'below/' if name == 'd.jpg' else ''}{name}.xmp")[RATING] for name in rows} == {
        name: str(row.stars) for name, row in rows.items()
    }


def test_a_changed_picture_is_scored_again(rate, scored):
    rate()
    Image.new("RGB", (24, 32), "red").save("photos/c.jpg")
    assert [row.state for row in rate().values() if row.key == "photos/c.jpg"] == ["changed"] and scored == [4, 1]


def test_ratings_of_people_are_kept(rate, scored):
    write_rating_of("a.jpg.xmp", "-1")
    write_rating_of("b.xmp", "2")  # of the other name
    Image.open("photos/c.jpg").save("photos/c.jpg", xmp=packet(describe("xmp", 'xmp:Rating="5"')).encode())
    before = hash_pictures()
    rows = rate()
    assert [(row.state, row.rating, row.score) for row in rows.values()][:2] == [
        ("kept", "-1", None),
        ("kept", "2", None),
    ]
    assert rows["c.jpg"].state == "kept" and rows["c.jpg"].rating == "5" and rows["d.jpg"].state == "made"
    assert scored == [1] and not os.path.exists("photos/b.png.xmp") and not os.path.exists("photos/c.jpg.xmp")
    rows = rate(overwrite_ratings=True)
    assert [rows[name].state for name in ("a.jpg", "b.png", "c.jpg", "d.jpg")] == ["changed", "made", "made", "there"]
    assert read("a.jpg.xmp")[RATING] == str(rows["a.jpg"].stars) and read("b.xmp")[RATING] == "2"
    assert hash_pictures() == before
    # What a person changes after that is a person's again.
    path = Path("photos/a.jpg.xmp")
    path.write_bytes(path.read_bytes().replace(b' xmp:Rating="', b' xmp:Rating="-'))
    assert rate()["a.jpg"].state == "kept"


def test_a_sidecar_keeps_its_other_tags(rate):
    Path("photos/a.jpg.xmp").write_bytes(SIDECARS["darktable"])
    assert rate()["a.jpg"].state == "changed"
    before = read_tags(SIDECARS["darktable"])
    assert {tag: value for tag, value in read("a.jpg.xmp").items() if tag in before and tag != RATING} == {
        tag: value for tag, value in before.items() if tag != RATING
    }


def test_damaged_files_are_rows_and_left_alone(rate):
    Path("photos/a.jpg.xmp").write_text("<x")
    Path("photos/b.png").write_bytes(b"no picture")
    rows = rate()
    assert "photos/a.jpg.xmp: no well-formed XML" in rows["a.jpg"].error and rows["a.jpg"].stars is None
    assert "not a picture" in rows["b.png"].error and not os.path.exists("photos/b.png.xmp")
    assert Path("photos/a.jpg.xmp").read_text() == "<x" and rows["d.jpg"].state == "made"
    assert all(row.error.startswith(row.key) for row in rows.values() if row.error)


def test_pictures_that_would_share_a_sidecar_are_refused(rate):
    Image.new("RGB", (24, 32)).save("photos/a.png")
    Path("photos/c.cr3").write_bytes(b"raw")  # of the JPEG beside it, which has the same stars
    rows = rate(naming="photo.xmp")
    assert "a.xmp would be the sidecar of a.png too. Add --names photo.jpg.xmp." in rows["a.jpg"].error
    assert "a.xmp would be the sidecar of a.jpg too" in rows["a.png"].error and not os.path.exists("photos/a.xmp")
    assert read("c.xmp")[RATING] == str(rows["c.jpg"].stars) and not os.path.exists("photos/c.jpg.xmp")
    rows = rate()
    assert {row.state for row in rows.values()} == {"made"} and rows["c.jpg"].sidecar == "photos/c.jpg.xmp"


@pytest.mark.parametrize(("number", "is_row"), [(errno.EACCES, True), (errno.EROFS, True), (errno.ENOSPC, False)])
def test_a_folder_that_cannot_be_written_is_a_row_and_a_full_disk_ends_the_run(rate, monkeypatch, number, is_row):
    def refuse(path):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(sidecars, "replace_file", refuse)
    if is_row:
        assert all("cannot be written there" in row.error and row.stars for row in rate().values())
    else:
        with pytest.raises(OSError, match="No space"):
            rate()


def test_without_sidecars_nothing_is_written(rate):
    write_rating_of("a.jpg.xmp", "3")
    rows = rate(sidecars=False)
    assert {row.state for row in rows.values()} == {"not written"} and all(row.stars for row in rows.values())
    assert len(list(Path("photos").rglob("*.xmp"))) == 1 and rows["a.jpg"].rating is None


def test_a_killed_run_continues(photos, checkpoint, monkeypatch):
    options = {"model": checkpoint, "sidecars": True, "intervals": INTERVALS, "output": "stars.csv"}
    settings = RatingSettings(["photos"], **options)
    write, calls = rating_job.write_rating, []

    def write_two(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(rating_job, "write_rating", write_two)
    with pytest.raises(KeyboardInterrupt):
        run_rows(settings.make_job())
    assert len(list(Path("photos").rglob("*.xmp"))) == 2 and not os.path.exists("stars.csv")
    assert run_rows(settings.make_job()) == ("written", 4, 0) and len(calls) == 5
    with open("stars.csv", newline="") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["made"] * 4
    assert run_rows(settings.make_job()).state == "found"
    for change, word in (({"naming": "photo.xmp"}, "sidecar"), ({"intervals": (1.0, 2.0, 3.0, 4.0)}, "rule")):
        with pytest.raises(ValueError, match=f"exists already, with other .*{word}"):
            run_rows(RatingSettings(["photos"], **options | change).make_job())


def test_stars_are_fifths_of_a_calibration(rate, photos, tiny_model, tmp_path):
    plain = rate(sidecars=False)
    scores = [row.score for row in plain.values()]
    rows = rate(sidecars=False, intervals=None, calibration=Calibration.fit(scores))
    assert [row.stars for row in rows.values()] == Calibration.fit(scores).stars(scores).tolist()
    model = tiny_model(score_range=(-10, 10))
    processor = MusiqImageProcessor.from_config(model.config)
    model.save_pretrained("own")
    processor.save_pretrained("own")
    own = write_calibration("own", np.linspace(-1, 1, 100), model=model, processor=processor, data="made up")
    rows = rate(sidecars=False, intervals=None, model="own")
    assert [row.stars for row in rows.values()] == [own.stars(score) for score in scores]


def test_mistakes_are_sentences(photos, checkpoint, capsys):
    for words, reason in (
        (["photos", "-m", checkpoint], "calibration.*--intervals 20,40,60,80"),
        (["photos", "--intervals", "1,2,2,3"], "four scores that rise"),
        (["photos", "--intervals", "1,2,3"], "four scores that rise"),
        (["photos", "--intervals", "1,2,3,4", "--calibration", "a.csv"], "Drop one"),
        (["photos", "--overwrite_ratings"], "needs `--sidecars`"),
        (["photos", "--calibration", "a.csv", "-o", "a.csv"], "would be lost"),
        (["nowhere"], "no such file"),
    ):
        assert main(["rate", *words]) == 2
        printed, errors = capsys.readouterr()
        assert not printed and re.search(reason, errors.replace("\n", " ")), errors


def test_the_command_prints_rows(photos, checkpoint, capsys):
    Path("photos/b.png").write_bytes(b"no picture")
    code = main(["rate", "photos", "--sidecars", "-m", checkpoint, "--intervals=-3,-1,1,3"])
    printed, errors = capsys.readouterr()
    assert code == 1 and "4 pictures, 1 of them with an error instead of stars" in errors
    heads, *lines = printed.splitlines()
    assert heads.split() == ["score", "stars", "rating", "state", "key"] and len(lines) == 4
    assert sum(line.split()[-2] == "made" for line in lines) == 3 and "error: photos/b.png" in lines[1] + lines[2]
