# SPDX-License-Identifier: Apache-2.0
"""The models against the golden data: all 17 checkpoints, singly and in batches, gradients and every traced stage.

The three checkpoints with 27 million parameters, remade from their seeds, are `slow`.
"""

from functools import cache

import golden
import numpy as np
import pytest
import torch

from musiq_hf import MusiqImageProcessor
from musiq_hf.conversion.key_mapping import ours_to_original

SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in golden.FULL_SIZE]
BATCHES = ["small1_64", "small1_single_64"]
BATCHES += [pytest.param(name, marks=pytest.mark.slow) for name in ("small10_64", "tiny10_20")]


PROJECTION, NORM = "musiq.embeddings.patch_projection", "musiq.layernorm"


def run(model, features, stages=(), **kwargs):
    """The outputs of one forward pass, and the recorded outputs of the named modules, chunks joined."""
    recorded = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: recorded.setdefault(name, []).append(output)
        )
        for name in stages
    ]
    try:
        with torch.no_grad():
            result = model(**features, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    tensors = {name: [out[0] if isinstance(out, tuple) else out for out in outs] for name, outs in recorded.items()}
    return result, {name: torch.cat(outs).numpy() for name, outs in tensors.items()}


def cls_after_blocks(result):
    """(batch_size, layers, D): the CLS token after each block, before the last norm."""
    return torch.stack([states[:, 0] for states in result.hidden_states[1:]], dim=1).numpy()


@pytest.fixture(scope="module")
def single(golden_model):
    """Everything the golden data say about one picture, from one forward pass, kept for the module."""

    @cache
    def compute(checkpoint, name):
        model = golden_model(checkpoint)
        features = golden.features_for(name, model.config)
        result, recorded = run(model, features, (PROJECTION, NORM), output_hidden_states=True)
        patches = recorded[PROJECTION].reshape(-1, model.config.hidden_size)
        scales = features["scale_position_ids"][0].numpy()
        return {
            "logits": result.logits[0].numpy(),
            "score": result.scores[0].numpy(),
            "cls": recorded[NORM][0, 0],
            "cls_layers": cls_after_blocks(result)[0],
            "embed_scale_mean": np.stack(
                [patches[scales == scale].mean(axis=0) for scale in range(model.config.num_scales)]
            ),
        }

    return compute


@pytest.mark.parametrize("checkpoint", golden.SMALL + SLOW)
def test_generator_makes_the_checkpoint_of_the_golden_data(checkpoint):
    import musiq_golden_ckpt

    entry = golden.INDEX["checkpoints"][checkpoint]
    arrays = golden.checkpoint_arrays(checkpoint)
    values, digest = musiq_golden_ckpt.digest(arrays)
    assert (len(arrays), values) == (entry["arrays"], entry["parameters"])
    assert digest == pytest.approx(entry["digest"], rel=1e-12)


@pytest.mark.parametrize("checkpoint", golden.SMALL + SLOW)
def test_parameters_are_as_many_as_the_originals(golden_model, checkpoint):
    model = golden_model(checkpoint)
    assert model.num_parameters() == golden.INDEX["checkpoints"][checkpoint]["parameters"]


def test_checkpoint_files_hold_the_generated_arrays():
    expected = golden.checkpoint_arrays("tiny10")
    plain, with_optimizer = golden.arrays("ckpt_tiny10"), golden.arrays("ckpt_tiny10_opt")
    assert set(plain) == set(expected)
    for name, value in expected.items():
        golden.check_equal(plain[name], value, name)
        golden.check_equal(with_optimizer[name], value, name)
    state = {name: value for name, value in with_optimizer.items() if name not in expected}
    momenta = {f"opt/state/param_states/{name.removeprefix('opt/target/')}/momentum" for name in expected}
    assert set(state) == momenta | {"opt/state/step"}
    assert all(not value.any() for name, value in state.items() if name in momenta)


def _pictures(checkpoint):
    return golden.groups(golden.arrays(f"outputs_{checkpoint}"))


def _cases():
    """(checkpoint, picture); the large checkpoints, and the large pictures of all but one small one, are slow."""
    for checkpoint in golden.CHECKPOINTS:
        for name in _pictures(checkpoint):
            quick = checkpoint == "small1" or (checkpoint in golden.SMALL and name.startswith(QUICK_PICTURES))
            yield pytest.param(checkpoint, name, marks=() if quick else pytest.mark.slow)


# An extreme ratio, float32 sizes, each side longer, gray, the near-constant one, a JPEG.
QUICK_PICTURES = ("p02", "p05", "p12", "p10", "p17", "p15_jpeg_200x300@accurate")


@pytest.mark.parametrize(("checkpoint", "name"), list(_cases()))
def test_outputs_of_single_pictures_equal_the_original(single, checkpoint, name):
    expected = golden.leaves(golden.arrays(f"outputs_{checkpoint}"), name)
    ours = single(checkpoint, name)
    assert set(expected) == set(ours) - ({"embed_scale_mean"} if name.endswith("@accurate") else set())
    for leaf, value in expected.items():
        tolerance = golden.LOGIT_TOLERANCE if leaf in ("logits", "score") else golden.CLS_TOLERANCE
        golden.check(ours[leaf], value, tolerance, leaf)


def test_every_checkpoint_has_golden_outputs():
    assert all(_pictures(checkpoint) for checkpoint in golden.CHECKPOINTS)
    assert len(golden.CHECKPOINTS) == 17


@pytest.mark.parametrize("batch", BATCHES)
def test_batches_equal_the_original(golden_model, single, batch):
    expected = dict(golden.arrays(f"batch_{batch}"))
    checkpoint = batch.rsplit("_", 1)[0]
    model = golden_model(checkpoint)
    native_slots = int(expected.pop("max_seq_len"))
    names = expected.pop("names").tolist()
    lengths = model.config.longer_side_lengths
    processor = MusiqImageProcessor(longer_side_lengths=lengths, max_native_patches=native_slots)
    images = [golden.pixels(name) for name in names]
    features = processor(images)
    mask = expected.pop("mask")
    for row in range(len(names)):
        own = {key: value[row : row + 1] for key, value in features.items()}
        layout = golden.original_layout(own, lengths=lengths, native_slots=native_slots)
        golden.check_equal(layout["mask"], mask[row], "mask")
        golden.check_equal(layout["spatial"], expected["spatial"][row], "spatial")
        golden.check_equal(layout["scale"], expected["scale"][row], "scale")
    assert features["pixel_attention_mask"].min() == 0  # the batch does have padding
    del expected["spatial"], expected["scale"]

    result, recorded = run(model, features, (PROJECTION, NORM), output_hidden_states=True)
    tokens = recorded[NORM]
    golden.check(result.logits, expected.pop("logits"), golden.LOGIT_TOLERANCE, "logits")
    golden.check(result.scores, expected.pop("score"), golden.LOGIT_TOLERANCE, "scores")
    golden.check(cls_after_blocks(result), expected.pop("cls_layers"), golden.CLS_TOLERANCE, "cls after each block")
    golden.check(tokens[:, 0], expected.pop("cls"), golden.CLS_TOLERANCE, "cls")
    ours, theirs = features["pixel_attention_mask"].numpy() == 1, mask == 1
    if "tokens" in expected:
        with_cls = expected.pop("tokens")
        golden.check(tokens[:, 0], with_cls[:, 0], golden.CLS_TOLERANCE, "cls token")
        golden.check(tokens[:, 1:][ours], with_cls[:, 1:][theirs], golden.CLS_TOLERANCE, "tokens")
    if "embedding" in expected:
        embedding = recorded[PROJECTION].reshape(ours.sum(), -1)  # of the real patches alone
        golden.check(embedding, expected.pop("embedding")[theirs], golden.CLS_TOLERANCE, "patch embedding")

    alone = [single(checkpoint, name)["logits"] for name in names]
    golden.check(alone, expected.pop("logits_alone"), golden.LOGIT_TOLERANCE, "logits alone")
    native = model.config.num_scales - 1
    scales = [golden.features_for(name, model.config)["scale_position_ids"] for name in names]
    truncated = [(ids == native).sum() > native_slots for ids in scales]
    golden.check_equal(truncated, expected.pop("truncated"), "truncated")
    assert not expected, f"arrays without a test: {sorted(expected)}"


def test_crops_of_one_picture_equal_the_original_as_a_batch(golden_model):
    file = golden.arrays("multicrop_small10")
    assert set(file) == {"image", "logits", "note"}
    image = golden.pixels(str(file["image"]))
    model = golden_model("small10")
    features = MusiqImageProcessor.from_config(model.config)([image, image[:, ::-1]])
    golden.check(run(model, features)[0].logits, file["logits"][0], golden.LOGIT_TOLERANCE, "logits")


def test_gradients_equal_the_original():
    file = dict(golden.arrays("grad_small1"))
    model = golden.build_model("small1")
    processor = MusiqImageProcessor.from_config(model.config)
    images = [golden.pixels(name) for name in file.pop("names").tolist()]
    features = processor(images, max_native_patches=int(file.pop("max_seq_len")))
    loss = model(**features, labels=torch.from_numpy(file.pop("targets"))).loss
    golden.check(loss.item(), file.pop("loss"), golden.LOGIT_TOLERANCE, "loss")
    loss.backward()
    gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    original, unknown = ours_to_original(gradients, num_attention_heads=model.config.num_attention_heads)
    assert not unknown
    ours = {name.removeprefix(golden.ORIGINAL_PREFIX): value.astype(np.float64) for name, value in original.items()}
    assert set(file) == {f"{name}/{leaf}" for name in ours for leaf in ("norm", "probe")}
    largest = max(file[f"{name}/norm"] for name in ours)
    for name, gradient in ours.items():
        values = gradient.ravel()
        norm, probe = np.linalg.norm(values), values @ np.cos(np.arange(values.size))
        if name.endswith("/key/bias"):  # softmax does not see it: 0 up to rounding on both sides
            assert max(norm, file[f"{name}/norm"]) < 1e-6 * largest
            assert max(abs(probe), abs(file[f"{name}/probe"])) < 1e-6 * largest
            continue
        tolerance = golden.GRADIENT_TOLERANCE * file[f"{name}/norm"]
        golden.check(norm, file[f"{name}/norm"], tolerance, f"norm of {name}")
        golden.check(probe, file[f"{name}/probe"], tolerance, f"probe of {name}")


def check_trace(actual, expected, name):
    golden.check(actual, expected, golden.TRACE_TOLERANCE * np.abs(expected).max(), name)


# Names of the trace to our modules.
STEM_STAGES = {
    "conv_root": "stem_conv",
    "gn_root": "stem_norm",
    **{f"block1.unit1.{name}": f"stages.0.{name}" for name in ("conv_proj", "conv1", "conv2", "conv3")},
    **{f"block1.unit1.gn{name}": f"stages.0.norm{name}" for name in ("_proj", "1", "2", "3")},
    "block1": "stages.0",
}


def test_every_stage_of_the_patch_encoder_equals_the_original(golden_model):
    file = dict(golden.arrays("trace_stem_small1"))
    model = golden_model("small1")
    rows, index = file.pop("x"), file.pop("index")
    # The three patches are p05's, at these places of the original's layout.
    ours = golden.original_layout(
        golden.features_for("p05_97x61", model.config), lengths=[224, 384], native_slots=None
    )
    golden.check(ours["patches"][index], rows[:, :3072], golden.PATCH_TOLERANCE, "patches")
    golden.check_equal(np.stack([ours[k][index] for k in ("spatial", "scale", "mask")], axis=1), rows[:, 3072:], "ids")

    features = {
        "pixel_values": torch.from_numpy(rows[None, :, :3072].copy()),
        "spatial_position_ids": torch.from_numpy(rows[None, :, 3072]).long(),
        "scale_position_ids": torch.from_numpy(rows[None, :, 3073]).long(),
    }
    encoder = "musiq.embeddings.patch_encoder."
    _, recorded = run(model, features, [encoder + stage for stage in STEM_STAGES.values()] + [PROJECTION])
    # The third patch is padding, mask 0. Its features are nearly constant, and of those the original's variance,
    # E[x^2] - E[x]^2 in float32, keeps three digits.
    assert rows[:, 3074].tolist() == [1, 1, 0]
    for name, stage in STEM_STAGES.items():
        check_trace(recorded[encoder + stage][:2].transpose(0, 2, 3, 1), file.pop(name)[:2], name)
    check_trace(recorded[PROJECTION].reshape(3, -1)[:2], file.pop("embedding")[:2], "embedding")
    assert not file, f"arrays without a test: {sorted(file)}"


def _block_stages(block):
    original, ours = f"Transformer.encoderblock_{block}", f"musiq.encoder.layers.{block}"
    attention = f"{original}.MultiHeadDotProductAttention_1"
    return {
        f"{original}.LayerNorm_0": f"{ours}.layernorm_before",
        f"{attention}.query": f"{ours}.attention.q_proj",
        f"{attention}.key": f"{ours}.attention.k_proj",
        f"{attention}.value": f"{ours}.attention.v_proj",
        f"{attention}.out": f"{ours}.attention.o_proj",
        attention: f"{ours}.attention",
        f"{original}.LayerNorm_2": f"{ours}.layernorm_after",
        f"{original}.MlpBlock_3.Dense_0": f"{ours}.mlp.fc1",
        f"{original}.MlpBlock_3.Dense_1": f"{ours}.mlp.fc2",
        f"{original}.MlpBlock_3": f"{ours}.mlp",
        original: ours,
    }


ENCODER_STAGES = {
    **_block_stages(0),
    **_block_stages(1),
    "Transformer.encoder_norm": "musiq.layernorm",
    "Transformer": "musiq.layernorm",
}


def test_every_stage_of_the_encoder_equals_the_original(golden_model):
    file = dict(golden.arrays("trace_encoder_small1"))
    model = golden_model("small1")
    features = golden.features_for("p12_27x192", model.config)
    layout = golden.original_layout(features, lengths=[224, 384], native_slots=None)
    for name in ("spatial", "scale", "mask"):
        golden.check_equal(layout[name], file.pop(name), name)
    golden.check_equal(np.concatenate(([0], 1 + np.flatnonzero(layout["mask"]))), file.pop("rows"), "rows")

    embeddings = "musiq.embeddings"
    names = [*ENCODER_STAGES.values(), embeddings, PROJECTION, f"{embeddings}.spatial_embedding"]
    _, recorded = run(model, features, dict.fromkeys(names), output_hidden_states=True)
    patches = recorded[PROJECTION].reshape(-1, model.config.hidden_size)
    check_trace(patches, file.pop("embedding"), "embedding")
    # The original's modules add their embedding, ours return it.
    positioned = patches + recorded[f"{embeddings}.spatial_embedding"][0]
    check_trace(positioned, file.pop("Transformer.posembed_input"), "posembed_input")
    check_trace(recorded[embeddings][0, 1:], file.pop("Transformer.scaleembed_input"), "scaleembed_input")
    for name, stage in ENCODER_STAGES.items():
        expected = file.pop(name)
        check_trace(recorded[stage][0].reshape(expected.shape), expected, name)
    assert not file, f"arrays without a test: {sorted(file)}"


@pytest.mark.parametrize("checkpoint", golden.SMALL + SLOW)
def test_eager_attention_agrees_with_sdpa_on_real_tokens(golden_model, checkpoint):
    model = golden_model(checkpoint)
    assert model.config._attn_implementation == "sdpa"
    images = [golden.pixels(name) for name in ("p12_27x192", "p05_97x61")]
    features = MusiqImageProcessor.from_config(model.config)(images)
    real = torch.nn.functional.pad(features["pixel_attention_mask"], (1, 0), value=1) == 1
    results = {}
    try:
        for implementation in ("eager", "sdpa"):
            model.set_attn_implementation(implementation)
            tokens = run(model.musiq, features)[0].last_hidden_state
            results[implementation] = run(model, features)[0].logits, tokens[real]
    finally:
        model.set_attn_implementation("sdpa")
    for eager, sdpa, what in zip(results["eager"], results["sdpa"], ("logits", "tokens"), strict=True):
        golden.check(eager, sdpa, 1e-5, what)


def test_scores_of_different_pictures_differ(single):
    names = ("p02_7x300", "p05_97x61", "p10_gray_96x128", "p12_27x192")
    scores = sorted(float(single("small1", name)["score"]) for name in names)
    assert np.diff(scores).min() > 0.01
    assert scores[-1] - scores[0] > 0.1
