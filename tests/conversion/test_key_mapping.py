# SPDX-License-Identifier: Apache-2.0
import golden
import musiq_golden_ckpt
import numpy as np
import pytest

from musiq_hf.conversion.key_mapping import (
    ORIGINAL,
    OURS,
    PYIQA,
    RENAMES,
    account,
    from_ours,
    ours_to_original,
    rename,
    to_ours,
)

PREFIX = golden.ORIGINAL_PREFIX
ATTENTION = "MultiHeadDotProductAttention_1"
# Names of both outside formats, side by side, with pyiqa's shapes for the published model of one label.
PAIRS = {
    "conv_root/kernel": ("conv_root.weight", (64, 3, 7, 7)),
    "gn_root/scale": ("gn_root.weight", (64,)),
    "gn_root/bias": ("gn_root.bias", (64,)),
    "block1/unit1/conv1/kernel": ("block1.conv1.weight", (64, 64, 1, 1)),
    "block1/unit1/gn1/scale": ("block1.gn1.weight", (64,)),
    "block1/unit1/gn1/bias": ("block1.gn1.bias", (64,)),
    "block1/unit1/conv2/kernel": ("block1.conv2.weight", (64, 64, 3, 3)),
    "block1/unit1/gn2/scale": ("block1.gn2.weight", (64,)),
    "block1/unit1/gn2/bias": ("block1.gn2.bias", (64,)),
    "block1/unit1/conv3/kernel": ("block1.conv3.weight", (256, 64, 1, 1)),
    "block1/unit1/gn3/scale": ("block1.gn3.weight", (256,)),
    "block1/unit1/gn3/bias": ("block1.gn3.bias", (256,)),
    "block1/unit1/conv_proj/kernel": ("block1.conv_proj.weight", (256, 64, 1, 1)),
    "block1/unit1/gn_proj/scale": ("block1.gn_proj.weight", (256,)),
    "block1/unit1/gn_proj/bias": ("block1.gn_proj.bias", (256,)),
    "embedding/kernel": ("embedding.weight", (384, 16384)),
    "embedding/bias": ("embedding.bias", (384,)),
    "Transformer/cls": ("transformer_encoder.cls", (1, 1, 384)),
    "Transformer/posembed_input/pos_embedding": ("transformer_encoder.posembed_input.position_emb", (1, 100, 384)),
    "Transformer/scaleembed_input/scale_embedding": ("transformer_encoder.scaleembed_input.scale_emb", (3, 384)),
    "Transformer/encoder_norm/scale": ("transformer_encoder.encoder_norm.weight", (384,)),
    "Transformer/encoder_norm/bias": ("transformer_encoder.encoder_norm.bias", (384,)),
    "head/kernel": ("head.weight", (1, 384)),
    "head/bias": ("head.bias", (1,)),
}
BLOCK_PAIRS = {
    "LayerNorm_0/scale": ("norm1.weight", (384,)),
    "LayerNorm_0/bias": ("norm1.bias", (384,)),
    **{f"{ATTENTION}/{name}/kernel": (f"attention.{name}.weight", (384, 384)) for name in ("query", "key", "value")},
    **{f"{ATTENTION}/{name}/bias": (f"attention.{name}.bias", (384,)) for name in ("query", "key", "value")},
    f"{ATTENTION}/out/kernel": ("attention.out.weight", (384, 384)),
    f"{ATTENTION}/out/bias": ("attention.out.bias", (384,)),
    "LayerNorm_2/scale": ("norm2.weight", (384,)),
    "LayerNorm_2/bias": ("norm2.bias", (384,)),
    "MlpBlock_3/Dense_0/kernel": ("mlp.fc1.weight", (1152, 384)),
    "MlpBlock_3/Dense_0/bias": ("mlp.fc1.bias", (1152,)),
    "MlpBlock_3/Dense_1/kernel": ("mlp.fc2.weight", (384, 1152)),
    "MlpBlock_3/Dense_1/bias": ("mlp.fc2.bias", (384,)),
}
for _block in range(14):
    PAIRS |= {
        f"Transformer/encoderblock_{_block}/{original}": (
            f"transformer_encoder.transformer.encoderblock_{_block}.{pyiqa}",
            shape,
        )
        for original, (pyiqa, shape) in BLOCK_PAIRS.items()
    }


def placeholders(checkpoint):
    """Arrays without memory, of the names and shapes of a golden checkpoint."""
    shapes = musiq_golden_ckpt.shapes(musiq_golden_ckpt.get(checkpoint))
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("row", RENAMES, ids=lambda row: row[ORIGINAL])
def test_every_row_translates_between_all_formats(row):
    for index in (0, 1, 12):
        names = [name.format(i=index, stage=index + 1) for name in row[:3]]
        for source in (ORIGINAL, PYIQA, OURS):
            for target in (ORIGINAL, PYIQA, OURS):
                assert rename(names[source], source=source, target=target) == (names[target], row[3])


def test_names_and_shapes_of_the_published_model_in_both_outside_formats():
    arrays = placeholders("full1")
    assert sorted(arrays) == sorted(PAIRS)
    assert sum(array.size for array in arrays.values()) == 27_125_825
    assert {name: rename(name, source=ORIGINAL, target=PYIQA)[0] for name in arrays} == {
        name: pyiqa for name, (pyiqa, _) in PAIRS.items()
    }
    ours, unfit = to_ours(arrays, source=ORIGINAL)
    assert len(ours) == 248 and unfit == []
    pyiqa, unknown = from_ours(ours, target=PYIQA, num_attention_heads=6)
    assert unknown == []
    assert {name: array.shape for name, array in pyiqa.items()} == dict(PAIRS.values())


@pytest.mark.parametrize("name", [name for name in golden.SMALL if name not in ("small10", "eps1")])
def test_there_and_back_is_bit_identical(name):
    original = golden.checkpoint_arrays(name)
    heads = musiq_golden_ckpt.get(name)["heads"]
    ours, unfit = to_ours({key.removeprefix(PREFIX): value for key, value in original.items()}, source=ORIGINAL)
    back, unknown = ours_to_original(ours, num_attention_heads=heads)
    assert unfit == unknown == []
    assert sorted(back) == sorted(original)
    assert all(back[key].shape == original[key].shape for key in original)
    assert all(back[key].tobytes() == original[key].tobytes() for key in original)


def test_pyiqa_there_and_back_is_bit_identical():
    ours, _ = to_ours(
        {k.removeprefix(PREFIX): v for k, v in golden.checkpoint_arrays("repr5").items()}, source=ORIGINAL
    )
    pyiqa, _ = from_ours(ours, target=PYIQA, num_attention_heads=2)
    back, unfit = to_ours(pyiqa, source=PYIQA)
    assert unfit == [] and sorted(back) == sorted(ours)
    assert all(back[name].tobytes() == ours[name].tobytes() for name in ours)


def test_layouts_compute_what_the_original_computes():
    generator = np.random.default_rng(0)
    block, layer = f"Transformer/encoderblock_0/{ATTENTION}", "musiq.encoder.layers.0.attention"
    query, out = generator.normal(size=(6, 3, 2)), generator.normal(size=(3, 2, 6))
    query_bias, dense = generator.normal(size=(3, 2)), generator.normal(size=(6, 4))
    conv, norm = generator.normal(size=(3, 5, 2, 7)), generator.normal(size=(1, 1, 1, 64))
    ours, _ = to_ours(
        {
            f"{block}/query/kernel": query,
            f"{block}/query/bias": query_bias,
            f"{block}/out/kernel": out,
            "embedding/kernel": dense,
            "conv_root/kernel": conv,
            "gn_root/scale": norm,
        },
        source=ORIGINAL,
    )
    token = generator.normal(size=6)
    heads = np.einsum("d,dhk->hk", token, query) + query_bias
    projected = ours[f"{layer}.q_proj.weight"] @ token + ours[f"{layer}.q_proj.bias"]
    np.testing.assert_allclose(projected.reshape(3, 2), heads)
    np.testing.assert_allclose(ours[f"{layer}.o_proj.weight"] @ heads.ravel(), np.einsum("hk,hkd->d", heads, out))
    np.testing.assert_allclose(ours["musiq.embeddings.patch_projection.weight"] @ token, token @ dense)
    stem = ours["musiq.embeddings.patch_encoder.stem_conv.weight"]
    assert stem.shape == (7, 2, 3, 5) and stem[6, 1, 2, 4] == conv[2, 4, 1, 6]
    np.testing.assert_array_equal(ours["musiq.embeddings.patch_encoder.stem_norm.weight"], norm[0, 0, 0])


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("Transformer/encoderblock_01/LayerNorm_0/scale", ORIGINAL),  # would be a second name of block 1
        ("Transformer/encoderblock_0/LayerNorm_1/scale", ORIGINAL),
        ("block0/unit1/conv1/kernel", ORIGINAL),
        ("block1/unit2/conv1/kernel", ORIGINAL),
        ("opt/target/head/kernel", ORIGINAL),
        ("head/kernel/momentum", ORIGINAL),
        ("head.1.weight", PYIQA),
        ("head/kernel", PYIQA),
        ("musiq.pooler.weight", OURS),
    ],
)
def test_unknown_names_have_no_translation(name, source):
    assert rename(name, source=source, target=OURS) is None


@pytest.mark.parametrize("name", ["head.weight", "head.0.weight"])
def test_the_head_of_pyiqa_has_two_names(name):
    assert rename(name, source=PYIQA, target=OURS) == ("head.classifier.weight", "dense")


@pytest.mark.parametrize("source", [ORIGINAL, PYIQA])
def test_arrays_of_a_wrong_dimension_and_unknown_ones_are_named(source):
    head, _ = rename("head/kernel", source=ORIGINAL, target=source)
    ours, unfit = to_ours(
        {head: np.zeros((1, 4, 5)), "zzz": np.zeros(3), "embedding.bias": np.zeros(3)}, source=source
    )
    assert unfit == sorted({head, "zzz"} | ({"embedding.bias"} if source == ORIGINAL else set()))
    assert list(ours) == ([] if source == ORIGINAL else ["musiq.embeddings.patch_projection.bias"])


def test_unknown_names_of_ours_are_returned():
    assert from_ours({"musiq.pooler.weight": np.zeros(3)}, target=ORIGINAL, num_attention_heads=1) == (
        {},
        ["musiq.pooler.weight"],
    )


EXPECTED = {"head.classifier.weight": (2, 4), "head.classifier.bias": (2,), "musiq.embeddings.cls_token": (1, 1, 4)}


def test_account_is_empty_if_every_array_fits():
    arrays = {"head/kernel": np.zeros((4, 2)), "head/bias": np.zeros(2), "Transformer/cls": np.zeros((1, 1, 4))}
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    assert account(arrays, source=ORIGINAL, expected=EXPECTED, num_attention_heads=1) == []


def test_account_lists_every_problem_in_the_names_of_the_source():
    arrays = {
        "head/kernel": np.zeros((2, 4), np.float32),
        "head/bias": np.zeros(2, np.float64),
        "head/scale": np.zeros(2, np.float32),
        "gn_root/bias": np.zeros((1, 1, 1, 4), np.float32),  # known, but not part of this model
    }
    assert account(arrays, source=ORIGINAL, expected=EXPECTED, num_attention_heads=1) == [
        "unknown: gn_root/bias (1, 1, 1, 4)",
        "wrong type: head/bias float64, expected float32",
        "wrong shape: head/kernel (2, 4), expected (4, 2)",
        "unknown: head/scale (2,)",
        "missing: Transformer/cls (1, 1, 4)",
    ]


def test_account_does_not_take_two_arrays_for_one():
    arrays = {name: np.zeros((2, 4), np.float32) for name in ("head.weight", "head.0.weight")}
    expected = {"head.classifier.weight": (2, 4)}
    assert account(arrays, source=PYIQA, expected=expected, num_attention_heads=1) == ["unknown: head.weight (2, 4)"]
