# SPDX-License-Identifier: Apache-2.0
"""Rules of the configuration of a classifier, the packaged ones, and what its image processor does to pictures."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, ConvNextConfig, SiglipConfig, SiglipVisionConfig, ViTConfig

from musiq_hf.models.classifier import (
    ClassifierConfig,
    ClassifierForImageQualityAssessment,
    ClassifierImageProcessor,
)
from musiq_hf.models.classifier.family import ClassifierTrainingView, card, facts
from musiq_hf.scoring.loading import resolve_model

# Millions of weights in MUSIQ's Table 5, rounded as there; the small ones are ours.
PRESETS = {"nima-resnet50": 24, "vit-base-32": 88, "vit-small-32": 22, "resnet-tiny": 0.3, "vit-tiny": 0.5}


@pytest.mark.parametrize("name", PRESETS)
def test_packaged_configurations_have_the_sizes_of_the_paper(name):
    folder = resolve_model(f"scratch:{name}")
    config, processor = AutoConfig.from_pretrained(folder), ClassifierImageProcessor.from_pretrained(folder)
    processor.check_config(config)
    with torch.device("meta"):
        model = ClassifierForImageQualityAssessment(config)
    count = sum(weight.numel() for weight in model.parameters()) / 1e6
    assert round(count, 1 if count < 1 else None) == PRESETS[name]
    is_of_the_paper = count > 1
    assert (config.side, config.num_labels) == ((384, 10) if is_of_the_paper else (224, 1))
    assert processor.square_mode == "stretch"


def test_a_configuration_is_saved_and_loaded_whole(tmp_path):
    config = ClassifierConfig(backbone_config=ViTConfig(hidden_size=48), image_size=96, score_range=(1, 5))
    assert config.side == config.backbone_config.image_size == 96 and config.answer_range == (1, 5)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is ClassifierConfig and loaded.to_json_string() == config.to_json_string()
    assert loaded.signature_fields() == config.signature_fields()
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["backbone_config"]["model_type"] == "vit" and "id2label" not in stored["backbone_config"]


def test_a_given_configuration_stays_as_it_is():
    given = ViTConfig(num_labels=5)
    ClassifierConfig(backbone_config=given, image_size=96)
    assert (given.image_size, given.num_labels) == (224, 5)


def test_what_changes_a_score_is_part_of_the_signature():
    plain = ClassifierConfig(backbone_config={"model_type": "vit"}).signature_fields()
    changes = [
        {"backbone_config": {"model_type": "vit", "layer_norm_eps": 1e-3}},
        {"backbone_config": {"model_type": "vit"}, "image_size": 384},
        {"backbone_config": {"model_type": "vit"}, "score_scale": 2.0},
    ]
    assert all(ClassifierConfig(**change).signature_fields() != plain for change in changes)
    same = {"backbone_config": {"model_type": "vit", "id2label": {"0": "cat"}}, "image_size": 224}
    assert ClassifierConfig.from_dict(same).signature_fields() == plain


def test_a_tower_alone_becomes_a_network_without_text():
    tower = SiglipVisionConfig(hidden_size=32, image_size=64)
    config = ClassifierConfig(backbone_config=tower)
    assert config.backbone_config.model_type == "siglip" and config.side == 64
    assert "text_config" not in config.to_dict()["backbone_config"]
    assert not config.backbone_config.vision_config.vision_use_head
    whole = ClassifierConfig(backbone_config=SiglipConfig(vision_config=tower))
    assert whole.signature_fields() == config.signature_fields()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backbone_config": {"model_type": "no such"}}, "`backbone_config` is no configuration"),
        ({"backbone_config": {}}, "`backbone_config` is no configuration"),
        ({"backbone_config": {"model_type": "bert"}}, "no image classifier of type 'bert'. Give one that"),
        ({"backbone_config": {"model_type": "siglip2"}}, "one of type siglip2 reads any number of patches"),
        ({"backbone_config": {"model_type": "imagegpt"}}, "one of type imagegpt reads clusters of colours"),
        ({"backbone_config": {"model_type": "vit", "num_channels": 1}}, "`num_channels` must be 3, for RGB"),
        ({"backbone_config": {"model_type": "vit", "image_size": [224, 192]}}, "must be that of a square"),
        ({"backbone_config": {"model_type": "vit", "hidden_size": 10**9}}, "`backbone_config.hidden_size` must be"),
        (
            {"backbone_config": {"model_type": "clip", "vision_config": {"image_size": 10**9}}},
            "`backbone_config.vision_config.image_size` must be at most",
        ),
        ({"image_size": 0}, "`image_size` must be at least 1"),
        ({"image_size": 10**9}, "`image_size` must be at most"),
        ({"head_dropout_prob": 1}, "`head_dropout_prob` must lie"),
        ({"score_scale": 0}, "must not be 0"),
        ({"num_labels": 10, "score_offset": 1.0}, "belong to models with one label"),
        ({"image_sizes": 8}, "Is it `image_size`"),
        ({"image_size": "8"}, "`image_size` must be a whole number or null, got '8'"),
        ({"model_type": "musiq"}, "`model_type` must be 'classifier'"),
    ],
)
def test_fields_that_are_wrong_or_contradict_each_other_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        ClassifierConfig.from_dict(fields)


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos"])
def test_a_square_is_what_pillow_makes_of_a_picture(resample):
    values = np.random.default_rng(0).integers(0, 256, (45, 80, 3), dtype=np.uint8)
    processor = ClassifierImageProcessor(image_size=32, resample=resample)
    found = processor(Image.fromarray(values))["pixel_values"][0]
    wanted = Image.fromarray(values).resize((32, 32), Image.Resampling[resample.upper()])
    wanted = (np.asarray(wanted) / 255 - processor.image_mean) / processor.image_std
    np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), wanted, atol=1e-6)


def test_a_crop_is_the_centre_of_a_resized_picture():
    values = np.random.default_rng(0).integers(0, 256, (45, 80, 3), dtype=np.uint8)
    processor = ClassifierImageProcessor(
        image_size=32, square_mode="crop", resized_side=36, image_mean=[0, 0, 0], image_std=[1, 1, 1]
    )
    found = processor.cut(torch.from_numpy(values))["pixel_values"]
    wanted = Image.fromarray(values).resize((64, 36), Image.Resampling.BILINEAR).crop((16, 2, 48, 34))
    np.testing.assert_allclose(found.permute(1, 2, 0).numpy() * 255, np.asarray(wanted), atol=1e-4)


@pytest.mark.parametrize("mode", ["stretch", "crop"])
def test_a_step_may_see_a_random_part_of_a_larger_square(mode):
    processor, view = ClassifierImageProcessor(image_size=32, square_mode=mode), ClassifierTrainingView(crop_margin=4)
    pixels = torch.arange(60 * 90 * 3).remainder(251).to(torch.uint8).view(60, 90, 3)
    torch.manual_seed(0)
    first, second = (view.cut(processor, pixels)["pixel_values"] for _ in range(2))
    torch.manual_seed(0)
    assert torch.equal(view.cut(processor, pixels)["pixel_values"], first) and not torch.equal(first, second)
    assert first.shape == (3, 32, 32) and view.max_tokens(processor) == 1
    plain = ClassifierTrainingView().cut(processor, pixels)["pixel_values"]
    assert torch.equal(plain, processor.cut(pixels)["pixel_values"]) == (mode == "stretch")
    with pytest.raises(ValueError, match="`crop_margin` must be at least 0, got -1"):
        ClassifierTrainingView(crop_margin=-1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resized_side": 40}, "has no effect on `square_mode=.stretch.`"),
        ({"resized_side": 30, "square_mode": "crop"}, "at least `image_size`, got 30 and 32"),
        ({"image_std": [1, 1, 0]}, "`image_std` must be positive"),
        ({"image_mean": [0.5]}, "`image_mean` must be three finite numbers"),
        ({"resample": "cubic"}, "`resample` must be 'nearest' or"),
        ({"size": 224}, "'size'.* are no settings of a ClassifierImageProcessor. Known are"),
    ],
)
def test_settings_that_are_wrong_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        ClassifierImageProcessor.from_dict({"image_size": 32} | settings)


def test_pictures_and_models_that_do_not_fit_are_refused():
    processor = ClassifierImageProcessor(image_size=32)
    with pytest.raises(ValueError, match="got 1 x 101 pixels"):
        processor.count_tokens(101, 1)
    with pytest.raises(ValueError, match="must leave room for 32 pixels on 32 x 32, got top 1 and left 0"):
        processor.cut(torch.zeros(9, 9, 3, dtype=torch.uint8), corner=(1, 0))
    with pytest.raises(ValueError, match="squares of 224 pixels, but `image_size` is 32"):
        processor.check_config(ClassifierConfig(backbone_config=ConvNextConfig()))


def test_card_and_facts_name_the_network():
    config = ClassifierConfig(backbone_config={"model_type": "vit"}, num_labels=10)
    text = card(config)
    assert "`vit`" in text.summary and "dosovitskiy" in text.citation and "talebi2018nima" in text.citation
    assert "between 1 and 10" in text.score
    assert facts(config) == {"backbone": "vit, squares of 224 pixels", "answers": "a distribution over 1 to 10"}
