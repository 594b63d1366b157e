# SPDX-License-Identifier: Apache-2.0
"""Ladders of encodings: rows, scores, runs that are stopped, and the summary."""

import math
from pathlib import Path

import numpy as np
import pytest
from golden_assessment import REFERENCE

from musiq_hf import MusiqImageProcessor
from musiq_hf.assessment import psnr, ssim
from musiq_hf.assessment.ladder import rows as ladder_rows
from musiq_hf.assessment.ladder.rows import COLUMNS, LadderRow, LadderSettings
from musiq_hf.assessment.ladder.summary import Fall, summarize_ladders
from musiq_hf.pictures import make_picture
from musiq_hf.pictures.encoding import encode_pixels
from musiq_hf.scoring import ScoreJob, score_rows
from musiq_hf.scoring.tables.row_jobs import measure_rows, read_rows, run_rows

BD = REFERENCE["bd"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model):
    """Three pictures, of which the second is broken, and a checkpoint."""
    folder = tmp_path_factory.mktemp("ladder")
    model = tiny_model()
    model.save_pretrained(folder / "checkpoint")
    MusiqImageProcessor.from_config(model.config).save_pretrained(folder / "checkpoint")
    (folder / "photos").mkdir()
    make_picture(seed=0, width=48, height=40).save(folder / "photos/a.png")
    (folder / "photos/b.png").write_bytes(b"no picture")
    make_picture(seed=1, width=30, height=50).convert("L").save(folder / "photos/c.png")
    return folder


@pytest.fixture(autouse=True)
def within(folder, tmp_path, monkeypatch, alone):
    monkeypatch.chdir(tmp_path)
    Path("photos").symlink_to(folder / "photos")


def make_job(folder, output=None, **settings):
    changes = {"codecs": ("jpeg", "avif"), "qualities": (80, 20)} | settings
    paths = ["photos/a.png", "photos/b.png", "photos/c.png"]
    return LadderSettings(paths, model=str(folder / "checkpoint"), device="cpu", output=output, **changes).make_job()


def test_a_row_is_what_its_file_gives(folder):
    first, broken, gray = measure_rows(make_job(folder))
    assert [row[:3] for row in first] == [
        ("photos/a.png", codec, quality) for codec in ("jpeg", "avif") for quality in (20, 80)
    ]
    assert broken == (LadderRow("photos/b.png", error=broken[0].error),)
    assert broken[0].error.startswith("photos/b.png: not a picture that Pillow can read")
    assert len(gray) == 4 and all(row.error is None for row in gray)
    pixels = np.asarray(make_picture(seed=0, width=48, height=40))
    for row in first:
        file = Path(f"{row.quality}.{row.codec}")
        file.write_bytes(encode_pixels(pixels, row.codec, row.quality))
        assert (row.bytes, row.bits_per_pixel) == (file.stat().st_size, 8 * file.stat().st_size / (48 * 40))
        assert row.psnr_y == pytest.approx(psnr("photos/a.png", file), abs=1e-9)
        assert row.ssim_y == pytest.approx(ssim("photos/a.png", file), abs=1e-9)
        job = ScoreJob(["photos/a.png", str(file)], models=[str(folder / "checkpoint")], device="cpu")
        (own,), (other,) = score_rows(job)
        assert (row.score, row.score_drop) == (other.score, own.score - other.score) and row.score_drop != 0


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_stopped_run_goes_on_and_other_settings_are_another_run(folder, suffix):
    whole, output = make_job(folder, f"whole{suffix}"), f"ladder{suffix}"
    assert run_rows(whole) == ("written", 3, 1)
    rows = list(read_rows(whole))
    assert len(rows) == 9 and list(rows[0]) == list(COLUMNS)
    assert rows[0]["signature"].endswith("|qualities:20+80") and "|jpeg:libjpeg_turbo-" in rows[0]["signature"]

    def stop(totals):
        if totals.pictures == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_rows(make_job(folder, output), on_progress=stop)
    with pytest.raises(ValueError, match="other settings"):
        run_rows(make_job(folder, output, codecs=("jpeg",)))
    job = make_job(folder, output)
    assert run_rows(job) == ("written", 3, 1)
    assert job.table.read_bytes() == whole.table.read_bytes()
    assert run_rows(job) == ("found", 3, 1)
    with pytest.raises(ValueError, match=r"exists already, with other settings \(signature: qualities:20\+80, now"):
        run_rows(make_job(folder, output, qualities=(20, 90)))


def test_a_file_that_cannot_be_written_costs_its_row_alone(folder, monkeypatch):
    def encode(pixels, codec, quality):
        if codec == "avif" and quality == 80:
            raise ValueError("it is too large.")
        return encode_pixels(pixels, codec, quality)

    monkeypatch.setattr(ladder_rows, "encode_pixels", encode)
    first, *_ = measure_rows(make_job(folder))
    assert first[3] == LadderRow("photos/a.png", "avif", 80, error="photos/a.png: it is too large.")
    assert all(row.score is not None for row in first[:3])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codecs": ("jpeg", "png")}, "Codecs must be of jpeg, webp, avif, got 'png'. Leave it out."),
        ({"codecs": ("jpeg", "jpeg")}, "Each codec must be named once, got jpeg twice"),
        ({"codecs": ()}, "At least one codec is needed, got none"),
        ({"qualities": (10, 101)}, "Qualities must be whole numbers from 1 to 100, got 101"),
        ({"qualities": (0,)}, "from 1 to 100, got 0"),
        ({"qualities": (7, 8, 7)}, "Each quality must be named once, got 7 twice"),
    ],
)
def test_mistakes_are_one_sentence(settings, message):
    with pytest.raises(ValueError, match=message):
        LadderSettings(["photos"], **settings)


def list_rows(key, codec, rates, psnrs, scores, reference=60.0):
    return [
        LadderRow(key, codec, quality, round(1000 * rate), rate, value, value / 50, score, reference - score)._asdict()
        for quality, (rate, value, score) in enumerate(zip(rates, psnrs, scores, strict=True), start=1)
    ]


SCORES = [40.0, 52.0, 50.5, 58.0, 57.0]


def test_the_summary_by_hand():
    first = [
        *list_rows("p", "jpeg", BD["rate_a"], BD["quality_a"], SCORES),
        *list_rows("p", "webp", BD["rate_b"], BD["quality_b"], sorted(SCORES)),
    ]
    broken = LadderRow("q", error="q: broken.")._asdict()
    few = [*first[:3], LadderRow("r", "webp", 1, error="r: too large.")._asdict()]
    rows = [*first, broken, *({**row, "key": "r"} for row in few)]
    found = summarize_ladders(iter(rows), max_drop=8)
    assert [(own.key, own.codec, own.row and own.row.quality) for own in found.smallest] == [
        ("p", "jpeg", 2),  # a file that is larger drops further
        ("p", "webp", 3),
        ("r", "jpeg", 2),
        ("r", "webp", None),
    ]
    psnrs, ssims = found.rates
    assert psnrs[:3] == ("webp", "jpeg", "psnr_y") and ssims[:3] == ("webp", "jpeg", "ssim_y")
    assert psnrs.percent == pytest.approx(BD["rate_pchip_percent"], rel=0, abs=1e-9) == pytest.approx(ssims.percent)
    assert psnrs[4:] == (1, 1)
    assert found.falls == {"jpeg": Fall(1.5, "p", 2, 3), "webp": Fall()}
    assert found.keys == ("p",) and found.curves.keys() == {"jpeg", "webp"}
    assert found.curves["jpeg"][1] == (2, BD["rate_a"][1], BD["quality_a"][1], BD["quality_a"][1] / 50, 52.0)
    assert summarize_ladders(rows).smallest == ()


def test_curves_and_rates_are_means_over_pictures():
    rates, qualities = np.array(BD["rate_a"]), np.array(BD["quality_a"])
    rows = []
    for key, factor in (("p", 0.5), ("p", 0.9)):  # a picture that was named twice
        rows += list_rows(key, "jpeg", rates, qualities, SCORES)
        rows += list_rows(key, "avif", factor * rates, qualities, SCORES)
    found = summarize_ladders(rows)
    assert found.rates[0].percent == pytest.approx((-50 - 10) / 2) and found.rates[0].num_pictures == 2
    assert [point.bits_per_pixel for point in found.curves["avif"]] == pytest.approx(list(0.7 * rates))


def test_files_that_lose_nothing_are_no_points():
    rows = list_rows("p", "jpeg", BD["rate_a"], BD["quality_a"], SCORES)
    more = list_rows("p", "webp", [*BD["rate_b"], 4000.0], [*BD["quality_b"], math.inf], [*SCORES, 57.0])
    for lost in (math.inf, None):  # JSON has no infinite numbers
        more[-1]["psnr_y"] = lost
        found = summarize_ladders([*rows, *more])
        assert found.rates[0].percent == pytest.approx(BD["rate_pchip_percent"], rel=0, abs=1e-9)
        assert not found.keys and not found.curves
