# SPDX-License-Identifier: Apache-2.0
"""The embedded checkpoint, and what README and cards say about it."""

import json
import re

import pytest
import torch
from PIL import Image
from places import ROOT
from transformers import AutoImageProcessor, AutoModel, pipeline

from musiq_hf import DEFAULT_CHECKPOINT, MusiqForImageQualityAssessment
from musiq_hf.scoring import load_calibration, load_quality

PICTURES = ROOT / "examples" / "pictures"
README = (ROOT / "README.md").read_text()
USAGE = (ROOT / "docs" / "usage.md").read_text()
CHECKPOINTS = (ROOT / "docs" / "checkpoints.md").read_text()
FINETUNING = (ROOT / "docs" / "finetuning.md").read_text()


@pytest.fixture(scope="module")
def scorer():
    return pipeline("image-quality-assessment")


def test_it_is_small_and_computes_in_float32():
    model = AutoModel.from_pretrained(DEFAULT_CHECKPOINT)
    assert isinstance(model, MusiqForImageQualityAssessment)
    assert model.dtype == torch.float32
    assert model.num_parameters() <= 3_000_000
    assert (DEFAULT_CHECKPOINT / "model.safetensors").stat().st_size <= 8_000_000
    assert model.config.score_range == [0, 100]


def test_bfloat16_keeps_stem_and_head_in_float32_and_moves_scores_little():
    exact, rounded = (
        AutoModel.from_pretrained(DEFAULT_CHECKPOINT, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)
    )
    kept = {name for name, parameter in rounded.named_parameters() if parameter.dtype == torch.float32}
    assert {name.split(".")[-2] for name in kept} == {"stem_conv", "stem_norm", "classifier"}
    features = AutoImageProcessor.from_pretrained(DEFAULT_CHECKPOINT)(sorted(map(str, PICTURES.glob("*.jpg"))))
    with torch.no_grad():
        difference = (exact(**features).scores - rounded(**features).scores).abs().max()
    assert 0 < difference < 0.3  # of 100; 2 with a bfloat16 stem


@pytest.mark.parametrize("name", ["astronaut", "rocket"])
def test_sharp_is_above_blurred_is_above_blurred_and_noisy(scorer, name):
    sharp, blurred, noisy = (
        scorer(str(PICTURES / f"{name}_{kind}.jpg"))["score"] for kind in ("sharp", "blurred", "blurred_noisy")
    )
    assert sharp > blurred + 5
    assert blurred > noisy + 1


@pytest.fixture(scope="module")
def scores(scorer):
    return {path.name: scorer(str(path))["score"] for path in PICTURES.glob("*.jpg")}


def test_readme_shows_the_sample_pictures_with_their_scores(scores):
    pictures = re.findall(r'src="examples/pictures/(\S+\.jpg)"', README)
    shown = re.findall(r"\*\*([\d.]+)\*\*", README)
    assert sorted(pictures) == sorted(scores)
    for name, score in zip(pictures, shown, strict=True):
        assert scores[name] == pytest.approx(float(score), abs=0.15)
    assert f'astronaut_sharp.jpg")["score"], 1))  # {shown[pictures.index("astronaut_sharp.jpg")]} of 100' in README


def test_usage_shows_what_the_demo_prints(scores):
    rows = re.findall(r"^examples/pictures/(\S+\.jpg) +(\d+)x(\d+) +([\d.]+)$", USAGE, flags=re.MULTILINE)
    assert sorted(row[0] for row in rows) == sorted(scores)
    for name, width, height, score in rows:
        assert Image.open(PICTURES / name).size == (int(width), int(height))
        assert scores[name] == pytest.approx(float(score), abs=0.15)


def test_usage_shows_what_the_command_prints(scores):
    rows = re.findall(r"^ +([\d.]+) +([\d.]+) +\d+x\d+  examples/pictures/(\S+\.jpg)$", USAGE, flags=re.MULTILINE)
    assert sorted(row[2] for row in rows) == sorted(scores)
    for score, position, name in rows:
        assert scores[name] == pytest.approx(float(score), abs=0.15)
        assert scores[name] / 100 == pytest.approx(float(position), abs=0.0075)


@pytest.mark.parametrize("folder", sorted(DEFAULT_CHECKPOINT.parent.iterdir()), ids=lambda folder: folder.name)
def test_embedded_checkpoints_have_a_calibration_that_holds(folder):
    calibration = load_calibration(str(folder), *load_quality(str(folder)))
    assert (calibration.data, calibration.num_pictures) == ("biq2021, validation", 1000)
    assert (
        f"| {calibration.quantiles[80]:.4g} | {calibration.quantiles[95]:.4g} |" in (folder / "README.md").read_text()
    )


def test_usage_shows_the_percentile_that_the_pipeline_answers(scorer):
    answer = scorer(str(PICTURES / "astronaut_sharp.jpg"), percentile=True)
    (shown,) = re.findall(r"^{'score': [\d.]+, 'percentile': ([\d.]+), 'stars': (\d)}$", USAGE, flags=re.MULTILINE)
    assert answer["percentile"] == pytest.approx(float(shown[0]), abs=1) and answer["stars"] == int(shown[1])


def test_documents_and_cards_say_what_was_measured():
    metrics = json.loads((DEFAULT_CHECKPOINT / "metrics.json").read_text())["validation"]
    card = (DEFAULT_CHECKPOINT / "README.md").read_text()
    overall, groups = metrics["overall"], metrics["groups"]
    measured = f"SRCC {overall['srcc']:.3f} overall and {groups['mean within groups']['srcc']:.3f} on average"
    assert all(measured in " ".join(text.split()) for text in (README, CHECKPOINTS))  # without line ends
    assert overall["srcc"] >= 0.80 and groups["mean within groups"]["srcc"] >= 0.63
    assert " / ".join(f"{groups[name]['srcc']:.2f}" for name in sorted(groups) if name.startswith("ss")) in CHECKPOINTS
    assert f"| {overall['srcc']:.3f} / {overall['plcc']:.3f}, the embedded checkpoint |" in FINETUNING
    assert f"| all | {overall['srcc']:.4f} |" in card
    assert (ROOT / "MODEL_CARD.md").read_text() == card
