# SPDX-License-Identifier: Apache-2.0
"""Trainings that are cut off."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from musiq_hf.training.trainer import QualityTrainer


@pytest.fixture
def cut_off(monkeypatch) -> Callable[[int], AbstractContextManager[None]]:
    """Make a context in which a training must break off before the step after this many."""

    class Interrupted(Exception):
        pass

    original = QualityTrainer.training_step

    @contextmanager
    def at(step: int) -> Iterator[None]:
        def interrupt(trainer: Any, *args: Any, **kwargs: Any) -> Any:
            if trainer.state.global_step == step:
                raise Interrupted
            return original(trainer, *args, **kwargs)

        monkeypatch.setattr(QualityTrainer, "training_step", interrupt)
        with pytest.raises(Interrupted):
            yield
        monkeypatch.setattr(QualityTrainer, "training_step", original)

    return at
