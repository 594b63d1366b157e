# SPDX-License-Identifier: Apache-2.0
"""`musiq serve`, as far as it goes without gradio."""

import sys

import pytest

from musiq_hf.app import serving
from musiq_hf.cli import main


@pytest.mark.parametrize(("words", "module", "extra"), [([], "gradio", "serve"), (["--mcp"], "mcp", "mcp")])
def test_a_missing_extra_is_one_sentence(capsys, monkeypatch, words, module, extra):
    monkeypatch.setitem(sys.modules, "gradio", sys)  # stands for any module that is there
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(serving, "check_address", lambda host, port: None)
    assert main(["serve", *words]) == 2
    expected = f'musiq serve: {module} is needed here. Install it with: pip install "musiq_hf[{extra}]"'
    assert capsys.readouterr().err.splitlines()[0] == expected


def test_settings_are_checked_before_anything_is_imported(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["serve", "--port", "70000"]) == 2
    assert capsys.readouterr().err.startswith("musiq serve: `port` must be at most 65535, got 70000.")
