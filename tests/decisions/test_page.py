# SPDX-License-Identifier: Apache-2.0
"""The page about a selection: all that is shown is in it, escaped, and bounded however many rows there are."""

import re
from html.parser import HTMLParser

import numpy as np
import pyarrow
import pytest
from PIL import Image

from musiq_hf.decisions import Conditions, ScoreTable, select_rows, write_report


class Page(HTMLParser):
    """Elements and text of a page; one that is not closed in order is an error."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "rect", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in ("rect", "line"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def write(tmp_path, rows, **options):
    table = ScoreTable(pyarrow.table(rows))
    write_report(tmp_path / "page.html", select_rows(table, options.pop("conditions", Conditions())), **options)
    return Page((tmp_path / "page.html").read_text(encoding="utf-8"))


def test_the_page_shows_the_best_and_worst_groups_and_errors(tmp_path):
    for place in range(3):
        Image.new("RGB", (400, 300), (80 * place, 0, 0)).save(tmp_path / f"{place}.png")
    rows = {
        "key": ["0.png", "1.png", "2.png", "none.png", "late.png"],
        "score": [10.0, 20.0, 30.0, None, 5.0],
        "camera": ["<b>x", "y", "y", "y", "y"],
        "error": [None, None, None, "none.png: <i>gone</i>.", None],
    }
    page = write(tmp_path, rows, per="camera", root=str(tmp_path), conditions=Conditions(minimum=5))
    assert "5 pictures, 4 of them chosen, 1 without a score." in page.text
    assert "mean 16.2, median 15.0, 5.0 to 30.0" in page.text
    captions = re.findall(r"([\d.]+) (\w+\.png)", page.text)
    assert captions == [("30.0", "2.png"), ("20.0", "1.png"), ("10.0", "0.png"), ("5.0", "late.png")]
    assert "no such file on this machine" in page.text
    pictures = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) == 3 and all(source.startswith("data:image/png;base64,") for source in pictures)
    assert "<b>x110.010.010.010.0" in page.text and "y318.320.05.030.0" in page.text
    assert "<i>gone</i>.1" in page.text
    assert not [tag for tag, _ in page.tags if tag in ("b", "i", "script", "link")]


def test_a_page_of_many_rows_stays_small(tmp_path):
    number = 20_000
    scores = np.random.default_rng(0).normal(50, 10, number)
    rows = {
        "key": [f"p/{place}.png" for place in range(number)],
        "score": np.where(np.arange(number) % 2, scores, np.nan),
        "group": [str(place) for place in range(number)],
        "error": [f"error {place}" for place in range(number)],
    }
    page = write(tmp_path, rows, per="group")
    assert (tmp_path / "page.html").stat().st_size < 60_000
    assert sum(tag == "figure" for tag, _ in page.tags) == 40
    assert page.text.count("The first 100 of 10,000.") == 2


@pytest.mark.parametrize("scores", [[], [None], [float("nan"), None], [7.0], [7.0, 7.0]])
def test_pages_of_few_or_no_scores(tmp_path, scores):
    keys = [f"{place}.png" for place in range(len(scores))]
    rows = {"key": pyarrow.array(keys, pyarrow.string()), "score": pyarrow.array(scores, pyarrow.float64())}
    page = write(tmp_path, rows)
    known = [score for score in scores if score == 7]
    assert sum(tag == "figure" for tag, _ in page.tags) == len(known)
    assert ("No picture has a score." in page.text) == (not known)
