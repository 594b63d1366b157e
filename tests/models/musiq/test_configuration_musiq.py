# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from places import ROOT
from transformers import AutoConfig

from musiq_hf import MusiqConfig, MusiqForImageQualityAssessment, MusiqImageProcessor
from musiq_hf.scoring.loading import resolve_model


def test_defaults_are_the_published_three_scale_model():
    config = MusiqConfig()
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (384, 14, 6)
    assert (config.intermediate_size, config.patch_size, config.hash_grid_size) == (1152, 32, 10)
    assert (config.patch_encoder, config.patch_encoder_depth, config.spatial_embedding) == ("resnet", 5, "hash")
    assert (config.longer_side_lengths, config.use_native_resolution) == ([224, 384], True)
    assert (config.num_labels, config.score_offset, config.score_scale) == (1, 0, 1)
    assert (config.num_scales, config.num_spatial_positions) == (3, 100)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"hidden_size": 0}, "`hidden_size` must be at least 1, got 0"),
        ({"num_hidden_layers": 0}, "`num_hidden_layers` must be at least 1, got 0"),
        ({"num_attention_heads": 0}, "`num_attention_heads` must be at least 1, got 0"),
        ({"intermediate_size": -3}, "`intermediate_size` must be at least 1, got -3"),
        ({"patch_size": 0}, "`patch_size` must be at least 1, got 0"),
        ({"hash_grid_size": 0}, "`hash_grid_size` must be at least 1, got 0"),
        ({"patch_encoder_width": 0}, "`patch_encoder_width` must be at least 1, got 0"),
        ({"patch_encoder_groups": 0}, "`patch_encoder_groups` must be at least 1, got 0"),
        ({"max_native_patches": 0}, "`max_native_patches` must be at least 1, got 0"),
        ({"max_native_side": 300}, "must be at least the longest of `longer_side_lengths`, got 300 and 384"),
        ({"max_native_side": 0}, "`max_native_side` must be at least 1, got 0"),
        (
            {"max_native_side": 9, "use_native_resolution": False},
            "`max_native_side=9` has no effect without the native picture",
        ),
        ({"num_labels": 0}, "`num_labels` must be at least 1, got 0"),
        ({"pre_logits_size": 0}, "`pre_logits_size` must be at least 1, got 0"),
        ({"longer_side_lengths": [224, 0]}, r"`longer_side_lengths` must be positive, in pixels, got \[0, 224\]"),
        ({"covariance_size": 32}, '`covariance_size=32` has no effect on `pooling="cls"`. Leave it out, or set'),
        ({"covariance_method": "pade"}, '`covariance_method=pade` has no effect on `pooling="cls"`'),
        ({"pooling": "covariance", "covariance_eps": 0}, r"`covariance_eps` must lie in \(0, 1\], got 0"),
        ({"pooling": "covariance", "covariance_size": 0}, "`covariance_size` must be at least 1, got 0"),
        ({"hidden_dropout_prob": 1.0}, r"`hidden_dropout_prob` must lie in \[0, 1\), got 1.0"),
        ({"attention_probs_dropout_prob": -0.1}, r"`attention_probs_dropout_prob` must lie in \[0, 1\), got -0.1"),
        ({"drop_path_rate": 2}, r"`drop_path_rate` must lie in \[0, 1\), got 2"),
        ({"num_attention_heads": 5}, "must be a multiple of `num_attention_heads`, got 384 and 5. Change one"),
        (
            {"longer_side_lengths": [], "use_native_resolution": False},
            "A model needs a scale: give `longer_side_lengths` or set `use_native_resolution=True`",
        ),
        ({"longer_side_lengths": [224, 224]}, r"must differ from each other, got \[224, 224\]. Remove the repeated"),
        (
            {"max_native_patches": 9, "use_native_resolution": False},
            "`max_native_patches=9` has no effect without the native picture",
        ),
        ({"spatial_embedding": "fixed"}, "learns one vector per slot.*Set `max_native_patches`"),
        ({"patch_encoder_depth": 6}, r"must be one of \(5, 8, 11, 14\), got 6. For the stem alone"),
        (
            {"patch_encoder_width": 48},
            "`patch_encoder_width` must be a multiple of `patch_encoder_groups`, got 48 and 32",
        ),
        ({"layer_norm_eps": 0.0}, "`layer_norm_eps` must be positive, got 0.0"),
        ({"layer_norm_eps": 0}, "`layer_norm_eps` must be positive, got 0."),
        ({"layer_norm_eps": -1}, r"`layer_norm_eps` must lie in \[0, 1\], got -1"),
        ({"initializer_range": 11}, r"`initializer_range` must lie in \[0, 10\], got 11"),
        ({"score_scale": 0}, "`score_scale` must not be 0"),
        ({"score_offset": float("nan")}, "must be finite, got"),
        ({"score_range": [0, float("inf")]}, "must be finite, got"),
        ({"num_labels": 10, "score_offset": 1.5}, "Remove them, got 1.5 and 1.0 with 10 labels"),
        ({"num_labels": 10, "score_scale": 2}, "Remove them, got 0.0 and 2 with 10 labels"),
        ({"score_range": [1]}, r"`score_range` must be \(lowest, highest\), got \[1\]"),
        ({"score_range": [5, 1]}, r"`score_range` must be \(lowest, highest\), got \[5, 1\]"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_contradictory_fields_raise_a_value_error(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        MusiqConfig(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"hidden_size": "384"},
        {"patch_encoder": "vgg"},
        {"spatial_embedding": "rotary"},
        {"use_scale_embedding": "yes"},
        {"longer_side_lengths": [224.5]},
        {"max_native_patches": 2.5},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_wrong_types_and_unknown_kinds_raise_and_name_the_field(fields):
    with pytest.raises(Exception, match=next(iter(fields))) as raised:
        MusiqConfig(**fields)
    assert "Validation error" in str(raised.value)  # from `@strict`, which checks the annotations


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_labels": 10, "score_range": (1, 10)},
        {"longer_side_lengths": (), "max_native_patches": 512},
        {"spatial_embedding": "fixed", "max_native_patches": 20, "pre_logits_size": 7},
        {"score_offset": 50, "score_scale": 12.5, "drop_path_rate": 0.1, "patch_encoder_depth": 11},
    ],
    ids=["defaults", "distribution", "single-scale", "fixed", "scaled"],
)
def test_json_round_trip_keeps_every_field(tmp_path, fields):
    config = MusiqConfig(**fields)
    config.save_pretrained(tmp_path)
    loaded = MusiqConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert type(AutoConfig.from_pretrained(tmp_path)) is MusiqConfig
    assert MusiqConfig.from_dict(json.loads(config.to_json_string(use_diff=False))).to_dict() == config.to_dict()


def test_longer_side_lengths_are_kept_sorted():
    assert MusiqConfig(longer_side_lengths=(512, 224, 384)).longer_side_lengths == [224, 384, 512]


def test_scales_are_the_resized_copies_and_the_native_picture():
    assert MusiqConfig(longer_side_lengths=[], use_native_resolution=True).num_scales == 1
    assert MusiqConfig(longer_side_lengths=[64, 32, 96], use_native_resolution=False).num_scales == 3


def test_fixed_embedding_has_a_position_for_every_slot():
    config = MusiqConfig(spatial_embedding="fixed", max_native_patches=20)
    assert config.num_spatial_positions == 7 * 7 + 12 * 12 + 20
    without_native = MusiqConfig(spatial_embedding="fixed", use_native_resolution=False, longer_side_lengths=[33])
    assert without_native.num_spatial_positions == 2 * 2


def test_one_label_is_a_regression_and_ten_are_not():
    assert MusiqConfig().problem_type == "regression"
    assert MusiqConfig(num_labels=1, problem_type="multi_label_classification").problem_type != "regression"
    config = MusiqConfig(num_labels=10)
    assert (config.problem_type, config.num_labels, len(config.id2label)) == (None, 10, 10)


def test_names_of_labels_set_their_number():
    assert MusiqConfig(id2label={0: "bad", 1: "good", 2: "great"}).num_labels == 3


def test_pointers_to_remote_code_are_dropped_by_the_installed_class(tmp_path):
    config = MusiqConfig()
    config.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    stored["auto_map"] = {"AutoConfig": "configuration_musiq.MusiqConfig"}
    stored["custom_pipelines"] = {"image-quality-assessment": {"impl": "pipeline_musiq.Pipeline"}}
    path.write_text(json.dumps(stored))
    loaded = MusiqConfig.from_pretrained(tmp_path)
    assert not hasattr(loaded, "auto_map")
    assert not hasattr(loaded, "custom_pipelines")
    assert loaded.to_dict() == config.to_dict()


def test_a_linear_patch_encoder_ignores_the_settings_of_the_resnet(tiny_config):
    config = tiny_config(patch_encoder="linear", patch_encoder_depth=3, patch_encoder_width=5)
    assert MusiqForImageQualityAssessment(config).musiq.embeddings.patch_encoder is None


def test_overrides_at_loading_are_checked_and_sorted(tmp_path):
    MusiqConfig().save_pretrained(tmp_path)
    assert MusiqConfig.from_pretrained(tmp_path, longer_side_lengths=[384, 224]).longer_side_lengths == [224, 384]
    with pytest.raises(ValueError, match="must be a multiple of `num_attention_heads`, got 384 and 5"):
        MusiqConfig.from_pretrained(tmp_path, num_attention_heads=5)
    config, unused = MusiqConfig.from_pretrained(tmp_path, hash_grid_size=5, foo=1, return_unused_kwargs=True)
    assert config.hash_grid_size == 5 and unused == {"foo": 1}


def test_named_configurations_are_found_and_agree_with_their_processors():
    for path in sorted((ROOT / "configuration" / "checkpoints").glob("musiq-*")):
        directory = resolve_model(f"scratch:{path.name}")
        config = MusiqConfig.from_pretrained(directory)
        MusiqImageProcessor.from_pretrained(directory).check_config(config)
        assert config.architectures[0].startswith("MusiqFor")
    with pytest.raises(ValueError, match="There is no configuration for 'scratch:koniq'. Choose scratch: with loda-"):
        resolve_model("scratch:koniq")
