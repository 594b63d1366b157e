# SPDX-License-Identifier: Apache-2.0
"""The example that climbs on the score: files, scores of what was saved, mistakes."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from examples import optimize_with_musiq as script
from musiq_hf import MusiqImageProcessor


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_model):
    folder, model = tmp_path_factory.mktemp("optimize") / "tiny", tiny_model()
    model.save_pretrained(folder)
    MusiqImageProcessor.from_config(model.config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def photo(tmp_path_factory, pictures):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(pictures[0]).save(path)
    return str(path)


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["optimize_with_musiq.py", *map(str, words)])
    code = script.main()
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.slow
def test_three_steps_raise_the_score_of_the_saved_file(
    checkpoint, photo, pictures, tiny_model, tmp_path, monkeypatch, capsys
):
    output = tmp_path / "new" / "after.png"
    words = (photo, "--output", output, "--model", checkpoint, "--steps", 3, "--blur", 1)
    code, printed, errors = run(monkeypatch, capsys, *words)
    assert code == 0, errors
    report = json.loads(printed)
    model = tiny_model()
    processor = MusiqImageProcessor.from_config(model.config)
    blurred = Image.fromarray(pictures[0]).filter(ImageFilter.GaussianBlur(1))
    with torch.no_grad():
        before, after = (
            model(**processor(image, return_tensors="pt")).scores.item() for image in (blurred, Image.open(output))
        )
    assert (report["before"], report["after"]) == pytest.approx((before, after), abs=1e-5)
    assert after > before + 0.01
    both = np.array(Image.open(report["comparison"]))
    width = blurred.width
    assert np.array_equal(both[:, :width], np.array(blurred))
    assert np.array_equal(both[:, width + script.GAP :], np.array(Image.open(output)))
    assert sorted(path.name for path in output.parent.iterdir()) == ["after.png", "after_comparison.png"]


def test_steps_have_the_size_asked_for_and_stay_in_range(tiny_model):
    model = tiny_model().requires_grad_(False)
    processor = MusiqImageProcessor.from_config(model.config)
    pixels = torch.rand(3, 20, 28, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25
    moved = script.ascend(model, processor, pixels, steps=1, step_size=0.25)
    assert (moved - pixels).square().mean().sqrt().item() * 255 == pytest.approx(0.25, rel=1e-3)
    far = script.ascend(model, processor, pixels, steps=3, step_size=200.0)
    assert 0 <= far.min() and far.max() <= 1


def test_a_step_too_far_gives_the_best_picture_on_the_way(tiny_model):
    model = tiny_model().requires_grad_(False)
    processor = MusiqImageProcessor.from_config(model.config)
    pixels = torch.rand(3, 20, 28, generator=torch.Generator().manual_seed(0))
    # Roughness that costs all: no step away from a flat picture pays, so the picture itself is the best.
    flat = torch.full_like(pixels, 0.5)
    assert torch.equal(script.ascend(model, processor, flat, steps=2, step_size=5.0, tv_weight=1e4), flat)


def test_total_variation_makes_it_smoother(tiny_model):
    model = tiny_model().requires_grad_(False)
    processor = MusiqImageProcessor.from_config(model.config)
    pixels = torch.rand(3, 20, 28, generator=torch.Generator().manual_seed(0))
    rough, smooth = (
        script.compute_total_variation(
            script.ascend(model, processor, pixels, steps=3, step_size=2.0, tv_weight=weight)
        )
        for weight in (0, 100)
    )
    assert smooth < rough


def test_a_large_picture_is_shrunk_first(checkpoint, tmp_path, monkeypatch, capsys):
    Image.effect_noise((120, 80), 60).save(tmp_path / "gray.png")
    words = (tmp_path / "gray.png", "--output", tmp_path / "o.png", "--model", checkpoint, "--shorter-side", 20)
    code, _, errors = run(monkeypatch, capsys, *words, "--steps", 1)
    assert code == 0, errors
    image = Image.open(tmp_path / "o.png")
    assert (image.size, image.mode) == ((30, 20), "RGB")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--output", "after.jpg"), r"`--output` must end in .png, got after.jpg"),
        (("--output", "after.png", "--steps", "0"), "`--steps` must be at least 1, got 0"),
        (("--output", "after.png", "--step_size", "0"), "`--step_size` must be above 0, got 0.0"),
        (("--output", "after.png", "--blur", "-1"), "`--blur` must be at least 0, got -1.0"),
        (("--output", "after.png", "--tv_weight", "nan"), "`--tv_weight` must be at least 0, got nan"),
    ],
)
def test_mistakes_get_one_sentence(words, message, photo, monkeypatch, capsys):
    code, _, errors = run(monkeypatch, capsys, photo, *words)
    assert code == 2
    assert errors.startswith("optimize_with_musiq: ") and message in errors and "Example: python examples/" in errors


def test_a_missing_photo_is_named(checkpoint, tmp_path, monkeypatch, capsys):
    words = (tmp_path / "none.png", "--output", tmp_path / "o.png", "--model", checkpoint)
    code, _, errors = run(monkeypatch, capsys, *words)
    assert code == 2 and "none.png: no such file" in errors and not (tmp_path / "o.png").exists()
