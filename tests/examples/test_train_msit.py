# SPDX-License-Identifier: Apache-2.0
"""The command that trains super-resolution: its words, and mistakes in one sentence."""

import pytest

from examples.training import train_msit
from musiq_hf.metrics.fidelity import FidelityReport, FidelityRow


def run(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["train_msit.py", *words])
    return train_msit.main()


def test_words_become_settings_and_tables_are_printed(tmp_path, monkeypatch, capsys):
    calls = []

    def train(settings, **options):
        calls.append((settings, options))
        row = FidelityRow(method="bicubic", scale=2.0, psnr=30.0, ssim=0.9, gain=0.0, smallest_gain=0.0)
        return {"Kodak": FidelityReport(num_pictures=24, fidelity=(row,))}

    monkeypatch.setattr(train_msit, "train_super_resolution", train)
    words = ["--pictures", f"{tmp_path}/photos", "--output", f"{tmp_path}/out", "--minutes", "2", "--ablation", "1"]
    words += ["--data_description", "own photographs", "--rim_from", "first", "--fold_rim", "--resume"]
    assert run(monkeypatch, *words) == 0
    ((settings, options),) = calls
    assert (settings.minutes, settings.rim_from, settings.fold_rim, settings.resume) == (2, "first", True, True)
    assert settings.output_dir == tmp_path / "out" and options["ablation_steps"] == 1
    assert options["command"] == (
        "python examples/training/train_msit.py --pictures photos --output out --minutes 2.0 --rim_from first "
        "--fold_rim --ablation 1 --data_description 'own photographs'"
    )
    assert "Kodak\n\n24 originals, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "holds no picture"),
        (["--recipe", "large"], "`recipe` must be 'small' or 'edsr_baseline', got 'large'"),
        (["--minutes", "nan"], "`minutes` must be above 0, got nan"),
        (["--fold_rim"], "`fold_rim` folds the kernels that `rim_from` refines"),
    ],
)
def test_mistakes_are_a_sentence(tmp_path, monkeypatch, capsys, flags, sentence):
    assert run(monkeypatch, "--pictures", str(tmp_path), "--output", str(tmp_path / "out"), *flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("train_msit: ") and sentence in error and not (tmp_path / "out").exists()
