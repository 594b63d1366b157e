# SPDX-License-Identifier: Apache-2.0
import pytest


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working directory, which keys start from."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
