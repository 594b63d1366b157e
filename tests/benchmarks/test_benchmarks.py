# SPDX-License-Identifier: Apache-2.0
"""The logic of the benchmarks, on tiny models; no test asserts a time."""

import dataclasses
import importlib.util
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import cpu, cpu_batches, cpu_profile, cpu_sizes, inputs, measure, operations, point, pyiqa_musiq
from benchmarks.point import PointSpec, measure_point, run_module
from benchmarks.results import add_section, read_results
from benchmarks.training_step import TrainingSpec, measure_training
from musiq_hf import TINY_CHECKPOINT, MusiqConfig, MusiqForImageQualityAssessment, MusiqImageProcessor
from musiq_hf.conversion.key_mapping import OURS, PYIQA, rename
from musiq_hf.models.musiq.configuration_musiq import RESNET_FIELDS

# What pyiqa's code fixes, and little of the rest.
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


@pytest.fixture
def tiny(tiny_config):
    """The tiny configuration as the fields that a benchmark is given."""
    config = tiny_config()
    names = ("patch_size", "hash_grid_size", "longer_side_lengths", "patch_encoder_width", "patch_encoder_groups")
    return {name: getattr(config, name) for name in (*SMALL, *names)}


@pytest.fixture
def settings(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(cpu_batches, "DEFAULT_CHECKPOINT", TINY_CHECKPOINT)  # the faster one
    return cpu_sizes.Settings(
        threads=1, repeats=2, quick=True, work=tmp_path, config=tiny, sizes=((48, 40), (24, 32)), product_sides=(32,)
    )


# -- operations


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"patch_encoder_depth": 11},
        {"patch_encoder": "conv", "patch_size": 12},
        {"patch_encoder": "linear", "pre_logits_size": 6},
        {"num_labels": 5, "num_hidden_layers": 3},
        RESNET_FIELDS | {"patch_encoder": "efficientnet_lite0", "patch_size": 20},
        RESNET_FIELDS | {"patch_encoder": "efficientnet_lite2", "patch_encoder_stages": 3},
    ],
)
def test_operations_are_those_that_torch_counts(tiny_config, overrides):
    config = tiny_config(**overrides)
    model = MusiqForImageQualityAssessment(config).eval()
    model.set_attn_implementation("eager")
    features = inputs.make_features(config, 41, 30)
    with FlopCounterMode(display=False) as counter:
        model(**features, output_hidden_states=True)  # asked for, so that the last block computes every row
    assert counter.get_total_flops() == operations.picture_operations(config, features["pixel_values"].shape[1])


def test_executed_operations_leave_out_all_but_one_row_of_the_last_block(tiny_config):
    config, length = tiny_config(), 21
    layer = MusiqForImageQualityAssessment(config).musiq.encoder.layers[-1]
    hidden, first = torch.zeros(1, length, config.hidden_size), torch.zeros(1, 1, config.hidden_size)
    with FlopCounterMode(display=False) as counter:
        keys, values = layer.attention.k_proj(hidden), layer.attention.v_proj(hidden)
        weights = layer.attention.q_proj(first) @ keys.transpose(1, 2)
        layer.mlp(layer.attention.o_proj(weights @ values))
    last = operations.block_operations(config, length, queries=1)
    assert counter.get_total_flops() == last
    saved = operations.block_operations(config, length) - last
    whole = operations.picture_operations(config, length - 1)
    assert operations.picture_operations(config, length - 1, executed=True) == whole - saved
    assert operations.training_operations(config, length - 1) == 3 * (whole - saved)


def test_operations_of_the_published_model():
    config = MusiqConfig()
    counts = {size: inputs.num_tokens(config, *size) for size in cpu_sizes.SIZES}
    assert list(counts.values()) == [342, 918, 3222, 11900]
    assert operations.picture_operations(config, 918) == pytest.approx(80e9, rel=0.02)
    assert operations.picture_operations(config, 3222) == pytest.approx(443e9, rel=0.001)


# -- measuring


def test_contenders_take_turns_and_warm_ups_are_not_counted():
    calls = []
    timings = measure.interleave({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3)
    assert calls == ["a", "b"] * 4
    assert [len(timing["seconds"]) for timing in timings.values()] == [3, 3]


def test_a_spent_budget_ends_after_the_first_round():
    timings = measure.interleave({"a": lambda: None}, repeats=9, budget=0.0)
    assert len(timings["a"]["seconds"]) == 1


def test_medians_and_ratios():
    slow, fast = measure.summarize([8.0, 1.0, 6.0, 100.0]), measure.summarize([2.0])
    assert (slow["median"], slow["deviation"]) == (7.0, 3.5)
    assert measure.ratio(slow, fast) == 3.5
    with pytest.raises(ValueError, match="At least one time"):
        measure.summarize([])
    with pytest.raises(ValueError, match="at least 1, got 0"):
        measure.interleave({}, repeats=0)


def test_products_are_sorted_by_rate_and_counted():
    products = measure.measure_products("float32", sides=(16, 32), repeats=1)
    assert {product.name for product in products} >= {"torch.mm 16", "torch.mm 32"}
    assert [p.rate for p in products] == sorted((p.rate for p in products), reverse=True)
    assert {p.operations for p in products if p.name == "torch.mm 32"} == {2.0 * 32**3}


@pytest.mark.skipif(not measure.CLEAR_REFS.exists(), reason="the peak cannot be reset on this system")
def test_peak_memory_counts_what_was_given_back():
    def grow() -> int:
        return int(np.ones(40_000_000, dtype=np.uint8).sum())

    for _ in range(2):  # the second one only if the peak was reset
        result, peak = measure.peak_above(grow)
        assert result == 40_000_000
        assert 35e6 < peak < 200e6


# -- inputs


def test_made_sequences_look_like_the_processor_s(tiny_config):
    config = tiny_config()
    made = inputs.make_features(config, 41, 30)
    real = MusiqImageProcessor.from_config(config)(inputs.make_array(41, 30))
    assert made.keys() == set(real)
    for name, values in made.items():
        assert values.shape == real[name].shape
        if name != "pixel_values":
            assert torch.equal(values, real[name])


def test_padded_batches_keep_every_row(tiny_config):
    features = [inputs.make_features(tiny_config(), *size, seed=1) for size in ((41, 30), (16, 16))]
    batch = inputs.pad_features(features)
    assert batch["pixel_attention_mask"].sum(dim=1).tolist() == [f["pixel_values"].shape[1] for f in features]
    assert torch.equal(batch["pixel_values"][0], features[0]["pixel_values"][0])


def test_mixed_sizes_differ_and_stay_in_range():
    sizes = inputs.mixed_sizes(32, smallest=200, largest=1600)
    assert len(set(sizes)) == 32
    assert {max(map(max, sizes)), min(map(max, sizes))} == {1600, 200}
    assert all(max(size) <= 2.01 * min(size) for size in sizes)
    assert sizes == inputs.mixed_sizes(32, smallest=200, largest=1600)


def test_models_answer_differently_to_different_pictures(tiny_config):
    config = tiny_config()
    model = inputs.make_model(config)
    scores = [model(**inputs.make_features(config, 41, 30, seed=seed)).scores for seed in range(2)]
    assert (scores[0] - scores[1]).abs() > 1e-4


# -- pyiqa


@pytest.mark.parametrize("num_labels", [1, 10])
def test_every_weight_has_a_place_in_pyiqa_s_network(num_labels):
    model = MusiqForImageQualityAssessment(MusiqConfig(**SMALL, num_labels=num_labels))
    weights = pyiqa_musiq.pyiqa_weights(model)
    ours = {rename(name, source=PYIQA, target=OURS)[0] for name in weights}
    assert ours == set(model.state_dict())
    assert ("head.0.weight" in weights) == (num_labels > 1)


def test_pyiqa_cannot_express_every_configuration(tiny_model):
    with pytest.raises(ValueError, match="`patch_encoder_width=64`, got 8"):
        pyiqa_musiq.pyiqa_weights(tiny_model())


def test_a_missing_pyiqa_is_named_with_its_pip_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "pyiqa.archs.musiq_arch", raising=False)
    assert not pyiqa_musiq.is_installed()
    with pytest.raises(ImportError, match=r"pip install --no-deps pyiqa==0\.1\.16"):
        pyiqa_musiq.load_architecture()


def test_pyiqa_s_layout_of_a_sequence(tiny_config):
    config = tiny_config(longer_side_lengths=[16, 24])
    features = inputs.make_features(config, 41, 30)
    rows = pyiqa_musiq.sequence(features, config)[0]
    counts = torch.bincount(features["scale_position_ids"][0]).tolist()
    slots = [4, 9, counts[2]]  # scales of at most 2 x 2 and 3 x 3 patches, then the picture
    assert len(rows) == sum(slots)
    assert rows[:, -1].tolist() == [
        float(i < count) for count, slot in zip(counts, slots, strict=True) for i in range(slot)
    ]
    last = rows[-1]
    patch = features["pixel_values"][0, -1].view(config.patch_size, config.patch_size, 3)
    assert torch.equal(last[:-3].view(3, config.patch_size, config.patch_size), patch.permute(2, 0, 1))
    assert last[-3:].tolist() == [float(features["spatial_position_ids"][0, -1]), 2.0, 1.0]


def test_stand_ins_are_gone_afterwards(monkeypatch):
    monkeypatch.setattr(pyiqa_musiq, "UNUSED", ("not_a_package",))
    with pyiqa_musiq._install_stand_ins():
        module = importlib.import_module("not_a_package.inner")
        assert isinstance(module.Anything, type)  # something to inherit from
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("not_a_package.inner")


@pytest.mark.skipif(not pyiqa_musiq.is_installed(), reason="pyiqa is not installed")
@pytest.mark.parametrize("num_labels", [1, 10])
def test_pyiqa_computes_the_same_network(num_labels):
    config = MusiqConfig(**SMALL, num_labels=num_labels)
    model = inputs.make_model(config)
    network = pyiqa_musiq.build(model)
    features = inputs.make_features(config, 100, 70)
    assert pyiqa_musiq.deviation(model, network, features) < 1e-3
    with torch.no_grad():
        model.musiq.encoder.layers[0].mlp.fc1.weight.mul_(-1)
    assert pyiqa_musiq.deviation(model, network, features) > 1e-3


# -- benchmarks.cpu


def test_sizes_in_both_precisions_beside_a_product(settings):
    section = cpu_sizes.measure_sizes(settings)
    assert [(row["width"], row["height"]) for row in section["rows"]] == [(48, 40), (24, 32)]
    row = section["rows"][0]
    assert {"ours float32", "ours bfloat16", "product float32"} <= set(row["timings"])
    assert row["rates"]["float32"] == row["operations"] / row["timings"]["ours float32"]["median"]
    assert row["deviation_from_plain"] < 1e-4
    assert "ratios" not in row and "pyiqa" in section["notes"]  # its network cannot be so small


@pytest.mark.skipif(not pyiqa_musiq.is_installed(), reason="pyiqa is not installed")
def test_a_size_beside_pyiqa(settings):
    model = inputs.make_model(MusiqConfig(**SMALL))
    row = cpu_sizes._measure_size({"float32": model}, pyiqa_musiq.build(model), {}, (64, 48), settings)
    assert row["ratios"]["float32"] == measure.ratio(row["timings"]["pyiqa float32"], row["timings"]["ours float32"])
    assert row["deviation_from_pyiqa"] < 1e-3


def test_a_large_size_has_pyiqa_in_a_process_of_its_own(settings, monkeypatch, tiny):
    theirs = {"timing": measure.summarize([1000.0]), "peak_bytes": 8}
    monkeypatch.setattr(cpu_sizes, "MANY_TOKENS", 1)
    monkeypatch.setattr(cpu_sizes, "point", lambda spec: theirs if spec.who == "pyiqa" else {})
    model = inputs.make_model(MusiqConfig(**tiny))
    row = cpu_sizes._measure_size({"float32": model}, torch.nn.Identity(), {}, (48, 40), settings)
    ours = row["timings"]["ours float32"]
    assert len(ours["seconds"]) == 3  # two before and one after
    assert row["ratios"] == {"float32": 1000.0 / ours["median"]} and row["pyiqa"] == theirs


def test_pyiqa_is_left_out_where_it_would_need_too_much_and_errors_are_kept(settings, monkeypatch):
    specs = []
    monkeypatch.setattr(cpu_sizes, "point", lambda spec: specs.append(spec) or {"error": "no memory"})
    monkeypatch.setattr(pyiqa_musiq, "is_installed", lambda: True)
    rows = cpu_sizes.measure_growth(dataclasses.replace(settings, sizes=((48, 40), (8000, 6000))))["rows"]
    assert [(row["who"], row["dtype"], row["width"]) for row in rows] == [
        *((who, dtype, 48) for who, dtype in cpu_sizes.CONTENDERS),
        ("ours", "float32", 8000),
        ("ours", "bfloat16", 8000),
    ]
    assert {row["error"] for row in rows} == {"no memory"} and {spec.threads for spec in specs} == {1}


def test_a_point_has_time_and_memory(tiny):
    for who in ("ours", "ours from pixels"):
        result = measure_point(PointSpec(who, "bfloat16", 48, 40, threads=1, repeats=1, config=tiny))
        assert result["seconds"] > 0 and result["peak_bytes"] >= 0 and result["tokens"] == 30 + 4 + 9
    with pytest.raises(ValueError, match="`who` must be one of"):
        measure_point(PointSpec("theirs", "float32", 48, 40, threads=1))
    with pytest.raises(ValueError, match="float32 only, got bfloat16"):
        measure_point(PointSpec("pyiqa", "bfloat16", 48, 40, threads=1))


def test_a_process_that_fails_or_hangs_becomes_an_error():
    assert "No module named" in run_module(["benchmarks.not_there"])["error"]
    hangs = ["timeit", "-n", "1", "import time; time.sleep(9)"]
    assert run_module(hangs, timeout=0.2)["error"].startswith("no result")


def test_the_same_point_is_measured_once_per_run(monkeypatch):
    calls = []
    monkeypatch.setattr(point, "run_module", lambda arguments: calls.append(arguments) or {"seconds": 1.0})
    spec = PointSpec("ours", "float32", 48, 40, threads=977)
    assert point.point(spec) == point.point(spec) == {"seconds": 1.0}
    assert [arguments[0] for arguments in calls] == ["benchmarks.point"]
    assert PointSpec(**json.loads(calls[0][1])) == spec


def test_a_batch_of_mixed_sizes_changes_no_score(settings):
    rows = cpu_batches.measure_mixed(settings)["rows"]
    assert [row["dtype"] for row in rows] == ["float32", "bfloat16"]
    exact = rows[0]
    assert exact["change_of_range"] < 1e-5 and exact["default"]["spread"] > 0.1
    best = max(rate for name, rate in exact["rates"].items() if name != "batch")
    assert exact["share_of_best_single"] == exact["rates"]["batch"] / best


def test_the_folder_s_files_are_made_once(tmp_path):
    paths = inputs.write_jpegs(tmp_path / "jpegs", [(40, 30), (20, 24)])
    before = [path.stat().st_mtime_ns for path in paths]
    assert inputs.write_jpegs(tmp_path / "jpegs", [(40, 30), (20, 24)]) == paths
    assert [path.stat().st_mtime_ns for path in paths] == before
    with Image.open(paths[0]) as image:
        assert (image.size, image.format) == ((40, 30), "JPEG")


def test_a_picture_without_a_score_is_no_measurement(tiny_model, tiny_config, tmp_path):
    processor = MusiqImageProcessor.from_config(tiny_config())
    assert len(inputs.score_all([inputs.make_array(41, 30)] * 2, model=tiny_model(), processor=processor)) == 2
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"1 of 1 pictures have no score. The first: .*broken\.jpg"):
        inputs.score_all([tmp_path / "broken.jpg"], model=tiny_model(), processor=processor)


def test_a_folder_end_to_end(settings):
    rows = cpu_batches.measure_folder(settings)["rows"]
    assert [row["num_pictures"] for row in rows] == [2, 2]
    assert all(row["share_of_model_alone"] > 0 and row["preprocessing_share"] > 0 for row in rows)


def test_precision_on_a_folder_of_pictures(settings, tmp_path):
    with pytest.raises(ValueError, match="Name a folder of them with --pictures"):
        cpu_batches.measure_precision(settings)
    for seed in range(4):
        Image.fromarray(inputs.make_array(64, 48, seed=seed)).save(tmp_path / f"{seed}.png")
    row = cpu_batches.measure_precision(dataclasses.replace(settings, pictures=tmp_path))["rows"][0]
    assert row["num_pictures"] == 4 and -1 <= row["srcc"] <= 1
    assert row["median_deviation"] <= row["largest_deviation"] < row["spread"]
    with pytest.raises(ValueError, match="At least 3 pictures"):
        cpu_batches.measure_precision(dataclasses.replace(settings, pictures=tmp_path, max_pictures=2))


def test_a_training_step_learns_and_is_counted(tiny):
    spec = TrainingSpec("float32", 32, 24, batch_size=2, repeats=2, threads=1, config=tiny)
    row = measure_training(spec)
    tokens = inputs.num_tokens(MusiqConfig(**tiny), 32, 24)
    assert row["tokens_per_second"] == pytest.approx(2 * tokens / row["timing"]["median"])
    with pytest.raises(ValueError, match="`variant` must be one of"):
        measure_training(dataclasses.replace(spec, variant="int8"))


def test_a_failed_section_keeps_the_older_result_and_the_others(tmp_path, settings, capsys):
    def fails(settings):
        raise ValueError("no pictures")

    path = tmp_path / "bench.json"
    add_section(path, "bad", {"rows": [{"old": True}]})
    failed = cpu.run_sections({"bad": fails, "good": lambda settings: {"rows": []}}, settings, output=path)
    assert failed == ["bad: no pictures"]
    sections = read_results(path)["sections"]
    assert sections["bad"] == {"rows": [{"old": True}]}
    assert sections["good"]["settings"] == {"threads": 1, "repeats": 2, "quick": True}
    assert sections["good"]["machine"]["torch"] == torch.__version__


def test_the_command_tells_which_section_failed(tmp_path, capsys):
    assert cpu.main(["--output", str(tmp_path / "x.json"), "--only", "precision", "--threads", "1"]) == 2
    assert "1 of 1 sections failed: precision: The section `precision` needs photographs" in capsys.readouterr().err


def test_the_profile_names_kinds_of_work_and_adds_up(settings):
    events = [("aten::bmm", 3.0), ("mkldnn::_linear_pointwise", 1.0), ("aten::relu", 4.0), ("aten::_softmax", 2.0)]
    found = cpu_profile.shares(events)
    assert found == {"matrix products": 0.4, cpu_profile.OTHER: 0.4, "softmax": 0.2}
    rows = cpu_profile.measure_profile(settings)["rows"]
    assert [(row["width"], row["dtype"]) for row in rows] == [
        (width, dtype) for width in (48, 24) for dtype in ("float32", "bfloat16")
    ]
    assert all(sum(row["shares"].values()) == pytest.approx(1) for row in rows)
