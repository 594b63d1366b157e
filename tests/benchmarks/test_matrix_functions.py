# SPDX-License-Identifier: Apache-2.0
"""The tables of matrix functions, on a tiny grid; no test asserts a time."""

import re

import pytest
import torch
from places import ROOT

from benchmarks.matrix import functions
from musiq_hf.common.markdown import put_into

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
SMALL = functions.Settings(
    sizes=(2, 3), batches=(1, 2), conditions=(3, 300), eigenvalue_points=((3, 2),), repeats=1, budget=0.0
)


@pytest.fixture
def document(tmp_path, monkeypatch):
    monkeypatch.setattr(functions, "Settings", lambda **options: SMALL)
    path = tmp_path / "page.md"
    path.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nby hand\n")
    return path


def test_the_command_prints_the_tables_and_writes_them_between_the_comments(document, capsys):
    threads = torch.get_num_threads()
    try:
        assert functions.main(["--output", str(document)]) == 0
    finally:
        torch.set_num_threads(threads)
    printed, text = capsys.readouterr().out.strip(), document.read_text()
    assert text == f"# Title\n\n{BEGIN}\n{printed}\n{END}\n\nby hand\n"
    heads = re.findall(r"^\| (d.*?) \|", printed, re.MULTILINE)
    assert heads == ["d x batch", "d", "d x batch"]
    assert re.findall(r"^\| (\d+ x \d+) \|", printed, re.MULTILINE) == ["2 x 1", "2 x 2", "3 x 1", "3 x 2", "3 x 2"]
    assert printed.count("**") == 2 * (4 * 2 + 1)  # the fastest of each row, both ways and forward, and of eigenvalues


def test_errors_are_those_of_each_method():
    rows = [line.split(" | ") for line in functions.compare_roots(SMALL).splitlines()[2:]]
    found = [[float(cell.split(" / ")[0].strip("| ")) for cell in row[2:]] for row in rows]
    exact, _, newton_schulz, taylor, *_ = zip(*found, strict=True)
    assert max(exact) < 1e-5 < newton_schulz[1] and max(exact) < taylor[1]


def test_matrices_have_the_condition_number():
    values = torch.linalg.eigvalsh(functions.make_covariances(2, 5, 30))
    torch.testing.assert_close(values[:, -1] / values[:, 0], torch.full((2,), 30.0, dtype=torch.float64))


def test_a_document_without_a_place_is_refused_before_anything_is_measured(document, capsys, monkeypatch):
    monkeypatch.setattr(functions, "measure", lambda settings: pytest.fail("measured"))
    document.write_text("nothing")
    assert functions.main(["--output", str(document), "--threads", str(torch.get_num_threads())]) == 2
    assert "has no place for the tables" in capsys.readouterr().err
    assert functions.main(["--output", str(document.with_name("none.md"))]) == 2


def test_the_document_has_its_place():
    text = (ROOT / "docs" / "matrix_functions.md").read_text()
    assert put_into(text, "measured", re.search(rf"{BEGIN}\n(.*)\n{END}", text, re.DOTALL)[1]) == text
