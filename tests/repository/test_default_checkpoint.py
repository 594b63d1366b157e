# SPDX-License-Identifier: Apache-2.0
"""The default checkpoint, and what README, documents and cards say about it.

`python examples/update_documents.py` writes the numbers that are compared here.
"""

import re

import pytest
import torch
from PIL import Image
from places import ROOT
from transformers import AutoImageProcessor, AutoModel, pipeline

from examples import update_documents
from musiq_hf import DEFAULT_CHECKPOINT, TINY_CHECKPOINT, MusiqForImageQualityAssessment
from musiq_hf.metrics import MEAN_OF_GROUPS, read_metrics
from musiq_hf.scoring import load_calibration, load_quality

PICTURES = ROOT / "examples" / "pictures"
DOCUMENTS = {name: (ROOT / name).read_text() for name in update_documents.DOCUMENTS}
NUMBER = re.compile(update_documents.NUMBER)


@pytest.fixture(scope="module")
def scores():
    scorer = pipeline("image-quality-assessment")
    return {path.name: scorer(str(path))["score"] for path in PICTURES.glob("*.jpg")}


@pytest.mark.parametrize(
    ("checkpoint", "parameters", "size"),
    [(DEFAULT_CHECKPOINT, 6_000_000, 16_000_000), (TINY_CHECKPOINT, 3_000_000, 8_000_000)],
    ids=lambda value: getattr(value, "name", None),
)
def test_embedded_checkpoints_are_small_and_compute_in_float32(checkpoint, parameters, size):
    model = AutoModel.from_pretrained(checkpoint)
    assert isinstance(model, MusiqForImageQualityAssessment)
    assert model.dtype == torch.float32
    assert model.num_parameters() <= parameters
    assert (checkpoint / "model.safetensors").stat().st_size <= size
    assert model.config.score_range == [0, 100]


def test_the_default_ranks_better_and_the_other_one_is_smaller():
    default, tiny = (read_metrics(path).reports for path in (DEFAULT_CHECKPOINT, TINY_CHECKPOINT))
    validation = default[update_documents.VALIDATION]
    assert validation.num_pictures == 1000
    assert validation.overall.srcc >= 0.81 and validation.groups[MEAN_OF_GROUPS].srcc >= 0.68
    assert set(validation.intervals) == {"overall", MEAN_OF_GROUPS}
    first, second = (reports[update_documents.SECOND_LOOK] for reports in (default, tiny))
    assert first.num_pictures == second.num_pictures == 542
    assert first.overall.srcc > second.overall.srcc
    weights = (path / "model.safetensors" for path in (DEFAULT_CHECKPOINT, TINY_CHECKPOINT))
    large, small = (path.stat().st_size for path in weights)
    assert small < large / 2


@pytest.mark.parametrize(
    ("checkpoint", "kept", "largest"),
    [(DEFAULT_CHECKPOINT, {"stem_conv"}, 0.6), (TINY_CHECKPOINT, {"stem_conv", "stem_norm"}, 0.3)],
    ids=lambda value: getattr(value, "name", None),
)
def test_bfloat16_keeps_stem_and_head_in_float32_and_moves_scores_little(checkpoint, kept, largest):
    exact, rounded = (AutoModel.from_pretrained(checkpoint, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    found = {name for name, parameter in rounded.named_parameters() if parameter.dtype == torch.float32}
    assert {name.split(".")[-2] for name in found} == {*kept, "classifier"}
    features = AutoImageProcessor.from_pretrained(checkpoint)(sorted(map(str, PICTURES.glob("*.jpg"))))
    with torch.no_grad():
        difference = (exact(**features).scores - rounded(**features).scores).abs().max()
    assert 0 < difference < largest  # of 100; 2 with a bfloat16 stem of the small one


@pytest.mark.parametrize("name", ["astronaut", "rocket"])
def test_sharp_is_above_blurred_is_above_blurred_and_noisy(scores, name):
    sharp, blurred, noisy = (scores[f"{name}_{kind}.jpg"] for kind in ("sharp", "blurred", "blurred_noisy"))
    assert sharp > blurred + 5
    assert blurred > noisy + 1


@pytest.mark.parametrize("name", update_documents.DOCUMENTS)
def test_documents_have_the_numbers_that_the_command_writes(name, scores):
    written = update_documents.update_documents(DOCUMENTS, scores)[name]
    assert NUMBER.split(written)[::2] == NUMBER.split(DOCUMENTS[name])[::2]
    numbers, stated = (list(map(float, NUMBER.findall(text))) for text in (written, DOCUMENTS[name]))
    # Scores differ a little between processors; what is in metrics.json does not.
    tolerance = 0.15 if name in ("README.md", "docs/usage.md") else 0
    assert stated == pytest.approx(numbers, abs=tolerance), "Run `python examples/update_documents.py`."


def test_readme_says_what_was_measured():
    overall, mean, _ = update_documents.read_srcc(read_metrics(DEFAULT_CHECKPOINT).reports["validation"])
    assert f"SRCC {overall} overall and {mean} on average" in " ".join(DOCUMENTS["README.md"].split())


def test_documents_show_every_sample_picture_with_its_size(scores):
    readme, usage = DOCUMENTS["README.md"], DOCUMENTS["docs/usage.md"]
    assert sorted(re.findall(r'src="examples/pictures/(\S+\.jpg)"', readme)) == sorted(scores)
    by_demo = re.findall(r"^examples/pictures/(\S+\.jpg) +(\d+)x(\d+) ", usage, flags=re.MULTILINE)
    by_command = re.findall(r" (\d+)x(\d+)  examples/pictures/(\S+\.jpg)$", usage, flags=re.MULTILINE)
    sizes = {path.name: tuple(map(str, Image.open(path).size)) for path in PICTURES.glob("*.jpg")}
    assert {name: size for name, *size in by_demo} == {name: list(size) for name, size in sizes.items()}
    assert {name: tuple(size) for *size, name in by_command} == sizes


def test_a_document_without_its_places_and_numbers_without_a_report_are_refused():
    scores = dict.fromkeys((path.name for path in PICTURES.glob("*.jpg")), 50.0)
    with pytest.raises(ValueError, match="2 places for numbers were expected, got 0. Look for: SRCC"):
        update_documents.update_documents(DOCUMENTS | {"README.md": ""}, scores)
    with pytest.raises(ValueError, match="no place for the tables. Write <!-- numbers: begin -->"):
        update_documents.update_documents(DOCUMENTS | {"docs/checkpoints.md": "no table"}, scores)
    with pytest.raises(ValueError, match="lacks 'validation'. Run `make default-numbers` first"):
        update_documents.update_finetuning(DOCUMENTS["docs/finetuning.md"], {})


@pytest.mark.parametrize("folder", [DEFAULT_CHECKPOINT, TINY_CHECKPOINT], ids=lambda folder: folder.name)
def test_embedded_checkpoints_have_a_calibration_that_holds(folder):
    calibration = load_calibration(str(folder), *load_quality(str(folder)))
    assert (calibration.data, calibration.num_pictures) == ("biq2021, validation", 1000)
    assert (
        f"| {calibration.quantiles[80]:.4g} | {calibration.quantiles[95]:.4g} |" in (folder / "README.md").read_text()
    )


def test_usage_shows_the_percentile_that_the_pipeline_answers():
    answer = pipeline("image-quality-assessment")(str(PICTURES / "astronaut_sharp.jpg"), percentile=True)
    (shown,) = re.findall(
        r"^{'score': [\d.]+, 'percentile': ([\d.]+), 'stars': (\d)}$", DOCUMENTS["docs/usage.md"], flags=re.MULTILINE
    )
    assert answer["percentile"] == pytest.approx(float(shown[0]), abs=1) and answer["stars"] == int(shown[1])


def test_numbers_keep_their_columns():
    assert update_documents.replace_numbers("a  9.9 b\n**9.9**", rf"{update_documents.NUMBER}", ["-10.1", "8.8"]) == (
        "a -10.1 b\n**8.8**"
    )


def test_the_command_writes_what_changes_and_names_it(tmp_path, monkeypatch, capsys):
    for name, text in DOCUMENTS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    scorer = {"score": 12.5}
    monkeypatch.setattr(update_documents, "ROOT", tmp_path)
    monkeypatch.setattr(update_documents, "pipeline", lambda task, model: lambda path: scorer)
    monkeypatch.setattr("sys.argv", ["update_documents.py"])
    assert update_documents.main() == 0
    assert capsys.readouterr().out.split() == ["README.md", "docs/usage.md"]
    readme, usage = ((tmp_path / name).read_text() for name in ("README.md", "docs/usage.md"))
    assert readme.count("**12.5**") == 6 and "# 12.5 of 100" in readme
    assert (
        usage.count("  12.5\n") == 6 and usage.count("   12.50     0.12") == 6 and usage.count("'score': 12.5}") == 3
    )
    assert update_documents.main() == 0
    assert capsys.readouterr().out == ""
