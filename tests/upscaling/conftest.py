# SPDX-License-Identifier: Apache-2.0
import pytest
from detectors import save_detector


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A tiny detector on disk that finds everything upscaled."""
    return save_detector(tmp_path_factory.mktemp("upscaled") / "sudds-test", native=-9)


@pytest.fixture(scope="session")
def native_checkpoint(tmp_path_factory):
    """A tiny detector on disk that finds everything native."""
    return save_detector(tmp_path_factory.mktemp("native") / "sudds-test", native=9)
