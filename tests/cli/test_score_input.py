# SPDX-License-Identifier: Apache-2.0
"""Names of pictures that `musiq score` reads from standard input."""

import csv
import io
import os
import sys

import numpy as np
import pytest
from PIL import Image

from musiq_hf import MusiqImageProcessor
from musiq_hf.cli import main


def picture(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8))


@pytest.fixture
def photos(tmp_path, monkeypatch, alone):
    """A folder of pictures in the working directory, where the command is not one of several processes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for index in range(7):
        picture(index).save(tmp_path / "photos" / f"{index}.png")


@pytest.fixture
def run(tiny_model, tmp_path):
    """Run `musiq score` with a tiny checkpoint and return the exit code."""
    folder, model = tmp_path / "musiq-test", tiny_model()
    model.save_pretrained(folder)
    MusiqImageProcessor.from_config(model.config).save_pretrained(folder)
    return lambda *words: main(["score", *words, "-m", str(folder), "--device", "cpu"])


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def type_names(monkeypatch, content):
    """Put bytes on standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"photos/3.png\nphotos/1.png\n", []),
        (b"photos/3.png\r\n\r\nphotos/1.png", []),
        (b"photos/3.png\0photos/1.png\0", ["--null"]),
        (b"photos/3.png\0photos/1.png", ["--null"]),
    ],
)
def test_names_on_standard_input_are_scored_in_their_place(run, photos, content, words, monkeypatch):
    type_names(monkeypatch, content)
    assert run("photos/0.png", "-", "photos/6.png", *words, "-o", "s.csv", "--progress") == 0
    assert [row["key"] for row in read_csv("s.csv")] == [f"photos/{i}.png" for i in (0, 3, 1, 6)]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_end_in_zero_bytes_may_hold_anything_else(run, photos, monkeypatch):
    odd = [b"photos/a\nb.png", b"photos/\xff.png", b" c.png", "photos/\u65e5.png".encode()]
    for name in odd:
        picture(9).save(os.fsdecode(name), "PNG")
    type_names(monkeypatch, b"\0".join(odd))
    assert run("-", "--null", "-o", "s.csv") == 0
    keys = ["photos/a\nb.png", "photos/\\udcff.png", " c.png", "photos/\u65e5.png"]
    assert [row["key"] for row in read_csv("s.csv")] == keys


def test_a_finished_run_of_names_on_standard_input_has_nothing_to_do(run, photos, monkeypatch, capsys):
    for _ in range(2):
        type_names(monkeypatch, b"photos/3.png\nphotos/1.png\n")
        assert run("-", "-o", "s.csv") == 0
    assert "It was finished before" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["photos/gone.png", "photos/*.gone", "gone/", "gone.csv", "gone.tar"])
def test_a_listed_name_that_leads_to_nothing_is_a_row_with_its_error(run, photos, missing, monkeypatch, capsys):
    for words in (["-o", "s.csv", "--progress"], ["-o", "s.csv"], []):
        type_names(monkeypatch, f"photos/3.png\n{missing}\nphotos/1.png\n".encode())
        assert run("-", *words) == (0 if words == ["-o", "s.csv"] else 1)
        printed = capsys.readouterr()
    assert f"  error: {missing}: no such file or folder" in printed.out and "It was finished" not in printed.err
    rows = read_csv("s.csv")
    assert [row["key"] for row in rows] == ["photos/3.png", missing, "photos/1.png"]
    assert [row["error"].startswith(f"{missing}: no such file or folder") for row in rows] == [False, True, False]
    assert run(missing) == 2  # typed, it is a mistake


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        (b"", ["-"], "- stands for the names on standard input, which holds none. Write a name on each line."),
        (b"\n\n", ["-"], "which holds none"),
        (b"a", ["-", "-"], "- stands for the names on standard input. Give it once, not 2 times."),
        (b"a", ["photos", "--null"], "`--null` says how names on standard input end, and needs the path -."),
        (b"photos/1.png\0photos/2.png\0", ["-"], "The names on standard input end in zero bytes. Add --null."),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", ["-"], "Names of pictures are expected on standard input, one a line"),
        (b"\0\0", ["-"], "Names of pictures are expected on standard input"),
        (b"photos/1.png\nphotos/2.png\n", ["-", "--null"], "and standard input has none. Drop --null."),
        (b"photos/1.png\n", ["-", "--key", "id"], "--key names a column ('id') of a table or data set"),
    ],
)
def test_mistakes_on_standard_input_are_one_sentence(run, photos, content, words, message, monkeypatch, capsys):
    type_names(monkeypatch, content)
    assert run(*words) == 2
    assert message in capsys.readouterr().err


def test_processes_of_a_launch_share_no_standard_input(run, photos, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    type_names(monkeypatch, b"photos/3.png\n")
    assert run("-", "-o", "s.csv") == 2
    assert "- cannot be used by the processes of one launch" in capsys.readouterr().err
