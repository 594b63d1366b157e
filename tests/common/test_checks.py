# SPDX-License-Identifier: Apache-2.0
"""Checks that several layers share: what passes, and the one sentence of what does not."""

from types import SimpleNamespace

import pytest

from musiq_hf.common.checks import check_choice, check_counts, require_evaluation_mode


def test_a_model_that_trains_is_refused(tiny_model):
    model = tiny_model()
    require_evaluation_mode(model)
    with pytest.raises(ValueError, match=r"must be in evaluation mode, or dropout .* Call `model.eval\(\)`"):
        require_evaluation_mode(model.train())


def test_counts_start_at_one_and_none_is_no_bound():
    settings = SimpleNamespace(batch_size=1, shorter_side=None, steps=0)
    check_counts(settings, "batch_size", "shorter_side")
    with pytest.raises(ValueError, match="`steps` must be at least 1, got 0"):
        check_counts(settings, "batch_size", "steps")


def test_choices_are_named():
    check_choice("dtype", "a", ("a", "b"))
    with pytest.raises(ValueError, match="`dtype` must be 'a' or 'b', got 'c'"):
        check_choice("dtype", "c", ("a", "b"))
