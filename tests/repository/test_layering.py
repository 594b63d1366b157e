# SPDX-License-Identifier: Apache-2.0
"""The graph of imports, and what must hold for every file of the repository."""

import ast
import re
import subprocess
import sys

import pytest
from places import ROOT

PACKAGE = ROOT / "musiq_hf"
FOLDERS = ("musiq_hf", "conversion", "configuration", "examples", "benchmarks", "tests", "docs", ".ci")
TEXT = {".py", ".md", ".toml", ".json", ".yaml", ".yml", ".txt", ".cfg", ".ini", ".sh", ".csv", ""}

THIRD_PARTIES = {"huggingface_hub", "numpy", "PIL", "torch", "transformers"}
LEAVES = {"configuration", "patching", "resampling", "losses", "cpu_kernels", "image_loading"}
# What a file of a Hub repository may import of ours; leaves import none.
MAY_IMPORT = {
    **{leaf: set() for leaf in LEAVES},
    "image_processing": LEAVES,
    "patch_encoder": {"cpu_kernels"},
    "packing": {"cpu_kernels"},
    "encoder": {"configuration", "cpu_kernels", "packing"},
    "modeling": LEAVES | {"encoder", "packing", "patch_encoder"},
    "pipeline": LEAVES | {"image_processing", "modeling"},
}


def repository_files():
    files = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in FOLDERS:
        files += (path for path in (ROOT / folder).rglob("*") if path.is_file())
    return [path for path in files if not {"__pycache__", "runs"} & set(path.parts)]


def relative(path):
    return str(path.relative_to(ROOT))


TEXT_FILES = sorted((path for path in repository_files() if path.suffix in TEXT), key=relative)
PYTHON_FILES = [path for path in TEXT_FILES if path.suffix == ".py"]
HUB_FILES = sorted((PACKAGE / "models" / "musiq").glob("*_musiq.py"))


def imports(path):
    """(level, module, names) of every import in a file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module, tuple(alias.name for alias in node.names)


def test_every_hub_file_has_its_place_in_the_graph():
    assert {path.stem.removesuffix("_musiq") for path in HUB_FILES} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", HUB_FILES, ids=relative)
def test_hub_files_import_third_parties_and_flat_siblings_only(path):
    for level, module, names in imports(path):
        where = f"{relative(path)}: {'.' * level}{module or ''} {names}"
        if level == 0:
            root = module.split(".")[0]
            assert root not in {"musiq_hf", "conversion", "configuration"}, where
            assert root in sys.stdlib_module_names | THIRD_PARTIES, where
        else:
            assert level == 1 and module and "." not in module and module.endswith("_musiq") and names, where
            assert "*" not in names, where


@pytest.mark.parametrize("path", HUB_FILES, ids=relative)
def test_hub_files_import_only_what_stands_below_them(path):
    ours = {module.removesuffix("_musiq") for level, module, _ in imports(path) if level}
    assert ours <= MAY_IMPORT[path.stem.removesuffix("_musiq")]


def test_no_import_of_the_package_goes_in_a_circle():
    graph = {path.stem: set() for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    for name in graph:
        tree = ast.parse((PACKAGE / f"{name}.py").read_text())
        for node in tree.body:  # at the top of the file: what a function imports comes later
            if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
                graph[name].add(node.module.split(".")[0])
    while graph:
        free = {name for name, needed in graph.items() if not needed & set(graph)}
        assert free, f"circle among {sorted(graph)}"
        graph = {name: needed for name, needed in graph.items() if name not in free}


def test_the_package_never_imports_examples_tests_or_test_tools():
    forbidden = {"examples", "tests", "benchmarks", "pytest", "hypothesis", "conversion", "configuration"}
    for path in PACKAGE.rglob("*.py"):
        for level, module, _ in imports(path):
            assert level or module.split(".")[0] not in forbidden, f"{relative(path)} imports {module}"


def test_annotations_are_never_postponed_where_transformers_reads_them():
    for name in ("configuration_musiq", "modeling_musiq"):
        assert all(module != "__future__" for _, module, _ in imports(PACKAGE / "models" / "musiq" / f"{name}.py"))


def test_importing_the_package_loads_no_training_library():
    script = """
import sys
import transformers
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, PreTrainedModel
from transformers import Pipeline
from transformers.image_processing_utils import BaseImageProcessor
from transformers.pipelines import PIPELINE_REGISTRY
before = set(sys.modules)
import musiq_hf
print(*sorted({name.split(".")[0] for name in sys.modules} & {"datasets", "evaluate", "pandas", "matplotlib"}))
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before} & {"accelerate", "scipy", "sklearn"}))
"""
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


@pytest.mark.parametrize("path", PYTHON_FILES, ids=relative)
def test_python_files_name_their_licence_and_stay_short(path):
    lines = path.read_text().splitlines()
    assert lines[:1] == ["# SPDX-License-Identifier: Apache-2.0"]
    assert len(lines) <= 500


def test_no_file_mentions_a_path_of_one_machine():
    places = ("home", "Users", "root", "work", "mnt", "scratch", "private")
    path_of_a_machine = re.compile(rf"(?<![\w.\-/:~<>}}])/(?:{'|'.join(places)})/[\w.\-]|[A-Z]:\\\\?(?:Users|home)")
    assert path_of_a_machine.search("see '/" + "home/someone/file'")
    found = [
        f"{relative(path)}:{number}: {line.strip()}"
        for path in TEXT_FILES
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if path_of_a_machine.search(line)
    ]
    assert not found


def test_the_looked_for_files_are_there():
    assert {
        "musiq_hf/models/musiq/modeling_musiq.py",
        "musiq_hf/conversion/key_mapping.py",
        "tests/conftest.py",
    } <= set(map(relative, PYTHON_FILES))
    assert {"pyproject.toml", "README.md", "Makefile"} <= set(map(relative, TEXT_FILES))
