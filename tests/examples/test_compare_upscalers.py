# SPDX-License-Identifier: Apache-2.0
"""The comparison of upscalers: its tables, its figure, and mistakes in one sentence."""

import numpy as np
import pytest
from PIL import Image
from upscalers import save_upscaler

from examples.analysis import compare_upscalers
from musiq_hf.pictures import make_picture


def run(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["compare_upscalers.py", *map(str, words)])
    return compare_upscalers.main()


@pytest.fixture
def originals(tmp_path):
    (tmp_path / "originals").mkdir()
    for seed in range(2):
        make_picture(seed=seed, width=70, height=60).save(tmp_path / "originals" / f"{seed}.png")
    return tmp_path / "originals"


def test_methods_are_measured_scored_and_shown(originals, tmp_path, monkeypatch, capsys):
    scored = []

    def score(self, picture):  # a stand-in for MUSIQ, which takes seconds
        scored.append(picture)
        return len(scored)

    monkeypatch.setattr(compare_upscalers, "load_quality", lambda: None)
    monkeypatch.setattr(compare_upscalers.Judge, "score", score)
    model = save_upscaler(tmp_path / "msit-test")
    figure = tmp_path / "figures" / "crops.png"
    assert run(monkeypatch, originals, "--scales", "1.5", "2", "--model", model, "--figure", figure) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    names = [row[0].removeprefix("| ") for row in rows]
    gains = ["bicubic", "Lanczos", "Lanczos: gain", "MSIT", "MSIT: gain"]
    assert [name for name in names if "---" not in name] == ["", *gains, "MUSIQ", "original", *gains[:2], "MSIT"]
    # The first original at both scales, then the second, by bicubic, Lanczos and MSIT; at the end the originals.
    assert [row[1:] for row in rows[-4:]] == [
        ["13.5", "13.5 |"],
        ["4.0", "7.0 |"],
        ["5.0", "8.0 |"],
        ["6.0", "9.0 |"],
    ]
    with Image.open(figure) as image:
        assert image.width > 900 and len(np.unique(np.asarray(image.convert("L")))) > 50


def test_the_crop_is_where_the_copy_is_worst():
    original = Image.new("RGB", (300, 200), "gray")
    copy = original.copy()
    copy.paste("white", (200, 90, 210, 100))
    left, top, right, bottom = compare_upscalers.find_crop(original, copy)
    assert (right - left, bottom - top) == (96, 96) and left <= 200 and right >= 210 and top <= 90 and bottom >= 100


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(["--figure", "crops.pdf"], "crops.pdf: a .png file is written."), (["--model", "absent"], "absent: no such")],
)
def test_mistakes_are_a_sentence(originals, monkeypatch, capsys, words, sentence):
    assert run(monkeypatch, originals, *words) == 2
    assert sentence in capsys.readouterr().err
