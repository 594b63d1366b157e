# SPDX-License-Identifier: Apache-2.0
"""Check of a release: its files are installed in an empty environment, and README's commands are run there.

python tests/release/run.py dist

The commands get made-up scores for cuttings of the sample pictures. Left out are `musiq convert`, which downloads
weights, `musiq serve`, which does not end, and what reads or writes a store such as S3. pip reads its own variables,
so PIP_EXTRA_INDEX_URL names a further index.
"""

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "examples" / "pictures"
EXTRAS = "train,explain"  # that README's commands need
LEFT_OUT = ("convert", "serve")
SIDE = 160  # pixels of a cutting


def read_blocks(text: str, language: str) -> list[str]:
    """Return the blocks of a language in a Markdown text."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def read_commands(text: str) -> list[list[str]]:
    """Return the words of the commands `musiq` in the shell blocks of a Markdown text that need this machine alone."""
    lines = [line for block in read_blocks(text, "sh") for line in block.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("musiq ")]
    return [words for words in commands if words[1] not in LEFT_OUT and not any("://" in word for word in words)]


def make_inputs(folder: Path) -> None:
    """Make the files that README names: examples, photos, photo.jpg, scores.csv and others.csv."""
    shutil.copytree(PICTURES, folder / "examples" / "pictures")
    (folder / "photos").mkdir()
    lines = ["image,mos"]
    for source in sorted(PICTURES.glob("*.jpg")):
        with Image.open(source) as image:
            places = itertools.product(range(0, image.width - SIDE, SIDE), range(0, image.height - SIDE, SIDE))
            for left, top in places:
                name = f"{source.stem}_{left}_{top}.jpg"
                image.crop((left, top, left + SIDE, top + SIDE)).save(folder / "photos" / name)
                lines.append(f"{name},{20 + len(lines)}")
    shutil.copy(next(iter(sorted(PICTURES.glob("*.jpg")))), folder / "photo.jpg")
    for name in ("scores.csv", "others.csv"):
        (folder / name).write_text("\n".join(lines) + "\n")


def main() -> int:
    """Install and run all; return 1 if there is no release, and raise a CalledProcessError for what fails."""
    (dist,) = map(Path, sys.argv[1:])
    files = [*dist.resolve().glob("*.whl"), *dist.resolve().glob("*.tar.gz")]
    if len(files) != 2:
        print(f"{dist} must hold one wheel and one sdist, got {len(files)} files. Run `make release`.")
        return 1
    wheel, sdist = files
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "venv", with_pip=True)
        scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        python = str(scripts / "python")
        environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
        make_inputs(folder)

        def run(*words: str) -> None:
            print("$", *words, flush=True)
            subprocess.run(words, cwd=folder, env=environment, check=True)

        run(python, "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"), f"{wheel}[{EXTRAS}]")
        for words in read_commands(readme):
            run(*words)
        for block in read_blocks(readme, "python"):
            run(python, "-c", block)
        run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", str(sdist))
        run("musiq", "score", "examples/pictures")
    print(f"{wheel.name} and {sdist.name}: README's commands run.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
