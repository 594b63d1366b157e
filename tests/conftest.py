# SPDX-License-Identifier: Apache-2.0
"""What the tests share: deterministic properties, models that are built once, small models and pictures."""

import gc
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from places import ROOT

if TYPE_CHECKING:
    import numpy as np

    from musiq_hf import MusiqConfig, MusiqForImageQualityAssessment

gc.disable()  # until all is collected: what is imported stays, and looking through it again and again costs a fifth

# A model of a few thousand parameters: every kind of layer, nothing of size.
TINY = json.loads((ROOT / "tests" / "models" / "musiq" / "tiny.json").read_text())


def pytest_configure(config):
    """Prepare the libraries; the process that only hands tests out to others needs none, and spares the seconds."""
    if config.getoption("dist", "no") != "no":
        gc.enable()
        return
    import torch
    from hypothesis import settings

    # The pictures are small: more threads cost more than they give, most of all on a busy machine.
    torch.set_num_threads(1)
    settings.register_profile("deterministic", derandomize=True, database=None, deadline=None, max_examples=25)
    settings.load_profile("deterministic")
    if sys.platform != "win32":  # processes that decode are started often: import what they need once
        multiprocessing.set_forkserver_preload(["musiq_hf.pictures.decoding"])


@pytest.fixture(scope="session", autouse=True)
def undrawn():
    """Leave the curves of training runs undrawn: drawing takes half of the time of a tiny run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("musiq_hf.training.trainer.write_training_curves", lambda path, log, *, metric: path.touch())
        yield


@pytest.fixture(scope="session")
def golden_model() -> "Callable[[str], MusiqForImageQualityAssessment]":
    """Build a golden checkpoint by name, once per run; tests must leave it as they found it."""
    import golden

    return cache(golden.build_model)


@pytest.fixture(scope="session")
def tiny_config() -> "Callable[..., MusiqConfig]":
    """Make a tiny configuration; arguments override its fields."""
    from musiq_hf import MusiqConfig

    def make(**overrides: Any) -> MusiqConfig:
        return MusiqConfig(**{**TINY, **overrides})

    return make


@pytest.fixture(scope="session")
def tiny_model(tiny_config) -> "Callable[..., MusiqForImageQualityAssessment]":
    """Make a tiny model in evaluation mode with random weights, the head's too: a fresh head answers its bias."""
    import torch

    from musiq_hf import MusiqForImageQualityAssessment

    def make(*, seed: int = 0, **overrides: Any) -> MusiqForImageQualityAssessment:
        torch.manual_seed(seed)
        model = MusiqForImageQualityAssessment(tiny_config(**overrides))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        return model.eval()

    return make


@pytest.fixture(scope="session")
def blank(tmp_path_factory, tiny_config) -> str:
    """A directory with a tiny configuration but without weights; tests must leave it as they found it."""
    from musiq_hf import MusiqImageProcessor

    folder, config = tmp_path_factory.mktemp("blank"), tiny_config(longer_side_lengths=[16])
    config.save_pretrained(folder)
    MusiqImageProcessor.from_config(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def pictures() -> "list[np.ndarray]":
    """Four pictures of different sizes and contents, uint8 (height, width, 3)."""
    import numpy as np

    generator = np.random.default_rng(7)
    sizes = ((30, 41), (17, 16), (9, 50), (48, 24))
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


@pytest.fixture
def alone(monkeypatch):
    """Whatever starts the tests, the command is not one of several processes."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def pytest_collection_finish(session):
    """Leave what the libraries hold out of the search for garbage, which costs .3 s a time with all of them loaded."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture
def store(monkeypatch):
    """Make an empty store in memory, reached as flaky://, that fails on demand."""
    from flaky_store import make_store  # fsspec takes a while to import

    return make_store(monkeypatch)


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Make empty files below the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(*names):
        for name in names:
            os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
            open(name, "x").close()

    return write
