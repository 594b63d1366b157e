# SPDX-License-Identifier: Apache-2.0
"""The folder of a Space: what the Hub reads of it, and its program."""

import importlib.util
import runpy
import sys

import pytest
import yaml
from packaging.requirements import Requirement
from places import ROOT

from musiq_hf import __version__


@pytest.fixture
def space(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["make_space.py", "--output", str(tmp_path / "space")])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "examples" / "page" / "make_space.py"), run_name="__main__")
    assert end.value.code == 0 and "README.md, requirements.txt and app.py" in capsys.readouterr().out
    return tmp_path / "space"


def test_the_card_names_versions_that_fit(space):
    assert sorted(path.name for path in space.iterdir()) == ["README.md", "app.py", "requirements.txt"]
    _, head, text = (space / "README.md").read_text().split("---\n")
    card = yaml.safe_load(head)
    assert (card["sdk"], card["app_file"], card["license"]) == ("gradio", "app.py", "apache-2.0")
    (gradio,) = [line for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("serve = ")]
    requirement = Requirement(gradio.split('"')[1])
    assert requirement.name == "gradio" and requirement.specifier.contains(card["sdk_version"])
    assert len(card["short_description"]) <= 60  # the Hub refuses longer ones
    assert (space / "requirements.txt").read_text() == f"musiq_hf[serve]=={__version__}\n" and __version__ in text


def test_its_program_can_be_imported(space):
    spec = importlib.util.spec_from_file_location("app", space / "app.py")
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    assert (app.SETTINGS.host, app.SETTINGS.port) == ("0.0.0.0", 7860)
