# SPDX-License-Identifier: Apache-2.0
"""The example that compares upscalers: on clips of its own, and on a folder of the user's."""

import csv
import json

import av
import numpy as np
import pytest
from PIL import Image

from examples import select_upscaler
from musiq_hf.pictures import make_picture


@pytest.fixture
def select(monkeypatch, tmp_path, capsys):
    """(exit code, output, errors) of the script in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr("sys.argv", ["select_upscaler.py", *words])
        return select_upscaler.main(), *capsys.readouterr()

    return run


def test_clips_are_made_and_compared_by_class(select, monkeypatch, tmp_path):
    for name, value in {"WIDTH": 96, "HEIGHT": 64, "NUM_FRAMES": 3, "CLIPS_OF_A_KIND": 1}.items():
        monkeypatch.setattr(select_upscaler, name, value)
    monkeypatch.setattr(select_upscaler, "SPEEDS", {"slow": 1})
    code, printed, errors = select("--report", "page.html")
    assert code == 0, errors
    output = tmp_path / "runs" / "select_upscaler"
    with open(output / "rows.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows[::3]] == ["camera_slow_1.mkv", "graphics_slow_1.mkv", "texture_slow_1.mkv"]
    assert [row["system"] for row in rows[:3]] == ["bicubic", "lanczos", "nearest"]
    assert all(row[metric] and not row["error"] for row in rows for metric in ("psnr_y", "ssim_y", "vmaf", "score"))
    report = json.loads((output / "report.json").read_text())
    assert {"all", "content: camera", "content: graphics", "motion: slow"} <= set(report["groups"])
    assert {pair["metric"] for pair in report["pairs"]} >= {"psnr_y", "ssim_y", "vmaf", "score"}
    assert printed.count("ranks nothing") == 1 and "## By content" in printed and "## Differences" not in printed
    page = (tmp_path / "page.html").read_text()
    assert page.count("<figure>") == 12 and page.count("data:image/png") == 13 and page.count("ranks nothing") == 1
    assert "<h2>Differences</h2>" in page and "95 % interval" in page


def test_an_upscaler_sees_the_picture_halved():
    frame = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    nearest = np.asarray(select_upscaler.upscale(frame, Image.Resampling.NEAREST))
    assert nearest.shape == (8, 8) and (nearest[:2, :2] == nearest[0, 0]).all()
    assert nearest[0, 0] == pytest.approx(np.arange(64).reshape(8, 8)[:2, :2].mean(), abs=0.5)


def test_a_clip_is_written_without_loss(tmp_path):
    frames = [Image.new("RGB", (select_upscaler.WIDTH, select_upscaler.HEIGHT), (level,) * 3) for level in (0, 255)]
    select_upscaler.write_clip(tmp_path / "a" / "clip.mkv", frames)
    with av.open(str(tmp_path / "a" / "clip.mkv")) as container:
        assert [set(frame.to_ndarray()[0].tolist()) for frame in container.decode(video=0)] == [{16}, {235}]


def test_a_folder_of_pictures_is_compared_as_it_is(select, tmp_path):
    for place in range(3):
        picture = make_picture(seed=place, width=64, height=48)
        for system in ("reference", "mine", "other <b>"):
            (tmp_path / "data" / system).mkdir(parents=True, exist_ok=True)
            changed = picture if system == "reference" else picture.reduce(2).resize(picture.size)
            changed.save(tmp_path / "data" / system / f"p{place}.png")
            (tmp_path / "data" / system / f"p{place}.txt").write_text("log of the encoder")
    (tmp_path / "data" / "other <b>" / "p2.png").unlink()
    (tmp_path / "data" / "mine" / "p1.png").write_bytes(b"damaged")
    (tmp_path / "data" / "groups.csv").write_text("key,price\np0.png,$\\none$\n")
    code, printed, errors = select("--data", "data", "--report", "page.html", "--output_dir", "out")
    assert code == 0, errors
    assert "VMAF" not in printed and "Means over 1 of 3 keys" in printed and "unproven" in printed
    page = (tmp_path / "page.html").read_text()
    assert page.count("<figure>") == 3 and "<figcaption>other &lt;b&gt;</figcaption>" in page and "<b>" not in page
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "rows.csv",
        "report.json",
        "report.md",
        "differences.png",
    }


def test_mistakes_are_one_sentence(select, tmp_path):
    code, printed, errors = select("--data", ".", "--report", "page.html")
    assert (code, printed) == (2, "") and "must have a folder `reference` and those of two" in errors
    for name in ("reference", "alone"):
        (tmp_path / "data" / name).mkdir(parents=True)
    assert select("--data", "data")[0] == 2
    assert "two systems or more, got no folder" in select("--data", "nowhere")[2]
    code, _, errors = select("--report", "page.pdf")
    assert code == 2 and "page.pdf: a report is HTML" in errors and not (tmp_path / "runs").exists()
