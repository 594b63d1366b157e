# SPDX-License-Identifier: Apache-2.0
"""The embedded checkpoints are loaded by their names, whatever loads them."""

import re
import shlex

import pytest
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, pipeline

from musiq_hf import (
    DEFAULT_CHECKPOINT,
    TINY_CHECKPOINT,
    AutoModelForImageQualityAssessment,
    MusiqConfig,
    MusiqForImageQualityAssessment,
    MusiqImageProcessor,
    load_quality,
)
from musiq_hf.conversion import CONVERTERS
from musiq_hf.models import FAMILIES
from musiq_hf.models.auto import DETECTOR_CHECKPOINT, UPSCALER_CHECKPOINT, register
from musiq_hf.scoring import load_calibration, make_signature
from musiq_hf.training.starting import load_model

NAME, OTHER = TINY_CHECKPOINT.name, DEFAULT_CHECKPOINT.name
EMBEDDED = f"{OTHER}, {NAME}, {DETECTOR_CHECKPOINT.name}, {UPSCALER_CHECKPOINT.name}"
UNKNOWN = rf"^musiq-small: no such directory.*owner/musiq-small\); embedded are {EMBEDDED}\.$"
MODELS = [AutoModel, AutoModelForImageClassification, AutoModelForImageQualityAssessment]
LOADERS = [AutoConfig, AutoImageProcessor, MusiqConfig, MusiqImageProcessor, MusiqForImageQualityAssessment, *MODELS]


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """Every question to the Hub is an error, and the folder is empty."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def local_folder(tmp_path, tiny_model):
    """A checkpoint of the user's that has the name of an embedded one."""
    model = tiny_model()
    model.save_pretrained(tmp_path / NAME)
    MusiqImageProcessor.from_config(model.config).save_pretrained(tmp_path / NAME)
    return model


def patch_size(loaded):
    return getattr(loaded, "patch_size", None) or loaded.config.patch_size


@pytest.mark.parametrize("kind", LOADERS, ids=lambda kind: kind.__name__)
def test_every_class_loads_an_embedded_checkpoint_by_its_name(kind):
    assert patch_size(kind.from_pretrained(NAME)) == MusiqConfig.from_pretrained(TINY_CHECKPOINT).patch_size
    by_keyword = kind.from_pretrained(pretrained_model_name_or_path=OTHER)
    assert patch_size(by_keyword) == MusiqConfig.from_pretrained(DEFAULT_CHECKPOINT).patch_size


@pytest.mark.parametrize("task", [("image-quality-assessment",), ("image-classification",), ()], ids=str)
def test_a_pipeline_takes_the_name_with_and_without_a_task(task, pictures):
    named, by_path = pipeline(*task, model=NAME), pipeline("image-quality-assessment", model=str(TINY_CHECKPOINT))
    (answer,) = named([pictures[0]])
    (answer,) = answer if isinstance(answer, list) else [answer]
    assert answer["score"] == by_path(pictures[0])["score"]


TASKS = ["image-quality-assessment", "image-classification", "image-feature-extraction"]


@pytest.mark.parametrize("task", [*((task,) for task in TASKS), ()], ids=str)
def test_a_pipeline_does_not_ask_the_hub_about_an_embedded_checkpoint(task, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    asked = []
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **kwargs: asked.append(args) or pytest.fail("asked"))
    pipeline(*task, model=NAME)
    assert asked == []


def test_a_local_folder_of_that_name_comes_first(local_folder):
    size = local_folder.config.patch_size
    assert size != MusiqConfig.from_pretrained(TINY_CHECKPOINT).patch_size
    assert all(patch_size(kind.from_pretrained(NAME)) == size for kind in LOADERS)
    assert pipeline("image-quality-assessment", model=NAME).model.config.patch_size == size
    assert [patch_size(part) for part in load_quality(NAME)] == [size, size]


@pytest.mark.parametrize("kind", LOADERS, ids=lambda kind: kind.__name__)
def test_a_name_that_is_not_known_is_a_sentence_with_those_that_are(kind):
    with pytest.raises(OSError, match=UNKNOWN):
        kind.from_pretrained("musiq-small")


@pytest.mark.parametrize("task", [("image-quality-assessment",), ()], ids=str)
def test_a_pipeline_says_the_same_of_a_name_that_is_not_known(task):
    with pytest.raises(OSError, match=UNKNOWN):
        pipeline(*task, model="musiq-small")


@pytest.mark.parametrize("family", FAMILIES)
def test_so_do_names_of_every_family(family):
    with pytest.raises(OSError, match=rf"^{family}-other: no such directory.*embedded are {EMBEDDED}\.$"):
        AutoConfig.from_pretrained(f"{family}-other")


def test_names_of_others_keep_their_errors():
    with pytest.raises(OSError) as caught:
        AutoConfig.from_pretrained("some-other-model")
    assert "embedded" not in str(caught.value)


def test_functions_of_the_package_take_the_name():
    (model, processor), (default, _) = load_quality(NAME), load_quality()
    assert patch_size(default) == MusiqConfig.from_pretrained(DEFAULT_CHECKPOINT).patch_size
    by_path = load_calibration(str(TINY_CHECKPOINT), model, processor)
    assert load_calibration(NAME, model, processor) == by_path
    signature = make_signature(model, processor, checkpoint=NAME)
    assert signature == make_signature(model, processor, checkpoint=str(TINY_CHECKPOINT))
    assert load_model(NAME).config.patch_size == model.config.patch_size
    with pytest.raises(ValueError, match=UNKNOWN):
        load_quality("musiq-small")


def test_registering_again_teaches_nothing_twice():
    before = AutoConfig.from_pretrained.__func__
    register()
    assert AutoConfig.from_pretrained.__func__ is before


@pytest.mark.parametrize("kind", LOADERS, ids=lambda kind: kind.__name__)
def test_a_published_name_without_a_folder_is_a_sentence_with_the_command_that_makes_it(kind):
    with pytest.raises(OSError, match=r"^musiq-koniq: no such directory\. `musiq convert koniq musiq-koniq` makes it"):
        kind.from_pretrained("musiq-koniq")


@pytest.mark.parametrize(
    "name", ["musiq-ava", "ava-single", "./musiq-spaq", "some folder/musiq-spaq", "owner/musiq-ava"]
)
def test_functions_of_the_package_name_that_command_too(name):
    short = name.rsplit("/", 1)[-1].removeprefix("musiq-")
    command = re.escape(f"`musiq convert {short} {shlex.quote(name)}` makes it of the published weights; in place of")
    with pytest.raises(ValueError, match=command):
        load_quality(name)


def test_the_names_of_a_family_are_those_that_its_converter_downloads():
    downloaded = {name: tuple(converter.published) for name, converter in CONVERTERS.items()}
    assert {name: family.published for name, family in FAMILIES.items()} == dict.fromkeys(FAMILIES, ()) | downloaded
