# SPDX-License-Identifier: Apache-2.0
"""The embedded upscaler: its size, what it reports, and its copies of the sample pictures."""

import numpy as np
import pytest
from PIL import Image
from places import ROOT

from musiq_hf.metrics import read_metrics, render
from musiq_hf.upscaling import UPSCALER_CHECKPOINT, load_upscaler, upscale_picture

PICTURES = ROOT / "examples" / "pictures"
NAMES = ("astronaut_sharp.jpg", "rocket_sharp.jpg")


@pytest.fixture(scope="module")
def upscaler():
    return load_upscaler()


def read(name):
    with Image.open(PICTURES / name) as image:
        return image.convert("RGB").crop((100, 60, 244, 180))  # sides are multiples of 24


def measure_difference(one, other):
    """The mean squared difference of luma, without a border."""
    luma = [np.asarray(image.convert("L"), dtype=float)[6:-6, 6:-6] for image in (one, other)]
    return float(np.square(luma[0] - luma[1]).mean())


def test_the_upscaler_is_small_and_its_card_shows_all_its_tables():
    assert (UPSCALER_CHECKPOINT / "model.safetensors").stat().st_size < 2_000_000
    card = (UPSCALER_CHECKPOINT / "README.md").read_text()
    reports = read_metrics(UPSCALER_CHECKPOINT).reports
    assert len(reports) == 2 and all(render(report) in card for report in reports.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_network_alone_hardly_changes_a_picture_that_keeps_its_size(upscaler, name):
    picture = read(name)
    outputs = upscaler.model.upscale(**upscaler.processor(picture), scale=1)
    (same,) = upscaler.processor.post_process(outputs, [picture])
    assert np.abs(np.asarray(same, dtype=float) - np.asarray(picture)).mean() < 2


@pytest.mark.parametrize("scale", [1.5, 2, 3, 4, 6])
@pytest.mark.parametrize("name", NAMES)
def test_copies_are_closer_to_the_original_than_those_of_bicubic(upscaler, name, scale):
    original = read(name)
    source = original.resize((round(144 / scale), round(120 / scale)), Image.Resampling.BICUBIC)
    ours = upscale_picture(source, size=original.size, model=upscaler)
    bicubic = upscale_picture(source, size=original.size, method="bicubic")
    assert measure_difference(ours, original) < measure_difference(bicubic, original)
