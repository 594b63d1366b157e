# SPDX-License-Identifier: Apache-2.0
"""Whole trainings of super-resolution: files, tables, ablations and refusals."""

import pytest
from PIL import Image
from transformers import AutoModelForImageToImage
from upscalers import save_upscaler

from musiq_hf.evaluation import measure_upscaling_models
from musiq_hf.metrics import read_metrics
from musiq_hf.training import train_super_resolution
from musiq_hf.training.super_resolution import ablations, job, steps


def measure(originals, models):
    return measure_upscaling_models(originals, models, scales=(2.0,))


def test_a_training_writes_a_checkpoint_with_tables_and_a_card(make_settings, photographs, tmp_path):
    settings = make_settings(steps=2, originals=photographs, data_description="made pictures")
    said = []
    reports = train_super_resolution(settings, command="train", measure=measure, report=said.append)
    folder = tmp_path / "upscaler"
    assert list(reports) == ["Held-out photographs", photographs.name] and read_metrics(folder).reports == reports
    assert [report.num_pictures for report in reports.values()] == [1, 3]
    assert {row.method for row in reports[photographs.name].fidelity} == {"bicubic", "Lanczos", "this model"}
    card = (folder / "README.md").read_text()
    assert "Trained from random weights by `train`." in card and "2 photographs (made pictures), shrunk 1" in card
    assert "2 steps of Adam in one process" in card and "| this model: gain |" in card
    model = AutoModelForImageToImage.from_pretrained(folder)
    assert not model.config.use_rim and not list(folder.glob("*.pt")) and not list(folder.glob(".*"))
    assert said[0] == "2 photographs are read."
    weights = (folder / "model.safetensors").read_bytes()
    with pytest.raises(
        ValueError, match="upscaler holds a training that is done, so `--resume` has nothing to continue"
    ):
        train_super_resolution(make_settings(steps=2, seed=1, resume=True), command="train", measure=measure)
    assert (folder / "model.safetensors").read_bytes() == weights


def test_a_second_stage_is_folded_on_request(make_settings, tmp_path):
    train_super_resolution(make_settings(steps=1), command="train", measure=measure, report=print)
    first = str(tmp_path / "upscaler")
    settings = make_settings(steps=1, rim_from=first, fold_rim=True, output_dir=tmp_path / "second")
    train_super_resolution(settings, command="train", measure=measure, report=print)
    assert not AutoModelForImageToImage.from_pretrained(tmp_path / "second").config.use_rim
    assert "Trained from the first stage `upscaler` by" in (tmp_path / "second" / "README.md").read_text()
    with pytest.raises(ValueError, match="`--ablation` trains new networks, and `rim_from` continues one"):
        train_super_resolution(settings, command="train", measure=measure, ablation_steps=9)


def test_ablations_leave_out_a_part_each(make_settings, tmp_path, monkeypatch):
    trained = []

    def train_model(settings, windows, *, report):
        model = steps.make_model(settings).eval()
        trained.append((settings.steps, settings.max_scale, settings.output_dir, model.config))
        return model, 1

    monkeypatch.setattr(ablations, "train_model", train_model)
    monkeypatch.setattr(job, "train_model", train_model)
    settings = make_settings(steps=1)
    reports = train_super_resolution(settings, command="train", measure=measure, ablation_steps=5, report=print)
    names = list(dict.fromkeys(row.method for row in reports[job.ABLATIONS].fidelity))
    assert names == ["bicubic", "Lanczos", *ablations.VARIANTS, ablations.SECOND_STAGE]
    (_, full, *others), (first, second) = trained[:-2], trained[-2:]
    assert [count for count, *_ in trained[1:]] == [5] * 7 + [2, 3]
    assert tmp_path / "upscaler" not in [folder for _, _, folder, _ in trained[1:]]
    fields = ("use_shift", "num_kernels", "num_attention_kernels", "use_local_attention", "use_cell")
    fields += ("position_encoding_scale",)
    for field, (*_, config) in zip(fields, others, strict=True):
        changed = [name for name in fields if getattr(config, name) != getattr(full[-1], name)]
        assert changed == [field]
    assert (first[-1].use_rim, first[1]) == (False, 4) and (second[-1].use_rim, second[1]) == (True, 8)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"rim_from": "musiq-tiny-biq2021"},
            "musiq-tiny-biq2021 holds a musiq model, which enlarges no pictures. Give",
        ),
        ({"rim_from": "sudds-small-biq2021"}, "sudds-small-biq2021 holds a sudds model, which enlarges no pictures."),
        ({"rim_from": "absent"}, "absent: no such directory"),
        ({"rim_from": "{folder}/absent"}, "absent: neither a directory with a config.json nor an id on the Hub"),
        ({"rim_from": "{folder}"}, "neither a directory with a config.json nor an id on the Hub"),
        (
            {"rim_from": "{folder}/refined"},
            "refined has refined kernels already. Give a checkpoint of the first stage",
        ),
        ({"architecture": {"num_kernels": 7}}, "`hidden_size` must be a multiple of `num_kernels`, got 16 and 7"),
    ],
)
def test_what_cannot_begin_is_refused_before_photographs_are_read(make_settings, tmp_path, monkeypatch, given, words):
    save_upscaler(tmp_path / "refined", use_rim=True)
    monkeypatch.setattr(job, "choose_photographs", lambda settings: pytest.fail("photographs were read"))
    if "rim_from" in given:
        given = {"rim_from": given["rim_from"].format(folder=tmp_path)}
    with pytest.raises(ValueError, match=words):
        train_super_resolution(make_settings(steps=1, **given), command="train", measure=measure)
    assert not (tmp_path / "upscaler").exists()


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_steps_for_ablations_are_refused_before_the_training(make_settings, tmp_path, count):
    with pytest.raises(ValueError, match="`--ablation` must be at least 2 steps, one for each stage, got"):
        train_super_resolution(make_settings(steps=1), command="train", measure=measure, ablation_steps=count)
    assert not (tmp_path / "upscaler").exists()


def test_originals_that_cannot_be_measured_are_refused_before_the_training(make_settings, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "train_model", lambda *args, **options: pytest.fail("trained"))
    (tmp_path / "originals").mkdir()
    for name, size in (("a", (60, 60)), ("b", (40, 9))):
        Image.new("RGB", size).save(tmp_path / "originals" / f"{name}.png")
    settings = make_settings(steps=1, originals=tmp_path / "originals")
    with pytest.raises(ValueError, match="An original of 40 x 9 pixels is too small for the scale 2"):
        train_super_resolution(settings, command="train", measure=measure)
    (tmp_path / "originals" / "c.png").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="c.png: not a picture that Pillow can read"):
        train_super_resolution(settings, command="train", measure=measure)


def test_small_photographs_are_refused_before_anything_is_written(make_settings, tmp_path):
    for number in range(3):
        Image.new("RGB", (40, 40)).save(tmp_path / f"{number}.png")
    with pytest.raises(ValueError, match="No held-out photograph of 1 has 48 pixels a side after it is shrunk by 1"):
        train_super_resolution(make_settings(pictures=tmp_path), command="train", measure=measure)
    assert not (tmp_path / "upscaler").exists()
