# SPDX-License-Identifier: Apache-2.0
"""The snippets of the documents run as printed, where the embedded checkpoints are the only weights."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from isolated import fill_cache
from places import ROOT

from musiq_hf import TINY_CHECKPOINT, MusiqForImageQualityAssessment, MusiqImageProcessor

PAGES = [ROOT / "README.md", ROOT / "MODEL_CARD.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPET = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What these need takes long: processes, an export, code of a checkpoint.
LONG = ("usage.md",)  # pages whose snippets together take long
APART = ("multiprocess", "onnxruntime", "trust_remote_code")
CLUSTERS = ("import ray", "pyspark")  # `make test-ray` runs these
EXPORT = re.compile(r"^musiq (export .*\.onnx)$", re.MULTILINE)


def snippets(path):
    found = SNIPPET.findall(path.read_text())
    return [snippet for snippet in found if not any(word in snippet for word in CLUSTERS)]


def runs_apart(snippet):
    return any(word in snippet for word in APART)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder with the sample pictures where a clone has them, and a picture of the user's."""
    shutil.copytree(ROOT / "examples" / "pictures", tmp_path / "examples" / "pictures")
    shutil.copy(ROOT / "examples" / "pictures" / "rocket_sharp.jpg", tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.name, marks=[pytest.mark.slow] * (path.name in LONG))
        for path in PAGES
        if snippets(path)
    ],
)
def test_snippets_of_a_page_run_one_after_the_other(clone, capsys, monkeypatch, path):
    monkeypatch.setattr("datasets.config.HF_MODULES_CACHE", str(clone / "modules"))
    namespace = {"__name__": "snippet"}
    for snippet in snippets(path):
        if not runs_apart(snippet):
            exec(compile(snippet, path.name, "exec"), namespace)
            assert bool(capsys.readouterr().out) == ("print(" in snippet), snippet


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "snippet"),
    [(path, snippet) for path in PAGES for snippet in snippets(path) if runs_apart(snippet)],
    ids=lambda value: next((word for word in APART if word in str(value)), ""),
)
def test_snippets_that_take_long_run_as_scripts(clone, path, snippet):
    published = clone / "published"
    MusiqForImageQualityAssessment.from_pretrained(TINY_CHECKPOINT).save_pretrained(published)
    MusiqImageProcessor.from_pretrained(TINY_CHECKPOINT).save_pretrained(published)
    fill_cache(clone / "home", "my-name/my-quality-model", published)
    environment = os.environ | {"HF_HOME": str(clone / "home"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    (clone / "snippet.py").write_text(snippet)
    exports = EXPORT.findall(path.read_text()) if "onnxruntime" in snippet else []
    commands = [["-m", "musiq_hf", *words] for words in map(str.split, exports)]
    for command in [*commands, ["snippet.py"]]:
        done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
