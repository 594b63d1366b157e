# SPDX-License-Identifier: Apache-2.0
"""The parts of examples/run_ablations.py that need no training."""

import argparse
import importlib.util
import json

import numpy as np
import pytest
from PIL import Image
from places import ROOT

from musiq_hf.data.batches import open_row
from musiq_hf.data.loading import load_data
from musiq_hf.metrics.correlation import MEAN_OF_GROUPS
from musiq_hf.models import family_of
from musiq_hf.training.recipes import load_settings
from musiq_hf.training.settings import FinetuneSettings
from musiq_hf.training.starting import load_model, load_processor

SCRIPT = ROOT / "examples/run_ablations.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("run_ablations", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_variant_is_another_network_that_its_processor_fits(script):
    seen = set()
    for overrides in (script.ALL_VARIANTS).values():
        settings = load_settings(
            FinetuneSettings,
            recipe="biq2021",
            overrides=[*script.BUDGET, *overrides],
            arguments={"data": "x", "model": "scratch:musiq-tiny", "output_dir": "y"},
        )
        model = load_model(settings.model, architecture=settings.architecture)
        processor = load_processor(settings.model, model.config, architecture=settings.architecture)
        view = settings.training_view(family_of(model.config))
        assert sum(view.limits(processor)) == 48
        assert settings.fault_pairs == 0 and settings.degrade_fraction == 0
        seen.add((model.config.to_json_string(), processor.resize_mode, settings.localisation_weight))
    assert len(seen) == 12  # others differ in their start, two in their data


def test_whitening_needs_its_own_start(script):
    arguments = argparse.Namespace(pretrained="faults", whitened=None)
    starts = {name: script.find_start(arguments, name) for name in ("with stage 1", "localisation")}
    assert starts == {"with stage 1": "faults", "localisation": "scratch:musiq-tiny"}
    with pytest.raises(ValueError, match="starts from a result of `--objective whitening`. Give it as `--whitened`"):
        script.find_start(arguments, "whitening in place of stage 1")
    arguments.whitened = "views"
    assert script.find_start(arguments, "whitening in place of stage 1") == "views"


def test_windows_are_the_largest_of_their_aspect_inside_of_the_picture(script):
    boxes = [script.choose_window(f"{index}.jpg", 512, 400) for index in range(60)]
    assert boxes[0] == script.choose_window("0.jpg", 512, 400)
    aspects = []
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= 512 and 0 <= top < bottom <= 400
        assert right - left == 512 or bottom - top == 400
        aspects.append((right - left) / (bottom - top))
    assert 0.49 < min(aspects) < 0.7 and 1.5 < max(aspects) < 2.01


def test_windows_are_read_like_any_other_data(script, tmp_path):
    lines = ["image,mos,split"]
    for index in range(4):
        Image.fromarray(np.full((64, 64, 3), index, dtype=np.uint8)).save(tmp_path / f"ss0{index % 3 + 1}_{index}.png")
        lines.append(f"ss0{index % 3 + 1}_{index}.png,0.{index},{'train' if index < 3 else 'validation'}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    script.write_windows(tmp_path / "windows.parquet", data=str(tmp_path / "labels.csv"), image_root=str(tmp_path))
    splits = load_data(str(tmp_path / "windows.parquet"))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 3, "validation": 1}
    assert splits["validation"][0]["mos"] == pytest.approx(30)
    assert splits["train"]["group"][:] == ["ss01", "ss02", "ss03"]
    left, top, right, bottom = script.choose_window("ss01_0.png", 64, 64)
    assert open_row(splits["train"][0]).size == (right - left, bottom - top)


def test_table_has_mean_and_range_of_the_finished_runs(script, tmp_path):
    for seed, (overall, mean) in enumerate([(0.5, 0.3), (0.7, 0.4)]):
        folder = tmp_path / f"{script.name_runs('no scale embedding')}-{seed}"
        folder.mkdir()
        report = {"num_pictures": 9, "overall": {"srcc": overall}, "groups": {MEAN_OF_GROUPS: {"srcc": mean}}}
        (folder / "metrics.json").write_text(json.dumps({"validation": report}))
    results = script.collect(tmp_path)
    assert list(results) == ["no scale embedding"]
    last = script.render(results).splitlines()[-1]
    assert last == "| no scale embedding | 2 | 0.600 [0.500..0.700] | 0.350 [0.300..0.400] |"
