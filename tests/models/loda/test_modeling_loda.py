# SPDX-License-Identifier: Apache-2.0
"""LoDa against the numbers of its published code, and what it promises beyond."""

import golden_loda as golden
import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoBackbone, AutoConfig, AutoModel

from musiq_hf.models.loda import LodaConfig, LodaForImageQualityAssessment, LodaModel
from musiq_hf.models.loda.timm_loda import rename_resnet

TINY_CNN = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 12],
    "depths": [1, 1],
    "layer_type": "basic",
    "out_features": ["stage1", "stage2"],
}
TINY_VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


def close(found: torch.Tensor, expected: np.ndarray, tolerance: float) -> None:
    torch.testing.assert_close(found.detach(), torch.from_numpy(np.asarray(expected)), atol=tolerance, rtol=0)


def make(vit: dict | None = None, cnn: dict | None = None, **fields) -> LodaForImageQualityAssessment:
    torch.manual_seed(0)
    parts = {"vit_config": {"model_type": "vit"} | TINY_VIT | (vit or {}), "cnn_config": cnn or TINY_CNN}
    config = LodaConfig(**parts, **({"latent_dim": 8, "num_cross_attention_heads": 2, "token_grid_size": 3} | fields))
    return LodaForImageQualityAssessment(config).eval()


@torch.no_grad()
def check_outputs(name: str) -> None:
    expected = golden.arrays(f"outputs_{name}")
    model, crops = golden.make_model(name), golden.make_crops(name, len(expected["raw"]))
    outputs = model.loda(crops, output_hidden_states=True)
    step = 13 if name == "full" else 1
    close(outputs.cnn_tokens[:, ::step], expected["cnn_tokens"], golden.TOKEN_TOLERANCE)
    states = torch.stack(outputs.hidden_states[:-1], dim=1)
    close(states[:, :, 0], expected["cls_mid"], golden.STATE_TOLERANCE)
    close(states.mean(dim=2), expected["mid_mean"], golden.STATE_TOLERANCE)
    close(outputs.hidden_states[-1][:, 0], expected["cls_out"][:, -1], golden.STATE_TOLERANCE)
    close(outputs.pooler_output, expected["cls"], golden.STATE_TOLERANCE)
    scored = model(crops)
    close(scored.logits[:, 0], expected["raw"], golden.SCORE_TOLERANCE)
    assert torch.equal(scored.scores, scored.logits[:, 0]) and scored.crop_logits.shape == (len(crops), 1)


@pytest.mark.parametrize("name", golden.SMALL)
def test_outputs_are_those_of_the_published_code(name):
    check_outputs(name)


@pytest.mark.slow
def test_outputs_of_the_published_size_are_those_of_the_published_code():
    check_outputs("full")


@torch.no_grad()
def test_every_step_of_an_interaction_is_that_of_the_published_code():
    expected, model, crops = golden.arrays("trace_tiny"), golden.make_model("tiny"), golden.make_crops("tiny", 6)[:2]
    found: dict[str, torch.Tensor] = {}
    for index, interaction in enumerate(model.loda.interactions.values()):
        for name in ("down_proj", "cross_attention", "up_proj"):
            key = f"{name.split('_')[0]}_{index}"
            getattr(interaction, name).register_forward_hook(
                lambda _, inputs, output, key=key: found.update({key: output[0] if key[:5] == "cross" else output})
            )
    outputs = model.loda(crops, output_hidden_states=True)
    for key, value in found.items():
        close(value, expected[key], golden.STATE_TOLERANCE)
    assert len(found) == 9
    for index in range(3):
        close(outputs.hidden_states[index], expected[f"x_mid_{index}"], golden.STATE_TOLERANCE)
    close(outputs.last_hidden_state, expected["norm"], golden.STATE_TOLERANCE)
    weights = model.loda(crops[:1], output_attentions=True).cross_attentions
    close(weights[0], expected["cross_weights_0"], golden.STATE_TOLERANCE)
    for index, maps in enumerate(model.loda.cnn(crops[:1]).feature_maps):
        close(maps, expected[f"cnn_map_{index}"], golden.TOKEN_TOLERANCE)


def train_once(model: LodaForImageQualityAssessment, expected: dict[str, np.ndarray]) -> torch.Tensor:
    """One step as the original does it: both networks frozen, the head's dropout off."""
    model.train()
    model.head.dropout.p = 0.0
    for part in (model.loda.vit, model.loda.cnn):
        part.requires_grad_(False)
    outputs = model(golden.make_crops("tiny", 8, seed=1), labels=torch.from_numpy(expected["labels"]))
    outputs.loss.backward()
    return outputs


def gradients_by_their_old_names(model: LodaForImageQualityAssessment) -> dict[str, torch.Tensor]:
    ours = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    found = {}
    for name, value in golden.weights("tiny")["learner"].items():
        names = list(golden.rename(name, value))
        parts = [ours.pop(key) for key in names]
        found[name] = torch.stack(parts) if name == "scale_factor" else torch.cat(parts)
    found["head.weight"] = found["head.weight"].T
    assert not ours  # nothing else learns
    return found


def test_a_training_step_is_that_of_the_published_code():
    expected, model = golden.arrays("training_tiny"), golden.make_model("tiny")
    outputs = train_once(model, expected)
    close(outputs.logits[:, 0], expected["raw"], golden.SCORE_TOLERANCE)
    close(outputs.loss, expected["loss"], golden.SCORE_TOLERANCE)
    for name, gradient in gradients_by_their_old_names(model).items():
        wanted = expected[f"grad/{name}"]
        close(gradient, wanted, golden.GRADIENT_TOLERANCE * np.abs(wanted).max())
    state = model.loda.cnn.state_dict()
    names = [name for name in expected if name.startswith("bn_buffer/")]
    assert len(names) == 36
    for name in names:
        found, wanted = state[rename_resnet(name.removeprefix("bn_buffer/"))], torch.from_numpy(expected[name])
        torch.testing.assert_close(found, wanted, rtol=golden.STATISTIC_TOLERANCE, atol=1e-7)


def test_a_training_step_can_leave_the_statistics_alone():
    expected, model = golden.arrays("training_tiny"), golden.make_model("tiny", update_cnn_statistics=False)
    before = {name: value.clone() for name, value in model.loda.cnn.state_dict().items()}
    outputs = train_once(model, expected)
    close(outputs.logits[:, 0], expected["eval/raw"], golden.SCORE_TOLERANCE)
    close(outputs.loss, expected["eval/loss"], golden.SCORE_TOLERANCE)
    for name, gradient in gradients_by_their_old_names(model).items():
        norm = expected[f"eval/grad_norm/{name}"]
        assert gradient.norm().item() == pytest.approx(norm, rel=golden.GRADIENT_TOLERANCE)
    assert all(torch.equal(value, before[name]) for name, value in model.loda.cnn.state_dict().items())


def test_a_picture_has_the_mean_of_its_crops():
    model, crops = make(score_offset=3.0, score_scale=2.0), torch.randn(2, 4, 3, 32, 32)
    together = model(crops)
    torch.testing.assert_close(together.logits[:, 0], together.crop_logits.mean(dim=1))
    torch.testing.assert_close(together.scores, 3 + 2 * together.logits[:, 0])
    alone = torch.stack([model(crops[:, index]).logits[:, 0] for index in range(4)], dim=1)
    torch.testing.assert_close(together.crop_logits, alone, atol=1e-6, rtol=0)


def test_crops_of_a_picture_share_its_label():
    model, crops = make(), torch.randn(3, 2, 3, 32, 32)
    labels = torch.tensor([1.0, 5.0, 2.0])
    flat = model(crops.flatten(0, 1), labels=labels.repeat_interleave(2))
    torch.testing.assert_close(model(crops, labels=labels).loss, flat.loss)


def test_features_are_added_before_the_chosen_blocks_alone():
    model, crops = make(interaction_layers=[0, 2]), torch.randn(1, 3, 32, 32)
    plain = make(interaction_layers=[0, 2])
    assert len(model.loda.interactions) == 2 and model.config.injected_layers == [0, 2]
    with torch.no_grad():
        for interaction in plain.loda.interactions.values():
            interaction.scale.zero_()
        untouched = plain.loda.vit(crops).last_hidden_state
        torch.testing.assert_close(plain.loda(crops).last_hidden_state, untouched, atol=1e-6, rtol=0)
        assert not torch.allclose(model.loda(crops).last_hidden_state, untouched, atol=1e-4)


KINDS = {
    "vit": {"intermediate_size": 24},
    "deit": {"intermediate_size": 24},
    "dinov2": {"mlp_ratio": 2},
    "dinov2_with_registers": {"mlp_ratio": 2, "num_register_tokens": 2},
}
CONVNEXT = {
    "model_type": "convnext",
    "num_stages": 2,
    "hidden_sizes": [8, 12],
    "depths": [1, 1],
    "out_features": ["stage1", "stage2"],
}


@pytest.mark.parametrize("cnn", [TINY_CNN, CONVNEXT], ids=["resnet", "convnext"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_of_these_networks_can_be_inside(kind, cnn, tmp_path):
    model = make({"model_type": kind} | KINDS[kind], cnn)
    crops = torch.randn(2, 3, 32, 32)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(loaded(crops).scores, model(crops).scores)
    model.train()
    model(crops, labels=torch.tensor([1.0, 2.0])).loss.backward()
    trained = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert all("register" not in name and "layer_scale" not in name for name in trained)


def test_networks_come_from_loaded_models_and_folders(tmp_path):
    torch.manual_seed(1)
    vit = AutoModel.from_config(AutoConfig.for_model("vit", **TINY_VIT))  # with a pooler, which has no place here
    cnn = AutoBackbone.from_config(AutoConfig.for_model(**TINY_CNN))
    vit.save_pretrained(tmp_path / "vit")
    cnn.save_pretrained(tmp_path / "cnn")
    fields = {"latent_dim": 8, "num_cross_attention_heads": 2}
    given = [(vit, cnn), (str(tmp_path / "vit"), tmp_path / "cnn")]
    for source in given:
        model = LodaForImageQualityAssessment.from_backbones(*source, **fields)
        assert not model.training
        for ours, theirs in ((model.loda.vit, vit), (model.loda.cnn, cnn)):
            state = theirs.state_dict()
            assert all(torch.equal(value, state[name]) for name, value in ours.state_dict().items())
    assert model.config.cnn_config.out_features == ["stage1", "stage2"]


def test_what_is_between_the_networks_starts_as_published():
    model = LodaForImageQualityAssessment(
        LodaConfig(vit_config={"model_type": "vit"} | TINY_VIT | {"hidden_size": 256})
    )
    scales = torch.cat([interaction.scale for interaction in model.loda.interactions.values()])
    assert 0.01 < scales.std() < 0.03 and scales.abs().max() <= 0.04
    assert model.head.weight.abs().max() <= 1 and model.head.weight.std() > 0.5
    mlp = model.loda.interactions["0"].up_proj.fc2
    bound = 256**-0.5
    assert mlp.weight.abs().max() <= bound and mlp.bias.abs().max() <= bound and mlp.bias.abs().min() > 0
    torch.testing.assert_close(mlp.weight.std().item(), bound / 3**0.5, rtol=0.05, atol=0)
    assert isinstance(model.head, nn.Linear) and model.head.bias is None


@torch.no_grad()
def test_the_length_of_the_head_has_no_effect():
    model, crops = make(), torch.randn(2, 3, 32, 32)
    before = model(crops).logits
    model.head.weight.mul_(7)
    torch.testing.assert_close(model(crops).logits, before)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 31, 32), "must have shape .*got .2, 3, 31, 32"),
        ((1, 0, 3, 32, 32), "got .1, 0, 3"),
        ((3, 32), "got .3, 32"),
    ],
)
def test_wrong_shapes_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        make()(torch.zeros(shape))


def test_missing_crops_wrong_labels_and_arguments_are_refused():
    model = make()
    with pytest.raises(ValueError, match="is required"):
        model()
    with pytest.raises(ValueError, match=r"`labels` must have shape \(2,\), got \(2, 5\)"):
        model(torch.zeros(2, 3, 32, 32), labels=torch.zeros(2, 5))
    with pytest.raises(ValueError, match="no argument interpolate"):
        model(torch.zeros(2, 3, 32, 32), interpolate=True)
    with pytest.raises(ValueError, match="got .1, 1, 3"):
        LodaModel(model.config)(torch.zeros(1, 1, 3, 32, 32))


def test_gradients_can_be_recomputed_to_save_memory():
    plain, saving = make(), make()
    for model in (plain, saving):
        model.train()
        model.head.dropout.p = 0.0
    saving.gradient_checkpointing_enable()
    torch.manual_seed(3)
    crops, labels = torch.randn(4, 3, 32, 32), torch.arange(4.0)
    for model in (plain, saving):
        model(crops, labels=labels).loss.backward()
    for ours, theirs in zip(saving.parameters(), plain.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad)
