# SPDX-License-Identifier: Apache-2.0
"""The command that trains an upscaling detector: its words, and mistakes in one sentence."""

import pytest

from examples.training import train_upscaling_detector
from musiq_hf.metrics.accuracy import AccuracyReport, AccuracyRow


def run(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["train_upscaling_detector.py", *words])
    return train_upscaling_detector.main()


def test_words_become_settings_and_tables_are_printed(tmp_path, monkeypatch, capsys):
    calls = []

    def train(settings, output, **options):
        calls.append((settings, output, options))
        row = AccuracyRow(name="native", shares=(0.925,))
        return {"Natives": AccuracyReport(pictures_per_share=40, columns=("JPEG 90",), accuracy=(row,))}

    monkeypatch.setattr(train_upscaling_detector, "train_and_save", train)
    words = ["--pictures", f"{tmp_path}/photos", "--output", f"{tmp_path}/out", "--minutes", "2", "--ablation", "1"]
    assert run(monkeypatch, *words, "--methods", "bicubic", "learned", "--upscaler", "swin") == 0
    ((settings, output, options),) = calls
    assert (settings.minutes, settings.methods, settings.upscalers) == (2, ["bicubic", "learned"], ["swin"])
    assert output == tmp_path / "out" and options["ablation_steps"] == 1
    assert options["command"] == (
        "python examples/training/train_upscaling_detector.py --pictures photos --output out --minutes 2.0 "
        "--methods bicubic learned --upscaler swin --ablation 1"
    )
    assert "Natives\n\n40 pictures a share.\n\n|  | JPEG 90 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "holds no picture"),
        (["--methods", "cubic"], "Unknown method 'cubic'"),
        (["--minutes", "nan"], "`minutes` must be above 0, got nan"),
    ],
)
def test_mistakes_are_a_sentence(tmp_path, monkeypatch, capsys, flags, sentence):
    assert run(monkeypatch, "--pictures", str(tmp_path), "--output", str(tmp_path / "out"), *flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("train_upscaling_detector: ") and sentence in error and not (tmp_path / "out").exists()
