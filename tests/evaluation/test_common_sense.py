# SPDX-License-Identifier: Apache-2.0
"""The test of scores by common sense, with scorers whose answers are known."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from musiq_hf.evaluation import common_sense
from musiq_hf.evaluation.common_sense import (
    BELOW_ALL,
    COMPARISONS,
    PRISTINE,
    VERSIONS,
    measure_common_sense,
    measure_odd_pictures,
)
from musiq_hf.evaluation.robustness import measure_robustness
from musiq_hf.metrics.rendering import render
from musiq_hf.metrics.reports import HalfSizeScores, read_report
from musiq_hf.pictures.synthetic import ODD_PICTURES, make_picture

PICTURES = [make_picture(seed=seed, width=96, height=80) for seed in (1, 2, 3)]


def mean_level(pictures):
    return [float(np.asarray(image).mean()) for image in pictures]


def constant(pictures):
    return [50.0] * len(pictures)


def test_every_comparison_is_of_versions_that_are_made():
    used = {name for asked in COMPARISONS.values() for name in (asked.copy, asked.reference)}
    assert used == set(VERSIONS)
    assert all(asked.copy != asked.reference for asked in COMPARISONS.values())


@pytest.mark.parametrize("version", VERSIONS)
def test_versions_repeat_and_differ_from_the_picture(version):
    first, second = (VERSIONS[version](PICTURES[0], 3) for _ in range(2))
    assert first.tobytes() == second.tobytes() and first.mode == "RGB"
    assert (first.tobytes() == PICTURES[0].tobytes()) == (version == PRISTINE)
    assert VERSIONS[version](Image.new("RGB", (1, 1)), 0).size == (1, 1)


def test_changes_are_copy_minus_reference_picture_by_picture():
    report = measure_common_sense(mean_level, PICTURES)
    assert report.keys() == COMPARISONS.keys()
    border, expected = report["border"], []
    for picture in PICTURES:
        expected.append(mean_level([VERSIONS["border"](picture, 0)])[0] - mean_level([picture])[0])
    assert border.changes == pytest.approx(expected)
    assert border.mean_change == pytest.approx(np.mean(expected)) and border.mean_change < -5
    assert (border.num_pictures, border.num_higher, border.is_met) == (3, 0, True)
    assert report["mirrored"].largest_size == pytest.approx(0, abs=1e-9)
    assert report["mirrored"].is_met and not report["jpeg_6"].is_met
    twice, once = (mean_level([VERSIONS[name](PICTURES[1], 1)])[0] for name in ("blur_2", "blur_1"))
    assert report["blur_2_1"].changes[1] == pytest.approx(twice - once)


def test_a_constant_scorer_meets_what_asks_for_no_change():
    report = measure_common_sense(constant, PICTURES)
    met = {name for name, changes in report.items() if changes.is_met}
    assert met == {"mirrored", "cropped", "watermark", "border", "tilted", "jpeg_90"}
    assert {name for name, changes in report.items() if changes.is_met is False} == {"jpeg_12", "jpeg_6", "shuffled"}
    assert all((changes.num_higher, changes.mean_change) == (0, 0) for changes in report.values())
    assert report["watermark"].target == "part that scored higher <= 0.267"
    assert report["jpeg_95"].target is None


def test_targets_that_are_just_reached_are_met():
    changes = [1.0] * 8 + [-1.0] * 22
    assert common_sense._summarize("a", changes, common_sense.RARELY_HIGHER).is_met
    assert not common_sense._summarize("a", [1.0, *changes[:-1]], common_sense.RARELY_HIGHER).is_met
    assert common_sense._summarize("a", [0.1] * 3, common_sense._mean(0.1)).is_met
    assert not common_sense._summarize("a", [-4.5, 0.0], common_sense._largest(4)).is_met


def test_large_pictures_become_a_row_with_the_median():
    sizes = [HalfSizeScores(picture="a", width=9, height=9, full=50, half=half) for half in (53, 40, 90)]
    row = measure_common_sense(constant, PICTURES[:1], half_size=sizes)["half_large"]
    assert (row.median_size, row.largest_size, row.num_higher, row.is_met) == (10, 40, 2, False)


def test_noise_and_black_must_be_below_every_photograph():
    report = measure_odd_pictures(mean_level, [40.0, 130.0])
    assert report.keys() == ODD_PICTURES.keys() and set(BELOW_ALL) <= report.keys()
    assert (report["black"].score, report["black"].num_below, report["black"].is_met) == (0, 0, True)
    assert (report["noise"].num_below, report["noise"].is_met) == (1, False)
    assert (report["white"].num_below, report["white"].is_met) == (2, None)


@pytest.mark.parametrize("name", ODD_PICTURES)
def test_odd_pictures_repeat(name):
    _, make = ODD_PICTURES[name]
    first = make()
    assert (first.mode, first.size) == ("RGB", (512, 512)) and first.tobytes() == make().tobytes()
    levels = len(np.unique(np.asarray(first).reshape(-1, 3), axis=0))
    assert levels == 1 if name in ("black", "white", "gray", "blue") else levels > 5


def test_unusable_scores_and_no_pictures_are_refused():
    with pytest.raises(ValueError, match="At least one pristine picture is needed, got none"):
        measure_common_sense(constant, [])
    with pytest.raises(ValueError, match="picture 0: scores must be finite"):
        measure_common_sense(lambda pictures: [float("inf")], PICTURES)
    with pytest.raises(ValueError, match="black: scores must be finite"):
        measure_odd_pictures(lambda pictures: [float("nan")], [1.0])


def test_reports_are_tables_and_read_again():
    report = replace(
        measure_robustness(mean_level, PICTURES),
        common_sense=measure_common_sense(mean_level, PICTURES),
        odd=measure_odd_pictures(mean_level, [40.0, 130.0, 140.0]),
    )
    lines = render(report).splitlines()
    assert "| mirrored | 0 of 3 | +0.0 | 0.0 | 0.0 | largest <= 4 | yes |" in lines
    assert f"| uniform noise | {report.odd['noise'].score:.1f} | 1 of 3 | 0 | no |" in lines
    assert "| white | 255.0 | 3 of 3 |  |  |" in lines
    shown = [row.split(" | ")[1] for row in render(report).partition("| no photograph |")[2].splitlines()[2:]]
    assert len(shown) == len(ODD_PICTURES) and list(map(float, shown)) == sorted(map(float, shown))
    assert read_report(report.to_json()) == report
    card = report.for_card()
    assert all(changes.changes is None for changes in card.common_sense.values())
    assert render(card) == render(report) and read_report(card.to_json()) == card
    stored = json.loads(json.dumps(card.to_json(), sort_keys=True))  # as metrics.json is written
    assert render(read_report(stored)) == render(report)
