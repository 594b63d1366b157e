# SPDX-License-Identifier: Apache-2.0
"""The embedded upscaling detector: its size, what it reports, and its answers to the sample pictures."""

import pytest
from PIL import Image
from places import ROOT
from transformers import pipeline

from musiq_hf import DEFAULT_CHECKPOINT
from musiq_hf.metrics import read_metrics, render

FOLDER = DEFAULT_CHECKPOINT.parent / "sudds-small-biq2021"
PICTURES = ROOT / "examples" / "pictures"


@pytest.fixture(scope="module")
def classify():
    return pipeline("image-classification", model=str(FOLDER))


def read(name):
    with Image.open(PICTURES / name) as image:
        return image.convert("RGB")


def test_the_detector_is_small_and_its_card_shows_all_its_tables():
    assert (FOLDER / "model.safetensors").stat().st_size < 3_000_000
    card = (FOLDER / "README.md").read_text()
    reports = read_metrics(FOLDER).reports
    assert len(reports) == 5 and all(render(report) in card for report in reports.values())


@pytest.mark.parametrize("name", ["astronaut_sharp.jpg", "rocket_sharp.jpg"])
def test_a_sharp_picture_is_native_and_enlarged_copies_are_not(classify, name):
    answers = {answer["label"]: answer["score"] for answer in classify(read(name), top_k=6)}
    assert answers["native"] > 0.5
    image = read(name).reduce(2)
    for method in ("NEAREST", "BILINEAR", "BICUBIC", "LANCZOS"):
        copy = image.resize((2 * image.width, 2 * image.height), Image.Resampling[method])
        answers = {answer["label"]: answer["score"] for answer in classify(copy, top_k=6)}
        assert answers["native"] < 0.5, method
