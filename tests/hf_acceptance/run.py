# SPDX-License-Identifier: Apache-2.0
"""Transformers' own tests of a model, a configuration and an image processor, run on our classes.

    python tests/hf_acceptance/run.py [arguments of pytest]

Transformers has them in its source distribution only, so that of the installed version is fetched with pip, once, and
the files that we need are unpacked to `build/transformers-tests/`. Later runs work offline. Needs torch, transformers,
pytest and parameterized. Every skipped test is listed with its reason at the end; RUN_SLOW=1 runs the slow ones too.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = ROOT / "build" / "transformers-tests"
# Our name for Transformers' `tests` folder, which would hide our own.
PACKAGE = "transformers_tests"
FILES = ("test_modeling_common.py", "test_configuration_common.py", "test_image_processing_common.py")


def fetch_tests(transformers_version: str) -> Path:
    """Return the folder that holds the test files as a package, filling it from PyPI if it is not complete.

    Args:
        transformers_version: Version of the source distribution.

    Returns:
        A folder for `sys.path`.

    Raises:
        RuntimeError: If the source distribution cannot be downloaded, or holds other files than expected.
    """
    target = CACHE / transformers_version
    if all((target / PACKAGE / name).is_file() for name in FILES):
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    # Unpacked beside the target and renamed at the end, so that an interrupted run leaves no half of it.
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        requirement = f"transformers=={transformers_version}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--no-binary", "transformers", "--dest", scratch, requirement]
        if subprocess.run(command).returncode:
            raise RuntimeError(f"The source distribution of {requirement} is needed once, and pip did not get it.")
        package = Path(scratch) / "unpacked" / PACKAGE
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        archive = next(Path(scratch).glob("*.tar.gz"))
        with tarfile.open(archive) as tar:
            for name in FILES:
                try:
                    content = tar.extractfile(f"transformers-{transformers_version}/tests/{name}")
                except KeyError as error:
                    raise RuntimeError(f"{archive.name} has no tests/{name}: adapt {Path(__file__).name}.") from error
                (package / name).write_bytes(content.read())
        shutil.rmtree(target, ignore_errors=True)
        package.parent.rename(target)
    return target


def main(arguments: Sequence[str]) -> int:
    """Fetch and run; returns the exit status of pytest."""
    paths = [str(ROOT), str(fetch_tests(version("transformers"))), os.environ.get("PYTHONPATH", "")]
    # Some tests start a Python of their own: the environment reaches it, `sys.path` would not.
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",  # more threads only wait for each other on models of this size
    }
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=HERE, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
