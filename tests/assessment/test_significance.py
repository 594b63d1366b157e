# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from golden_assessment import REFERENCE

from musiq_hf.assessment import bd_rate, paired_difference

AB, BD = REFERENCE["ab"], REFERENCE["bd"]
CURVES = [BD[name] for name in ("rate_a", "quality_a", "rate_b", "quality_b")]


def test_a_difference_has_the_interval_and_p_of_scipy():
    found = paired_difference(AB["a"], AB["b"])
    low, high = AB["bootstrap_percentile_95"]
    assert found.p_value == pytest.approx(AB["permutation_p"], rel=0, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((low, high), rel=0, abs=0.05 * (high - low))
    assert found.mean == pytest.approx(np.mean(AB["b"]) - np.mean(AB["a"]))
    assert (found.wins, found.ties, found.losses, found.num_pairs) == (7, 1, 4, 12)


def test_random_signs_come_near_the_exact_p():
    exact = paired_difference(AB["a"], AB["b"], num_resamples=2**12)
    drawn = paired_difference(AB["a"], AB["b"], num_resamples=2**12 - 1)
    assert exact.p_value * 2**12 == 96
    assert drawn.p_value != exact.p_value
    assert drawn.p_value == pytest.approx(exact.p_value, abs=0.01)  # 4 standard errors
    # Even the clearest difference of many pictures has a p above 0.
    assert paired_difference(np.zeros(2000), np.ones(2000), num_resamples=99).p_value == 0.01


def test_what_pictures_have_in_common_widens_no_interval():
    first = np.linspace(0, 100, 50)
    found = paired_difference(first, first + 1 + 0.1 * np.cos(np.arange(50)))
    assert 0.95 < found.low < 1 < found.high < 1.05 and found.wins == 50


def test_the_seed_and_the_confidence_decide_the_interval():
    found = [paired_difference(AB["a"], AB["b"], seed=seed, num_resamples=500) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    narrow = paired_difference(AB["a"], AB["b"], confidence=0.5)
    assert narrow.high - narrow.low < 0.5 * (found[0].high - found[0].low)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (([1, 2], [3, 4]), {}, "At least 3 pairs are needed, got 2"),
        (([1, 2, 3], [3, 4]), {}, "`first` and `second` must have one length, got 3 and 2"),
        (([1, 2, 3], [3, np.nan, 5]), {}, "`second` must be finite, got nan"),
        (([[1, 2, 3]], [1, 2, 3]), {}, r"`first` must be one list of numbers, got shape \(1, 3\)"),
        (([1, 2, 3], [1, 2, 4]), {"confidence": 95}, "`confidence` must lie between 0 and 1, got 95"),
        (([1, 2, 3], [1, 2, 4]), {"num_resamples": 0}, "`num_resamples` must be at least 1"),
    ],
)
def test_wrong_pairs_are_refused(values, options, message):
    with pytest.raises(ValueError, match=message):
        paired_difference(*values, **options)


def test_the_difference_in_rate_is_that_of_bjontegaard():
    assert bd_rate(*CURVES) == pytest.approx(BD["rate_pchip_percent"], rel=0, abs=0.02)
    assert bd_rate(*(curve[::-1] for curve in CURVES)) == bd_rate(*CURVES)
    rates, qualities = CURVES[:2]
    assert bd_rate(rates, qualities, np.array(rates) * 0.9, qualities) == pytest.approx(-10)


@pytest.mark.parametrize(
    ("curve", "message"),
    [
        (([1, 2, 3], [30, 31, 32]), "`rates`: at least 4 points are needed, got 3"),
        (([1, 2, 3, 4], [30, 31, 30.5, 32]), "`qualities` must rise with the rate, got 31 at 2 and 30.5 at 3"),
        (([0, 2, 3, 4], [30, 31, 32, 33]), "`rates` must be above 0, got 0"),
        (([1, 2, 2, 4], [30, 31, 32, 33]), "`rates` must differ from each other"),
        (([1, 2, 3], [30, 31, 32, 33]), "`rates` and `qualities` must have one length, got 3 and 4"),
        (([1, 2, 3, 4], [3, 4, 5, 6]), "no quality in common: 31.0487 to 46.0895, and 3 to 6"),
    ],
)
def test_wrong_curves_are_refused(curve, message):
    with pytest.raises(ValueError, match=message):
        bd_rate(*CURVES[:2], *curve)
