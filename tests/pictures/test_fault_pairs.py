# SPDX-License-Identifier: Apache-2.0
import numpy as np
import torch
from PIL import Image

from musiq_hf.pictures import fault_pairs
from musiq_hf.pictures.augmentations import WINDOW_MAX_SIDE, WINDOW_MIN_SIDE, crop_window
from musiq_hf.pictures.degradations import DEGRADATIONS
from musiq_hf.pictures.fault_pairs import (
    KINDS,
    MIN_CLEAN_GAP,
    MIN_GAP,
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


def test_the_second_of_a_pair_has_more_of_the_same_faults():
    torch.manual_seed(0)
    clean, weak, kinds = 0, 0, set()
    for _ in range(400):
        lower, higher = draw_strengths()
        assert lower.keys() == higher.keys() and 1 <= len(lower) <= 2
        is_clean = not any(lower.values())
        gap = MIN_CLEAN_GAP if is_clean else MIN_GAP
        assert all(0 <= lower[k] <= higher[k] - gap + 1e-6 and higher[k] <= 1 for k in lower)
        clean += is_clean
        weak += is_clean and max(higher.values()) < 0.3
        kinds |= set(lower)
    assert 160 < clean < 240
    assert weak > 60  # a third or more of them
    assert kinds == set(DEGRADATIONS)


def test_pairs_are_two_copies_of_one_window_the_better_first(monkeypatch):
    monkeypatch.setattr(fault_pairs, "draw_strengths", lambda: ({"blur": 0.1}, {"blur": 0.9}))
    torch.manual_seed(0)
    (better, worse), strengths = make_fault_pair(make_picture(seed=1, width=400, height=300))
    assert better.size == worse.size
    sharpness = [np.diff(np.asarray(copy, dtype=float), axis=1).std() for copy in (better, worse)]
    assert sharpness[0] > 1.5 * sharpness[1]
    assert [values[KINDS.index("blur")] for values in strengths] == [0.1, 0.9]
    assert sum(map(sum, strengths)) == 1.0


def test_a_clean_copy_comes_from_a_shrunk_picture(monkeypatch):
    monkeypatch.setattr(fault_pairs, "draw_strengths", lambda: ({"noise": 0.0}, {"noise": 0.5}))
    monkeypatch.setattr(fault_pairs, "crop_window", lambda image: image)
    for _ in range(10):
        copies, _ = make_fault_pair(Image.new("RGB", (1000, 800)))
        assert all(copy.width <= 700 for copy in copies)
