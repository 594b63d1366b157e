# SPDX-License-Identifier: Apache-2.0
"""A study on made pictures: trained, interrupted, repeated, measured and rendered."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from musiq_hf.data import load_data
from musiq_hf.data.batches import open_row
from musiq_hf.studies import (
    MODELS,
    Comparison,
    Study,
    Variant,
    collect_results,
    compare_inputs,
    measure_ensembles,
    plot_inputs,
    render_inputs,
    render_results,
    running,
    train_variants,
)
from musiq_hf.studies.costs import measure_costs
from musiq_hf.studies.shapes import choose_window, draw_rows, pad_picture, write_padded, write_pictures

SMALL = ("hidden_size=16", "num_hidden_layers=1", "num_attention_heads=2", "intermediate_size=16")
SMALL += ("patch_encoder_width=4", "patch_encoder_groups=2", "longer_side_lengths=[64]", "holdout_fraction=0.2")


@pytest.fixture(scope="module")
def labels(tmp_path_factory) -> Path:
    """Forty small square pictures, in the names of BIQ2021, with scores."""
    folder, generator = tmp_path_factory.mktemp("labels"), np.random.default_rng(0)
    lines = ["image,mos,split"]
    for index in range(40):
        name = f"ss0{index % 2 + 1} ({index}).png"
        Image.fromarray(generator.integers(0, 20 + 5 * index, (64, 64, 3), dtype=np.uint8)).save(folder / name)
        lines.append(f"{name},{index / 40},{'validation' if index % 2 else 'train'}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "labels.csv"


@pytest.fixture(scope="module")
def study(labels, tmp_path_factory) -> Study:
    variants = {
        "(full)": Variant(changes=("longer_side_lengths=[]",)),
        "grid of 5": Variant(changes=("hash_grid_size=5",), passes=2),
    }
    data = {"data": str(labels), "image_root": str(labels.parent), "dataset": "biq2021"}
    folder = tmp_path_factory.mktemp("study")
    study = Study(
        variants=variants, data=data, output_dir=folder, recipe=None, budget=SMALL, epochs=1, seeds=[0], command="x"
    )
    train_variants(study)
    return study


def test_results_have_figures_and_costs_of_every_variant(study, labels):
    full, grid = collect_results(study.output_dir, ["no such", *study.variants])
    assert full.costs.tokens == 256 and grid.costs.tokens == 256 + 4 and full.costs.milliseconds > 0
    assert full.costs.sharing == pytest.approx((256 - 16) / 256)  # 16 x 16 patches on 10 x 10 cells: 4 x 4 are alone
    assert grid.costs.sharing == pytest.approx(256 / 260)
    mean = measure_ensembles(study.output_dir, study.data, name="mean of both", members=list(study.variants))
    assert mean.costs.tokens == 256 + 260 and (study.output_dir / "mean_of_both-0.json").is_file()
    assert mean == measure_ensembles(study.output_dir, study.data, name="mean of both", members=list(study.variants))
    assert measure_ensembles(study.output_dir, study.data, name="x", members=["(full)", "no such"]) is None
    table = render_results([replace(full, srcc=(0.5, 0.7), group_srcc=(), costs=mean.costs)]).splitlines()
    assert table[-1].startswith("| (full) | 2 | 0.600 [0.500..0.700] | - | 516 |") and table[-1].endswith("| - |")


def test_finished_runs_are_kept_and_others_refused(study, monkeypatch):
    trained = []
    monkeypatch.setattr(running, "finetune", lambda settings, command: trained.append(settings))
    train_variants(study)
    assert not trained
    train_variants(replace(study, seeds=[0, 3]))
    assert [(own.seed, own.epochs) for own in trained] == [(3, 1), (3, 2)]
    with pytest.raises(ValueError, match="holds runs with other settings. Choose a new `--output_dir`"):
        train_variants(replace(study, epochs=3))
    with pytest.raises(ValueError, match="holds another variant of this name"):
        train_variants(replace(study, variants={"(full)": Variant(changes=("hash_grid_size=4",))}))


def test_inputs_are_compared_on_three_shapes(labels, tmp_path, monkeypatch):
    variants = {"MUSIQ, native, 384, 224": (), "MUSIQ, squares of 512, 384, 224": ("resize_mode=square",)}
    for name, changes in variants.items():
        monkeypatch.setitem(MODELS, name, replace(MODELS[name], variant=Variant(changes=(*SMALL, *changes))))
    data = {"data": str(labels), "image_root": str(labels.parent), "dataset": "biq2021"}
    comparison = Comparison(
        data=data,
        output_dir=tmp_path / "runs",
        names=list(variants),
        epochs=1,
        seeds=[0],
        num_train=16,
        num_validation=12,
        num_squeezed=2,
        command="x",
    )
    found = compare_inputs(comparison, report=lambda text: None)
    assert found == compare_inputs(comparison, report=lambda text: pytest.fail(text))
    own = found["MUSIQ, native, 384, 224"][0]
    assert len(own["srcc"]) == 3 and len(set(own["srcc"].values())) > 1
    assert [len(curve) for curve in own["changes"]] == [9, 9] and all(curve[4] == 0 for curve in own["changes"])
    tables = render_inputs(found).splitlines()
    assert tables[2].count("|") == 7 and tables[2].endswith("| 0.706, 0.720 |")
    assert len(plot_inputs(found).axes[0].lines) == 3


def test_windows_are_the_largest_of_their_aspect_inside_of_the_picture():
    boxes = [choose_window(f"{index}.jpg", 512, 400) for index in range(60)]
    assert boxes[0] == choose_window("0.jpg", 512, 400)
    aspects = []
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= 512 and 0 <= top < bottom <= 400
        assert right - left == 512 or bottom - top == 400
        aspects.append((right - left) / (bottom - top))
    assert 0.49 < min(aspects) < 0.7 and 1.5 < max(aspects) < 2.01


def test_windows_are_read_like_any_other_data(labels, tmp_path):
    path = tmp_path / "windows.parquet"
    data = {"data": str(labels), "dataset": "biq2021"}
    write_pictures(path, draw_rows(data, num_train=None, num_validation=None), in_windows=True)
    splits = load_data(str(path))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 20, "validation": 20}
    few = draw_rows(data, num_train=5, num_validation=30)
    assert len(few["train"]) == 5 and len(few["validation"]) == 20
    assert few["train"]["mos"][:] == draw_rows(data, num_train=5, num_validation=None)["train"]["mos"][:]
    assert splits["validation"][0]["mos"] == pytest.approx(2.5) and splits["train"]["group"][0] == "ss01"
    left, top, right, bottom = choose_window("ss01 (0).png", 64, 64)
    assert open_row(splits["train"][0]).size == (right - left, bottom - top)


def test_padded_pictures_keep_theirs_in_the_middle(labels, tmp_path):
    image = Image.new("RGB", (40, 40), "white")
    padded = pad_picture(image, 2)
    assert padded.size == (80, 40) and padded.getpixel((19, 0)) == (0, 0, 0)
    assert padded.getpixel((20, 0)) == padded.getpixel((59, 39)) == (255, 255, 255)
    assert pad_picture(image, 0.5).size == (40, 80)
    rows = load_data(str(labels), dataset="biq2021")["validation"]
    write_padded(tmp_path, rows)
    written = load_data(str(tmp_path / "scores.csv"))["validation"]
    assert written["mos"][:] == pytest.approx(rows["mos"][:])
    assert all(max(open_row(row).size) > 64 for row in written.select(range(5)))


def test_costs_need_a_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="config.json"):
        measure_costs(tmp_path)
