# SPDX-License-Identifier: Apache-2.0
"""The sanity check on degraded copies, with scorers whose answers are known."""

import json
import runpy
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from places import ROOT

from musiq_hf import MusiqForImageClassification, MusiqImageProcessor, evaluation
from musiq_hf.evaluation import robustness
from musiq_hf.evaluation.robustness import center_crop, make_scorer, measure_half_size, measure_robustness
from musiq_hf.metrics.rendering import render
from musiq_hf.metrics.reports import HalfSizeScores, PictureScores, TargetsMet, read_report
from musiq_hf.pictures.degradations import FAULTS, Fault
from musiq_hf.pictures.finding import find_pictures

SCRIPT = ROOT / "examples" / "evaluate_robustness.py"
SIZE, CROPPED = (90, 60), (60, 40)


def texture(seed: int) -> Image.Image:
    """Smooth blobs with some grain: every fault changes it."""
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2)), dtype=np.float64)
    return Image.fromarray((128 + 6 * (smooth - 128)).clip(30, 225).astype(np.uint8))


def distance_to(reference: Image.Image):
    """A scorer that knows the pristine picture: minus the root mean square difference from it, or from its middle."""
    whole = np.asarray(reference, dtype=np.float64)
    references = {SIZE: whole, CROPPED: whole[10:50, 15:75]}

    def score(pictures):
        return [-float(np.sqrt(np.mean((np.asarray(image) - references[image.size]) ** 2))) for image in pictures]

    return score


def constant(pictures):
    return [50.0] * len(pictures)


def roughness(pictures):
    """Takes noise for detail."""
    return [float(np.abs(np.diff(np.asarray(image, dtype=np.float64), axis=1)).mean()) for image in pictures]


def mean_level(pictures):
    return [float(np.asarray(image).mean()) for image in pictures]


@pytest.fixture
def darkening(monkeypatch):
    """Two faults whose strength can be read from any part of a flat picture."""
    faults = {
        name: Fault(
            label=name, unit="levels", levels=(1, 2, 4, 8, 16), apply=lambda image, level, seed: shift(image, -level)
        )
        for name in ("dark", "dim")
    }
    monkeypatch.setattr(robustness, "FAULTS", faults)


def shift(image: Image.Image, by: float) -> Image.Image:
    return Image.fromarray((np.asarray(image, dtype=np.int16) + int(by)).astype(np.uint8))


def test_scorer_that_knows_the_strength_is_perfect(darkening):
    report = measure_robustness(mean_level, [Image.new("RGB", (12, 9), (level,) * 3) for level in (100, 150, 200)])
    for part in (report.overall, *report.faults.values()):
        assert (part.srcc, part.srcc_with_pristine, part.pristine_above) == pytest.approx((-1, -1, 1))
        assert part.crop_srcc == pytest.approx(1)
        assert part.met == TargetsMet(srcc=True, pristine_above=True, crop_srcc=True)
    assert report.num_pictures == 3
    assert report.faults["dim"].mean_scores == pytest.approx([150, 149, 148, 146, 142, 134])


def test_real_faults_grow_with_their_levels():
    reference = texture(0)
    report = measure_robustness(distance_to(reference), [reference])
    for kind in FAULTS:
        assert report.faults[kind].srcc == pytest.approx(-1), kind
        assert report.faults[kind].pristine_above == 1
    assert report.overall.crop_srcc > 0.9
    assert all(report.overall.met.to_json().values())
    row = report.pictures[0]
    assert row.pristine == 0
    # 4 levels of noise are 4 levels of root mean square difference.
    assert row.whole["gaussian_noise"][:3] == pytest.approx((-4, -8, -16), rel=0.05)


def test_constant_scorer_ranks_nothing():
    report = measure_robustness(constant, [texture(0)])
    for part in (report.overall, *report.faults.values()):
        assert (part.srcc, part.srcc_with_pristine, part.pristine_above, part.crop_srcc) == (0, 0, 0, 0)
        assert part.met == TargetsMet(srcc=False, pristine_above=False, crop_srcc=False)


def test_scorer_that_likes_noise_fails_for_noise_alone():
    report = measure_robustness(roughness, [texture(0), texture(1)])
    noise, blur = report.faults["gaussian_noise"], report.faults["gaussian_blur"]
    assert (blur.srcc, noise.srcc) == (pytest.approx(-1), pytest.approx(1))
    assert (blur.pristine_above, noise.pristine_above) == (1, 0)
    assert blur.met.srcc and not noise.met.srcc
    assert not report.overall.met.srcc and not report.overall.met.pristine_above
    kinds = report.faults.values()
    assert report.overall.srcc == pytest.approx(np.mean([fault.srcc for fault in kinds]))


def test_pristine_counts_only_in_the_figure_that_says_so(darkening):
    """A scorer that ranks the copies but puts the pristine picture last."""

    def score(pictures):
        return [0.0 if value == 100 else value for value in mean_level(pictures)]

    part = measure_robustness(score, [Image.new("RGB", (12, 9), (100,) * 3)]).overall
    assert (part.srcc, part.pristine_above) == (pytest.approx(-1), 0)
    assert part.srcc_with_pristine == pytest.approx(1 - 6 * 40 / 210)  # squared differences of ranks: 16, 4, 4, 16


def test_target_that_is_just_reached_is_met(monkeypatch):
    """Twelve SRCCs of tenths whose mean is -0.95, in floating point a little above it."""
    tenths = [-1.0] * 10 + [-0.7] * 2
    assert np.mean(tenths) > robustness.TARGETS.srcc
    srccs = iter([*tenths, *[0.0] * 13])
    monkeypatch.setattr(robustness, "_compute_srcc", lambda first, second: next(srccs))
    scores = {kind: [0.0] * 5 for kind in FAULTS}
    row = PictureScores(picture="a.png", pristine=1.0, whole=scores, cropped=scores)
    summary = robustness._summarize([row] * 4, list(FAULTS), max_srcc=robustness.TARGETS.srcc, min_above=1)
    assert summary.met.srcc and summary.met.pristine_above


def summarize(*jpeg: tuple[float, ...]):
    """Figures over all faults of pictures with the score 50, whose copies score as they should but for JPEG."""
    falling = (40.0, 30.0, 20.0, 10.0, 0.0)
    rows = []
    for scores in jpeg:
        copies = dict.fromkeys(FAULTS, falling) | {"jpeg": scores}
        rows.append(PictureScores(picture="a.png", pristine=50.0, whole=copies, cropped=copies))
    return robustness._summarize_all(rows, [robustness._make_fault_report(rows, kind) for kind in FAULTS])


def test_what_is_met_over_all_faults_is_met_by_each():
    good, above, swapped = (40, 30, 20, 10, 0), (51, 30, 20, 10, 0), (30, 40, 20, 10, 0)
    assert all(summarize(good, good).met.to_json().values())
    # Of 105 pairs 3 are in the wrong order, all of them of JPEG: 97.1 % are right, and 91.4 % of JPEG.
    report = summarize(*[above] * 3, *[good] * 4)
    assert (
        report.pristine_above == pytest.approx(102 / 105) and report.pristine_above > robustness.TARGETS.pristine_above
    )
    assert report.met.srcc and not report.met.pristine_above
    report = summarize(swapped, swapped)
    assert report.srcc == pytest.approx(-2.9 / 3) and report.srcc < robustness.TARGETS.srcc
    assert report.met.pristine_above and not report.met.srcc


def test_crops_are_the_middle_of_the_same_copies(darkening):
    """Marked corners change the whole picture's mean but not that of its middle."""
    image = np.full((60, 90, 3), 100, dtype=np.uint8)
    image[:10], image[50:], image[:, :15], image[:, 75:] = 200, 200, 200, 200
    row = measure_robustness(mean_level, [Image.fromarray(image)]).pictures[0]
    assert row.cropped["dark"] == (99, 98, 96, 92, 84)
    assert row.whole["dark"][0] > 130
    assert center_crop(Image.new("RGB", (768, 512))).size == (512, 341)


def test_noise_repeats():
    first, second = (measure_robustness(roughness, [texture(0), texture(1)]) for _ in range(2))
    assert first == second
    rows = first.pictures
    assert rows[0].whole["gaussian_noise"] != rows[1].whole["gaussian_noise"]


def test_files_of_any_mode_are_named_without_their_folder(tmp_path, darkening):
    Image.new("L", (12, 9), 100).save(tmp_path / "gray.png")
    Image.new("RGBA", (9, 12), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    rows = measure_robustness(mean_level, find_pictures(tmp_path)).pictures
    assert [(row.picture, row.pristine) for row in rows] == [("clear.png", 255), ("gray.png", 100)]
    unnamed = measure_robustness(mean_level, [Image.new("RGB", (12, 9), (100,) * 3)])
    assert unnamed.pictures[0].picture == "picture 0"


def test_half_size_is_half_of_each_side_one_picture_at_a_time():
    calls = []

    def width(pictures):
        calls.append([image.size for image in pictures])
        return [float(image.width) for image in pictures]

    rows = measure_half_size(width, [Image.new("RGB", (41, 20)), Image.new("RGB", (10, 1))])
    assert calls == [[(41, 20)], [(20, 10)], [(10, 1)], [(5, 1)]]
    assert rows[0] == HalfSizeScores(picture="picture 0", width=41, height=20, full=41, half=20)


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda pictures: [float("nan")] * len(pictures), "picture 0: scores must be finite, got .*nan"),
        (lambda pictures: [1.0], "picture 0: one score per picture was expected, got 1 for 5"),
    ],
)
def test_unusable_scores_are_refused(score, message):
    with pytest.raises(ValueError, match=message):
        measure_robustness(score, [texture(0)])


def test_no_pictures_are_refused(tmp_path):
    with pytest.raises(ValueError, match="At least one pristine picture is needed, got none"):
        measure_robustness(constant, [])
    with pytest.raises(ValueError, match="At least one large picture is needed, got none"):
        measure_half_size(constant, [])
    with pytest.raises(ValueError, match="absent: no such folder"):
        find_pictures(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match="holds no picture. Give a folder"):
        find_pictures(tmp_path)


def test_damaged_pictures_are_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="broken.png: not a picture that Pillow can read"):
        measure_robustness(constant, find_pictures(tmp_path))


def test_tables_show_figures_targets_and_sizes(darkening):
    report = measure_robustness(mean_level, [Image.new("RGB", (12, 9), (level,) * 3) for level in (100, 150)])
    assert "large picture" not in render(report)
    rows = (HalfSizeScores(picture="big.jpg", width=4000, height=3000, full=71.26, half=68.04),)
    lines = render(replace(report, half_size=rows)).splitlines()
    assert lines[0] == "Pristine pictures: 2; degraded copies of each: 10."
    assert "|  | dark | dim | all | target | met |" in lines
    title = "SRCC of strength and score, mean over pictures"
    assert f"| {title} | -1.000 | -1.000 | -1.000 | <= -0.950, each <= -0.950 | yes |" in lines
    assert (
        "| pristine picture above its degraded copy | 100.0% | 100.0% | 100.0% | >= 97.0%, each >= 92.0% | yes |"
        in lines
    )
    assert "| dark (levels: 1, 2, 4, 8, 16) | 125.0 | 124.0 | 123.0 | 121.0 | 117.0 | 109.0 |" in lines
    assert "| big.jpg | 4000x3000 | 71.3 | 68.0 |" in lines
    earlier = replace(report, targets=replace(report.targets, srcc_each=None, pristine_above_each=None))
    assert "| 100.0% | 100.0% | 100.0% | >= 97.0% | yes |" in render(read_report(earlier.to_json()))
    failed = render(measure_robustness(constant, [Image.new("RGB", (12, 9))]))
    assert failed.count("| no |") == 3


@pytest.fixture(scope="module")
def checkpoint(tiny_model, tmp_path_factory) -> Path:
    folder, model = tmp_path_factory.mktemp("checkpoint"), tiny_model()
    model.save_pretrained(folder)
    MusiqImageProcessor.from_config(model.config).save_pretrained(folder)
    return folder


def test_checkpoint_scores_are_the_models(checkpoint, tiny_model):
    model, pictures = tiny_model(), [texture(0), texture(1), center_crop(texture(2))]
    expected = model(**MusiqImageProcessor.from_config(model.config)(pictures)).scores.tolist()
    assert make_scorer(str(checkpoint), batch_size=2)(pictures) == pytest.approx(expected, abs=1e-4)
    assert max(expected) - min(expected) > 1e-3


def test_wrong_checkpoints_are_refused(checkpoint, tiny_config, tmp_path):
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        make_scorer(str(checkpoint), batch_size=0)
    with pytest.raises(ValueError, match="neither a directory with a config.json nor an id on the Hub") as empty:
        make_scorer(str(tmp_path))
    assert "\n" not in str(empty.value)
    config = tiny_config(num_labels=7)
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds no weights. Give a trained or converted checkpoint"):
        make_scorer(str(tmp_path))
    MusiqForImageClassification(config).save_pretrained(tmp_path)
    MusiqImageProcessor.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a MusiqForImageClassification, which predicts no quality"):
        make_scorer(str(tmp_path))


def run_script(monkeypatch, capsys, *words: str) -> tuple[int, str, str]:
    """Exit code, output and last line of the errors."""
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    output = capsys.readouterr()
    sentence = output.err.strip().partition("\nExample: ")[0].splitlines() or [""]
    return ended.value.code, output.out, sentence[-1]


def test_command_measures_and_writes(checkpoint, tmp_path, monkeypatch, capsys):
    (tmp_path / "pictures").mkdir()
    texture(0).save(tmp_path / "pictures" / "a.png")
    folder, output = str(tmp_path / "pictures"), tmp_path / "out" / "r.json"
    words = ("--pictures", folder, "--half-size", folder, "--model", str(checkpoint), "--output", str(output))
    code, printed, _ = run_script(monkeypatch, capsys, *words)
    assert code == 0
    report = json.loads(output.read_text())
    assert sorted(report["faults"]) == ["gaussian_blur", "gaussian_noise", "jpeg"]
    assert report["half_size"][0]["full"] == pytest.approx(report["pictures"][0]["pristine"])
    assert {"watermark", "jpeg_90", "shuffled", "half_large"} <= report["common_sense"].keys()
    assert {"black", "screenshot"} <= report["odd"].keys()
    assert printed.strip() == output.with_suffix(".md").read_text().strip()


def test_command_answers_mistakes_with_a_sentence_and_2(checkpoint, tmp_path, monkeypatch, capsys):
    texture(0).save(tmp_path / "a.png")
    cases = {
        (): "evaluate_robustness: --pictures is needed: a folder of pristine pictures",
        ("--pictures", "absent"): "evaluate_robustness: absent: no such folder",
        ("--pictures", str(tmp_path), "--half_size", "gone"): "evaluate_robustness: gone: no such folder",
        (
            "--pictures",
            str(tmp_path),
            "--output",
            "r.txt",
        ): "evaluate_robustness: The report is a .json file (a .md file is written beside it), got r.txt",
        (
            "--pictures",
            str(tmp_path),
            "--model",
            str(tmp_path),
        ): f"evaluate_robustness: {tmp_path}: neither a directory",
    }
    for words, message in cases.items():
        code, _, error = run_script(monkeypatch, capsys, *words)
        assert (code, error[: len(message)]) == (2, message)


def test_command_checks_the_card_before_it_scores(tmp_path, monkeypatch, capsys):
    texture(0).save(tmp_path / "a.png")
    output = tmp_path / "r.json"
    words = ("--pictures", str(tmp_path), "--model", "some/hub-id", "--update_card", "--output", str(output))
    monkeypatch.setattr(evaluation, "make_scorer", lambda *args, **kwargs: constant)  # would score at once
    code, _, error = run_script(monkeypatch, capsys, *words)
    assert (code, output.exists()) == (2, False)
    assert error.startswith("evaluate_robustness: The card of some/hub-id cannot be updated")


def test_command_fills_the_card(checkpoint, tmp_path, monkeypatch, capsys):
    (tmp_path / "pictures").mkdir()
    texture(0).save(tmp_path / "pictures" / "a.png")
    model = tmp_path / "model"
    shutil.copytree(checkpoint, model)
    monkeypatch.setattr(evaluation, "make_scorer", lambda *args, **kwargs: mean_level)
    words = ("--pictures", str(tmp_path / "pictures"), "--model", str(model), "--update_card")
    code, printed, error = run_script(monkeypatch, capsys, *words, "--output", str(tmp_path / "r.json"))
    assert code == 0, error
    assert printed.strip() in (model / "README.md").read_text()
