# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/recipes.md run as printed, one after the other, where the folders that they name are there."""

import re
import shlex

import pytest
from PIL import Image
from places import ROOT

from musiq_hf.cli import main

PAGE = ROOT / "docs" / "recipes.md"
PICTURES = ROOT / "examples" / "pictures"
FOLDERS = {  # pictures that the reader would have there
    "photos": ("astronaut_sharp.jpg", "rocket_blurred_noisy.jpg"),
    "renders": ("rocket_sharp.jpg",),
    "cameras/first": ("rocket_sharp.jpg",),
    "cameras/second": ("rocket_sharp.jpg",),
}
MADE = ("look", "scores.html", "rejected.journal.jsonl", "cameras.html", "best.csv", "pairs.csv")


def commands():
    for block in re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()


@pytest.mark.usefixtures("alone")
def test_the_recipes_run_as_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for folder, names in FOLDERS.items():
        (tmp_path / folder).mkdir(parents=True)
        for name in names:
            with Image.open(PICTURES / name) as image:  # small ones are scored faster, and faults vanish in them
                image.reduce(1 if "noisy" in name else 4).save(tmp_path / folder / name)
    lines = list(commands())
    assert len(lines) >= 9
    for line in lines:
        program, *words = shlex.split(line, comments=True)
        assert program == "musiq" and main(words) == 0, f"{line}: {capsys.readouterr().err}"
        if "--move_to" in words:
            assert not (tmp_path / "photos" / "rocket_blurred_noisy.jpg").exists()
    assert all((tmp_path / name).exists() for name in MADE)
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == sorted(FOLDERS["photos"])
