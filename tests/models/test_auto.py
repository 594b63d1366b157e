# SPDX-License-Identifier: Apache-2.0
import logging
import os

import pytest
import torch
from isolated import fill_cache, run_isolated, save_checkpoints, save_picture
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, pipeline
from transformers.utils import logging as transformers_logging

import musiq_hf
from musiq_hf import (
    AutoModelForImageQualityAssessment,
    MusiqForImageClassification,
    MusiqForImageQualityAssessment,
    MusiqImageProcessor,
    MusiqModel,
)
from musiq_hf.hub import save_checkpoint

QUALITY = "MusiqForImageQualityAssessment"
AUTOS = ("AutoModel", "AutoModelForImageClassification")
TASKS = ("image-quality-assessment", "image-classification")

WITH_PACKAGE = """
import musiq_hf
from transformers import AutoConfig

autos.append(musiq_hf.AutoModelForImageQualityAssessment)
result["directory"] = load("musiq-koniq")
result["published"] = load("../published/musiq-koniq")
result["trusted"] = load("../published/musiq-koniq", trust_remote_code=True)
result["named"] = [type(AutoModel.from_pretrained(f"../{name}")).__name__ for name in ("imagenet", "backbone")]
os.chdir("..")
result["cache"] = load("musiq-koniq")
"""

WITHOUT_PACKAGE = """
trust = {"trust_remote_code": True}
refused = []
for attempt in (AutoModel.from_pretrained, AutoImageProcessor.from_pretrained,
                lambda name: pipeline("image-quality-assessment", model=name)):
    try:
        attempt("musiq-koniq")
    except ValueError as error:
        refused.append("pass the argument `trust_remote_code=True`" in str(error))
result["refused"] = refused
result["directory"] = load("musiq-koniq", **trust)
pipeline("image-quality-assessment", model="musiq-koniq", **trust).save_pretrained("../saved")
os.chdir("..")
result["saved"] = load("saved", **trust)
result["cache"] = load("musiq-koniq", **trust)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("auto")


@pytest.fixture(scope="module")
def checkpoints(folder, tiny_model, tiny_config):
    return save_checkpoints(folder, tiny_model, tiny_config)


@pytest.fixture(scope="module")
def picture(folder):
    return save_picture(folder / "picture.png")


@pytest.fixture(scope="module")
def score(checkpoints, picture):
    """The score of the picture, from the classes themselves."""
    model = MusiqForImageQualityAssessment.from_pretrained(checkpoints["plain"])
    processor = MusiqImageProcessor.from_pretrained(checkpoints["plain"])
    with torch.no_grad():
        return model(**processor(Image.open(picture))).scores.item()


@pytest.fixture(scope="module")
def with_package(checkpoints, picture, folder):
    fill_cache(folder / "home", "musiq-koniq", checkpoints["plain"])
    return run_isolated(
        WITH_PACKAGE, home=folder / "home", cwd=checkpoints["plain"].parent, picture=picture, package=True
    )


@pytest.fixture(scope="module")
def without_package(checkpoints, picture, folder):
    fill_cache(folder / "bare_home", "musiq-koniq", checkpoints["published"])
    return run_isolated(
        WITHOUT_PACKAGE,
        home=folder / "bare_home",
        cwd=checkpoints["published"].parent,
        picture=picture,
        package=False,
    )


@pytest.mark.parametrize("source", ["directory", "cache", "published", "trusted"])
def test_import_of_the_package_makes_the_auto_classes_and_pipelines_score(with_package, score, source):
    report = with_package[source]
    for auto in (*AUTOS, "AutoModelForImageQualityAssessment"):
        assert report[auto] == {
            "class": QUALITY,
            "module": "musiq_hf.models.musiq.modeling_musiq",
            "scores": [pytest.approx(score, abs=1e-4)],
        }
    assert [report[task] for task in TASKS] == [pytest.approx(score, abs=1e-4)] * 2


def test_auto_model_gives_classifier_and_backbone_for_their_checkpoints(with_package):
    assert with_package["named"] == ["MusiqForImageClassification", "MusiqModel"]


@pytest.mark.parametrize("source", ["directory", "cache", "saved"])
def test_remote_code_scores_the_same_without_the_package(without_package, score, source):
    report = without_package[source]
    for auto in AUTOS:
        assert report[auto]["class"] == QUALITY
        assert report[auto]["module"].startswith("transformers_modules.")
        assert report[auto]["scores"] == [pytest.approx(score, abs=1e-4)]
    assert [report[task] for task in TASKS] == [pytest.approx(score, abs=1e-4)] * 2


def test_remote_code_runs_only_if_trusted(without_package):
    assert without_package["refused"] == [True, True, True]


def test_transformers_has_nothing_to_complain_about_with_the_package(with_package):
    assert "[transformers]" not in with_package["stderr"]


@pytest.mark.parametrize(
    ("auto", "kind", "expected"),
    [
        (AutoModel, "plain", MusiqForImageQualityAssessment),
        (AutoModel, "classifier", MusiqForImageClassification),
        (AutoModel, "backbone", MusiqModel),
        (AutoModelForImageClassification, "plain", MusiqForImageQualityAssessment),
        (AutoModelForImageClassification, "classifier", MusiqForImageClassification),
        (AutoModelForImageQualityAssessment, "plain", MusiqForImageQualityAssessment),
    ],
)
def test_auto_classes_pick_the_class_that_config_json_names(checkpoints, auto, kind, expected):
    assert type(auto.from_pretrained(checkpoints[kind])) is expected
    assert type(auto.from_config(AutoConfig.from_pretrained(checkpoints[kind]))) is expected


def test_config_without_architectures_means_quality(tiny_config):
    for auto in (AutoModel, AutoModelForImageClassification, AutoModelForImageQualityAssessment):
        assert type(auto.from_config(tiny_config())) is MusiqForImageQualityAssessment


def test_registering_again_changes_nothing(checkpoints):
    musiq_hf.register()
    assert type(AutoModel.from_pretrained(checkpoints["plain"])) is MusiqForImageQualityAssessment
    assert type(AutoImageProcessor.from_pretrained(checkpoints["plain"])) is MusiqImageProcessor


@pytest.mark.parametrize("source", ["plain", "published"])
def test_saved_pipeline_is_a_published_checkpoint(checkpoints, tmp_path, picture, score, source):
    scorer = pipeline("image-quality-assessment", model=str(checkpoints[source]))
    scorer.save_pretrained(tmp_path)
    files = {path.name: path.read_bytes() for path in checkpoints["published"].iterdir()}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
    # The base class notes where this machine keeps the default checkpoint.
    assert "checkpoints" not in (tmp_path / "config.json").read_text()
    again = pipeline("image-quality-assessment", model=str(tmp_path))
    assert again(str(picture))["score"] == pytest.approx(score, abs=1e-4)


def test_image_classification_pipeline_gives_probabilities_for_a_classifier(checkpoints, picture):
    answers = pipeline("image-classification", model=str(checkpoints["classifier"]))(str(picture), top_k=7)
    assert len(answers) == 7
    assert sum(answer["score"] for answer in answers) == pytest.approx(1)


def test_the_pipeline_takes_its_own_checkpoint_without_a_warning_and_others_keep_theirs(monkeypatch):
    said = []
    logger = logging.getLogger("transformers.pipelines")
    monkeypatch.setattr(logger, "handlers", [handler := logging.Handler(logging.WARNING)])
    monkeypatch.setattr(handler, "emit", lambda record: said.append(record.getMessage()))
    pipeline("image-quality-assessment")
    assert said == []
    logger.warning("No model was supplied, defaulted to someone/else and revision 1.")
    assert len(said) == 1


def test_loading_shows_no_bar_and_leaves_others_alone(checkpoints, capfd):
    transformers_logging.enable_progress_bar()
    AutoModel.from_pretrained(checkpoints["plain"])
    assert capfd.readouterr().err == "" and transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    AutoModel.from_pretrained(checkpoints["plain"])
    assert not transformers_logging.is_progress_bar_enabled()
    transformers_logging.enable_progress_bar()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_weights_may_be_read_by_whom_the_umask_lets(tiny_model, tmp_path, mask, expected):
    model = tiny_model()
    before = os.umask(mask)
    try:
        model.save_pretrained(tmp_path / "whole")
        model.save_pretrained(tmp_path / "parts", max_shard_size="10kB")
        save_checkpoint(model, MusiqImageProcessor.from_config(model.config), tmp_path / "saved", dtype="float16")
    finally:
        os.umask(before)
    files = [path for folder in tmp_path.iterdir() for path in folder.iterdir()]
    assert sum(path.suffix == ".safetensors" for path in files) > 3
    assert {path.stat().st_mode & 0o777 for path in files} == {expected}
