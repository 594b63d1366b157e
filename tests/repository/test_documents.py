# SPDX-License-Identifier: Apache-2.0
"""What the documents name must exist."""

import argparse
import re

import pytest
from places import ROOT

from benchmarks.cpu import make_parser as benchmark_parser
from examples.evaluate import build_parser as evaluate_parser
from musiq_hf.cli import build_parser as command_parser
from musiq_hf.conversion.convert_musiq_checkpoint import build_parser as convert_parser
from musiq_hf.data.loading import DATA_SETS
from musiq_hf.training.pretraining_imagenet import ImageNetSettings
from musiq_hf.training.pretraining_quality import PretrainSettings
from musiq_hf.training.recipes import RECIPES, settings_parser
from musiq_hf.training.settings import FinetuneSettings

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(RECIPES.glob("*.yaml"))]
# Of `accelerate launch`, `torchrun`, `hf upload`, and of examples without settings.
OTHERS = {"--config_file", "--nproc_per_node", "--exclude", "--pictures", "--half_size"}
OTHERS |= {"--num_processes", "--pretrained", "--seeds"}


def known_options() -> set[str]:
    (commands,) = (action for action in command_parser()._actions if isinstance(action, argparse._SubParsersAction))
    parsers = [convert_parser(), evaluate_parser(), benchmark_parser(), *commands.choices.values()]
    for kind in (FinetuneSettings, PretrainSettings, ImageNetSettings):
        parsers.append(settings_parser(kind))
    return OTHERS | {option for parser in parsers for action in parser._actions for option in action.option_strings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_options_in_documents_exist(path):
    named = set(re.findall(r"(?<![\w-])--[a-z]\w*", path.read_text()))
    assert named <= known_options(), sorted(named - known_options())


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_in_documents_exist(path):
    text = path.read_text()
    linked = re.findall(r"\]\(((?!http)[^)#]+)\)", text)
    named = re.findall(r"\b((?:examples|configuration|docs|tests|musiq_hf)/[\w/.-]+\.(?:py|yaml|md|json))\b", text)
    for name in [*linked, *named]:
        assert (path.parent / name).exists() or (ROOT / name).exists(), name


def test_readme_lists_every_recipe_and_data_set():
    text = (ROOT / "README.md").read_text()
    assert all(f"`{path.stem}`" in text for path in RECIPES.glob("*.yaml"))
    assert all(f"`{name}`" in text or f"--dataset {name}" in text for name in DATA_SETS)
