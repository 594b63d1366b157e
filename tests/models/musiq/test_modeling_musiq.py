# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musiq_hf import (
    MusiqConfig,
    MusiqForImageClassification,
    MusiqForImageQualityAssessment,
    MusiqImageProcessor,
    MusiqModel,
)
from musiq_hf.models.musiq import encoder_musiq, modeling_musiq
from musiq_hf.models.musiq.configuration_musiq import RESNET_FIELDS

EFFICIENTNET = RESNET_FIELDS | {"patch_encoder": "efficientnet_lite0", "patch_encoder_stages": 4}
RANGE = 1e-5  # of the range of the scores, in fp32


def features_of(model, images, **kwargs):
    return dict(MusiqImageProcessor.from_config(model.config)(images, **kwargs))


def run(model, features, **kwargs):
    with torch.no_grad():
        return model(**features, **kwargs)


def with_garbage(features, extra, seed=0):
    """Lengthen the padding by `extra` and fill all of it with noise and arbitrary positions."""
    generator = torch.Generator().manual_seed(seed)
    longer = {
        name: torch.cat((value, value.new_zeros(value.shape[0], extra, *value.shape[2:])), dim=1)
        for name, value in features.items()
    }
    padding = longer["pixel_attention_mask"] == 0
    longer["pixel_values"][padding] = 5 * torch.randn(longer["pixel_values"][padding].shape, generator=generator)
    for name, high in (("spatial_position_ids", 16), ("scale_position_ids", 3)):
        longer[name][padding] = torch.randint(high, longer[name][padding].shape, generator=generator)
    return longer


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model()


@pytest.fixture(scope="module")
def batch(model, pictures):
    return features_of(model, pictures)


# Scores


def test_batch_partners_and_padding_leave_scores_unchanged(model, pictures, batch):
    together = run(model, batch).scores
    alone = torch.cat([run(model, features_of(model, image)).scores for image in pictures])
    spread = (alone.max() - alone.min()).item()
    assert spread > 0.1
    torch.testing.assert_close(together, alone, atol=RANGE * spread, rtol=0)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_what_padding_holds_never_reaches_a_score(tiny_model, batch, implementation):
    model = tiny_model()
    model.set_attn_implementation(implementation)
    expected = run(model, batch).scores
    spread = (expected.max() - expected.min()).item()

    @settings(max_examples=8)
    @given(st.integers(0, 40), st.integers(0, 1000))
    def check(extra, seed):
        scores = run(model, with_garbage(batch, extra, seed)).scores
        torch.testing.assert_close(scores, expected, atol=RANGE * spread, rtol=0)

    check()
    unmasked = {**with_garbage(batch, 20), "pixel_attention_mask": None}
    assert (run(model, unmasked).scores - expected).abs().max() > 0.01 * spread  # the mask is what does it


def test_order_of_the_patches_does_not_matter(model, batch):
    first = {name: value[:1] for name, value in batch.items()}
    order = torch.randperm(first["pixel_values"].shape[1], generator=torch.Generator().manual_seed(0))
    shuffled = {name: value[:, order] for name, value in first.items()}
    torch.testing.assert_close(run(model, shuffled).scores, run(model, first).scores, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["spatial_position_ids", "scale_position_ids"])
def test_positions_do_matter(model, batch, name):
    moved = {**batch, name: torch.where(batch[name] == 0, 1, batch[name])}
    assert (run(model, moved).scores - run(model, batch).scores).abs().max() > 1e-3


def test_eager_and_sdpa_agree(tiny_model, batch):
    model = tiny_model()
    results = {}
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        results[implementation] = run(model, batch).logits
    torch.testing.assert_close(results["eager"], results["sdpa"], atol=1e-5, rtol=0)


def test_score_of_one_label_is_offset_plus_scale_times_logit(tiny_model, pictures):
    plain, scaled = tiny_model(), tiny_model(score_offset=50, score_scale=-12.5)
    features = features_of(plain, pictures)
    logits = run(plain, features).logits
    assert logits.shape == (4, 1)
    assert torch.equal(run(plain, features).scores, logits[:, 0])
    torch.testing.assert_close(run(scaled, features).scores, 50 - 12.5 * logits[:, 0])


def test_score_of_a_distribution_is_its_expectation(tiny_model, pictures):
    model = tiny_model(num_labels=10)
    output = run(model, features_of(model, pictures))
    assert (output.logits.shape, output.scores.shape) == ((4, 10), (4,))
    weights = np.exp(output.logits.double().numpy())
    expected = (weights * np.arange(1, 11)).sum(axis=1) / weights.sum(axis=1)
    np.testing.assert_allclose(output.scores, expected, atol=1e-5)
    certain = torch.full((3, 10), -50.0)
    certain[[0, 1, 2], [0, 4, 9]] = 50.0
    torch.testing.assert_close(model.scores_from_logits(certain), torch.tensor([1.0, 5.0, 10.0]))


def test_score_range_never_changes_a_number(tiny_model, pictures):
    plain, ranged = tiny_model(), tiny_model(score_range=[0, 1])
    features = features_of(plain, pictures)
    assert torch.equal(run(plain, features).scores, run(ranged, features).scores)


# Loss


def test_loss_of_scores_is_l1_in_units_of_the_logit(tiny_model, pictures):
    model = tiny_model(score_offset=50, score_scale=12.5)
    labels = torch.tensor([40.0, 50.0, 60.0, 90.0])
    output = run(model, features_of(model, pictures), labels=labels)
    assert output.loss.item() == pytest.approx(((output.scores - labels).abs() / 12.5).mean().item(), rel=1e-5)
    assert run(model, features_of(model, pictures)).loss is None


def test_loss_of_distributions_is_the_emd(tiny_model, pictures):
    model = tiny_model(num_labels=5)
    counts = torch.tensor([[1, 2, 3, 2, 1], [0, 0, 0, 0, 7], [1, 0, 0, 0, 1], [5, 1, 0, 0, 0]])
    output = run(model, features_of(model, pictures), labels=counts)
    difference = output.logits.softmax(-1).cumsum(-1) - (counts / counts.sum(-1, keepdim=True)).cumsum(-1)
    assert output.loss.item() == pytest.approx(difference.square().mean(-1).sqrt().mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("num_labels", "shape", "sentence"),
    [
        (1, (4, 1), r"must have shape \(4,\), got \(4, 1\). Give one MOS per picture"),
        (1, (3,), r"must have shape \(4,\), got \(3,\)"),
        (5, (4,), r"must have shape \(4, 5\), got \(4,\). Give one count or probability per score value"),
        (5, (4, 10), r"must have shape \(4, 5\), got \(4, 10\)"),
    ],
)
def test_labels_of_a_wrong_shape_raise(tiny_model, pictures, num_labels, shape, sentence):
    model = tiny_model(num_labels=num_labels)
    with pytest.raises(ValueError, match=sentence):
        model(**features_of(model, pictures), labels=torch.ones(shape))


def test_labels_that_are_no_distribution_raise(tiny_model, pictures):
    model = tiny_model(num_labels=5)
    with pytest.raises(ValueError, match="must have entries >= 0 and a sum > 0"):
        model(**features_of(model, pictures), labels=torch.zeros(4, 5))


def test_classification_loss_is_the_cross_entropy(tiny_config, pictures):
    torch.manual_seed(0)
    model = MusiqForImageClassification(tiny_config(num_labels=7)).eval()
    torch.nn.init.normal_(model.head.classifier.weight)
    labels = torch.tensor([0, 6, 3, 3])
    output = run(model, features_of(model, pictures), labels=labels)
    assert output.logits.shape == (4, 7)
    expected = -output.logits.log_softmax(-1)[range(4), labels].mean()
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)


# Inputs


@pytest.mark.parametrize("shape", [(1, 3, 224, 224), (1, 5, 191), (5, 192)])
def test_wrong_pixel_values_raise_and_ask_about_the_processor(model, shape):
    sentence = r"must have shape \(batch_size, sequence_length, 192\), got .*Did you skip `MusiqImageProcessor`\?"
    with pytest.raises(ValueError, match=sentence):
        model(pixel_values=torch.zeros(shape))


def test_missing_tensors_raise(model, batch):
    with pytest.raises(ValueError, match="`pixel_values` is required: pass the output of `MusiqImageProcessor`"):
        model()
    for name in ("spatial_position_ids", "scale_position_ids"):
        with pytest.raises(ValueError, match=f"`{name}` is required by this configuration, with shape .*, got None"):
            model(**{**batch, name: None})


def test_no_mask_means_no_padding(model, pictures):
    features = features_of(model, pictures[0])
    unmasked = {**features, "pixel_attention_mask": None}
    torch.testing.assert_close(run(model, unmasked).scores, run(model, features).scores, atol=1e-6, rtol=0)


# Variants


@pytest.mark.parametrize(
    "fields",
    [
        {"patch_encoder": "linear"},
        {"patch_encoder": "conv"},
        *({"patch_encoder_depth": depth} for depth in (8, 11, 14)),
        EFFICIENTNET,
        {"spatial_embedding": "sinusoid"},
        {"spatial_embedding": "none"},
        {"spatial_embedding": "fixed", "max_native_patches": 6},
        {"use_scale_embedding": False},
        {"longer_side_lengths": ()},
        {"use_native_resolution": False},
        {"pre_logits_size": 5},
    ],
    ids=lambda fields: "-".join(str(value) for value in fields.values()),
)
def test_every_variant_scores_alone_as_in_a_batch_and_survives_saving(tiny_model, pictures, tmp_path, fields):
    model = tiny_model(**fields)
    features = features_of(model, pictures)
    scores = run(model, features).scores
    assert scores.isfinite().all() and scores.std() > 1e-3
    torch.testing.assert_close(run(model, features_of(model, pictures[2])).scores, scores[2:3], atol=1e-5, rtol=0)
    model.save_pretrained(tmp_path)
    loaded = MusiqForImageQualityAssessment.from_pretrained(tmp_path)
    assert not loaded.training
    assert torch.equal(run(loaded, features).scores, scores)


def test_ids_without_an_embedding_are_not_needed(tiny_model, pictures):
    model = tiny_model(spatial_embedding="none", use_scale_embedding=False)
    features = features_of(model, pictures)
    bare = {name: features[name] for name in ("pixel_values", "pixel_attention_mask")}
    assert torch.equal(run(model, bare).scores, run(model, features).scores)
    assert not any("spatial" in name or "scale" in name for name in model.state_dict())


def test_sinusoid_model_has_no_table_of_positions(tiny_model):
    names = tiny_model(spatial_embedding="sinusoid").state_dict()
    assert not any("spatial" in name for name in names)
    assert any("scale_embedding" in name for name in names)


def test_base_model_returns_tokens_with_cls_first(model, batch):
    with torch.no_grad():
        output = model.musiq(**batch)
    length = batch["pixel_values"].shape[1]
    assert output.last_hidden_state.shape == (4, 1 + length, 16)
    assert torch.equal(output.pooler_output, output.last_hidden_state[:, 0])
    torch.testing.assert_close(model.head(output.pooler_output), run(model, batch).logits)


def test_weights_of_the_base_model_load_into_the_heads(tiny_model, tiny_config, tmp_path, batch):
    model = tiny_model()
    model.musiq.save_pretrained(tmp_path)
    base = MusiqModel.from_pretrained(tmp_path)
    for name, value in MusiqForImageQualityAssessment.from_pretrained(tmp_path).musiq.state_dict().items():
        assert torch.equal(value, base.state_dict()[name])
    with torch.no_grad():
        assert torch.equal(base(**batch).pooler_output, model.musiq(**batch).pooler_output)


# Recorded states


def test_hidden_states_are_the_inputs_of_the_blocks_and_the_last_output(model, batch):
    output = run(model, batch, output_hidden_states=True)
    length = 1 + batch["pixel_values"].shape[1]
    assert [tuple(states.shape) for states in output.hidden_states] == [(4, length, 16)] * 3
    with torch.no_grad():
        positions = batch["spatial_position_ids"], batch["scale_position_ids"], batch["pixel_attention_mask"]
        assert torch.equal(output.hidden_states[0], model.musiq.embeddings(batch["pixel_values"], *positions))
        pooled = model.musiq.layernorm(output.hidden_states[-1])[:, 0]
    torch.testing.assert_close(model.head(pooled), output.logits)
    assert run(model, batch).hidden_states is None


def test_patches_encoded_a_few_at_a_time_equal_all_at_once(model, batch, monkeypatch):
    together = model(**batch)  # with gradients: all at once, padding too
    for size in (1, 7, 1000):
        monkeypatch.setattr(encoder_musiq, "CHUNK", {"cpu": size})
        counted = []
        handle = model.musiq.embeddings.patch_projection.register_forward_hook(
            lambda module, inputs, output, counted=counted: counted.append(len(output))
        )
        with torch.no_grad():
            scores = model(**batch).scores
        handle.remove()
        torch.testing.assert_close(scores, together.scores.detach(), atol=1e-5, rtol=0)
        assert max(counted) <= size and sum(counted) == int(batch["pixel_attention_mask"].sum())


def test_attention_rows_add_up_to_1_and_are_0_on_padding(tiny_model, batch):
    model = tiny_model()
    model.set_attn_implementation("eager")
    attentions = run(model, batch, output_attentions=True).attentions
    length = 1 + batch["pixel_values"].shape[1]
    assert [tuple(weights.shape) for weights in attentions] == [(4, 2, length, length)] * 2
    padding = torch.nn.functional.pad(batch["pixel_attention_mask"], (1, 0), value=1) == 0
    assert padding.any()
    for weights in attentions:
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(4, 2, length), atol=1e-5, rtol=0)
        assert (weights.permute(0, 3, 1, 2)[padding] == 0).all()


def test_outputs_can_be_a_tuple(model, batch):
    output = run(model, batch)
    logits, scores = run(model, batch, return_dict=False)
    assert torch.equal(logits, output.logits) and torch.equal(scores, output.scores)


# Precision, compilation, training


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_half_precision_is_finite_with_padding_and_near_float32(tiny_model, batch, dtype, implementation):
    model = tiny_model()
    expected = run(model, batch).scores
    model.set_attn_implementation(implementation)
    model.to(dtype)
    output = run(model, with_garbage(batch, 10))
    assert output.logits.dtype == dtype and output.scores.dtype == torch.float32
    assert output.scores.isfinite().all()
    spread = expected.max() - expected.min()
    assert (output.scores - expected).abs().max() < 0.1 * spread


def test_compiled_graph_is_whole_and_gives_equal_scores(tiny_model, batch):
    model = tiny_model()
    expected = run(model, batch).scores
    torch.compiler.reset()
    try:
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(run(compiled, batch).scores, expected, atol=1e-5, rtol=0)
    finally:
        torch.compiler.reset()


@pytest.mark.slow
def test_inductor_gives_equal_scores(tiny_model, batch):
    model = tiny_model()
    expected = run(model, batch).scores
    torch.compiler.reset()
    try:
        compiled = torch.compile(model, fullgraph=True)
        torch.testing.assert_close(run(compiled, batch).scores, expected, atol=1e-5, rtol=0)
    finally:
        torch.compiler.reset()


def _gradients(model, features, labels):
    model.zero_grad()
    loss = model(**features, labels=labels).loss
    loss.backward()
    return loss.detach(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated")
def test_gradient_checkpointing_changes_neither_loss_nor_gradients(tiny_model, batch, monkeypatch):
    monkeypatch.setitem(encoder_musiq.CHECKPOINT_PATCHES, "cpu", batch["pixel_values"].shape[1])  # a picture
    model, labels = tiny_model().train(), torch.tensor([0.1, 0.9, -0.4, 2.0])
    loss, gradients = _gradients(model, batch, labels)
    model.gradient_checkpointing_enable()
    calls = []
    parts = {"block": model.musiq.encoder.layers[0].mlp, "patches": model.musiq.embeddings.patch_encoder}
    handles = [
        part.register_forward_pre_hook(lambda *arguments, name=name: calls.append(name))
        for name, part in parts.items()
    ]
    again, recomputed = _gradients(model, batch, labels)
    for handle in handles:
        handle.remove()
    assert calls.count("block") == 2  # once more in the backward pass
    assert calls.count("patches") == 2 * len(batch["pixel_values"])
    torch.testing.assert_close(again, loss)
    for name, gradient in gradients.items():
        torch.testing.assert_close(recomputed[name], gradient, atol=1e-6, rtol=1e-5)


def test_every_parameter_gets_a_gradient(tiny_model, batch):
    _, gradients = _gradients(tiny_model().train(), batch, torch.tensor([0.1, 0.9, -0.4, 2.0]))
    unmoved = {name for name, gradient in gradients.items() if gradient.abs().max() < 1e-7}
    assert all("k_proj.bias" in name for name in unmoved)  # softmax does not see it


@pytest.mark.parametrize("field", ["hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_dropout_and_stochastic_depth_act_in_training_only(tiny_model, batch, field, implementation):
    model = tiny_model(**{field: 0.5})
    model.set_attn_implementation(implementation)
    plain = tiny_model()
    expected = run(plain, batch).scores
    torch.testing.assert_close(run(model, batch).scores, expected, atol=1e-5, rtol=0)
    model.train()
    torch.manual_seed(1)
    first, second = run(model, batch).scores, run(model, batch).scores
    assert (first - second).abs().max() > 1e-4
    plain.train()
    torch.testing.assert_close(run(plain, batch).scores, expected, atol=1e-5, rtol=0)


def test_stochastic_depth_drops_whole_pictures_and_keeps_the_mean(tiny_model):
    model = tiny_model(num_hidden_layers=3, drop_path_rate=0.4)
    layers = model.musiq.encoder.layers
    assert [layer.drop_path.probability for layer in layers] == pytest.approx([0.0, 0.2, 0.4])
    drop_path = layers[2].drop_path.train()
    torch.manual_seed(0)
    branch = drop_path(torch.ones(4000, 3, 2))
    values = branch.flatten(1)
    assert (values == values[:, :1]).all()
    torch.testing.assert_close(values.unique(), torch.tensor([0.0, 1 / 0.6]))
    assert values.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(drop_path.eval()(branch), branch)


# Initial weights


def test_fresh_model_answers_its_bias(tiny_config, batch):
    model = MusiqForImageQualityAssessment(tiny_config()).eval()
    assert torch.equal(run(model, batch).scores, torch.zeros(4))
    torch.nn.init.constant_(model.head.classifier.bias, 3.5)
    assert torch.equal(run(model, batch).scores, torch.full((4,), 3.5))


def test_initial_weights_are_those_of_the_released_code(tiny_config):
    torch.manual_seed(0)
    config = tiny_config(hidden_size=64, intermediate_size=96, hash_grid_size=20, pre_logits_size=32)
    model = MusiqForImageQualityAssessment(config)
    embeddings, layer = model.musiq.embeddings, model.musiq.encoder.layers[0]
    assert embeddings.spatial_embedding.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert embeddings.scale_embedding.weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert embeddings.cls_token.count_nonzero() == 0
    linears = [layer.attention.q_proj, layer.attention.k_proj, layer.attention.v_proj, layer.attention.o_proj]
    for linear in (*linears, layer.mlp.fc1, layer.mlp.fc2):
        bound = math.sqrt(6 / (linear.in_features + linear.out_features))  # xavier uniform
        assert 0.97 * bound < linear.weight.abs().max() <= bound
        assert linear.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert all(linear.bias.count_nonzero() == 0 for linear in linears)
    for linear in (layer.mlp.fc1, layer.mlp.fc2):
        assert 1e-7 < linear.bias.abs().max() < 1e-5
    encoder = embeddings.patch_encoder
    for weight, fan_in in (
        (encoder.stem_conv.weight, 7 * 7 * 3),
        (embeddings.patch_projection.weight, encoder.output_size),
        (model.head.pre_logits.weight, 64),
    ):
        # LeCun normal: cut at two deviations, and wider before the cut so that the deviation comes out right.
        assert weight.std().item() == pytest.approx(1 / math.sqrt(fan_in), rel=0.05)
        assert weight.abs().max() <= 2 / math.sqrt(fan_in) / 0.8796
    assert embeddings.patch_projection.bias.count_nonzero() == 0
    unit = encoder.stages[0]
    assert unit.norm3.weight.count_nonzero() == 0
    for norm in (encoder.stem_norm, unit.norm1, unit.norm2, unit.norm_proj, layer.layernorm_before):
        assert (norm.weight == 1).all() and norm.bias.count_nonzero() == 0
    assert model.head.classifier.weight.count_nonzero() == model.head.classifier.bias.count_nonzero() == 0


def test_a_layer_tells_how_it_starts_wherever_it_stands(tiny_config):
    model, plain = MusiqForImageQualityAssessment(tiny_config()), torch.nn.Linear(8, 8)
    head, embeddings = modeling_musiq.MusiqHead(model.config), encoder_musiq.MusiqEmbeddings(model.config)
    for layer in (plain, head.classifier, embeddings.patch_encoder.stages[0].norm3):
        torch.nn.init.constant_(layer.weight, 9.0)
        model._init_weights(layer)
        assert bool(layer.weight.any()) is (layer is plain) and layer.weight.abs().max() < 1


def test_seed_decides_the_initial_weights(tiny_config):
    def weights(seed):
        torch.manual_seed(seed)
        return MusiqForImageQualityAssessment(tiny_config()).state_dict()

    first, again, other = weights(3), weights(3), weights(4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_loss_is_a_mean_that_the_trainer_must_not_rescale():
    assert MusiqForImageQualityAssessment.accepts_loss_kwargs is False


def test_default_architecture_has_as_many_parameters_as_the_published_one():
    with torch.device("meta"):
        assert MusiqForImageQualityAssessment(MusiqConfig()).num_parameters() == 27_125_825
        assert MusiqForImageQualityAssessment(MusiqConfig(num_labels=10)).num_parameters() == 27_129_290
        single = MusiqConfig(longer_side_lengths=[])
        assert MusiqForImageQualityAssessment(single).num_parameters() == 27_125_057
