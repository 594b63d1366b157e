# SPDX-License-Identifier: Apache-2.0

import musiq_golden_ckpt
import numpy as np
import pytest
from places import ROOT
from transformers import AutoConfig, AutoImageProcessor

from musiq_hf.common.files import read_json
from musiq_hf.conversion.directories import write_configs
from musiq_hf.conversion.infer_config import Flags, infer_config
from musiq_hf.conversion.key_mapping import ORIGINAL, to_ours
from musiq_hf.conversion.published import PUBLISHED, dataset_of

CONFIGURATIONS = ROOT / "configuration" / "checkpoints"


def infer(checkpoint, flags=None, *, shapes=None, heads=6, **kwargs):
    """Configuration from the shapes of a golden checkpoint, without weights; `shapes` by our names replace some."""
    layout = musiq_golden_ckpt.shapes(musiq_golden_ckpt.get(checkpoint))
    ours, _ = to_ours({k: np.broadcast_to(np.float32(0), s) for k, s in layout.items()}, source=ORIGINAL)
    found = {name: array.shape for name, array in ours.items()} | (shapes or {})
    found = {name: shape for name, shape in found.items() if shape is not None}
    return infer_config(found, flags or Flags(), num_attention_heads=heads, **kwargs)


@pytest.mark.parametrize("name", PUBLISHED)
def test_configurations_of_the_published_variants_are_what_the_converter_writes(tmp_path, name):
    checkpoint = "full1_single" if name.endswith("-single") else "full1"
    labels = {"ava": 10, "imagenet": 1000}.get(name.removesuffix("-single"), 1)
    shapes = {"head.classifier.weight": (labels, 384), "head.classifier.bias": (labels,)}
    config = infer(checkpoint, shapes=shapes, score_range=dataset_of(name).score_range)
    write_configs(config, tmp_path)
    stored = CONFIGURATIONS / f"musiq-{name}"
    assert sorted(path.name for path in stored.iterdir()) == ["config.json", "preprocessor_config.json"]
    for file in stored.iterdir():
        written, expected = read_json(tmp_path / file.name), read_json(file)
        assert written.pop("transformers_version", None) is not None or file.name != "config.json"
        expected.pop("transformers_version", None)  # the version that wrote it, not a setting
        if labels > 1:
            written.pop("problem_type", None)  # Transformers before 5.23 writes the default of such a head, null
        assert written == expected
    loaded = AutoConfig.from_pretrained(stored)
    assert (loaded.num_labels, loaded.num_scales) == (labels, 1 if name.endswith("-single") else 3)
    expected = {"ava": [1, 10], "imagenet": None}.get(name.removesuffix("-single"), [0, 100])
    assert loaded.score_range == expected
    assert AutoImageProcessor.from_pretrained(stored).check_config(loaded) is None


def test_a_thousand_labels_are_a_classifier():
    config = infer("full1", shapes={"head.classifier.weight": (1000, 384)})
    assert config.architectures == ["MusiqForImageClassification"]
    assert config.num_labels == 1000 and config.score_range is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"flags": Flags(num_attention_heads=4)}, "`--num_attention_heads 4` contradicts .* which have 6"),
        ({"flags": Flags(hash_grid_size=5)}, r"`--hash_grid_size 5` contradicts .* 100 = 10 \* 10 rows"),
        (
            {"flags": Flags(longer_side_lengths=[224])},
            "lengths 224` with the native picture makes 2 .* table has 3 rows",
        ),
        ({"flags": Flags(use_native_resolution=False)}, "is needed .*table has 3 rows, and `--no_native_resolution`"),
        (
            {"flags": Flags(longer_side_lengths=[64, 96], use_native_resolution=False)},
            "lengths 64 96` without the native picture makes 2 scales",
        ),
        ({"shapes": {"musiq.embeddings.scale_embedding.weight": (4, 384)}}, "lengths` is needed .*table has 4 rows"),
        (
            {"shapes": {"musiq.embeddings.scale_embedding.weight": None}},
            "lengths` is needed .*there is no scale table",
        ),
        ({"shapes": {"musiq.embeddings.spatial_embedding.weight": (99, 384)}}, r"must have G \* G rows, got 99"),
        ({"shapes": {"head.classifier.weight": None}}, r"nothing .* stands for \['head.classifier.weight'\]"),
        ({"shapes": {"musiq.embeddings.patch_projection.weight": (384, 300)}}, r"side \* side \* 256 inputs, got 300"),
        (
            {"shapes": {"musiq.embeddings.patch_encoder.stages.4.conv1.weight": (1, 1, 1, 1)}},
            "at most 4 stages, got 5",
        ),
        ({"shapes": {"musiq.embeddings.patch_projection.weight": (256, 16384)}, "heads": None}, "heads` is needed"),
    ],
)
def test_what_the_arrays_leave_open_or_contradict_is_said(arguments, message):
    with pytest.raises(ValueError, match=message):
        infer("full1", **arguments)


def test_flags_fill_what_the_arrays_leave_open():
    flags = Flags(longer_side_lengths=[], hash_grid_size=7, num_attention_heads=12)
    open_shapes = {"musiq.embeddings.spatial_embedding.weight": None, "musiq.embeddings.scale_embedding.weight": None}
    config = infer("full1", flags, shapes=open_shapes, heads=None)
    assert (config.spatial_embedding, config.hash_grid_size, config.num_attention_heads) == ("sinusoid", 7, 12)
    assert (config.longer_side_lengths, config.use_scale_embedding) == ([], False)
    assert infer("full1", heads=None).num_attention_heads == 6


@pytest.mark.parametrize(
    ("checkpoint", "features", "patch_size"),
    [
        ("full1", 8 * 8 * 256, 32),
        ("full1", 4 * 4 * 256, 16),
        ("full1", 16 * 16 * 256, 64),
        ("resnet8_1", 4 * 4 * 512, 32),
        ("resnet8_1", 2 * 2 * 512, 16),
        ("root1", 4 * 4 * 64, 16),
        ("linear1", 16 * 16 * 3, 16),
    ],
)
def test_patch_size_is_inferred(checkpoint, features, patch_size):
    width = musiq_golden_ckpt.get(checkpoint)["hidden"]
    heads = musiq_golden_ckpt.get(checkpoint)["heads"]
    shapes = {"musiq.embeddings.patch_projection.weight": (width, features)}
    assert infer(checkpoint, shapes=shapes, heads=heads).patch_size == patch_size
