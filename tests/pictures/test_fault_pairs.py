# SPDX-License-Identifier: Apache-2.0
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from musiq_hf.pictures import fault_pairs
from musiq_hf.pictures.augmentations import WINDOW_MAX_SIDE, WINDOW_MIN_SIDE, crop_window
from musiq_hf.pictures.compression import compress_jpeg
from musiq_hf.pictures.degradations import DEGRADATIONS
from musiq_hf.pictures.fault_pairs import (
    DESTROYING,
    HIDING,
    KINDS,
    LEAST,
    MIN_GAP,
    STRONG,
    WEAK,
    WEIGHTS,
    draw_strengths,
    make_fault_pair,
    shrink_at_random,
)
from musiq_hf.pictures.synthetic import make_picture


def test_windows_keep_to_the_stated_sizes_and_aspects():
    torch.manual_seed(0)
    for size in ((512, 512), (700, 300), (90, 120)):
        for _ in range(40):
            width, height = crop_window(Image.new("RGB", size)).size
            assert min(width, height) >= min(WINDOW_MIN_SIDE, *size)
            assert max(width, height) <= WINDOW_MAX_SIDE
            if min(size) >= WINDOW_MAX_SIDE:
                assert 0.49 < width / height < 2.05


def test_shrunk_copies_keep_the_aspect_and_a_smallest_side():
    torch.manual_seed(0)
    for size in ((1000, 800), (300, 200), (90, 120)):
        for _ in range(20):
            width, height = shrink_at_random(Image.new("RGB", size), largest=0.7).size
            assert abs(width / height - size[0] / size[1]) < 0.02
            assert min(width, height) >= min(WINDOW_MIN_SIDE, *size)
            assert 0.4 * size[0] <= width + 1 and (width <= 0.7 * size[0] + 1 or min(size) * 0.7 < WINDOW_MIN_SIDE)


def test_the_second_of_a_pair_has_more_of_the_same_faults(monkeypatch):
    monkeypatch.setattr(fault_pairs, "P_ACROSS", 0.0)
    torch.manual_seed(0)
    clean, weak, kinds = 0, 0, set()
    for _ in range(600):
        lower, higher = draw_strengths()
        assert lower.keys() == higher.keys() and 1 <= len(lower) <= 2
        is_clean = not any(lower.values())
        for kind in lower:
            assert higher[kind] >= LEAST[kind] and higher[kind] <= 1 + 1e-6
            assert is_clean or 0 <= lower[kind] <= higher[kind] - MIN_GAP + 1e-6
        clean += is_clean
        weak += is_clean and max(higher.values()) < HIDING
        kinds |= set(lower)
    assert 240 < clean < 360
    assert weak > 60
    assert kinds == set(DEGRADATIONS)


def test_a_weak_fault_is_better_than_a_strong_one_of_another_kind(monkeypatch):
    monkeypatch.setattr(fault_pairs, "P_ACROSS", 1.0)
    torch.manual_seed(0)
    for _ in range(50):
        lower, higher = draw_strengths()
        (better,), (worse,) = ([kind for kind, value in side.items() if value] for side in (lower, higher))
        assert better != worse and {better, worse} <= DESTROYING
        assert lower[better] <= WEAK and STRONG <= higher[worse] <= 1


def test_kinds_are_drawn_as_often_as_their_weights_say(monkeypatch):
    monkeypatch.setattr(fault_pairs, "P_ACROSS", 0.0)
    monkeypatch.setattr(fault_pairs, "P_TWO_KINDS", 0.0)
    torch.manual_seed(0)
    drawn = Counter(next(iter(draw_strengths()[0])) for _ in range(2000))
    for kind in ("jpeg", "blur", "banding"):
        assert drawn[kind] / 2000 == pytest.approx(WEIGHTS[kind] / sum(WEIGHTS.values()), abs=0.03)


def test_pairs_repeat_with_torchs_seed():
    picture, made = make_picture(seed=1, width=200, height=180), []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        made.append([copy.tobytes() for _ in range(3) for copy in make_fault_pair(picture)[0]])
    assert made[0] == made[1] != made[2]


def test_the_worse_copy_is_enlarged_now_and_then(monkeypatch):
    monkeypatch.setattr(fault_pairs, "P_ENLARGED", 1.0)
    for seed in range(5):
        torch.manual_seed(seed)
        better, worse = make_fault_pair(make_picture(seed=1, width=300, height=400))[0]
        assert 2 - 0.02 < worse.width / better.width < 4.02 and max(worse.size) <= 2048
        assert worse.width / better.width == pytest.approx(worse.height / better.height, rel=0.02)


def test_pairs_are_two_copies_of_one_window_the_better_first(monkeypatch):
    monkeypatch.setattr(fault_pairs, "P_ENLARGED", 0.0)
    monkeypatch.setattr(fault_pairs, "draw_strengths", lambda: ({"blur": 0.1}, {"blur": 0.9}))
    torch.manual_seed(0)
    (better, worse), strengths = make_fault_pair(make_picture(seed=1, width=400, height=300))
    assert better.size == worse.size
    sharpness = [np.diff(np.asarray(copy, dtype=float), axis=1).std() for copy in (better, worse)]
    assert sharpness[0] > 1.5 * sharpness[1]
    assert [values[KINDS.index("blur")] for values in strengths] == [0.1, 0.9]
    assert sum(map(sum, strengths)) == 1.0


def mean_blockiness(image: Image.Image) -> float:
    """Steps between columns 7 and 8 of blocks of JPEG, beside those within blocks."""
    steps = np.abs(np.diff(np.asarray(image.convert("L"), dtype=float), axis=1)).mean(axis=0)
    return float(steps[7::8].mean() / np.delete(steps, np.s_[7::8]).mean())


def test_the_clean_copy_of_a_weak_fault_has_no_blocks(monkeypatch):
    monkeypatch.setattr(fault_pairs, "crop_window", lambda image: image)
    blocky = compress_jpeg(make_picture(seed=1, width=512, height=512), 20)
    sizes = []
    for strength in (0.2, 0.9):
        monkeypatch.setattr(fault_pairs, "draw_strengths", lambda high=strength: ({"jpeg": 0.0}, {"jpeg": high}))
        torch.manual_seed(0)
        pairs = [make_fault_pair(blocky)[0] for _ in range(8)]
        sizes.append({pair[0].width for pair in pairs})
    assert max(sizes[0]) <= 256 < max(sizes[1]) == 512
    monkeypatch.setattr(fault_pairs, "draw_strengths", lambda: ({"jpeg": 0.0}, {"jpeg": 0.2}))
    assert mean_blockiness(blocky) > 1.5 > 1.2 > mean_blockiness(make_fault_pair(blocky)[0][0])
