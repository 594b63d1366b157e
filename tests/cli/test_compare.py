# SPDX-License-Identifier: Apache-2.0
"""`musiq compare` from the words of the command line to rows, report and tables."""

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from fixtures.golden_assessment import DIRECTORY, REFERENCE
from PIL import Image
from places import ROOT

from musiq_hf.assessment import comparison_job, paired_difference
from musiq_hf.cli import main
from musiq_hf.metrics import quality_metrics
from musiq_hf.pictures.video import open_video
from musiq_hf.scoring import QualityMetric, load_quality

pytestmark = pytest.mark.usefixtures("alone")
KEYS = ["a.png", "b.png", "d/c.png", "e.png", "f.png"]
PSNR, SSIM = ["psnr_y", "psnr_rgb"], ["ssim_y", "ssim_rgb"]


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Five originals, and what two systems have made of them, in the working directory."""
    monkeypatch.chdir(tmp_path)
    numbers = np.random.default_rng(0)
    for index, key in enumerate(KEYS):
        pixels = numbers.integers(60, 190, (24 + index, 30, 3))
        for folder, noise, suffix in (("ref", 0, ".png"), ("one", 20, ".png"), ("two", 10 + 4 * index, ".webp")):
            path = Path(folder, key).with_suffix(suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            changed = pixels + numbers.integers(-noise, noise + 1, pixels.shape)
            Image.fromarray(changed.astype(np.uint8)).save(path, lossless=True)
    return tmp_path


@pytest.fixture
def run(checkpoint):
    """Run `musiq compare`, with the tiny checkpoint where MUSIQ is asked for, and return the exit code."""

    def run(*words):
        given = [str(word) for word in words]
        has_scores = "--metrics" not in given or "musiq" in given[given.index("--metrics") + 1]
        return main(["compare", *given, *(["-m", checkpoint] if has_scores else []), "--device", "cpu"])

    return run


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("border", [0, 2, 5])
def test_golden_pictures_have_their_numbers(run, tmp_path, border):
    output = tmp_path / "rows.csv"
    distorted = [DIRECTORY / name for name in ("still1_jpeg25.jpg", "still1_nearest.png")]
    words = ("--metrics", "ssim,psnr", "--crop_border", border, "-o", output)
    assert run(DIRECTORY / "still1.png", *distorted, *words) == 0
    rows = read_csv(output)
    assert [(row["key"], row["system"]) for row in rows] == [("still1.png", path.stem) for path in distorted]
    columns = ["key", "system", "width", "height", "frames", *PSNR, *SSIM, "signature", "error"]
    assert list(rows[0]) == columns and (rows[0]["width"], rows[0]["height"], rows[0]["frames"]) == ("127", "161", "1")
    end = f"_crop{border}" if border else ""
    for row, path in zip(rows, distorted, strict=True):
        expected = REFERENCE["pairs"][f"still1.png|{path.name}"]
        for name in ("psnr_y", "ssim_y") if border else (*PSNR, *SSIM):
            assert float(row[name]) == pytest.approx(expected[name + end], abs=1e-6)


def test_scores_are_those_of_musiq_score_and_the_reference_is_scored_once(run, folders, checkpoint, monkeypatch):
    opened = []
    original = comparison_job.FileScorer._score_pictures

    def watch(self, paths):
        opened.extend(paths)
        return original(self, paths)

    monkeypatch.setattr(comparison_job.FileScorer, "_score_pictures", watch)
    assert run("ref", "one", "mine=two", "-o", "rows.csv", "--metrics", "musiq") == 0
    assert opened[:3] == ["ref/a.png", "one/a.png", "two/a.webp"] and len(opened) == len(set(opened)) == 15
    rows = read_csv("rows.csv")
    assert [(row["key"], row["system"]) for row in rows] == [(key, name) for key in KEYS for name in ("one", "mine")]
    assert list(rows[0]) == "key system width height frames score reference_score model signature error".split()
    assert main(["score", "ref", "one", "two", "-o", "scores.csv", "-m", checkpoint, "--device", "cpu"]) == 0
    scores = {row["key"].partition(".")[0]: row["score"] for row in read_csv("scores.csv")}
    for row in rows:
        stem, folder = row["key"].partition(".")[0], {"one": "one", "mine": "two"}[row["system"]]
        assert (row["score"], row["reference_score"]) == (scores[f"{folder}/{stem}"], scores[f"ref/{stem}"])
        assert row["width"] == "30" and row["model"] == checkpoint


def test_the_formats_hold_the_same_rows(run, folders):
    shutil.copy("ref/a.png", "one/a.png")  # PSNR is infinite
    for suffix in ("csv", "jsonl", "parquet"):
        assert run("ref", "one", "two", "-o", f"rows.{suffix}", "--metrics", "psnr", "--report", f"{suffix}.json") == 0
    rows = pyarrow.parquet.read_table("rows.parquet").to_pylist()
    assert rows[0]["psnr_y"] == rows[0]["psnr_rgb"] == math.inf and len(rows) == 10
    texts = [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
    assert read_csv("rows.csv") == texts
    lines = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    assert lines[0]["psnr_y"] is lines[0]["psnr_rgb"] is None and lines[1:] == rows[1:]
    assert Path("csv.json").read_text() == Path("jsonl.json").read_text() == Path("parquet.json").read_text()
    content = json.loads(Path("csv.json").read_text())
    assert content["groups"]["all"]["one"] == {"num": 5, "psnr_y": None, "psnr_rgb": None}
    assert content["best"]["all"]["psnr_y"] == "two" and content["pairs"][0]["num_pairs"] == 4
    assert content["pairs"][0]["mean"] > 0  # by the four files that differ from their references


def test_the_report_has_means_and_differences_of_the_rows(run, folders, capsys):
    Path("genres.csv").write_text("key,group\na,x\nb.png,x\nd/c,x\ne,y\nnone,y\n")
    words = ("--groups", "genres.csv", "--bins", "cf,si", "--report", "report.json", "-o", "rows.csv")
    assert run("ref", "one", "two", *words) == 0
    printed = capsys.readouterr()
    rows, content = read_csv("rows.csv"), json.loads(Path("report.json").read_text())
    assert [row["group"] for row in rows[::2]] == ["x", "x", "x", "y", ""]
    assert list(rows[0])[:4] == ["key", "system", "group", "width"]
    assert list(content["groups"])[:3] == ["all", "x", "y"] and "si: low" in content["groups"]
    for group, keep in {"all": rows, "x": rows[:6], "y": rows[6:8]}.items():
        for system in ("one", "two"):
            own, chosen = content["groups"][group][system], [row for row in keep if row["system"] == system]
            assert own["num"] == len(chosen)
            for name in (*PSNR, *SSIM, "score"):
                assert own[name] == pytest.approx(np.mean([float(row[name]) for row in chosen]), abs=1e-9)
        best = {name: max(("one", "two"), key=lambda system: content["groups"][group][system][name]) for name in PSNR}
        assert best.items() <= content["best"][group].items()
    pair = next(pair for pair in content["pairs"] if (pair["group"], pair["metric"]) == ("all", "score"))
    sides = [[float(row["score"]) for row in rows if row["system"] == system] for system in ("one", "two")]
    assert {name: pair[name] for name in paired_difference(*sides)._fields} == paired_difference(*sides)._asdict()
    assert (pair["first"], pair["second"]) == ("one", "two")
    assert {pair["group"] for pair in content["pairs"]} == {"all", "x"}
    assert "## By group" in Path("report.md").read_text()
    assert printed.out.splitlines()[0].split() == ["group", "system", "num", *PSNR, *SSIM, "score"]
    assert "genres.csv: 1 key of it matches no file: none." in printed.err
    assert "genres.csv: 1 key without a group: f.png." in printed.err
    assert printed.err.count("agree with people on upscaled pictures") == 1


def test_opinions_show_which_metric_to_trust(run, folders, capsys):
    assert run("ref", "one", "two", "-o", "rows.csv", "--metrics", "psnr") == 0
    rows = read_csv("rows.csv")
    opinions = [round(float(row["psnr_rgb"]) + index % 2, 2) for index, row in enumerate(rows)]
    lines = [f"{row['key']},{row['system']},{mos}\n" for row, mos in zip(rows, opinions, strict=True)]
    Path("mos.csv").write_text("key,system,mos\n" + "".join(lines))
    assert run("ref", "one", "two", "--metrics", "psnr", "--mos", "mos.csv", "--report", "r.json") == 0
    expected = quality_metrics([float(row["psnr_rgb"]) for row in rows], opinions)
    own = json.loads(Path("r.json").read_text())["mos"]["all"]["psnr_rgb"]
    assert {name: own[name] for name in ("srcc", "plcc", "krcc")} == pytest.approx(
        {name: expected[name] for name in ("srcc", "plcc", "krcc")}
    )
    assert own["num"] == 10
    printed = capsys.readouterr().out
    assert f"all    psnr_rgb   10   {expected['srcc']:.4f}*" in printed


def test_bad_files_are_rows(run, folders, capsys):
    Path("one/a.png").write_bytes(b"no picture")
    Path("two/b.webp").unlink()
    Image.new("RGB", (20, 20)).save("two/extra.png")
    Image.new("RGB", (9, 9)).save("one/e.png")
    assert run("ref", "one", "two", "-o", "rows.csv", "--report", "r.json") == 1
    rows = {(row["key"], row["system"]): row for row in read_csv("rows.csv")}
    assert list(rows) == [(key, name) for key in KEYS for name in ("one", "two")][:8] + [
        ("extra.png", "two"),
        ("f.png", "one"),
        ("f.png", "two"),
    ]
    errors = {place: row["error"] for place, row in rows.items() if row["error"]}
    assert list(errors) == [("a.png", "one"), ("b.png", "two"), ("e.png", "one"), ("extra.png", "two")]
    assert "one/a.png: not a picture that Pillow can read." in errors["a.png", "one"]
    assert errors["b.png", "two"].startswith("b.png: the system two has no file that matches it.")
    assert "one size, got 30x27 and 9x9" in errors["e.png", "one"]
    assert errors["extra.png", "two"].startswith("extra.png: no file of the reference matches it.")
    for place in errors:
        assert not rows[place]["score"] and not rows[place]["psnr_y"]
    assert rows["a.png", "two"]["score"] and not rows["a.png", "two"]["error"]
    content = json.loads(Path("r.json").read_text())
    assert (content["keys"], content["sound_keys"]) == (6, 2) and content["groups"]["all"]["two"]["num"] == 2
    assert "rows.csv: 6 keys, 4 of them with an error instead of numbers" in capsys.readouterr().err


def test_a_reference_that_cannot_be_read_is_an_error_of_all_systems(run, folders):
    Path("ref/b.png").write_bytes(b"")
    for metrics in ("psnr", "musiq"):
        assert run("ref", "one", "two", "-o", f"{metrics}.csv", "--metrics", metrics) == 1
        rows = read_csv(f"{metrics}.csv")
        assert [row["key"] for row in rows if "ref/b.png" in row["error"]] == ["b.png", "b.png"]


def test_without_an_output_rows_and_means_are_printed(run, folders, capsys):
    Path("one/a.png").unlink()
    assert run("ref", "one", "two", "--metrics", "psnr") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["psnr_y", "psnr_rgb", "system", "key"] and len(lines) == 1 + 10 + 4
    assert "one  error: a.png: the system one has no file" in lines[1]
    assert lines[-2].split()[:3] == ["all", "two", "4"] and sorted(os.listdir()) == ["one", "ref", "two"]


def interrupt_after(monkeypatch, number, taken):
    """Raise what Ctrl-C raises once so many keys have been compared; note them."""
    original = comparison_job.SystemsComparison._measure_match

    def measure(self, match):
        if len(taken) == number:
            raise KeyboardInterrupt
        taken.append(match.key)
        return original(self, match)

    monkeypatch.setattr(comparison_job.SystemsComparison, "_measure_match", measure)


def test_an_interrupted_run_continues(run, folders, monkeypatch, capsys):
    Path("groups.csv").write_text("key,genre,motion\na,x,\nb,y,high\n")
    words = ("ref", "one", "two", "--groups", "groups.csv", "--metrics", "psnr,musiq")
    (folders / "one" / "b.png").unlink()
    assert run(*words, "-o", "whole.csv", "--report", "whole.json") == 1
    taken = []
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2, taken)
        assert run(*words, "-o", "rows.csv", "--report", "rows.json") == 130
    assert "Stopped after 2 keys. The same command continues." in capsys.readouterr().err
    assert not Path("rows.csv").exists() and not Path("rows.json").exists()
    Path("groups.csv").write_text("key,genre,motion\na,x,\nb,y,low\n")
    assert run(*words, "-o", "rows.csv") == 2
    assert "is of an unfinished run with other settings (hash of the groups:" in capsys.readouterr().err
    Path("groups.csv").write_text("key,genre,motion\na,x,\nb,y,high\n")
    interrupt_after(monkeypatch, None, taken)
    assert run(*words, "-o", "rows.csv", "--report", "rows.json") == 1
    assert taken == KEYS
    assert Path("rows.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert Path("rows.json").read_text() == Path("whole.json").read_text() and not Path("rows.csv.part").exists()


@pytest.mark.slow
def test_five_kills_cost_nothing(folders, checkpoint):
    for index in range(60):
        for folder in ("ref", "one"):
            shutil.copy(f"{folder}/a.png", f"{folder}/z{index:02}.png")
    words = ["compare", "ref", "one", "two", "-m", checkpoint, "--device", "cpu", "--report", "r.json", "-o"]
    assert main([*words, "whole.csv"]) == 1
    output, part, report = Path("rows.csv"), Path("rows.csv.part"), Path("r.json").read_bytes()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for number in (3, 14, 15, 30, 50):  # rows of so many keys, then it is killed
        command = [sys.executable, "-m", "musiq_hf.cli", *words, str(output)]
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and (not part.exists() or part.read_bytes().count(b"\n") <= number):
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL and not output.exists()
    Path("r.json").unlink()
    assert main([*words, str(output)]) == 1
    assert output.read_bytes() == Path("whole.csv").read_bytes() and Path("r.json").read_bytes() == report


def test_a_finished_table_is_left_alone_and_still_gives_its_report(run, folders, capsys):
    words = ("ref", "one", "two", "-o", "rows.csv", "--metrics", "psnr")
    assert run(*words) == 0
    shutil.copy("rows.csv", "copy.csv")
    assert run(*words, "--report", "r.json", "--bins", "si") == 0
    assert "It was finished before, with the same keys and settings: nothing to do." in capsys.readouterr().err
    assert json.loads(Path("r.json").read_text())["groups"]["all"]["one"]["num"] == 5
    assert Path("rows.csv").read_bytes() == Path("copy.csv").read_bytes()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--crop_border", "1"], "with other settings (signature: crop_border:0, now crop_border:1)"),
        (["--metrics", "ssim"], "with other columns (psnr_y)"),
        (["--groups", "groups.csv"], "with other columns (group)"),
        (["three"], "with 1 rows of a.png, and 2 are to be made"),
    ],
)
def test_a_table_of_another_comparison_is_not_replaced(run, folders, capsys, words, sentence):
    shutil.copytree("two", "three")
    Path("groups.csv").write_text("key,group\na,x\n")
    assert run("ref", "one", "-o", "rows.csv", "--metrics", "psnr") == 0
    content = Path("rows.csv").read_bytes()
    given = ["--metrics", "psnr"] if "--metrics" not in words else []
    assert run("ref", "one", *words, "-o", "rows.csv", *given) == 2
    assert f"rows.csv exists already, {sentence}. Add --overwrite" in capsys.readouterr().err
    assert Path("rows.csv").read_bytes() == content
    assert run("ref", "one", *words, "-o", "rows.csv", *given, "--overwrite") == 0
    assert Path("rows.csv").read_bytes() != content


def test_a_table_of_another_system_or_of_other_groups_is_not_replaced(run, folders, capsys):
    Path("groups.csv").write_text("key,group\na,x\n")
    words = ("ref", "one", "-o", "rows.csv", "--metrics", "psnr", "--groups", "groups.csv")
    assert run(*words) == 0
    Path("groups.csv").write_text("key,group\na,y\n")
    assert run(*words) == 2
    assert "with other values (group of a.png: x, now y)" in capsys.readouterr().err
    assert run("ref", "two", *words[2:]) == 2
    assert "with other values (system of a.png: one, now two)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["ref", "one", "one"], "one and one are both named one. Name one otherwise: NAME=one"),
        (["ref", "gone"], "gone: no such file or folder. Give files, or folders of them."),
        (["ref", "one/a.png"], "ref is a folder and one/a.png is a file. Give all files, or all folders."),
        (
            ["ref", "one", "--metrics", "psnr,mse"],
            "'psnr' or 'ssim' or 'vmaf' or 'musiq', got 'mse'",
        ),
        (["ref", "one", "--metrics", "psnr,psnr"], "`metrics` names psnr twice. Give it once."),
        (["ref", "one", "--bins", "motion"], "`bins` must be 'si' or 'ti' or 'cf', got 'motion'."),
        (["ref", "one", "--metrics", "psnr", "--every", "3"], "`every` is of scores, which are the metric musiq."),
        (["ref", "one", "--metrics", "psnr", "-m", "x"], "`model` is of scores, which are the metric musiq."),
        (["ref", "one", "--metrics", "musiq", "--crop_border", "2"], "`crop_border` is of PSNR, SSIM and VMAF"),
        (["ref", "one", "--crop_border", "-1"], "`crop_border` must be 0 or more, got -1."),
        (["ref", "one", "--groups", "gone.csv"], "gone.csv: no such file. Give a CSV table."),
        (["ref", "one", "--mos", "ref"], "ref: no such file. Give a CSV table."),
        (["ref", "one", "--report", "report.html"], "The report is a .json file"),
        (["ref", "one", "-o", "rows.txt"], "rows.txt: tables are written as .csv, .jsonl, .parquet files."),
        (["ref", "one", "--groups", "g.csv", "-o", "g.csv"], "g.csv is read, and would be lost. Choose another OUT."),
    ],
)
def test_mistakes_in_the_words_are_sentences_before_anything_is_loaded(folders, capsys, monkeypatch, words, sentence):
    monkeypatch.setattr("musiq_hf.models.auto.register", lambda: pytest.fail("loaded"))
    Path("g.csv").write_text("key,group\n")
    assert main(["compare", *words]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 2 and "\nExample: musiq compare " in error


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--metrics", "psnr,vmaf"],
            "VMAF is of videos, and only pictures are compared. Leave vmaf out of",
        ),
        (["--bins", "ti"], "Temporal information (ti) is of videos, and only pictures are compared."),
        (["--every", "2"], "`every` is of videos, and only pictures are compared. Leave it out."),
        (["--groups", "g.csv"], "g.csv: no key of it matches a file, such as a.png, b.png, d/c.png, ..."),
    ],
)
def test_mistakes_that_the_files_show_are_sentences(run, folders, capsys, words, sentence):
    Path("g.csv").write_text("key,group\nx,y\n")
    assert run("ref", "one", *words, "-o", "rows.csv") == 2
    assert sentence in capsys.readouterr().err and not Path("rows.csv").exists()


@pytest.fixture
def clips(tmp_path, monkeypatch):
    """Two clips and their encodes, one of which lacks its partner, in the working directory."""
    pytest.importorskip("av")
    monkeypatch.chdir(tmp_path)
    for source, target in (
        ("cut.mkv", "ref/a/cut.mkv"),
        ("cut_crf33.mp4", "x264/a/cut.mp4"),
        ("ten.mkv", "ref/ten.mkv"),
        ("ten_crf30.mp4", "x264/ten.mp4"),
        ("cut_crf33.mp4", "wrong/ten.mp4"),
    ):
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(DIRECTORY / "clips" / source, target)
    return tmp_path


def test_videos_have_their_numbers_and_the_mean_score_of_their_frames(run, clips, checkpoint):
    words = ("--metrics", "psnr,ssim,musiq", "--every", "5", "--bins", "ti", "--report", "r.json")
    assert run("ref", "x264", "-o", "rows.csv", *words) == 0
    rows = read_csv("rows.csv")
    found = [(row["key"], row["frames"], row["width"]) for row in rows]
    assert found == [("a/cut.mkv", "12", "320"), ("ten.mkv", "5", "320")]
    for row, pair in zip(rows, ("cut.mkv|cut_crf33.mp4", "ten.mkv|ten_crf30.mp4"), strict=True):
        for name in ("psnr_y", "ssim_y"):
            assert float(row[name]) == pytest.approx(REFERENCE["clip_pairs"][pair][name], abs=1e-6)
        assert row["psnr_rgb"] == row["ssim_rgb"] == ""
    model, processor = load_quality(checkpoint)
    for column, file in (("reference_score", "ref/a/cut.mkv"), ("score", "x264/a/cut.mp4")):
        metric = QualityMetric(model, processor, batch_size=1)
        with open_video(file) as video:
            frames = list(video.frames())[::5]
            metric.update([Image.fromarray(frame.to_rgb()) for frame in frames])
        assert float(rows[0][column]) == pytest.approx(float(metric.compute()), abs=1e-5)
    content = json.loads(Path("r.json").read_text())
    assert list(content["groups"]) == ["all", "ti: low", "ti: high"]
    assert list(content["groups"]["all"]["x264"]) == ["num", "psnr_y", "ssim_y", "score"]
    assert "|every:5|measures:psnr+ssim|crop_border:0|av:" in content["signature"]


def test_a_frame_a_second_is_scored_by_default(run, clips):
    for name, words in (("default", ()), ("24", ("--every", "24")), ("1", ("--every", "1"))):
        assert run("ref", "x264", "--metrics", "musiq", "-o", f"{name}.csv", *words) == 0
    default, second, whole = ([row["score"] for row in read_csv(f"{name}.csv")] for name in ("default", "24", "1"))
    assert default == second != whole


def test_vmaf_of_videos_has_its_numbers(run, clips):
    pytest.importorskip("imageio_ffmpeg")
    assert run("ref", "x264", "--metrics", "vmaf", "-o", "rows.csv") == 0
    rows, expected = read_csv("rows.csv"), REFERENCE["clip_pairs"]["cut.mkv|cut_crf33.mp4"]
    for name in ("vmaf", "vmaf_harmonic_mean", "vmaf_min"):
        assert float(rows[0][name]) == pytest.approx(expected[{"vmaf": "vmaf_mean"}.get(name, name)], abs=0.02)
    assert "libvmaf-" in rows[0]["signature"]


def test_bad_videos_are_rows(run, clips, capsys):
    content = Path("x264/ten.mp4").read_bytes()
    Path("x264/ten.mp4").write_bytes(content[: len(content) // 2])
    Image.new("RGB", (320, 180)).save("wrong/cut.png")
    Path("wrong/a").mkdir()
    Path("wrong/cut.png").rename("wrong/a/cut.png")
    for metrics in ("psnr", "musiq"):
        assert run("ref", "x264", "wrong", "--metrics", metrics, "-o", f"{metrics}.csv") == 1
        rows = read_csv(f"{metrics}.csv")
        errors = [row["error"] for row in rows]
        assert "x264/ten.mp4" in errors[2] and not errors[0] and len(rows) == 4
        assert bool(errors[1]) == bool(errors[3]) == (metrics == "psnr")


def test_a_system_alone_that_has_videos_needs_their_decoder_too(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(DIRECTORY / "still1.png", "a.png")
    shutil.copy(DIRECTORY / "clips" / "cut_crf33.mp4", "b.mp4")
    assert run("a.png", "b.mp4", "-o", "rows.csv", "--metrics", "musiq", "--every", 50) == 0
    parts = read_csv("rows.csv")[0]["signature"].split("|")
    assert "every:50" in parts and any(part.startswith("av:") for part in parts)
    monkeypatch.setitem(sys.modules, "av", None)
    assert run("a.png", "b.mp4", "-o", "other.csv", "--metrics", "musiq") == 2
    assert "av is needed here. Install it with: pip" in capsys.readouterr().err and not list(Path().glob("other*"))


def test_a_folder_whose_name_is_no_text_is_a_system(run, folders):
    os.rename(b"one", b"\xffne")
    assert run("ref", os.fsdecode(b"\xffne"), "-o", "rows.csv", "--metrics", "psnr", "--report", "report.json") == 0
    assert {row["system"] for row in read_csv("rows.csv")} == {"\\udcffne"}
