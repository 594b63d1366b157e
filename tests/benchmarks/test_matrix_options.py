# SPDX-License-Identifier: Apache-2.0
"""Costs of the options of training: each one's step trains, and the table has a row for each."""

import pytest
import torch

from benchmarks.matrix import options


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(options, "BATCH_SIZE", 16)
    monkeypatch.setattr(options, "NUM_PATCHES", 6)


@pytest.mark.parametrize("name", options.OPTIONS)
def test_every_option_does_what_it_says_in_a_step(small, name, monkeypatch):
    made = []

    class Recorded(torch.optim.SGD):
        def __init__(self, parameters, lr):
            made.extend(parameters)
            super().__init__(made, lr=lr)

    monkeypatch.setattr(torch.optim, "AdamW", Recorded)
    torch.manual_seed(0)
    step = options.make_step(*options.OPTIONS[name])
    before = sum(float(weight.detach().double().abs().sum()) for weight in made)
    step()
    assert sum(float(weight.detach().double().abs().sum()) for weight in made) != before
    plain = sum(weight.numel() for weight in made)
    made.clear()
    options.make_step(*options.OPTIONS["none"])
    assert (plain == sum(weight.numel() for weight in made)) == (name == "none")


def test_the_table_compares_with_none(monkeypatch):
    monkeypatch.setattr(options, "run_alone", lambda name: 2**20)
    monkeypatch.setattr(options, "measure_steps", lambda repeats: {n: 1.0 + i for i, n in enumerate(options.OPTIONS)})
    monkeypatch.setattr(options, "measure_scoring", lambda repeats: {"plain": 0.4, "covariance": 0.5})
    lines = options.measure(3).splitlines()
    assert "medians of 3" in lines[0]
    assert "| none | 1000 | 1.00 | 1 |" in lines and "| localisation | 3000 | 3.00 | 1 |" in lines
    assert lines[-1] == "Scoring takes 400 ms, and 500 ms with covariances: 1.250 times as long."
