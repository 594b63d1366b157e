# SPDX-License-Identifier: Apache-2.0
"""Weights that are missing, renamed, left over, of a wrong shape or whole numbers: no door makes scores of them."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForImageClassification, pipeline
from transformers.utils import logging

from musiq_hf import (
    AutoModelForImageQualityAssessment,
    MusiqForImageClassification,
    MusiqForImageQualityAssessment,
    MusiqImageProcessor,
    MusiqModel,
    load_quality,
)

HEAD, NORM = "head.classifier.weight", "musiq.layernorm.weight"
DOORS = {
    "class": MusiqForImageQualityAssessment.from_pretrained,
    "model": AutoModel.from_pretrained,
    "classification": AutoModelForImageClassification.from_pretrained,
    "quality": AutoModelForImageQualityAssessment.from_pretrained,
    "pipeline": lambda folder: pipeline("image-quality-assessment", model=str(folder)),
    "standard pipeline": lambda folder: pipeline("image-classification", model=str(folder)),
}
DAMAGES = {
    "a head is lost": (lambda weights: weights.pop(HEAD), f"missing {HEAD}"),
    "a norm is lost": (lambda weights: weights.pop(NORM), f"missing {NORM}"),
    "renamed": (lambda weights: weights.update({"norm": weights.pop(NORM)}), f"missing {NORM}; unexpected norm"),
    "left over": (lambda weights: weights.update(extra=torch.zeros(2)), "unexpected extra"),
    "whole numbers": (
        lambda weights: weights.update({NORM: weights[NORM].long()}),
        rf"not of a floating-point type {NORM} \(int64\)",
    ),
    "8 bits": (lambda weights: weights.update({HEAD: weights[HEAD].to(torch.int8)}), rf"{HEAD} \(int8\)"),
    "two logits": (
        lambda weights: weights.update({HEAD: weights[HEAD].repeat(2, 1)}),
        rf"of a wrong shape {HEAD} \(2, 16\) in place of \(1, 16\)",
    ),
    "names without the backbone": (
        lambda weights: [weights.update({name.removeprefix("musiq."): weights.pop(name)}) for name in list(weights)],
        "missing head",
    ),
}


def save(model, folder):
    model.save_pretrained(folder)
    MusiqImageProcessor.from_config(model.config).save_pretrained(folder)
    return folder


def change(folder, damage):
    weights = load_file(folder / "model.safetensors")
    damage(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("door", DOORS)
def test_no_door_loads_weights_that_are_not_those_of_the_model(tiny_model, tmp_path, door, damage):
    folder = save(tiny_model(), tmp_path)
    change(folder, DAMAGES[damage][0])
    with pytest.raises(ValueError, match=DAMAGES[damage][1]):
        DOORS[door](folder)


@pytest.mark.parametrize("door", sorted(set(DOORS) - {"class", "model"}))
def test_a_backbone_scores_through_no_door(tiny_config, tmp_path, door):
    folder = save(MusiqModel(tiny_config()), tmp_path)
    with pytest.raises(ValueError, match="holds a MusiqModel, not a MusiqForImageQualityAssessment"):
        DOORS[door](folder)


def test_classes_are_no_score_values(tiny_config, tmp_path):
    folder = save(MusiqForImageClassification(tiny_config(num_labels=7)), tmp_path)
    for door in ("class", "quality"):
        with pytest.raises(ValueError, match="MusiqForImageClassification, not a MusiqForImageQualityAssessment"):
            DOORS[door](folder)
    assert MusiqForImageQualityAssessment.from_pretrained(folder, num_labels=2, ignore_mismatched_sizes=True)


def test_what_does_not_fit_is_made_anew_only_if_asked_for(tiny_model, tmp_path):
    folder = save(tiny_model(), tmp_path)
    with pytest.raises(ValueError, match="of a wrong shape head.classifier.bias"):
        MusiqForImageQualityAssessment.from_pretrained(folder, num_labels=5)
    model = MusiqForImageQualityAssessment.from_pretrained(folder, num_labels=5, ignore_mismatched_sizes=True)
    assert model.head.classifier.weight.shape == (5, 16)
    change(folder, DAMAGES["whole numbers"][0])
    with pytest.raises(ValueError, match="not of a floating-point type"):
        MusiqForImageQualityAssessment.from_pretrained(folder, num_labels=5, ignore_mismatched_sizes=True)


def test_the_backbone_of_a_checkpoint_is_whole(tiny_model, tmp_path):
    folder = save(tiny_model(), tmp_path)
    assert type(MusiqModel.from_pretrained(folder)) is MusiqModel
    change(folder, DAMAGES["a norm is lost"][0])
    with pytest.raises(ValueError, match="missing layernorm.weight"):
        MusiqModel.from_pretrained(folder)


def test_a_damaged_file_is_named(tiny_model, tmp_path):
    folder = save(tiny_model(), tmp_path)
    content = (folder / "model.safetensors").read_bytes()
    for damaged in (b"", content[:-1], b"\xff" * 40):
        (folder / "model.safetensors").write_bytes(damaged)
        with pytest.raises(ValueError, match="model.safetensors holds no weights that can be read"):
            MusiqForImageQualityAssessment.from_pretrained(folder, dtype=torch.float32)


def test_weights_in_memory_are_checked_too(tiny_model):
    model = tiny_model()
    weights = model.state_dict()
    loaded = MusiqForImageQualityAssessment.from_pretrained(None, config=model.config, state_dict=weights)
    assert torch.equal(loaded.head.classifier.weight, model.head.classifier.weight)
    del weights[HEAD]
    with pytest.raises(ValueError, match=f"missing {HEAD}"):
        MusiqForImageQualityAssessment.from_pretrained(None, config=model.config, state_dict=weights)


def test_no_checkpoint_and_no_weights_mean_the_initial_ones(tiny_model):
    config = tiny_model().config
    loaded = MusiqForImageQualityAssessment.from_pretrained(None, config=config, state_dict={})
    assert all(torch.isfinite(weight).all() for weight in loaded.parameters())


def test_many_names_are_counted(tiny_model, tmp_path):
    folder = save(tiny_model(), tmp_path)
    change(folder, lambda weights: [weights.pop(name) for name in list(weights) if "layers.0" in name])
    with pytest.raises(ValueError, match=r"missing musiq\.encoder\.layers\.0\..* and 11 more\. If you"):
        MusiqForImageQualityAssessment.from_pretrained(folder)


@pytest.mark.parametrize("words", [{"adapter_kwargs": {}}, {"adapter_kwargs": None}, {"trust_remote_code": False}])
def test_words_of_auto_classes_may_be_given_to_a_class(tiny_config, tiny_model, tmp_path, words):
    folder = save(tiny_model(), tmp_path / "whole")
    assert MusiqForImageQualityAssessment.from_pretrained(folder, **words)
    backbone = save(MusiqModel(tiny_config()), tmp_path / "backbone")
    assert MusiqForImageQualityAssessment.from_pretrained(backbone, **words)  # its head is to be trained


def test_adapters_are_loaded_over_the_weights(tiny_model, tmp_path):
    peft = pytest.importorskip("peft")
    folder = save(tiny_model(), tmp_path / "base")
    model = AutoModel.from_pretrained(folder)
    model.add_adapter(peft.LoraConfig(target_modules=["q_proj", "v_proj"]))
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, generator=generator)
    model.save_pretrained(tmp_path / "adapter")
    loaded = AutoModel.from_pretrained(folder)
    loaded.load_adapter(tmp_path / "adapter")
    batch = MusiqImageProcessor.from_config(model.config)(torch.rand(3, 40, 50, generator=generator))
    models = [model.eval(), AutoModel.from_pretrained(folder), loaded, AutoModel.from_pretrained(tmp_path / "adapter")]
    with torch.inference_mode():
        expected, plain, *answers = (one(**batch).logits for one in models)
    assert not torch.allclose(plain, expected, atol=1e-4)
    assert all(torch.allclose(answer, expected, atol=1e-6) for answer in answers)


def test_the_weights_below_an_adapter_are_checked(tiny_model, tmp_path):
    peft = pytest.importorskip("peft")
    folder = save(tiny_model(), tmp_path / "base")
    model = AutoModel.from_pretrained(folder)
    model.add_adapter(peft.LoraConfig(target_modules=["q_proj"]))
    model.save_pretrained(tmp_path / "adapter")
    change(folder, DAMAGES["a head is lost"][0])
    with pytest.raises(ValueError, match=f"missing {HEAD}"):
        AutoModel.from_pretrained(tmp_path / "adapter")


def test_saving_shows_no_bar(tiny_model, tmp_path, capsys):
    enabled = logging.is_progress_bar_enabled()
    logging.enable_progress_bar()
    try:
        tiny_model().save_pretrained(tmp_path)
        assert logging.is_progress_bar_enabled()
    finally:
        if not enabled:
            logging.disable_progress_bar()
    assert capsys.readouterr().err == ""


OTHERS = [
    ({"patch_size": 16}, "`pixel_values` are patches of 16 pixels, but the model reads patches of 8"),
    ({"patch_size": 4}, "`pixel_values` are patches of 4 pixels, but the model reads patches of 8"),
    ({"longer_side_lengths": [16]}, "`scale_position_ids` go up to 1, but the model has 3 scales, 0 to 2"),
    ({"longer_side_lengths": [16, 24, 32]}, "`scale_position_ids` go up to 3, but the model has 3 scales, 0 to 2"),
    ({"use_native_resolution": False}, "`scale_position_ids` go up to 1, but the model has 3 scales, 0 to 2"),
    ({"hash_grid_size": 9}, "`spatial_position_ids` go up to .*, but the model has 16 positions, 0 to 15"),
]


@pytest.mark.parametrize(("settings", "sentence"), OTHERS, ids=[str(settings) for settings, _ in OTHERS])
def test_pictures_of_a_processor_of_another_layout_are_refused(tiny_model, tiny_config, pictures, settings, sentence):
    model, processor = tiny_model(), MusiqImageProcessor.from_config(tiny_config(**settings))
    advice = "Build the processor with `MusiqImageProcessor.from_config\\(model.config\\)`"
    with pytest.raises(ValueError, match=f"have different layouts: {sentence}. {advice}"):
        model(**processor(pictures[0]))


def test_embedded_checkpoints_refuse_each_others_pictures(pictures):
    (default, large), (tiny, small) = load_quality(), load_quality("musiq-tiny-biq2021")
    for model, processor, sizes in ((default, small, (32, 64)), (tiny, large, (64, 32))):
        with pytest.raises(
            ValueError, match="are patches of {} pixels, but the model reads patches of {}".format(*sizes)
        ):
            model(**processor(pictures[0]))
