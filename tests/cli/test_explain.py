# SPDX-License-Identifier: Apache-2.0
"""`musiq explain`: one whole page, or one sentence."""

import base64
import os
import re
import shutil
import sys
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from musiq_hf import MusiqForImageClassification, MusiqImageProcessor
from musiq_hf.cli import build_parser, explain
from musiq_hf.common.files import write_text
from musiq_hf.explain.report import _describe_range, _make_sections, make_report

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "a <b>.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("checkpoints") / "musiq-test"
    model = tiny_model(score_range=(0, 100))
    model.save_pretrained(folder)
    MusiqImageProcessor.from_config(model.config).save_pretrained(folder)
    return folder


def run(*words):
    return explain.run(build_parser().parse_args(["explain", *map(str, words)]))


class Page(HTMLParser):
    """Tags, headings, pictures and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.open, self.headings, self.pictures, self.links, self.text = [], [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag == "img":
            self.pictures.append(values)
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)


def test_the_page_is_whole_and_needs_no_other_file(picture, checkpoint, tiny_model, tmp_path, capsys):
    report = tmp_path / "report.html"
    assert run(picture, "-o", report, "-m", checkpoint) == 0
    model = tiny_model(score_range=(0, 100))
    with torch.no_grad():
        score = model(**MusiqImageProcessor.from_config(model.config)(str(picture))).scores.item()
    page = Page(report.read_text(encoding="utf-8"))
    assert page.open == []
    assert page.headings == [
        f"a <b>.png: {score:.2f}",
        "Quality map",
        "Attention",
        "Multi-scale pyramid",
        "Spatial embedding",
        "Degradation",
        "Aspect ratio",
    ]
    assert [image["alt"] for image in page.pictures] == page.headings[1:]
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    for link in page.links:
        with Image.open(BytesIO(base64.b64decode(link.partition(",")[2]))) as figure:
            assert figure.format == "PNG" and min(figure.size) > 100
    assert f"{score:.2f} MOS points, on a scale of 0 to 100" in page.text
    assert "70 x 45 pixels" in page.text
    assert "4 (resized to 16 x 10), 6 (resized to 24 x 15), 54 (native)" in page.text
    assert re.search(r"musiq-test\|weights:[0-9a-f]{8}\|", page.text)
    assert str(checkpoint.parent) not in page.text
    assert capsys.readouterr().out == f"{report}: a <b>.png scores {score:.2f}\n"
    assert os.listdir(tmp_path) == ["report.html"]


@pytest.fixture
def no_figures(monkeypatch):
    """Pages of text alone, made in no time."""
    monkeypatch.setattr("musiq_hf.explain.report._make_sections", lambda *_: iter(()))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no names that are not Unicode")
def test_a_name_that_is_not_unicode_is_written_with_backslashes(no_figures, picture, checkpoint, tmp_path, capsys):
    odd, report = tmp_path / os.fsdecode(b"\xff\x1b.png"), tmp_path / os.fsdecode(b"\xff.html")
    shutil.copy(picture, odd)
    assert run(odd, "-o", report, "-m", checkpoint) == 0
    assert r"\udcff" in Page(report.read_text(encoding="utf-8")).text
    assert r"\udcff\x1b.png scores " in capsys.readouterr().out


def test_a_smaller_copy_is_explained_on_demand(no_figures, picture, checkpoint, tmp_path):
    report = tmp_path / "report.htm"
    assert run(picture, "-o", report, "-m", checkpoint, "--shorter_side", 18) == 0
    assert "28 x 18 pixels" in Page(report.read_text()).text


def test_a_distribution_has_a_deviation_and_its_own_range(no_figures, tiny_model, picture):
    model = tiny_model(num_labels=10)
    processor = MusiqImageProcessor.from_config(model.config)
    with Image.open(picture) as image:
        page, score = make_report(model, processor, image, name="p.png", checkpoint="c", signature="s")
    assert 1 < score < 10
    assert f"{score:.2f} MOS points, on a scale of 1 to 10, standard deviation of the predicted" in Page(page).text


def test_what_depends_on_the_checkpoint_is_left_out_without_it(tiny_model, picture):
    model = tiny_model(spatial_embedding="none")
    sections = _make_sections(model, MusiqImageProcessor.from_config(model.config), picture)
    assert "Spatial embedding" not in [section.title for section in sections]
    assert _describe_range(model) == "range not noted in the checkpoint"


def test_a_page_replaces_the_old_one_whole_or_not_at_all(tmp_path, monkeypatch):
    report = tmp_path / "report.html"
    write_text(report, "old")
    write_text(report, "new")
    assert report.read_text() == "new"
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_text(report, "newest")
    assert report.read_text() == "new"
    assert os.listdir(tmp_path) == ["report.html"]


def test_mistakes_are_one_sentence_and_write_nothing(picture, blank, tiny_config, tmp_path, capsys):
    report = tmp_path / "report.html"
    with pytest.raises(FileNotFoundError, match="nowhere.jpg: no such file"):
        run("nowhere.jpg", "-o", report)
    with pytest.raises(ValueError, match="holds no weights"):
        run(picture, "-o", report, "-m", blank)
    classifier, config = tmp_path / "classifier", tiny_config(num_labels=3)
    MusiqForImageClassification(config).save_pretrained(classifier)
    MusiqImageProcessor.from_config(config).save_pretrained(classifier)
    with pytest.raises(ValueError, match="holds a MusiqForImageClassification, which predicts no quality"):
        run(picture, "-o", report, "-m", classifier)
    with pytest.raises(SystemExit):
        run(picture, "-o", report, "--shorter_side", 0)
    assert "must be at least 1, got 0" in capsys.readouterr().err
    assert not report.exists()


def test_a_picture_that_cannot_be_scored_is_named(tiny_model):
    model = tiny_model()
    processor = MusiqImageProcessor.from_config(model.config)
    with pytest.raises(ValueError, match="^thin.png: its aspect ratio is too extreme"):
        make_report(model, processor, Image.new("RGB", (500, 2)), name="thin.png", checkpoint="c", signature="s")


def test_a_line_break_in_a_name_is_shown_escaped(picture, checkpoint, tmp_path, capsys):
    name = shutil.copy(picture, tmp_path / "a\nb.png")
    assert run(name, "-o", tmp_path / "c\nd.html", "-m", checkpoint) == 0
    output = capsys.readouterr().out
    assert output.count("\n") == 1 and r"c\nd.html: a\nb.png scores" in output
