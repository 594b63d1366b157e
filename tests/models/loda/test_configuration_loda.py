# SPDX-License-Identifier: Apache-2.0
"""Rules of the configuration of LoDa."""

import json

import pytest
from transformers import AutoConfig, ConvNextConfig, ResNetConfig, ViTConfig

from musiq_hf.models.loda import LODA, LodaConfig, LodaForImageQualityAssessment, LodaImageProcessor
from musiq_hf.scoring.loading import resolve_model


def test_defaults_are_the_published_model():
    config = LodaConfig()
    assert (config.hidden_size, config.num_hidden_layers, config.image_size, config.patch_size) == (768, 12, 224, 16)
    assert config.cnn_config.hidden_sizes == [256, 512, 1024, 2048] and config.injected_layers == list(range(12))
    assert config.vit_config.layer_norm_eps == 1e-6 and config.answer_range is None


@pytest.mark.slow
def test_the_published_model_has_the_published_number_of_weights():
    model = LodaForImageQualityAssessment(LodaConfig())
    assert sum(weight.numel() for weight in model.parameters()) == 118_234_176
    for part in LODA.parts(model)["backbones"]:
        part.requires_grad_(False)
    assert sum(weight.numel() for weight in model.parameters() if weight.requires_grad) == 8_927_488


def test_a_configuration_is_saved_and_loaded_whole(tmp_path):
    config = LodaConfig(
        vit_config=ViTConfig(hidden_size=48, num_attention_heads=3, qkv_bias=False),
        cnn_config=ConvNextConfig(out_features=["stage1"]),
        interaction_layers=(4, 0, 4),
        score_range=(1, 5),
    )
    assert config.interaction_layers == [0, 4] and config.answer_range == (1, 5)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is LodaConfig and loaded.to_json_string() == config.to_json_string()
    assert loaded.signature_fields() == config.signature_fields()
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["vit_config"]["model_type"] == "vit" and "dtype" not in stored["vit_config"]


@pytest.mark.parametrize(
    "change",
    [
        {"vit_config": {"model_type": "vit", "layer_norm_eps": 1e-12}},
        {"cnn_config": {"model_type": "resnet", "out_features": ["stage1", "stage4"]}},
        {"interaction_layers": [0]},
        {"num_cross_attention_heads": 8},
        {"score_scale": 2.0},
    ],
)
def test_what_changes_a_score_is_part_of_the_signature(change):
    assert LodaConfig(**change).signature_fields() != LodaConfig().signature_fields()


def test_all_interactions_are_signed_as_none_are():
    assert LodaConfig(interaction_layers=list(range(12))).signature_fields() == LodaConfig().signature_fields()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"latent_dim": 66}, "multiple of `num_cross_attention_heads`, got 66 and 4"),
        ({"interaction_layers": [12]}, "blocks 0 to 11, got .12."),
        ({"interaction_layers": []}, "blocks 0 to 11"),
        ({"num_labels": 10}, "`num_labels` must be 1, got 10"),
        ({"vit_config": {"model_type": "swin"}}, "first token is CLS, got 'swin'"),
        ({"vit_config": {"model_type": "no such"}}, "`vit_config` is no configuration"),
        ({"vit_config": {}}, "`vit_config` is no configuration"),
        ({"vit_config": {"model_type": "vit", "image_size": 10**9}}, "`vit_config.image_size` must be at most"),
        ({"vit_config": {"model_type": "vit", "image_size": [224, 192]}}, "must be one number"),
        ({"cnn_config": {"model_type": "bert"}}, "`out_features`"),
        (
            {"vit_config": {"model_type": "vit", "image_size": 225}},
            "multiple of `patch_size`, got 225 and 16",
        ),
        ({"vit_config": {"model_type": "vit", "num_channels": 1}}, "`vit_config`: `num_channels` must be 3"),
        (
            {"cnn_config": {"model_type": "resnet", "num_channels": 1, "out_features": ["stage1"]}},
            "must be 3, for",
        ),
        (
            {"cnn_config": {"model_type": "resnet", "hidden_sizes": [10**9] * 4}},
            "`cnn_config.hidden_sizes` must be",
        ),
        ({"token_grid_size": 0}, "`token_grid_size` must be at least 1"),
        ({"head_dropout_prob": 1}, "`head_dropout_prob` must lie"),
        ({"score_scale": 0}, "must not be 0"),
        ({"score_range": [5, 1]}, "must be .lowest, highest."),
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        LodaConfig.from_dict(fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"latent_dims": 8}, "Is it `latent_dim`"),
        ({"latent_dim": "8"}, "`latent_dim` must be a whole number, got '8'"),
        ({"rope_scaling": {}}, "no field of a LodaConfig"),
        ({"model_type": "musiq"}, "`model_type` must be 'loda'"),
    ],
)
def test_what_a_file_says_wrongly_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        LodaConfig.from_dict(fields)


@pytest.mark.parametrize("name", ["loda-base", "loda-tiny"])
def test_packaged_configurations_load(name):
    folder = resolve_model(f"scratch:{name}")
    config, processor = AutoConfig.from_pretrained(folder), LodaImageProcessor.from_pretrained(folder)
    processor.check_config(config)
    if name == "loda-base":
        assert config.signature_fields() == LodaConfig().signature_fields()
        assert processor.signature_fields() == LodaImageProcessor().signature_fields()


def test_model_and_processor_must_agree():
    with pytest.raises(ValueError, match="`image_size` of the vision Transformer is 224, but `crop_size` is 64"):
        LodaImageProcessor(crop_size=64).check_config(LodaConfig())
    with pytest.raises(ValueError, match="`patch_size` of the vision Transformer is 8"):
        LodaImageProcessor().check_config(LodaConfig(vit_config=ViTConfig(patch_size=8)))
    config = LodaConfig(cnn_config=ResNetConfig(out_features=["stage2"]))
    assert LodaImageProcessor.from_config(config).signature_fields() == LodaImageProcessor().signature_fields()
