# SPDX-License-Identifier: Apache-2.0
"""The service behind page and route, and what is drawn of its answers: nothing here needs gradio."""

import csv
import io
import json
import re
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from places import ROOT

from musiq_hf import TINY_CHECKPOINT, MusiqImageProcessor
from musiq_hf.app import drawing
from musiq_hf.app.description import COLUMNS, describe_route, draw_documents
from musiq_hf.app.service import (
    JPEG_SCAN,
    MAX_MEGAPIXELS_WHOLE,
    Checkpoint,
    Service,
    TypicalError,
    find_typical_error,
    name_checkpoints,
)
from musiq_hf.app.settings import ServeSettings
from musiq_hf.scoring.job import ScoreJob, run_job
from musiq_hf.scoring.tables.forms import COLUMNS as TABLE

MARKUP = "<img src=x onerror=alert(1)>${7*7}{{x}}.jpg"


@pytest.fixture(scope="module")
def service():
    return Service([TINY_CHECKPOINT.name])


@pytest.fixture(scope="module")
def bare(tmp_path_factory, tiny_model):
    """A checkpoint without card, metrics and calibration, whose range is not noted."""
    folder = tmp_path_factory.mktemp("checkpoints") / "bare"
    model = tiny_model()
    model.save_pretrained(folder)
    MusiqImageProcessor.from_config(model.config).save_pretrained(folder)
    return Service([str(folder)])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two pictures, one of 16 bits, and a file that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 256, (45, 70, 3), dtype=np.uint8)).save(folder / "a.png")
    Image.fromarray(generator.integers(20000, 40000, (40, 50), dtype=np.uint16)).save(folder / "b.png")
    (folder / "c.jpg").write_bytes(b"no picture")
    return [folder / name for name in ("a.png", "b.png", "c.jpg")]


def open_files(service, paths):
    return [service.make_picture(path.name, lambda path=path: str(path)) for path in paths]


def test_rows_are_those_of_the_command(service, files, tmp_path, monkeypatch, alone):
    monkeypatch.chdir(files[0].parent)
    table = tmp_path / "scores.csv"
    run_job(ScoreJob([path.name for path in files], output=table, models=[TINY_CHECKPOINT.name], percentile=True))
    rows = list(service.score(open_files(service, files), service.find()))
    with open(table, newline="") as file:
        expected = list(csv.DictReader(file))
    assert [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows] == expected
    assert [row["error"] is None for row in rows] == [True, True, False] and rows[2]["error"].startswith("c.jpg: ")


def test_a_checkpoint_without_a_calibration_has_no_percentiles(service, bare, files):
    assert {"percentile", "stars"} <= set(service.find().columns)
    assert not {"percentile", "stars"} & set(bare.find().columns)
    (row,) = bare.score(open_files(bare, files[:1]), bare.find())
    card = drawing.draw_score(row, bare.find())
    assert "of 5 stars" not in card and "scale" not in card.partition("mq-scale")[2] and row["score_0_1"] is None


def test_clients_are_not_told_where_checkpoints_lie(tmp_path):
    for name in ("a/best", "b/best", "b/mine"):
        (tmp_path / name).mkdir(parents=True)
    one, other, mine = (str(tmp_path / name) for name in ("a/best", "b/best", "b/mine"))
    assert name_checkpoints([f"{one}/", mine, "owner/on_the_hub"]) == ["best", "mine", "owner/on_the_hub"]
    assert name_checkpoints([one, other]) == [one, other]


def test_an_unknown_checkpoint_is_a_sentence_with_the_known_ones(service):
    with pytest.raises(ValueError, match=rf"^other: no such checkpoint here. Choose {TINY_CHECKPOINT.name}\.$"):
        service.find("other")


def test_the_size_of_a_picture_is_checked_by_its_header(service):
    head = io.BytesIO()
    Image.new("L", (4000, 4000)).save(head, "PNG")
    cut = head.getvalue()[:100]  # without pixels: decoding would fail otherwise
    (row,) = service.score([service.make_picture("x.png", lambda: io.BytesIO(cut))], service.find())
    assert row["error"] == "x.png: 4000x4000 pixels are 16 megapixels, and the limit is 12.5. Send a smaller copy."
    assert service.max_megapixels == MAX_MEGAPIXELS_WHOLE


def test_a_jpeg_file_of_endless_scans_is_refused(service):
    file = io.BytesIO()
    Image.new("L", (64, 64), 128).save(file, "JPEG", progressive=True)
    whole = file.getvalue()
    last = whole[whole.rfind(JPEG_SCAN) : -2]  # a few bytes, and one more pass over all pixels
    long = whole[:-2] + last * 200 + whole[-2:]
    rows = list(
        service.score(
            [
                service.make_picture(name, partial(io.BytesIO, content))
                for name, content in (("a", whole), ("b", long))
            ],
            service.find(),
        )
    )
    assert rows[0]["error"] is None
    assert re.fullmatch(r"b: a JPEG file may have 100 scans, got 20\d\. Save it anew\.", rows[1]["error"])


def test_checkpoints_that_shrink_take_larger_pictures():
    default = Service(["musiq-lite-biq2021"])
    assert default.max_megapixels == 25
    assert Service([TINY_CHECKPOINT.name], max_megapixels=3).max_megapixels == 3


def test_names_of_uploads_are_short_plain_texts(service):
    assert service.make_picture("a\nb\udce4.jpg", lambda: "").name == "a b\\udce4.jpg"
    assert len(service.make_picture("x" * 5000, lambda: "").name) == 120
    assert service.make_picture("", lambda: "").name == "picture"


def test_the_typical_error_is_that_of_held_out_pictures(tmp_path):
    stored = json.loads((TINY_CHECKPOINT / "metrics.json").read_text())["validation"]
    assert find_typical_error(TINY_CHECKPOINT.name) == TypicalError(stored["overall"]["rmse"], 1000, "validation")
    (tmp_path / "config.json").write_text("{}")
    assert find_typical_error(str(tmp_path)) is None


def row(key, score, error=None):
    return {"key": key, "score": score, "error": error, "width": 4, "height": 3, "score_0_1": 0.5}


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (60, 50, "The left one, l.png, scores higher, by 10.0 points. That is more than the typical error"),
        (50, 58, "The right one, r.png, scores higher, by 8.0 points. That is no more than the typical error"),
        (50, 50.01, "Both score the same."),
    ],
)
def test_a_comparison_says_whether_the_difference_means_something(left, right, expected):
    rows = row("l.png", left), row("r.png", right)
    assert drawing.describe_difference(*rows, TypicalError(9.0, 1000, "validation"), 1).startswith(expected)
    if left != 50 or right == 58:
        assert "is not known" in drawing.describe_difference(*rows, None, 1)


@pytest.mark.parametrize(("score_range", "expected"), [((0, 100), 1), ((1, 10), 2), ((1, 5), 2), ((0, 1), 3)])
def test_small_scales_are_shown_with_more_digits(service, score_range, expected):
    terms = SimpleNamespace(has_percentiles=False, signatures=["x"])
    model = SimpleNamespace(config=SimpleNamespace(answer_range=score_range))
    checkpoint = Checkpoint("x", SimpleNamespace(loaded=[(model, None)], terms=terms), None)
    low, high = score_range
    left, right = row("l.png", low + 0.6 * (high - low)), row("r.png", low + 0.62 * (high - low))
    assert checkpoint.num_digits == expected
    for drawn in (drawing.draw_score(left, checkpoint), drawing.draw_table([left], 1, checkpoint)):
        assert f">{left['score']:.{expected}f}</strong>" in drawn
    assert "The right one, r.png, scores higher" in drawing.draw_verdict(left, right, checkpoint)


def test_names_are_never_markup(service):
    checkpoint = service.find()
    fine, broken = row(MARKUP, 50.0), row(MARKUP, None, f"{MARKUP}: no picture.")
    fine |= {"percentile": 12.0, "stars": 1}
    drawn = [
        drawing.draw_score(fine, checkpoint),
        drawing.draw_score(broken, checkpoint),
        drawing.draw_verdict(fine, fine, checkpoint),
        drawing.draw_verdict(fine, broken, checkpoint),
        drawing.draw_table([fine, broken], 2, checkpoint),
    ]
    assert all("<img" not in text and "${" not in text and "{{" not in text for text in drawn)
    assert all("&lt;img src=x onerror=alert(1)&gt;" in text for text in drawn)
    assert all('role="alert"' in drawn[index] for index in (1, 3))


def test_a_table_tells_its_progress_and_its_errors(service):
    rows = [row("a.png", 50.0) | {"percentile": 3.0, "stars": 1}, row("b.png", None, "b.png: no picture.")]
    assert "2 of 3 done, 1 with an error." in drawing.draw_table(rows, 3, service.find())
    assert "2 pictures, 1 with an error." in drawing.draw_table(rows, 2, service.find())


def test_explanations_can_be_read_without_seeing_them(service):
    picture = service.make_picture("rocket", lambda: str(ROOT / "examples" / "pictures" / "rocket_sharp.jpg"))
    image = picture.open().resize((160, 107))
    found = service.map_quality(image, service.find())
    text = drawing.draw_map(found, image, 1)
    row, col = np.unravel_index(found.deltas.argmax(), found.deltas.shape)
    assert f"highest without row {row + 1}, column {col + 1}: {found.deltas.max():+.1f} points" in text
    faults = list(service.score_faults(image, service.find()))
    assert len(faults) == 3 and all(len(scores) == 1 + len(fault.levels) for fault, scores in faults)
    assert len({scores[0] for _, scores in faults}) == 1
    drawn = drawing.draw_faults(faults, image.size, 1)
    assert f"as is: {faults[0][1][0]:.1f}, 0.7: {faults[0][1][1]:.1f}," in drawn and drawn.count("<figure>") == 3


def test_large_pictures_are_shrunk_before_they_are_explained(service):
    file = io.BytesIO()
    Image.new("RGB", (2000, 1000)).save(file, "PNG")
    picture = service.make_picture("x.png", lambda: io.BytesIO(file.getvalue()))
    assert service.shrink(picture).size == (1536, 768)


def test_the_route_is_described_as_it_is(service):
    settings = ServeSettings([TINY_CHECKPOINT.name], max_megabytes=7)
    schema = describe_route(service, settings)
    assert list(schema["paths"]) == ["/v1/score"] and list(schema["paths"]["/v1/score"]) == ["post"]
    rows = schema["components"]["schemas"]["Rows"]["properties"]["rows"]["items"]["properties"]
    assert set(rows) == set(service.find().columns)
    assert set(COLUMNS) == {*TABLE, "percentile", "stars"}
    page = draw_documents(service, settings)
    assert "100 files of 7 megabytes and 12.5 megapixels each, and 175 megabytes in all" in page
    assert "http" not in page.replace("http://127.0.0.1:7860/v1/score", "")  # it loads nothing from elsewhere
