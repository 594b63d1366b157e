# SPDX-License-Identifier: Apache-2.0
"""Fidelity of upscaled pictures: what is compared, the table, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from musiq_hf.assessment import psnr, ssim
from musiq_hf.evaluation import measure_upscaling
from musiq_hf.evaluation.super_resolution import compare_pictures, shrink_original
from musiq_hf.metrics import StoredMetrics, read_metrics, render, write_metrics
from musiq_hf.pictures import make_picture


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    for seed in range(2):
        make_picture(seed=seed, width=83, height=61).save(folder / f"{seed}.png")
    return sorted(folder.iterdir())


@pytest.mark.parametrize(
    ("scale", "small", "whole"), [(2.0, (41, 30), (82, 60)), (2.7, (30, 22), (81, 59)), (1.3, (63, 46), (82, 60))]
)
def test_an_original_loses_what_exceeds_the_small_picture(scale, small, whole):
    original = make_picture(seed=0, width=83, height=61)
    shrunk, kept = shrink_original(original, scale)
    assert (shrunk.size, kept.size) == (small, whole)
    assert (np.asarray(kept) == np.asarray(original)[: whole[1], : whole[0]]).all()
    assert (np.asarray(shrunk) == np.asarray(kept.resize(small, Image.Resampling.BICUBIC))).all()


def test_psnr_is_that_of_papers_on_upscaling_and_both_measures_those_of_assessment():
    original = make_picture(seed=0, width=83, height=61)
    enlarged = original.resize((40, 30)).resize((83, 61))
    first, second = (
        np.asarray(image, float)[3:-3, 3:-3] @ [65.738, 129.057, 25.064] / 256 for image in (original, enlarged)
    )
    decibels, structure = compare_pictures(original, enlarged, border=3)
    assert decibels == pytest.approx(10 * np.log10(255**2 / ((first - second) ** 2).mean()), abs=1e-3)
    assert decibels == psnr(original, enlarged, crop_border=3)
    assert structure == ssim(original, enlarged, crop_border=3)
    assert compare_pictures(original, original, border=0) == (100, pytest.approx(1))


def test_the_table_has_means_and_gains_and_survives_its_file(originals, tmp_path):
    wholes = iter(make_picture(seed=seed, width=83, height=61) for seed in (0, 0, 1, 1))
    asked = []

    def cheat(picture, size):
        """Give the original, but for a border that is not measured, and one level."""
        asked.append((picture.size, size))
        pixels = np.asarray(next(wholes).crop((0, 0, *size))).astype(int)
        pixels += np.where(pixels > 127, -1, 1)
        pixels[:2], pixels[:, -2:] = 0, 0
        return Image.fromarray(pixels.astype(np.uint8))

    report = measure_upscaling(originals, {"cheat": cheat}, scales=(2, 3.0))
    assert asked == [((41, 30), (82, 60)), ((27, 20), (81, 60))] * 2
    rows = {(row.method, row.scale): row for row in report.fidelity}
    assert list(rows) == [(method, scale) for method in ("bicubic", "Lanczos", "cheat") for scale in (2.0, 3.0)]
    pairs = [shrink_original(Image.open(path), 2) for path in originals]
    found = [psnr(whole, small.resize(whole.size, Image.Resampling.BICUBIC), crop_border=2) for small, whole in pairs]
    assert rows["bicubic", 2.0].psnr == pytest.approx(np.mean(found))
    assert rows["bicubic", 2.0].gain == 0 == rows["bicubic", 3.0].smallest_gain
    row = rows["cheat", 2.0]
    assert row.psnr > 48 and row.gain == pytest.approx(row.psnr - np.mean(found)) and row.ssim > 0.99
    assert row.smallest_gain < row.gain
    write_metrics(tmp_path, StoredMetrics(reports={"Kodak": report}))
    assert read_metrics(tmp_path).reports == {"Kodak": report}
    text = render(report)
    assert "2 originals" in text and f"| bicubic | {np.mean(found):.2f}, " in text and "| x2 | x3 |" in text
    assert f"| cheat: gain | {row.gain:+.2f} ({row.smallest_gain:+.2f}) |" in text


@pytest.mark.parametrize(
    ("scales", "words"),
    [
        ((1.0,), "`scales` must be at least one number above 1, got \\[1.0\\]"),
        ((), "`scales` must be at least one number above 1, got \\[\\]"),
        ((float("nan"),), "above 1, got \\[nan\\]"),
        ((30.0,), "83 x 61 pixels is too small for the scale 30. Remove it"),
    ],
)
def test_scales_that_cannot_be_measured_are_refused(originals, scales, words):
    with pytest.raises(ValueError, match=words):
        measure_upscaling(originals, {}, scales=scales)


def test_no_original_is_refused():
    with pytest.raises(ValueError, match="At least one original is needed, got none"):
        measure_upscaling([], {})
