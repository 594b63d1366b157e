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

PICTURES = ROOT / "examples" / "pictures"
README = (ROOT / "README.md").read_text()
WORDS = " ".join(README.split())  # without line ends


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


def test_readme_shows_the_scores_that_the_demo_prints(scorer):
    rows = re.findall(r"^examples/pictures/(\S+\.jpg) +(\d+)x(\d+) +([\d.]+)$", README, flags=re.MULTILINE)
    assert sorted(row[0] for row in rows) == sorted(path.name for path in PICTURES.glob("*.jpg"))
    for name, width, height, score in rows:
        assert Image.open(PICTURES / name).size == (int(width), int(height))
        assert scorer(str(PICTURES / name))["score"] == pytest.approx(float(score), abs=0.15)


def test_readme_and_cards_say_what_was_measured():
    metrics = json.loads((DEFAULT_CHECKPOINT / "metrics.json").read_text())["validation"]
    card = (DEFAULT_CHECKPOINT / "README.md").read_text()
    overall, groups = metrics["overall"]["srcc"], metrics["groups"]
    assert f"SRCC {overall:.3f} overall and {groups['mean within groups']['srcc']:.3f} on average" in WORDS
    assert overall >= 0.80 and groups["mean within groups"]["srcc"] >= 0.63
    subsets = " / ".join(f"{groups[name]['srcc']:.2f}" for name in sorted(groups) if name.startswith("ss"))
    assert subsets in WORDS
    assert f"| all | {overall:.4f} |" in card
    assert (ROOT / "MODEL_CARD.md").read_text() == card
