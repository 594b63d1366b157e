# SPDX-License-Identifier: Apache-2.0
import pytest

from musiq_hf import MusiqImageProcessor


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, tiny_model):
    """A tiny checkpoint on disk, whose scores lie around the middle of its range."""
    folder = tmp_path_factory.mktemp("checkpoint") / "musiq-test"
    model = tiny_model(score_range=(-10, 10))
    model.save_pretrained(folder)
    MusiqImageProcessor.from_config(model.config).save_pretrained(folder)
    return str(folder)
