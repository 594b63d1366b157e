# SPDX-License-Identifier: Apache-2.0
"""The documents name what exists: options, files, commands, and the public names of the package."""

import argparse
import ast
import importlib
import re

import pytest
from places import ROOT

from benchmarks.cpu import make_parser as benchmark_parser
from musiq_hf.cli import build_parser as command_parser
from musiq_hf.conversion.command import build_parser as convert_parser
from musiq_hf.data.loading import DATA_SETS
from musiq_hf.models import FAMILIES
from musiq_hf.training.distillation import DistillSettings
from musiq_hf.training.pretraining_imagenet import ImageNetSettings
from musiq_hf.training.pretraining_quality import PretrainSettings
from musiq_hf.training.recipes import RECIPES, settings_parser
from musiq_hf.training.settings import FinetuneSettings

README, API = ROOT / "README.md", ROOT / "docs" / "api.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS = [*PAGES, ROOT / "MODEL_CARD.md", ROOT / "examples" / "pictures" / "README.md"]
DOCUMENTS += sorted(RECIPES.glob("*.yaml"))
# Of `accelerate launch`, `torchrun`, `hf upload`, and of examples without settings.
OTHERS = {"--config_file", "--nproc_per_node", "--exclude", "--pictures", "--half_size"}
OTHERS |= {"--num_processes", "--pretrained", "--whitened", "--variants", "--seeds", "--blur", "--without_map"}
OTHERS |= {"--methods", "--minutes", "--steps", "--upscaler", "--ablation", "--scales", "--clips", "--update_document"}
OTHERS |= {"--originals", "--rim_from", "--fold_rim", "--limit", "--studies", "--num_train", "--num_validation"}
OTHERS |= {"--hashes"}

FOLDERS = ("scoring", "pictures", "data", "metrics", "training", "evaluation", "explain", "hub", "subjective", "app")
FOLDERS += ("assessment", "upscaling", "decisions", "studies")
PUBLIC = {"musiq_hf"} | {f"musiq_hf.{folder}" for folder in FOLDERS}
PUBLIC |= {f"musiq_hf.models.{family}" for family in FAMILIES}


def name_of(path):
    return str(path.relative_to(ROOT))


def subcommands():
    (commands,) = (action for action in command_parser()._actions if isinstance(action, argparse._SubParsersAction))
    return commands


def known_options() -> set[str]:
    commands = subcommands()
    parsers = [convert_parser(), benchmark_parser(), *commands.choices.values()]
    for kind in (FinetuneSettings, DistillSettings, PretrainSettings, ImageNetSettings):
        parsers.append(settings_parser(kind))
    return OTHERS | {option for parser in parsers for action in parser._actions for option in action.option_strings}


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(path):
    """The names that a page's headings get on the Hub and where Git repositories are shown."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_readme_is_short_and_begins_with_a_score_and_how_to_get_it():
    lines = README.read_text().splitlines()
    assert len(lines) <= 150
    beginning = "\n".join(lines[:20])
    assert re.search(r"\*\*\d+\.\d\*\*", beginning)
    for needed in ("pip install -e .", "pip install git+", "musiq score ", "import musiq_hf", "pipeline("):
        assert needed in beginning


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_options_in_documents_exist(path):
    named = set(re.findall(r"(?<![\w-])--[a-z]\w*", path.read_text()))
    assert named <= known_options(), sorted(named - known_options())


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_files_in_documents_exist(path):
    text = path.read_text()
    linked = re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)|<img src=\"([^\"]+)\"", text)
    roots = r"\b(?:benchmarks|configuration|conversion|docs|examples|musiq_hf|tests)/"
    named = re.findall(rf"({roots}[\w/.-]+\.(?:py|yaml|md|json))\b|`({roots}[\w/.-]*)`", text)
    for name in ("".join(pair) for pair in [*linked, *named]):
        assert (path.parent / name).exists() or (ROOT / name).exists(), name


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_to_headings_find_them(path):
    for page, anchor in re.findall(r"\]\((?!http)([^)#]*)#([^)]+)\)", path.read_text()):
        assert anchor in anchors(path.parent / page if page else path), f"{page}#{anchor}"


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_commands_in_documents_exist(path):
    text = path.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    commands = set(re.findall(r"(?:^|`)musiq ([a-z]+(?:-[a-z]+)*)", text, flags=re.MULTILINE))
    assert commands <= set(subcommands().choices)
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, flags=re.MULTILINE)) <= targets


def test_documents_name_every_recipe_and_data_set():
    text = "".join(path.read_text() for path in PAGES)
    names = {path.stem for path in RECIPES.glob("*.yaml")} | set(DATA_SETS)
    assert {name for name in names if f"`{name}`" not in text and f"--dataset {name}" not in text} == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_dotted_names_in_documents_resolve(path):
    for name in set(re.findall(r"\bmusiq_hf(?:\.[A-Za-z_]\w*)+", path.read_text())):
        assert resolves(name), name


def resolves(name):
    """Tell if a dotted name is a module, or an attribute of one."""
    module, _, attribute = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), attribute) or bool(importlib.import_module(name))
    except ImportError:
        return False


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_snippets_parse_and_import_public_names(path):
    for snippet in blocks(path, "python"):
        for node in ast.walk(ast.parse(snippet)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "musiq_hf":
                assert node.module in PUBLIC, f"{node.module} is private"
                names = {alias.name for alias in node.names}
                assert names <= set(importlib.import_module(node.module).__all__), f"{node.module}: {names}"


def documented():
    """Names of each package in docs/api.md, by the name of the package."""
    _, *sections = re.split(r"^## `([\w.]+)`$", API.read_text(), flags=re.MULTILINE)
    packages, texts = sections[::2], sections[1::2]
    names = {}
    for package, text in zip(packages, texts, strict=True):
        bullets = [line for line in text.splitlines() if line.startswith("-")]
        matches = [re.fullmatch(r"- `(\w+)`: [A-Z].*\.", line) for line in bullets]
        assert all(matches), f"{package}: a line must read '- `name`: Sentence.', see {bullets}"
        names[package] = [match[1] for match in matches]
    return names


def test_the_list_of_public_names_has_every_public_package():
    assert set(documented()) == PUBLIC


@pytest.mark.parametrize("package", sorted(PUBLIC))
def test_the_list_of_public_names_is_that_of_the_package(package):
    module, listed = importlib.import_module(package), documented()[package]
    assert len(listed) == len(set(listed)), f"docs/api.md names something twice under {package}"
    missing, gone = set(module.__all__) - set(listed), set(listed) - set(module.__all__)
    assert not missing, f"docs/api.md lacks of {package}: {', '.join(sorted(missing))}"
    assert not gone, f"docs/api.md names what `__all__` of {package} does not: {', '.join(sorted(gone))}"
    assert all(hasattr(module, name) for name in listed)
