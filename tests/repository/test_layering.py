# SPDX-License-Identifier: Apache-2.0
"""The lines of the house, and what must hold for every file of the repository.

Each rule is one test, which lists all places where the rule is broken.
"""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from places import ROOT

PACKAGE = ROOT / "musiq_hf"

# The lowest line first. A file imports from its own folder and from lower lines, never from a neighbour on its line.
# Folders that are still to come stand here too.
LINES = (
    ("common", "version"),
    ("models",),
    ("pictures", "metrics"),
    ("scoring", "data", "hub", "subjective"),
    ("training", "evaluation", "assessment", "upscaling", "explain", "conversion", "decisions"),
    ("app",),
    ("cli",),
    ("__init__", "__main__"),
)
LINE_OF = {folder: number for number, line in enumerate(LINES) for folder in line}
MAX_FILES, MAX_LINES = 16, 500

# Modules that are imported by a name known only when the program runs: file, call, reason.
IMPORTED_BY_NAME = {
    ("common/extras.py", "importlib.import_module(module)"): "a third party, which may not be installed",
}

# Files that know a family by name, outside of its folder; `explain/<family>*.py` does as well.
KNOW_FAMILIES = ("__init__.py", "conversion/")
OPENING = "pictures/opening.py"  # opens files as MUSIQ's processor does, and alone imports how

THIRD_PARTIES = {"huggingface_hub", "numpy", "PIL", "pillow_heif", "torch", "transformers"}
LEAVES = {"patching", "covariance", "cpu_kernels", "image_formats", "checks", "publishing"}
# Files that every family has, with its own name in place of this one; `make style` copies them from MUSIQ.
EVERY_FAMILY = ("checks", "publishing", "settings")
# What a file of a Hub repository may import of ours; leaves import none.
MAY_IMPORT = {
    **{leaf: set() for leaf in LEAVES},
    "settings": {"checks", "publishing"},
    "configuration": {"checks", "settings"},
    "image_loading": {"image_formats"},
    "image_processing": LEAVES | {"configuration", "image_loading", "settings"},
    "patch_encoder": {"cpu_kernels"},
    "encoder": {"configuration", "cpu_kernels", "patch_encoder", "patching"},
    "modeling": LEAVES | {"configuration", "encoder", "patch_encoder"},
    "pipeline": LEAVES | {"image_loading", "image_processing", "modeling"},
}

PUBLIC = (
    "scoring",
    "data",
    "metrics",
    "training",
    "evaluation",
    "assessment",
    "upscaling",
    "decisions",
    "explain",
    "pictures",
    "hub",
    "subjective",
    "models",
    "app",
)
# Benchmarks time the parts of a model, feed them by hand and compare with other code: no public name does that.
BENCHMARKS_MAY_IMPORT = ("common", "models.musiq", "conversion.key_mapping", "training.self_supervised")

# Examples are command lines of this repository and share its words and errors: arguments, extras, files.
EXAMPLES_MAY_IMPORT = ("common",)
# An example may be a door of a command of `musiq`: it runs this function, and nothing else of the command line.
DOOR_OF_COMMANDS = ("musiq_hf.cli", "main")

# Files of the package that may handle the words of a command line as argparse gives them, outside of `cli/`.
HANDLE_WORDS = {
    "common/arguments.py": "reads them, for all commands",
    "conversion/": "a converter adds its own options, and each door is a command of its own",
}

FOLDERS = ("musiq_hf", "conversion", "configuration", "examples", "benchmarks", "tests", "docs", ".ci", ".github")
TEXT = {".py", ".md", ".toml", ".json", ".yaml", ".yml", ".txt", ".cfg", ".ini", ".sh", ".csv", ""}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def inner(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def repository_files() -> list[Path]:
    files = [path for path in ROOT.iterdir() if path.is_file() and path.name != ".git"]
    for folder in FOLDERS:
        files += (path for path in (ROOT / folder).rglob("*") if path.is_file())
    return [path for path in files if not {"__pycache__", "runs"} & set(path.parts)]


TEXT_FILES = sorted((path for path in repository_files() if path.suffix in TEXT), key=relative)
PYTHON_FILES = [path for path in TEXT_FILES if path.suffix == ".py"]
PACKAGE_FILES = [path for path in PYTHON_FILES if path.is_relative_to(PACKAGE)]
FAMILIES = sorted(path.parent.name for path in (PACKAGE / "models").glob("*/family.py"))
TREES = {path: ast.parse(path.read_text()) for path in PYTHON_FILES}


class Import(NamedTuple):
    """One name, or one module, of an import statement.

    Attributes:
        where: File and line, for messages.
        level: Dots before the module.
        module: Dotted name as it is written; empty after dots alone.
        name: What is imported of the module; None for `import module`.
    """

    where: str
    level: int
    module: str
    name: str | None

    def __str__(self) -> str:
        source = "." * self.level + self.module
        return f"{self.where}: {f'import {source}' if self.name is None else f'from {source} import {self.name}'}"


def nodes(tree: ast.AST, *, at_import: bool) -> Iterator[ast.AST]:
    """All nodes, or those alone that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if at_import and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from nodes(node, at_import=at_import)


def imports(path: Path, *, at_import: bool = False) -> Iterator[Import]:
    for node in nodes(TREES[path], at_import=at_import):
        if isinstance(node, ast.Import | ast.ImportFrom):
            where = f"{relative(path)}:{node.lineno}"
            for alias in node.names:
                if isinstance(node, ast.Import):
                    yield Import(where, 0, alias.name, None)
                else:
                    yield Import(where, node.level, node.module or "", alias.name)


def target_of(path: Path, item: Import) -> Path | None:
    """File of the package that an import statement reads; None if it is not ours."""
    parts = item.module.split(".") if item.module else []
    if item.level:
        folder = path.parents[item.level - 1]
    elif parts[:1] == [PACKAGE.name]:
        folder, parts = PACKAGE, parts[1:]
    else:
        return None
    place = folder.joinpath(*parts)
    if item.name is not None and place.is_dir():
        within = place / item.name
        if within.with_suffix(".py").is_file() or (within / "__init__.py").is_file():
            place = within
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def own_imports(path: Path, *, at_import: bool = False) -> Iterator[tuple[Import, Path]]:
    for item in imports(path, at_import=at_import):
        target = target_of(path, item)
        if target is not None:
            yield item, target


def folder_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def family_of(path: Path) -> str | None:
    """Family in whose folder a file is."""
    parts = path.relative_to(PACKAGE).parts
    return parts[1] if len(parts) > 2 and parts[0] == "models" else None


def is_shipped(path: Path) -> bool:
    """Whether a file goes to the Hub together with weights."""
    family = family_of(path)
    return family is not None and path.stem.endswith(f"_{family}")


SHIPPED_FILES = [path for path in PACKAGE_FILES if is_shipped(path)]


def check(broken: list[str]) -> None:
    """Fail with all places where a rule is broken."""
    if broken:
        pytest.fail(f"{len(broken)} places:\n" + "\n".join(broken), pytrace=False)


def test_a_file_imports_from_its_own_folder_and_lower_lines():
    broken = []
    for path in PACKAGE_FILES:
        folder = folder_of(path)
        for item, target in own_imports(path):
            other = folder_of(target)
            if folder != other and not LINE_OF.get(other, len(LINES)) < LINE_OF.get(folder, -1):
                broken.append(f"{item} ({folder} is not above {other})")
    check(broken)


def test_every_folder_has_its_line():
    assert len(LINE_OF) == sum(map(len, LINES))
    check(sorted({folder for folder in map(folder_of, PACKAGE_FILES) if folder not in LINE_OF}))


def test_no_module_stands_directly_in_the_package():
    check([relative(path) for path in PACKAGE.glob("*.py") if path.stem not in ("__init__", "__main__", "version")])


def test_no_imports_within_a_folder_go_in_a_circle():
    graph = {
        path: {target for _, target in own_imports(path, at_import=True) if folder_of(target) == folder_of(path)}
        for path in PACKAGE_FILES
    }
    while free := [path for path, targets in graph.items() if not targets & graph.keys()]:
        for path in free:
            del graph[path]
    check([f"{relative(path)} is in a circle, or imports one" for path in graph])


def test_no_private_name_is_imported_from_another_file():
    broken = []
    for path in PACKAGE_FILES:
        modules = set()
        for item, target in own_imports(path):
            parts = [*item.module.split("."), item.name or ""]
            broken += [str(item) for part in parts if re.match(r"_(?!_)", part)]
            if item.name is not None and target.stem == item.name:
                modules.add(item.name)
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                if re.match(r"_(?!_)", node.attr):
                    broken.append(f"{relative(path)}:{node.lineno}: {ast.unparse(node)}")
    check(broken)


def test_no_module_of_ours_is_imported_by_importlib():
    functions = {"import_module", "__import__", "find_spec", "spec_from_file_location", "run_module", "run_path"}
    allowed = {(file, ast.unparse(ast.parse(call))) for file, call in IMPORTED_BY_NAME}
    broken = []
    for path in PACKAGE_FILES:
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in functions:
                if (inner(path), ast.unparse(node)) not in allowed:
                    broken.append(f"{relative(path)}:{node.lineno}: {ast.unparse(node)}")
    check(broken)


def test_a_family_is_one_folder_and_knows_no_other():
    """Shipped files have a stricter rule, below; six files of `models` see all families.

    What serves every family and goes to the Hub as well lies in one of them: pipeline, calibration, weights,
    roots, luma.
    """
    seeing = {f"models/{name}.py" for name in ("__init__", "auto", "calibration", "covariance", "luma", "weights")}
    broken = []
    for path in PACKAGE_FILES:
        family = family_of(path)
        if family is not None and not (is_shipped(path) or path.name in ("__init__.py", "family.py")):
            broken.append(f"{relative(path)}: neither family.py nor *_{family}.py")
        for item, target in own_imports(path):
            other = family_of(target)
            if family is None:
                allowed = folder_of(path) != "models" or other is None or inner(path) in seeing
            else:
                allowed = other == family or inner(target) == "models/protocol.py"
            if not allowed:
                broken.append(str(item))
    check(broken)


def test_shipped_files_import_third_parties_and_flat_siblings_only():
    """Saving custom code copies siblings that are imported by one dot, and nothing else of ours."""
    assert "musiq" in FAMILIES and SHIPPED_FILES
    broken = []
    for path in SHIPPED_FILES:
        for item in imports(path):
            if item.level == 0:
                allowed = item.module.split(".")[0] in sys.stdlib_module_names | THIRD_PARTIES
            else:
                is_sibling = item.level == 1 and re.fullmatch(rf"\w+_{family_of(path)}", item.module)
                allowed = bool(is_sibling) and item.name != "*"
            if not allowed:
                broken.append(str(item))
    check(broken)


def test_every_file_of_musiq_has_its_place_in_the_graph_and_imports_only_what_stands_below():
    files = [path for path in SHIPPED_FILES if family_of(path) == "musiq"]
    assert {path.stem.removesuffix("_musiq") for path in files} == set(MAY_IMPORT)
    broken = []
    for path in files:
        below = MAY_IMPORT[path.stem.removesuffix("_musiq")]
        broken += [
            str(item) for item in imports(path) if item.level and item.module.removesuffix("_musiq") not in below
        ]
    check(broken)


def test_files_of_every_family_are_those_of_musiq():
    broken = []
    for family in FAMILIES:
        for name in EVERY_FAMILY:
            original = (PACKAGE / "models" / "musiq" / f"{name}_musiq.py").read_text()
            path = PACKAGE / "models" / family / f"{name}_{family}.py"
            if not path.is_file() or path.read_text() != original.replace("_musiq", f"_{family}"):
                broken.append(f"models/{family}/{path.name}: `make style` writes it")
    check(broken)


def test_annotations_are_never_postponed_where_transformers_reads_them():
    names = ("configuration", "modeling")
    read = [path for path in SHIPPED_FILES if path.stem.startswith(names)]
    check([str(item) for path in read for item in imports(path) if item.module == "__future__"])


def test_only_opening_imports_how_pictures_are_opened():
    broken = []
    for path in PACKAGE_FILES:
        for item, target in own_imports(path):
            is_outside = folder_of(path) != "models" and inner(path) != OPENING
            if is_outside and target.name in ("image_formats_musiq.py", "image_loading_musiq.py"):
                broken.append(str(item))
    check(broken)


def knows_families(path: Path) -> bool:
    """Whether a file may name what is in a family's folder."""
    if inner(path).startswith(KNOW_FAMILIES):
        return True
    return any(inner(path).startswith((f"models/{family}/", f"explain/{family}")) for family in FAMILIES)


def test_only_the_table_of_families_reads_the_folder_of_one():
    broken = []
    for path in PACKAGE_FILES:
        # Within `models` another rule holds.
        if not knows_families(path) and folder_of(path) != "models" and inner(path) != OPENING:
            broken += [str(item) for item, target in own_imports(path) if family_of(target) is not None]
    check(broken)


def test_no_other_file_names_the_classes_of_musiq():
    broken = []
    for path in PACKAGE_FILES:
        if not knows_families(path):
            for number, line in enumerate(path.read_text().splitlines(), start=1):
                if re.search(r"Musiq[A-Z]", line):
                    broken.append(f"{relative(path)}:{number}: {line.strip()}")
    check(broken)


def test_only_commands_handle_the_words_of_a_command_line():
    broken = []
    for path in PACKAGE_FILES:
        if not inner(path).startswith(("cli/", *HANDLE_WORDS)):
            for number, line in enumerate(path.read_text().splitlines(), start=1):
                if re.search(r"\bNamespace\b", line):
                    broken.append(f"{relative(path)}:{number}: {line.strip()}")
    check(broken)


def public_names(module: str) -> set[str]:
    """`__all__` of a public folder of the package, "" for the package itself; empty if it has none."""
    path = PACKAGE.joinpath(*module.split("."), "__init__.py") if module else PACKAGE / "__init__.py"
    if module not in ("", *PUBLIC, *(f"models.{family}" for family in FAMILIES)) or not path.is_file():
        return set()
    for node in TREES[path].body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def not_public(path: Path) -> Iterator[Import]:
    """Imports of a file outside of the package that rely on more than its public names."""
    for item, _ in own_imports(path):
        module = item.module.removeprefix(PACKAGE.name).removeprefix(".")
        is_package = item.name is None and not module
        if not is_package and item.name not in public_names(module):
            yield item


def outside(folder: str) -> list[Path]:
    return [path for path in PYTHON_FILES if path.is_relative_to(ROOT / folder)]


def is_within(item: Import, modules: tuple[str, ...]) -> bool:
    """Whether an import reads one of some modules of the package, or one below them."""
    return f"{item.module}.".startswith(tuple(f"{PACKAGE.name}.{module}." for module in modules))


def test_examples_import_public_names_and_the_words_of_command_lines():
    broken = []
    for path in outside("examples"):
        for item in not_public(path):
            if not is_within(item, EXAMPLES_MAY_IMPORT) and (item.module, item.name) != DOOR_OF_COMMANDS:
                broken.append(str(item))
    check(broken)


def test_doors_of_the_converters_import_their_main_only():
    broken = []
    for path in outside("conversion"):
        for item, target in own_imports(path):
            if item.name != "main" or folder_of(target) != "conversion":
                broken.append(str(item))
    check(broken)


def test_benchmarks_import_public_names_and_what_they_take_apart():
    broken = []
    for path in outside("benchmarks"):
        broken += [str(item) for item in not_public(path) if not is_within(item, BENCHMARKS_MAY_IMPORT)]
    check(broken)


def test_the_package_never_imports_examples_tests_or_test_tools():
    forbidden = {"examples", "tests", "benchmarks", "pytest", "hypothesis", "conversion", "configuration"}
    found = (item for path in PACKAGE_FILES for item in imports(path) if not item.level)
    check([str(item) for item in found if item.module.split(".")[0] in forbidden])


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


def test_python_files_name_their_licence():
    lines = ((path, path.read_text().splitlines()[:1]) for path in PYTHON_FILES)
    check([relative(path) for path, first in lines if first != ["# SPDX-License-Identifier: Apache-2.0"]])


def test_python_files_stay_short():
    counts = ((path, len(path.read_text().splitlines())) for path in PYTHON_FILES)
    check([f"{relative(path)}: {count} lines" for path, count in counts if count > MAX_LINES])


def test_folders_stay_small():
    counts = Counter(relative(path.parent) for path in PYTHON_FILES)
    check([f"{folder}: {count} files" for folder, count in sorted(counts.items()) if count > MAX_FILES])


def test_no_file_mentions_a_path_of_one_machine():
    places = ("home", "Users", "root", "work", "mnt", "scratch", "private")
    path_of_a_machine = re.compile(rf"(?<![\w.\-/:~<>}}])/(?:{'|'.join(places)})/[\w.\-]|[A-Z]:\\\\?(?:Users|home)")
    assert path_of_a_machine.search("see '/" + "home/someone/file'")
    check(
        [
            f"{relative(path)}:{number}: {line.strip()}"
            for path in TEXT_FILES
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
            if path_of_a_machine.search(line)
        ]
    )


def test_the_looked_for_files_are_there():
    assert {
        "musiq_hf/models/musiq/modeling_musiq.py",
        "musiq_hf/conversion/key_mapping.py",
        "examples/finetune.py",
        "conversion/convert_musiq_checkpoint.py",
        "benchmarks/cpu.py",
        "tests/conftest.py",
    } <= set(map(relative, PYTHON_FILES))
    assert {"pyproject.toml", "README.md", "Makefile"} <= set(map(relative, TEXT_FILES))
    assert {"DEFAULT_CHECKPOINT"} <= public_names("") and {"score_pictures"} <= public_names("scoring")
