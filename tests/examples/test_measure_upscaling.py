# SPDX-License-Identifier: Apache-2.0
"""The command that measures scales and verdicts of enlarged pictures and clips, on two made pictures and one clip."""

import dataclasses

import pytest

from examples.analysis import measure_upscaling
from musiq_hf.pictures import make_picture
from musiq_hf.upscaling import UpscalingReport

PLACES = ("pictures", "clips")
REPORT = UpscalingReport(
    verdict="upscaled",
    probability=0.9,
    method="bilinear",
    method_probability=0.8,
    scale=2.03,
    source_size=(100, 80),
    patches=(),
    size=(200, 160),
    frames=("upscaled",),
)


def run(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["measure_upscaling.py", *words])
    return measure_upscaling.main()


@pytest.fixture
def document(tmp_path, monkeypatch):
    path = tmp_path / "page.md"
    path.write_text("".join(f"by hand\n<!-- {place}: begin -->\nold\n<!-- {place}: end -->\n" for place in PLACES))
    monkeypatch.setattr(measure_upscaling, "DOCUMENT", path)
    return path


def make_photographs(folder, count):
    folder.mkdir()
    for seed in range(count):
        make_picture(seed=seed, width=290, height=280).save(folder / f"{seed}.png")
    return str(folder)


def answer(true_method, true_scale, **changes):
    return measure_upscaling.Answer(true_method, true_scale, "as they are", dataclasses.replace(REPORT, **changes))


def test_an_answer_is_compared_with_what_is_true():
    found = answer("FFmpeg, bilinear", 2.0)
    assert (found.has_right_verdict, found.has_right_scale, found.has_right_name) == (True, True, True)
    wrong = answer("FFmpeg, bilinear", 2.0, scale=2.05, method="bicubic")
    assert (wrong.has_right_verdict, wrong.has_right_scale, wrong.has_right_name) == (True, False, False)
    unsure = answer("Pillow, bilinear", 2.0, scale=None, verdict="unsure")
    assert (unsure.has_right_verdict, unsure.has_right_scale, unsure.has_right_name) == (False, False, False)
    native = answer("native", 1.0, verdict="native", scale=None, method=None)
    assert native.has_right_verdict and native.has_right_scale
    assert not answer("native", 1.0).has_right_verdict and not answer("native", 1.0).has_right_scale


def test_a_cell_has_the_share_at_each_scale():
    answers = [answer("FFmpeg, area", 2.0), answer("FFmpeg, area", 2.0, scale=None), answer("FFmpeg, area", 3.0)]
    columns = {
        "scale": ("as they are", measure_upscaling.share_scales),
        "cropped": ("cropped", measure_upscaling.share_verdicts),
        "name": (None, measure_upscaling.share_names),
        "called": (None, measure_upscaling.name_most),
    }
    row = measure_upscaling.make_table(answers, ["FFmpeg, area"], columns).splitlines()[-1]
    assert row == "| FFmpeg, area | - / 0.50 / 0.00 | - / - / - | - / - / - | - / bilinear / bilinear |"


def test_tables_of_pictures_and_clips_go_to_their_places(tmp_path, monkeypatch, capsys, document):
    pytest.importorskip("imageio_ffmpeg")
    pytest.importorskip("av")
    # Filters of both programs, whose turn it is with two photographs; one kind of clip.
    cases = [("Pillow, bicubic", 2.0), ("FFmpeg, bilinear", 1.5), ("FFmpeg, neighbor", 3.0), ("FFmpeg, area", 2.0)]
    monkeypatch.setattr(measure_upscaling, "CASES", cases)
    monkeypatch.setattr(measure_upscaling, "NUM_CASES", 2)
    monkeypatch.setattr(measure_upscaling, "CLIP_METHODS", ("FFmpeg, bicubic",))
    monkeypatch.setattr(measure_upscaling, "CLIP_SIZE", (192, 144))
    monkeypatch.setattr(measure_upscaling, "CRFS", (18,))
    folder = make_photographs(tmp_path / "photos", 2)
    assert run(monkeypatch, "--pictures", folder, "--clips", folder, "--num_clips", "1", "--update_document") == 0
    page = document.read_text()
    assert "old" not in page and page.count("by hand\n<!-- ") == 2
    pictures, clips = page.split("<!-- clips: begin -->")
    assert "Natives, 2 photographs a share." in pictures and "about 1 pictures a share" in pictures
    scales = {line.split(" | ")[0]: line for line in pictures.partition("The same pictures")[0].splitlines()}
    assert scales["| Pillow, bicubic"] == "| Pillow, bicubic | - / 1.00 / - | - / 1.00 / - | - / 1.00 / - |"
    assert scales["| FFmpeg, bilinear"] == "| FFmpeg, bilinear | 1.00 / - / - | 1.00 / - / - | 1.00 / - / - |"
    assert scales["| FFmpeg, neighbor"] == "| FFmpeg, neighbor | - / - / 1.00 | - / - / 1.00 | - / - / 1.00 |"
    assert scales["| Pillow, lanczos"] == "| Pillow, lanczos | - / - / - | - / - / - | - / - / - |"
    assert "Natives, 1 clips a share." in clips and "| no scale found | 1.00 |" in clips
    assert clips.count("\n| FFmpeg, bicubic | ") == 2
    assert capsys.readouterr().out.count("| no scale found |") == 2


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "There is nothing to measure. Give `--pictures`, `--clips`, or both."),
        (["--pictures", "none"], "no such folder"),
        (["--clips", "photos"], "0.png: clips need photographs of at least 668 x 454 pixels, got 290 x 280."),
        (["--clips", "photos", "--update_document"], "The document has no place for the tables."),
    ],
)
def test_mistakes_are_a_sentence(tmp_path, monkeypatch, capsys, document, flags, sentence):
    make_photographs(tmp_path / "photos", 1)
    document.write_text("nothing")
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("measure_upscaling: ") and sentence in error
