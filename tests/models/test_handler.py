# SPDX-License-Identifier: Apache-2.0
"""Handler of requests beside published weights: exact pixels, pictures that are refused, and limits."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from isolated import run_isolated
from PIL import Image
from places import ROOT

from musiq_hf import MusiqForImageClassification, MusiqForImageQualityAssessment, MusiqImageProcessor
from musiq_hf.models import handler
from musiq_hf.models.handler import EndpointHandler
from musiq_hf.models.loda import LODA
from musiq_hf.scoring import ScoreJob, score_rows


def encode(content):
    return base64.b64encode(content).decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model):
    """A published checkpoint, and pictures whose pixels are easily lost."""
    folder = tmp_path_factory.mktemp("endpoint")
    model = tiny_model(score_range=(0, 100), score_offset=50.0, score_scale=20.0)
    model.save_pretrained(folder / "published")
    MusiqImageProcessor.from_config(model.config).save_pretrained(folder / "published")
    torch.manual_seed(0)
    fields = json.loads((ROOT / "tests" / "models" / "loda" / "tiny.json").read_text())
    loda = LODA.quality(LODA.config(**fields)).eval()
    loda.save_pretrained(folder / "loda")
    LODA.processor.from_config(loda.config).save_pretrained(folder / "loda")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 4), np.uint8)
    Image.fromarray(pixels).save(folder / "alpha.png")
    Image.fromarray(np.arange(40 * 30, dtype=np.uint16).reshape(40, 30) * 50).save(folder / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels[..., :3]).save(folder / "turned.jpg", exif=exif)
    return folder


@pytest.fixture(scope="module")
def handle(folder):
    return EndpointHandler(str(folder / "published"))


def score(folder, checkpoint):
    """Scores of the command by the name of the picture."""
    paths = sorted(map(str, folder.glob("*.*g")))
    stream = score_rows(ScoreJob(paths, models=[str(folder / checkpoint)], device="cpu"))
    return {path.rpartition("/")[2]: row.score for path, (row,) in zip(paths, stream, strict=True)}


@pytest.fixture
def expected(folder, alone):
    return score(folder, "published")


def test_pictures_score_as_by_the_command(folder, handle, expected):
    contents = [(folder / name).read_bytes() for name in expected]
    assert len(contents) == 3
    for make in (encode, lambda content: f"data:image/png;base64,{encode(content)}", bytes, bytearray):
        answers = handle({"inputs": [make(content) for content in contents]})
        assert [answer["score"] for answer in answers] == pytest.approx(list(expected.values()), abs=1e-4)
    lines = base64.encodebytes(contents[0]).decode()
    opened = Image.open(io.BytesIO(contents[0]))
    for picture in (lines, opened):
        assert handle({"inputs": picture})["score"] == pytest.approx(expected["alpha.png"], abs=1e-4)


def test_an_error_stands_in_the_place_of_its_picture(folder, handle, expected):
    good = encode((folder / "alpha.png").read_bytes())
    path, url, name = str(folder / "alpha.png"), "http://127.0.0.1/alpha.png", "abcd"
    first, *broken, last = handle({"inputs": [good, path, url, name, 3, None, b"no picture", good]})
    assert first == last == {"score": pytest.approx(expected["alpha.png"], abs=1e-4)}
    assert [set(answer) for answer in broken] == [{"error"}] * 6
    assert all("Paths and URLs are not read" in answer["error"] for answer in broken[:2])
    assert all("not a picture" in broken[index]["error"] for index in (2, 5)) and "got int" in broken[3]["error"]


MISTAKES = {
    'needs "inputs"': {"parameters": {}},
    "at most 64 pictures, got 65": {"inputs": [""] * 65},
    "at most 100 bytes, got 101. Send fewer": {"inputs": [b"0" * 97, "AAAAA="]},
    '"parameters" of this checkpoint are max_megapixels, percentile, got': {"inputs": "", "parameters": {"top_k": 3}},
    '"parameters" of this checkpoint are max_megapixels, percentile, got .3.': {"inputs": "", "parameters": [3]},
    '"max_megapixels" must be a positive number, got .inf.': {"inputs": "", "parameters": {"max_megapixels": "inf"}},
    '"percentile" must be true or false, got 1': {"inputs": "", "parameters": {"percentile": 1}},
}


@pytest.mark.parametrize(("message", "request_"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_in_a_request_is_one_answer(handle, monkeypatch, message, request_):
    monkeypatch.setattr(handler, "MAX_BYTES", 100)
    (error,) = handle(request_).values()
    with pytest.raises(ValueError, match=message):
        raise ValueError(error)


def test_a_client_may_only_lower_the_limit(folder, handle, monkeypatch):
    content = (folder / "alpha.png").read_bytes()
    assert "score" in handle({"inputs": content, "parameters": {"max_megapixels": 1e9}})
    assert "limit" in handle({"inputs": content, "parameters": {"max_megapixels": 1e-3}})["error"]
    monkeypatch.setattr(handler, "MAX_MEGAPIXELS", 1e-3)
    assert "limit" in handle({"inputs": content, "parameters": {"max_megapixels": float("inf")}})["error"]


def test_percentiles_are_those_of_the_checkpoint(folder, handle, tmp_path):
    content = encode((folder / "alpha.png").read_bytes())
    asked = {"inputs": content, "parameters": {"percentile": True}}
    assert "holds no calibration.json" in handle(asked)["error"]
    for part in (MusiqImageProcessor, MusiqForImageQualityAssessment):
        part.from_pretrained("musiq-tiny-biq2021").save_pretrained(tmp_path / "tiny")
    answer = EndpointHandler(str(tmp_path / "tiny"))(asked)
    assert 0 <= answer["percentile"] <= 100 and answer["stars"] in range(1, 6)


def test_other_failures_are_answers_too(folder, handle, monkeypatch):
    def fail(picture, **settings):
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(handle, "_score", fail)
    answer = handle({"inputs": (folder / "alpha.png").read_bytes()})
    assert answer == {"error": "The picture cannot be scored (RuntimeError: CUDA error)."}


def test_it_runs_on_a_gpu_where_there_is_one(monkeypatch, folder):
    used = []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(handler, "pipeline", lambda task, **options: used.append(options["device"]))
    EndpointHandler(str(folder / "published"))
    assert used == [torch.device("cuda")]


def test_a_checkpoint_without_a_quality_head_is_refused(tmp_path, tiny_config):
    model = MusiqForImageClassification(tiny_config(num_labels=7))
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="quality head is needed, got MusiqForImageClassification"):
        EndpointHandler(str(tmp_path))


@pytest.mark.parametrize("limit", [35, 1e-3])
def test_a_family_without_a_pipeline_scores_or_refuses(folder, alone, limit):
    handle = EndpointHandler(str(folder / "loda"))
    contents = [(folder / name).read_bytes() for name in ("turned.jpg", "alpha.png", "deep.png")]
    answers = handle({"inputs": [*contents, b"no picture"], "parameters": {"max_megapixels": limit}})
    first, *refused, broken = answers
    if limit == 35:
        assert first["score"] == pytest.approx(score(folder, "loda")["turned.jpg"], abs=1e-4)
        assert all("RGB and gray pictures are read" in answer["error"] for answer in refused)
    else:
        assert all("Shrink it first" in answer["error"] for answer in (first, *refused))
    assert "cannot be scored" in broken["error"]
    assert (
        "this checkpoint are max_megapixels, got"
        in handle({"inputs": "", "parameters": {"percentile": True}})["error"]
    )


@pytest.mark.slow
def test_published_folders_answer_without_the_package(folder, expected, tmp_path):
    script = f"""
import base64, glob
folder = {str(folder)!r}
sys.path.insert(0, folder + "/published")
from handler import EndpointHandler
pictures = [base64.b64encode(open(path, "rb").read()).decode() for path in sorted(glob.glob(folder + "/*.*g"))]
for name in ("published", "loda"):
    result[name] = EndpointHandler(f"{{folder}}/{{name}}")({{"inputs": [*pictures, PICTURE]}})
"""
    found = run_isolated(script, home=tmp_path, cwd=tmp_path, picture=folder / "alpha.png", package=False)
    *answers, refused = found["published"]
    assert [answer["score"] for answer in answers] == pytest.approx(list(expected.values()), abs=1e-4)
    assert "not read" in refused["error"]
    assert found["loda"][2]["score"] == pytest.approx(score(folder, "loda")["turned.jpg"], abs=1e-4)
    assert (folder / "loda" / "handler.py").read_bytes() == (folder / "published" / "handler.py").read_bytes()
