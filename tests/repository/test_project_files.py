# SPDX-License-Identifier: Apache-2.0
"""Files that other tools read: citation, workflow, templates of issues, hooks, and the check of a release."""

import importlib.util
import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from places import ROOT

from musiq_hf import __version__

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What `make test` installs.
TESTED_EXTRAS = ("train", "test", "bursts", "explain", "export", "google", "heic", "video")
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def load(name):
    return yaml.safe_load((ROOT / name).read_text())


@pytest.fixture
def release():
    """The script that checks a release."""
    spec = importlib.util.spec_from_file_location("release_run", ROOT / "tests" / "release" / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_citation_names_this_version_and_the_paper():
    citation = load("CITATION.cff")
    assert citation["cff-version"] == "1.2.0" and {"title", "message", "authors"} <= citation.keys()
    assert (citation["version"], citation["license"]) == (__version__, PROJECT["license"])
    (paper,) = citation["references"]
    cited = re.search(r"author = \{(.*?)\}", (ROOT / "README.md").read_text())[1].split(" and ")
    assert [f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]] == cited


def test_the_workflow_runs_what_the_repository_runs_on_three_versions_from_the_oldest_on():
    job = load(".github/workflows/ci.yml")["jobs"]["ci"]
    versions = job["strategy"]["matrix"]["python"]
    assert len(versions) == 3 and f">={versions[0]}" == PROJECT["requires-python"]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_the_workflow_tests_the_oldest_versions_on_the_oldest_python():
    steps = load(".github/workflows/ci.yml")["jobs"]["oldest"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["make test-oldest"]
    (python,) = (step["with"]["python-version"] for step in steps if "python-version" in step.get("with", {}))
    assert f">={python}" == PROJECT["requires-python"]


def test_the_workflow_tests_the_page_and_keeps_the_screenshots():
    steps = load(".github/workflows/ci.yml")["jobs"]["web"]["steps"]
    install, test = (step["run"] for step in steps if "run" in step)
    assert install.endswith("install -y chromium chromium-driver") and test == "make test-web"
    assert steps[-1]["with"]["path"] == "runs/screenshots" and steps[-1]["if"] == "always()"


def test_the_versions_of_the_page_lie_within_the_bounds_of_its_extras():
    extras = PROJECT["optional-dependencies"]
    lines = (ROOT / "constraints-serve.txt").read_text().splitlines()[1:]
    pins = {name.lower().replace("_", "-"): version for name, version in (line.split("==") for line in lines)}
    bounds = map(Requirement, [*PROJECT["dependencies"], *extras["serve"], *extras["mcp"], *extras["web"]])
    for bound in bounds:
        if bound.name != "musiq_hf":
            assert bound.specifier.contains(pins[bound.name.lower().replace("_", "-")]), bound
    assert Version(pins["pillow"]) < Version("13")  # gradio asks for it


def test_the_oldest_versions_are_the_lower_bounds_of_what_the_tests_import():
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for extra in TESTED_EXTRAS for line in extras[extra])]
    bounds = set()
    for line in map(Requirement, lines):
        bounds |= {(line.name, Version(part.version)) for part in line.specifier if part.operator == ">="}
    pins = (ROOT / "constraints-oldest.txt").read_text().splitlines()[1:]
    assert {(name, Version(version)) for name, version in (pin.split("==") for pin in pins)} == bounds


def test_pre_commit_runs_the_checks_of_make_quality():
    ((hook,),) = (repository["hooks"] for repository in load(".pre-commit-config.yaml")["repos"])
    assert (hook["entry"], hook["language"], hook["pass_filenames"]) == ("make quality", "system", False)
    changed = ("musiq_hf/version.py", "pyproject.toml", "Makefile")
    assert all(re.search(hook["files"], name) for name in changed) and not re.search(hook["files"], "README.md")


@pytest.mark.parametrize("path", [path for path in TEMPLATES if path.stem != "config"], ids=lambda path: path.stem)
def test_templates_of_issues_ask_for_something(path):
    template = yaml.safe_load(path.read_text())
    assert template["name"] and template["description"]
    assert any(part.get("validations", {}).get("required") for part in template["body"])


def test_there_are_templates():
    assert {path.stem for path in TEMPLATES} == {"bug", "wish", "config"}


def test_the_check_of_a_release_runs_the_commands_of_readme(release, tmp_path):
    commands = release.read_commands((ROOT / "README.md").read_text())
    assert ["musiq", "score", "examples/pictures"] in commands
    assert {words[1] for words in commands} >= {"score", "finetune", "explain", "evaluate", "verify"}
    assert not {"convert", "serve"} & {words[1] for words in commands}  # one downloads, the other does not end
    assert not [words for words in commands if "s3://" in " ".join(words)]
    release.make_inputs(tmp_path)
    names = [line.partition(",")[0] for line in (tmp_path / "scores.csv").read_text().splitlines()[1:]]
    assert len(names) >= 40 and all((tmp_path / "photos" / name).is_file() for name in names)
    assert (tmp_path / "examples" / "pictures" / "rocket_sharp.jpg").is_file() and (tmp_path / "photo.jpg").is_file()
