# SPDX-License-Identifier: Apache-2.0
"""The command that measures memory and time of an upscaler, on pictures of a few hundred pixels in this process."""

import pytest
from places import ROOT
from upscalers import save_upscaler

from examples.analysis import measure_upscaler_cost


def run(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["measure_upscaler_cost.py", *map(str, words)])
    return measure_upscaler_cost.main()


@pytest.fixture
def document(tmp_path, monkeypatch):
    path = tmp_path / "page.md"
    path.write_text("by hand\n<!-- memory and time: begin -->\nold\n<!-- memory and time: end -->\n")
    monkeypatch.setattr(measure_upscaler_cost, "DOCUMENT", path)
    return path


def test_the_table_has_a_row_for_each_scale_and_tile(tmp_path, monkeypatch, capsys, document):
    seen, upscale = [], measure_upscaler_cost.upscale_picture

    def watch(picture, **options):
        large = upscale(picture, **options)
        seen.append((picture.size, large.size, options.get("tile_size")))
        return large

    monkeypatch.setattr(measure_upscaler_cost, "upscale_picture", watch)
    monkeypatch.setattr(measure_upscaler_cost, "measure_freshly", measure_upscaler_cost.measure)
    model = save_upscaler(tmp_path / "own")
    words = ("--megapixels", "0.0012", "--scales", "1.25", "4", "--tile_sizes", "9", "--model", model)
    assert run(monkeypatch, *words, "--update_document") == 0
    assert seen[1::2] == [((32, 24), (40, 30), 9), ((10, 8), (40, 30), 9)]
    page = document.read_text()
    assert "old" not in page and page.startswith("by hand\n") and "To 40 x 30 pixels by own, in one thread of" in page
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")][2:]
    assert [row[:3] for row in rows] == [["| 32 x 24", "x1.25", "9"], ["| 10 x 8", "x4", "9"]]
    assert all(row[3].endswith(" MB") and float(row[4]) >= 0 for row in rows)
    assert "\n".join(page.splitlines()[2:-1]) in capsys.readouterr().out


def test_the_document_has_a_place_for_the_table():
    page = (ROOT / "docs" / "super_resolution.md").read_text()
    begin, end = (f"<!-- {measure_upscaler_cost.PLACE}: {word} -->" for word in ("begin", "end"))
    assert f"| {' | '.join(measure_upscaler_cost.HEADS)} |" in page.partition(begin)[2].partition(end)[0]


def test_a_process_that_is_ended_is_a_sentence(monkeypatch, capsys):
    class Pool:
        def __init__(self, *args, **options):
            raise measure_upscaler_cost.BrokenExecutor

    monkeypatch.setattr(measure_upscaler_cost, "ProcessPoolExecutor", Pool)
    assert run(monkeypatch, "--scales", "2") == 2
    assert "The process that enlarged 2000 x 1500 pixels was ended, perhaps since no memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--scales", "1"], "`scales` must be above 1, got [1.0]. At x1 a picture keeps its pixels."),
        (["--megapixels", "0"], "`megapixels` must be above 0, got 0.0."),
        (["--update_document"], "The document has no place for the tables."),
    ],
)
def test_mistakes_are_a_sentence(monkeypatch, capsys, document, words, sentence):
    document.write_text("nothing")
    assert run(monkeypatch, *words) == 2
    assert sentence in capsys.readouterr().err
