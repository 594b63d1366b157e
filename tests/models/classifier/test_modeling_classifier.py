# SPDX-License-Identifier: Apache-2.0
"""Networks of Transformers and timm inside of a classifier of quality: the same numbers, and what is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForImageClassification, CLIPConfig, ResNetConfig, SiglipConfig

from musiq_hf.models.classifier import ClassifierConfig, ClassifierForImageQualityAssessment, ClassifierImageProcessor
from musiq_hf.models.classifier.backbones_classifier import read_settings, resample_positions
from musiq_hf.models.classifier.family import feature_maps, start
from musiq_hf.models.classifier.losses_classifier import distribution_loss
from musiq_hf.models.musiq.modeling_musiq import emd_loss
from musiq_hf.training.starting import add_lora

SMALL_VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 9}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic"}
SWIN = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4, "image_size": 32}
NETWORKS = {
    "resnet": RESNET,
    "vit": SMALL_VIT,
    "deit": SMALL_VIT,
    "dinov2": SMALL_VIT,
    "siglip": {"vision_config": SMALL_VIT, "text_config": TEXT},
    "clip": {"vision_config": SMALL_VIT, "text_config": TEXT},
    "swin": SWIN,
    "convnext": {"hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2, "image_size": 32},
    "efficientnet": {"width_coefficient": 0.1, "depth_coefficient": 0.1, "hidden_dim": 128, "image_size": 32},
}


def make_config(kind: str, **changes):
    return AutoConfig.for_model(kind, **(NETWORKS[kind] | changes))


def make(kind: str, **fields) -> ClassifierForImageQualityAssessment:
    torch.manual_seed(0)
    model = ClassifierForImageQualityAssessment.from_backbone(make_config(kind), image_size=32, **fields)
    nn.init.normal_(model.head.weight)
    return model


@torch.no_grad()
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_classifier_of_transformers_gives_the_same_numbers(kind, tmp_path):
    torch.manual_seed(0)
    theirs = AutoModelForImageClassification.from_config(make_config(kind, num_labels=3, architectures=[])).eval()
    squares = torch.randn(2, 3, 32, 32)
    wanted = theirs(squares).logits
    theirs.save_pretrained(tmp_path / "theirs")
    (head,) = [module for module in theirs.modules() if isinstance(module, nn.Linear) and module.out_features == 3]
    for source in (theirs, tmp_path / "theirs"):
        model = ClassifierForImageQualityAssessment.from_backbone(source, num_labels=3, image_size=32)
        assert not model.training and not model.head.weight.any()
        model.head.load_state_dict(head.state_dict())
        torch.testing.assert_close(model(squares).logits, wanted)
    model.save_pretrained(tmp_path / "ours")
    weights = load_file(tmp_path / "ours" / "model.safetensors")
    assert not any("text" in name for name in weights)
    torch.testing.assert_close(AutoModel.from_pretrained(tmp_path / "ours")(squares).logits, wanted)


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "part"), [("dinov2", None), ("resnet", None), ("siglip", "vision_model"), ("clip", None)]
)
def test_models_without_a_head_are_read_too(kind, part, tmp_path):
    torch.manual_seed(0)
    whole: nn.Module = AutoModel.from_config(make_config(kind))
    found = whole if part is None else getattr(whole, part)  # a tower, whose configuration is of another type
    found.save_pretrained(tmp_path)
    first, second = (
        ClassifierForImageQualityAssessment.from_backbone(each, image_size=32) for each in (found, tmp_path)
    )
    own = found.state_dict()
    for name, value in first.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name])
        assert any(name.endswith(other) and torch.equal(value, own[other]) for other in own)


def to_timm_vit(model: nn.Module) -> dict[str, torch.Tensor]:
    """Name the weights of a ViT of Transformers as timm does."""
    state, arrays = model.vit.state_dict(), {}
    for layer in range(2):
        for part in ("weight", "bias"):
            thirds = [state.pop(f"layers.{layer}.attention.{name}.{part}") for name in ("q_proj", "k_proj", "v_proj")]
            arrays[f"blocks.{layer}.attn.qkv.{part}"] = torch.cat(thirds)
    names = {
        "layers.": "blocks.",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "layernorm": "norm",
        "attention.o_proj": "attn.proj",
        "embeddings.patch_embeddings.projection": "patch_embed.proj",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.cls_token": "cls_token",
    }
    for name, value in state.items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        arrays[name] = value
    return arrays | {"head.weight": model.classifier.weight, "head.bias": model.classifier.bias}


@torch.no_grad()
def test_a_vision_transformer_of_timm_is_read(tmp_path):
    torch.manual_seed(0)
    theirs = AutoModelForImageClassification.from_config(make_config("vit", num_attention_heads=1)).eval()
    theirs.config.layer_norm_eps = 1e-6
    arrays = {name: value.contiguous() for name, value in to_timm_vit(theirs).items()}
    save_file(arrays, tmp_path / "model.safetensors")
    settings = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic"}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_x", "pretrained_cfg": settings}))
    for source in (tmp_path, tmp_path / "model.safetensors"):
        model = ClassifierForImageQualityAssessment.from_backbone(source)
        wanted = theirs.vit.state_dict()
        for name, value in model.network.vit.state_dict().items():
            assert torch.equal(value, wanted[name])
    processor = ClassifierImageProcessor.from_backbone(tmp_path, model.config, resample="lanczos")
    assert (processor.image_size, processor.image_mean, processor.resample) == (32, [0.1, 0.2, 0.3], "lanczos")
    with pytest.raises(ValueError, match="no plain vision Transformer with a CLS token and no plain ResNet of timm"):
        save_file({"x": torch.ones(1)}, tmp_path / "model.safetensors")
        ClassifierForImageQualityAssessment.from_backbone(tmp_path)


@torch.no_grad()
def test_a_resnet_of_timm_is_read(tmp_path):
    names = {"embedder.embedder.convolution": "conv1", "embedder.embedder.normalization": "bn1"}
    for stage in range(2):
        for layer, number in ((0, 1), (1, 2)):
            start = f"encoder.stages.{stage}.layers.0.layer.{layer}"
            names |= {f"{start}.convolution": f"layer{stage + 1}.0.conv{number}"}
            names |= {f"{start}.normalization": f"layer{stage + 1}.0.bn{number}"}
        shortcut = f"encoder.stages.{stage}.layers.0.shortcut"
        names |= {f"{shortcut}.convolution": f"layer{stage + 1}.0.downsample.0"}
        names |= {f"{shortcut}.normalization": f"layer{stage + 1}.0.downsample.1"}
    torch.manual_seed(0)
    theirs = AutoModelForImageClassification.from_config(make_config("resnet")).eval()
    state = theirs.resnet.state_dict()
    arrays = {f"{names[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": value for name, value in state.items()}
    torch.save({"state_dict": arrays | {"fc.weight": torch.ones(9, 12)}}, tmp_path / "weights.pth")
    model = ClassifierForImageQualityAssessment.from_backbone(tmp_path / "weights.pth", image_size=32)
    squares = torch.randn(2, 3, 32, 32)
    assert torch.equal(model.network(squares).logits, theirs.resnet(squares).pooler_output.flatten(1))


def test_files_of_a_network_name_how_its_pictures_were_prepared(tmp_path):
    assert read_settings(ResNetConfig()) == read_settings(tmp_path) == {}
    values = {"image_mean": [0.5] * 3, "image_std": [0.4] * 3, "resample": 3, "size": 224}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    assert read_settings(tmp_path) == {"image_mean": [0.5] * 3, "image_std": [0.4] * 3, "resample": "bicubic"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values | {"do_normalize": False, "resample": 99}))
    assert read_settings(str(tmp_path)) == {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}


@torch.no_grad()
def test_positions_are_resampled_to_squares_of_another_size():
    torch.manual_seed(0)
    theirs = AutoModelForImageClassification.from_config(make_config("vit")).eval()
    model = ClassifierForImageQualityAssessment.from_backbone(theirs, image_size=64)
    own, old = model.network.vit.embeddings.position_embeddings, theirs.vit.embeddings.position_embeddings
    assert own.shape == (1, 65, 16) and torch.equal(own[:, 0], old[:, 0])
    squares = torch.randn(1, 3, 64, 64)
    wanted = theirs.vit(squares, interpolate_pos_encoding=True).last_hidden_state[:, 0]
    torch.testing.assert_close(model.network(squares).logits, wanted)
    flat = torch.ones(17, 3)
    torch.testing.assert_close(resample_positions(flat, 10), torch.ones(10, 3))
    with pytest.raises(ValueError, match="17 positions are not those of a square grid that could become 9"):
        resample_positions(flat, 9)


def test_a_distribution_is_learned_and_read_as_musiq_does_it():
    model, squares = make("resnet", num_labels=5), torch.randn(4, 3, 32, 32)
    counts = torch.tensor([[1.0, 2, 3, 4, 5], [0, 0, 7, 0, 0], [1, 1, 1, 1, 1], [9, 0, 0, 0, 1]])
    outputs = model(squares, labels=counts)
    probabilities = outputs.logits.softmax(dim=1)
    torch.testing.assert_close(outputs.loss, emd_loss(probabilities, counts))
    values = torch.arange(1.0, 6)
    torch.testing.assert_close(outputs.scores, probabilities @ values)
    spread = (probabilities @ values**2 - outputs.scores**2).sqrt()
    torch.testing.assert_close(model.std_from_logits(outputs.logits).float(), spread, atol=1e-4, rtol=1e-4)
    logits = torch.zeros(1, 5, requires_grad=True)
    distribution_loss(logits, torch.ones(1, 5)).backward()
    assert not logits.grad.any()  # a perfect prediction
    for labels, message in (
        (counts[:, :4], "distributions of shape"),
        (-counts, "counts >= 0"),
        (0 * counts, "all 0"),
    ):
        with pytest.raises(ValueError, match=message):
            model(squares, labels=labels)


def test_an_opinion_score_is_learned_in_units_of_the_logit():
    model, squares = make("resnet", score_offset=50.0, score_scale=10.0), torch.randn(3, 3, 32, 32)
    outputs = model(squares, labels=torch.tensor([40.0, 50.0, 60.0]))
    torch.testing.assert_close(outputs.scores, 50 + 10 * outputs.logits[:, 0])
    wanted = (outputs.logits[:, 0] - torch.tensor([-1.0, 0, 1])).abs().mean()
    torch.testing.assert_close(outputs.loss, wanted)
    assert model.std_from_logits(outputs.logits) is None
    with pytest.raises(ValueError, match="one opinion score for each of 3 pictures"):
        model(squares, labels=torch.zeros(3, 1))


def test_the_head_drops_features_in_training_and_stays_in_float32():
    model = make("resnet", head_dropout_prob=0.75).train()
    features = torch.ones(1, 4000)
    torch.manual_seed(0)
    assert abs((model.head.dropout(features) == 0).float().mean() - 0.75) < 0.05
    half = make("vit").to(torch.bfloat16)
    half.head.float()
    assert half(torch.randn(1, 3, 32, 32)).logits.dtype == torch.float32


def test_a_frozen_network_keeps_its_statistics():
    model = make("resnet")
    model.network.requires_grad_(False)
    model.train()
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    model(torch.randn(4, 3, 32, 32), labels=torch.zeros(4)).loss.backward()
    assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())
    assert model.head.training and model.head.weight.grad.any()


@pytest.mark.parametrize("kind", ["vit", "dinov2", "swin", "convnext", "siglip"])
def test_low_rank_additions_find_their_layers(kind):
    wrapped = add_lora(make(kind), 2)
    learned = {name for name, parameter in wrapped.named_parameters() if parameter.requires_grad}
    assert any("lora_A" in name for name in learned) and any("head" in name for name in learned)


def test_a_network_without_such_layers_is_told_so():
    with pytest.raises(ValueError, match="`lora_rank`: the network has none of the linear layers"):
        add_lora(make("resnet"), 2)


@pytest.mark.parametrize(("kind", "sides"), [("resnet", [8, 8, 4]), ("dinov2", [4, 4, 4]), ("swin", [8, 4])])
def test_states_become_maps(kind, sides):
    model = make(kind)
    pixels = torch.randint(0, 256, (40, 50, 3), dtype=torch.uint8)
    (maps,) = feature_maps(model, ClassifierImageProcessor.from_config(model.config), pixels).values()
    assert [tuple(item.shape[2:]) for item in maps][: len(sides)] == [(side, side) for side in sides]


def test_what_cannot_be_used_is_one_sentence(tmp_path):
    read = ClassifierForImageQualityAssessment.from_backbone
    with pytest.raises(ValueError, match="A SwiftFormerForImageClassification must have one linear layer .*, got 2"):
        read(AutoConfig.for_model("swiftformer", embed_dims=[8] * 4, depths=[1] * 4))
    with pytest.raises(ValueError, match="a folder or a configuration was expected, got a Linear"):
        read(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="a folder or a configuration was expected, got 3"):
        read(3)
    with pytest.raises(ValueError, match=r"holds no config.json\. Give an id on the Hub, a folder"):
        read(tmp_path)
    beit = AutoConfig.for_model("beit", **SMALL_VIT, out_indices=[0, 1], use_relative_position_bias=True)
    with pytest.raises(
        ValueError, match="those of a BeitForImageClassification; of other shapes: .*relative_position"
    ):
        read(AutoModel.from_config(beit), image_size=64)
    with pytest.raises(ValueError, match="those of a ResNetForImageClassification; missing: resnet.embedder"):
        ClassifierForImageQualityAssessment.from_network({}, ResNetConfig(**RESNET), {})
    with pytest.raises(ValueError, match="A frozen backbone must be one that others have trained: give `--backbone`"):
        start({"backbone_config": make_config("vit").to_dict()}, frozen="backbone")
    AutoConfig.for_model("bert").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no image classifier of type 'bert'"):
        read(tmp_path)


def test_weights_that_a_folder_lacks_are_never_made_up(tmp_path):
    AutoModelForImageClassification.from_config(make_config("resnet")).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    del weights["resnet.embedder.embedder.normalization.bias"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks weights of a ResNetForImageClassification: resnet.embedder"):
        ClassifierForImageQualityAssessment.from_backbone(tmp_path)


@pytest.mark.parametrize("shape", [(2, 3, 31, 32), (3, 32, 32), (1, 1, 32, 32)])
def test_squares_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"must have shape \(batch_size, 3, 32, 32\), got"):
        make("resnet")(torch.zeros(shape))


def test_missing_squares_and_unknown_arguments_are_refused():
    model = make("resnet")
    with pytest.raises(ValueError, match="is required"):
        model()
    with pytest.raises(ValueError, match="takes no argument interpolate"):
        model(torch.zeros(1, 3, 32, 32), interpolate=True)


def test_gradients_can_be_recomputed_where_the_network_can():
    plain, saving = make("vit").train(), make("vit").train()
    saving.gradient_checkpointing_enable()
    squares = torch.randn(2, 3, 32, 32)
    for model in (plain, saving):
        model(squares, labels=torch.zeros(2)).loss.backward()
    for ours, theirs in zip(saving.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    with pytest.raises(ValueError, match="does not support"):
        make("resnet").gradient_checkpointing_enable()


def test_composite_configurations_are_those_of_both_kinds():
    for kind, config in (("siglip", SiglipConfig), ("clip", CLIPConfig)):
        assert isinstance(make_config(kind), config)
        assert ClassifierConfig(backbone_config=make_config(kind)).side == 32
