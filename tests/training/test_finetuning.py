# SPDX-License-Identifier: Apache-2.0
import json
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from huggingface_hub import ModelCard
from PIL import Image, ImageFilter
from places import ROOT
from safetensors.torch import load_file
from transformers import AutoModel

from musiq_hf import MusiqConfig, MusiqForImageClassification, MusiqForImageQualityAssessment, MusiqImageProcessor
from musiq_hf.cli import main as musiq
from musiq_hf.data.splits import split_data
from musiq_hf.hub.checkpoints import save_checkpoint
from musiq_hf.metrics.report_files import read_metrics
from musiq_hf.metrics.training_curves import write_training_curves
from musiq_hf.scoring import load_calibration, load_quality, score_pictures
from musiq_hf.training.collators import TrainingCollator
from musiq_hf.training.finetuning import finetune, write_card
from musiq_hf.training.repeated_runs import repeat_runs
from musiq_hf.training.settings import FinetuneSettings
from musiq_hf.training.starting import load_model, normalize_scores
from musiq_hf.training.trainer import QualityTrainer, find_last_checkpoint


@pytest.fixture(scope="module")
def scores_csv(tmp_path_factory) -> str:
    """Pictures of one texture at five strengths of blur; the sharper, the higher the score."""
    folder, generator = tmp_path_factory.mktemp("blurred"), np.random.default_rng(0)
    lines = ["image,mos,split,group"]
    for index in range(30):
        level = index % 5
        image = Image.fromarray(generator.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        image.filter(ImageFilter.GaussianBlur(0.6 * level)).save(folder / f"{index}.png")
        lines.append(f"{index}.png,{80 - 15 * level},{'train' if index < 20 else 'validation'},{'ab'[index // 5 % 2]}")
    (folder / "scores.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "scores.csv")


def settings(scores_csv, blank, output_dir, **changes) -> FinetuneSettings:
    values = {"data": scores_csv, "model": blank, "output_dir": str(output_dir), "epochs": 2, "batch_size": 5}
    return FinetuneSettings(**(values | {"learning_rate": 3e-3, "weight_decay": 0.0} | changes))


def losses(output_dir: Path) -> list[float]:
    log = json.loads((output_dir / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in log if "loss" in entry]


def test_training_learns_to_rank_blur_and_saves_what_it_measured(scores_csv, blank, tmp_path):
    report = finetune(settings(scores_csv, blank, tmp_path, epochs=12, score_range=(0, 100)))
    assert list(report) == ["selection"]  # validation chose the epoch, so it is not reported as if it had not
    assert report["selection"].overall.srcc > 0.7
    assert sorted(report["selection"].groups) == ["a", "b", "mean within groups"]
    assert read_metrics(tmp_path).reports == report
    card = (tmp_path / "README.md").read_text()
    assert f"| all | {report['selection'].overall.srcc:.4f}" in card
    assert "Trained with `musiq_hf.training.finetune` of musiq_hf" in card
    assert "20 pictures." in card and "epochs 12" in card and "from random weights" in card
    model = AutoModel.from_pretrained(tmp_path)
    assert isinstance(model, MusiqForImageQualityAssessment)
    assert model.config.score_offset == pytest.approx(50)
    assert model.config.score_scale == pytest.approx(np.std([80, 65, 50, 35, 20]))
    assert model.config.score_range == [0, 100]


@pytest.fixture(scope="module")
def hundred(tmp_path_factory) -> str:
    """Five pictures to train on, and a hundred that validate."""
    folder, generator = tmp_path_factory.mktemp("hundred"), np.random.default_rng(0)
    lines = ["image,mos,split"]
    for index in range(105):
        Image.fromarray(generator.integers(0, 50 + index, (12, 16, 3), dtype=np.uint8)).save(folder / f"{index}.png")
        lines.append(f"{index}.png,{index},{'train' if index < 5 else 'validation'}")
    (folder / "scores.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "scores.csv")


@pytest.mark.parametrize("holdout_fraction", [0, 0.6])
def test_percentiles_of_a_hundred_validation_pictures_are_stored(hundred, blank, tmp_path, holdout_fraction):
    used = {"epochs": 1, "holdout_fraction": holdout_fraction, "save_dtype": "float16"}
    finetune(settings(hundred, blank, tmp_path, **used))
    model, processor = load_quality(str(tmp_path))
    calibration = load_calibration(str(tmp_path), model, processor)
    name = "selection" if holdout_fraction == 0 else "validation"
    assert (calibration.data, calibration.num_pictures) == (f"scores.csv, {name}", 100)
    pictures = [Path(hundred).parent / f"{index}.png" for index in range(5, 105)]
    scores = [row.score for row in score_pictures(pictures, model=model, processor=processor)]
    np.testing.assert_allclose(calibration.quantiles, np.quantile(scores, np.linspace(0, 1, 101)), rtol=1e-4)
    assert f"Among 100 pictures (scores.csv, {name})" in (tmp_path / "README.md").read_text()


def test_too_few_validation_pictures_leave_no_percentiles(scores_csv, blank, tmp_path, caplog):
    (tmp_path / "calibration.json").write_text("{}")  # of an earlier run
    finetune(settings(scores_csv, blank, tmp_path, epochs=1))
    assert not (tmp_path / "calibration.json").exists()
    assert (
        "No percentiles of the scores are stored: at least 100 validation pictures are needed, got 10." in caplog.text
    )
    assert "Percentiles" not in (tmp_path / "README.md").read_text()


def test_card_names_the_command_that_trained(blank, tmp_path):
    (tmp_path / "config.json").write_text((Path(blank) / "config.json").read_text())
    used = settings("scores.csv", blank, tmp_path)
    write_card(used, num_pictures=20, report={}, command="musiq finetune")
    source = (
        f"Trained with `musiq finetune` of musiq_hf, from random weights in the configuration `{Path(blank).name}`."
    )
    assert source in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(("data", "named"), [("someone/cats", ["someone/cats"]), ("scores.csv", None)])
def test_the_head_of_a_card_names_data_of_the_hub(blank, tmp_path, data, named):
    (tmp_path / "config.json").write_text((Path(blank) / "config.json").read_text())
    write_card(settings(data, blank, tmp_path), num_pictures=20, report={})
    head = ModelCard.load(tmp_path / "README.md").data
    assert head.datasets == named and head.base_model is None


def test_card_of_a_repeated_run_names_what_repeated_it(scores_csv, blank, tmp_path):
    repeat_runs(settings(scores_csv, blank, tmp_path, max_steps=1), runs=1, output_dir=tmp_path, repeat_splits=False)
    card = (tmp_path / "run_00" / "README.md").read_text()
    assert "Trained with `musiq_hf.training.repeat_runs` of musiq_hf" in card


@pytest.mark.parametrize("command", ["musiq finetune", "examples/finetune.py"])
def test_doors_say_which_command_they_are(command, tmp_path, monkeypatch):
    words = ["--data", "scores.csv", "--output_dir", str(tmp_path)]
    named = []

    def note(settings: FinetuneSettings, *, command: str) -> dict:
        named.append(command)
        return {}

    monkeypatch.setattr("musiq_hf.training.finetune", note)
    monkeypatch.setattr("musiq_hf.training.finetuning.finetune", note)
    if command == "musiq finetune":
        assert musiq(["finetune", *words]) == 0
    else:
        monkeypatch.setattr(sys, "argv", [command, *words])
        with pytest.raises(SystemExit, match="0"):
            runpy.run_path(str(ROOT / command), run_name="__main__")
    assert named == [command]


def test_half_precision_file_loads_as_float32(tiny_model, tmp_path):
    model = tiny_model()
    save_checkpoint(model, MusiqImageProcessor.from_config(model.config), tmp_path, dtype="float16")
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    assert next(model.parameters()).dtype == torch.float32
    reloaded = AutoModel.from_pretrained(tmp_path)
    assert reloaded.dtype == torch.float32
    for name, value in model.state_dict().items():
        torch.testing.assert_close(reloaded.state_dict()[name], value.half().float(), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("ema_decay", "num_workers"),
    [(0.7, 0), pytest.param(None, 0, marks=pytest.mark.slow), pytest.param(None, 1, marks=pytest.mark.slow)],
)
def test_resumed_run_repeats_an_uninterrupted_one(
    scores_csv, blank, tmp_path, monkeypatch, ema_decay, num_workers, cut_off
):
    monkeypatch.setattr("musiq_hf.training.trainer.LOGGING_STEPS", 1)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    changes = {"epochs": 3, "fault_pairs": 1, "rates": {"encoder": 0.5}, "ema_decay": ema_decay}
    changes |= {"num_workers": num_workers, "view_pairs": 1, "consistency_weight": 0.5, "size_fraction": 0.5}
    changes |= {"view": {"native_patches": 6, "min_native_patches": 2}}
    finetune(settings(scores_csv, blank, whole, **changes))
    with cut_off(6):  # in the middle of the second epoch
        finetune(settings(scores_csv, blank, broken, **changes))
    finetune(settings(scores_csv, blank, broken, resume=True, **changes))
    assert losses(broken) == losses(whole)
    assert len(losses(whole)) == 12
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, broken))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_trained_head_is_carried_to_another_unit(tiny_model):
    inputs = MusiqImageProcessor(patch_size=8, hash_grid_size=4, longer_side_lengths=[16, 24])(torch.rand(3, 20, 30))
    normalized = tiny_model(score_offset=50.0, score_scale=20.0, score_range=(0, 100))
    before = normalized(**inputs).logits
    normalize_scores(normalized, [1.0, 2.0, 6.0], score_range=(1, 6))
    config = normalized.config
    assert (config.score_offset, config.score_scale) == (pytest.approx(3), pytest.approx(2.1602469))
    assert config.score_range == [1, 6]
    torch.testing.assert_close(normalized(**inputs).logits, before, atol=0, rtol=0)


def test_head_in_opinion_points_is_mapped_from_its_range_to_that_of_the_labels(tiny_model):
    inputs = MusiqImageProcessor(patch_size=8, hash_grid_size=4, longer_side_lengths=[16, 24])(torch.rand(3, 20, 30))
    published = tiny_model(score_range=(0, 100))
    before = published(**inputs).scores
    normalize_scores(published, [1.0, 2.0, 5.0])
    torch.testing.assert_close(published(**inputs).scores, 1 + before * 4 / 100, atol=1e-4, rtol=0)
    assert published.config.score_range is None
    unknown = tiny_model()
    before = unknown(**inputs).scores
    normalize_scores(unknown, [1.0, 2.0, 5.0])
    torch.testing.assert_close(unknown(**inputs).scores, before, atol=1e-4, rtol=0)


@pytest.mark.parametrize("unit", [(50.0, 20.0), (0.0, 1.0)])
def test_scores_stay_where_the_range_is_that_of_the_checkpoint(tiny_model, unit):
    inputs = MusiqImageProcessor(patch_size=8, hash_grid_size=4, longer_side_lengths=[16, 24])(torch.rand(3, 20, 30))
    model = tiny_model(score_offset=unit[0], score_scale=unit[1], score_range=(0, 100))
    before = model(**inputs).scores
    normalize_scores(model, [81.0, 82.0, 86.0], score_range=(0.0, 100.0))
    torch.testing.assert_close(model(**inputs).scores, before, atol=1e-4, rtol=0)
    kept = unit if unit != (0, 1) else (pytest.approx(83), pytest.approx(2.1602469))  # standard deviations
    assert (model.config.score_offset, model.config.score_scale) == kept
    assert list(model.config.score_range) == [0, 100]


def test_fresh_head_starts_at_the_mean_of_the_labels(tiny_config):
    model = MusiqForImageQualityAssessment(tiny_config()).eval()
    model.config.score_range = [0, 100]
    normalize_scores(model, [10.0, 20.0, 60.0], score_range=(0, 100))
    inputs = MusiqImageProcessor.from_config(model.config)(torch.rand(3, 20, 30))
    assert model(**inputs).scores.item() == pytest.approx(30)


def test_constant_labels_do_not_divide_by_zero(tiny_config):
    model = MusiqForImageQualityAssessment(tiny_config())
    normalize_scores(model, [5.0, 5.0])
    assert (model.config.score_offset, model.config.score_scale) == (5.0, 1.0)


def test_classification_checkpoint_gives_its_body_and_a_fresh_head(tiny_config, tmp_path):
    pretrained = MusiqForImageClassification(tiny_config(num_labels=7))
    pretrained.save_pretrained(tmp_path)
    model = load_model(str(tmp_path))
    assert isinstance(model, MusiqForImageQualityAssessment)
    assert model.config.num_labels == 1
    torch.testing.assert_close(model.musiq.state_dict(), pretrained.musiq.state_dict())
    assert not model.head.classifier.weight.any()


def test_foreign_checkpoints_are_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ValueError, match="checkpoint was expected, got one of type 'vit'"):
        load_model(str(tmp_path))


def make_splits(**sizes: int) -> DatasetDict:
    return DatasetDict({name: Dataset.from_dict({"mos": list(range(size))}) for name, size in sizes.items()})


def test_holdout_comes_from_train_and_is_disjoint():
    train, selection = split_data(make_splits(train=50, validation=9), holdout_fraction=0.1, seed=0)
    assert (len(train), len(selection)) == (45, 5)
    assert not set(train["mos"]) & set(selection["mos"])


def test_validation_chooses_the_epoch_unless_there_is_none():
    train, selection = split_data(make_splits(train=50, validation=9), holdout_fraction=None, seed=0)
    assert (len(train), len(selection)) == (50, 9)
    train, selection = split_data(make_splits(train=50), holdout_fraction=None, seed=0)
    assert (len(train), len(selection)) == (45, 5)


@pytest.mark.parametrize(
    ("sizes", "fraction", "message"),
    [
        ({"validation": 5}, None, "A `train` split is needed, got \\['validation'\\]"),
        ({"train": 5}, 0.0, "there is none"),
    ],
)
def test_impossible_splits_are_refused(sizes, fraction, message):
    with pytest.raises(ValueError, match=message):
        split_data(make_splits(**sizes), holdout_fraction=fraction, seed=0)


def test_checkpoint_without_native_scale_trains_with_the_defaults(scores_csv, tiny_config, tmp_path):
    config = tiny_config(use_native_resolution=False)
    config.save_pretrained(tmp_path / "blank")
    MusiqImageProcessor.from_config(config).save_pretrained(tmp_path / "blank")
    report = finetune(settings(scores_csv, str(tmp_path / "blank"), tmp_path / "out", epochs=1))
    assert report["selection"].num_pictures == 10


def interrupt_at(step: int, monkeypatch, send) -> None:
    """Let a step of training be followed by what `send` does."""
    original = QualityTrainer.training_step

    def training_step(trainer, *args, **kwargs):
        loss = original(trainer, *args, **kwargs)
        if trainer.state.global_step + 1 == step:
            monkeypatch.setattr(QualityTrainer, "training_step", original)
            send()
        return loss

    monkeypatch.setattr(QualityTrainer, "training_step", training_step)


def test_one_command_is_repeated_until_the_run_is_done(scores_csv, blank, tmp_path, monkeypatch, caplog):
    """Ctrl-C within the first epoch, SIGTERM at the end of the second, then to the end, and once more."""
    monkeypatch.setattr("musiq_hf.training.trainer.LOGGING_STEPS", 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run side by side ignore it
    used = settings(scores_csv, blank, tmp_path, epochs=3, resume=True)
    interrupt_at(2, monkeypatch, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        finetune(used)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    assert "Step 2 of 12 is saved in" in caplog.text
    interrupt_at(8, monkeypatch, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit, match="143"):
        finetune(used)
    assert (tmp_path / "checkpoint-8").is_dir() and not (tmp_path / "metrics.json").exists()
    report = finetune(used)
    log = json.loads((tmp_path / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in log if "loss" in entry] == list(range(1, 13))
    assert [entry["epoch"] for entry in log if "eval_srcc" in entry] == [1, 2, 3]
    assert finetune(used) == report


def test_checkpoints_within_an_epoch_continue_with_its_other_pictures(scores_csv, blank, tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    def kill() -> None:
        raise Killed

    seen: list[str] = []
    original = TrainingCollator.__call__

    def note(collator, rows):
        seen.extend(Path(row["image"]["path"]).name for row in rows)
        return original(collator, rows)

    monkeypatch.setattr(TrainingCollator, "__call__", note)
    used = settings(scores_csv, blank, tmp_path, epochs=1, save_steps=1, resume=True)
    interrupt_at(3, monkeypatch, kill)
    with pytest.raises(Killed):
        finetune(used)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    first = seen[:10]
    seen.clear()
    finetune(used)
    assert len(seen) == 10 and sorted(first + seen) == sorted(f"{index}.png" for index in range(20))


def test_the_finished_checkpoint_is_uploaded(scores_csv, blank, tmp_path, monkeypatch):
    done: list[tuple[str, ...]] = []
    monkeypatch.setattr("musiq_hf.training.finetuning.check_upload", lambda name: done.append(("check", name)))
    monkeypatch.setattr(
        "musiq_hf.training.finetuning.upload",
        lambda model, name, folder: done.append(("upload", name, folder, (tmp_path / "metrics.json").is_file())),
    )
    used = settings(scores_csv, blank, tmp_path, epochs=1, push_to_hub="owner/name")
    finetune(used)
    assert done == [("check", "owner/name"), ("upload", "owner/name", str(tmp_path), True)]
    assert "owner/name" not in (tmp_path / "README.md").read_text()
    with pytest.raises(ValueError, match="`push_to_hub` uploads one checkpoint, but several runs make several"):
        repeat_runs(used, runs=2, output_dir=tmp_path / "runs")


def test_loss_and_choice_of_the_epoch_are_drawn(scores_csv, blank, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("musiq_hf.training.trainer.write_training_curves", write_training_curves)
    finetune(settings(scores_csv, blank, tmp_path / "drawn", epochs=1))
    with Image.open(tmp_path / "drawn" / "training.png") as image:
        assert image.size[0] > 1000 and len(image.convert("RGB").getcolors(1 << 20) or ()) > 10
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    finetune(settings(scores_csv, blank, tmp_path / "undrawn", epochs=1))
    assert not (tmp_path / "undrawn" / "training.png").exists()
    assert 'training.png is not drawn: matplotlib is needed here. Install it with: pip install "mu' in caplog.text


def test_resume_with_other_settings_is_refused(scores_csv, blank, tmp_path):
    finetune(settings(scores_csv, blank, tmp_path, epochs=1))
    with pytest.raises(ValueError, match="`batch_size` was 5 and is 4 now. Give the old one"):
        finetune(settings(scores_csv, blank, tmp_path, epochs=1, batch_size=4, resume=True))
    (tmp_path / "checkpoint-99").mkdir()  # a run that was killed while it wrote this one goes on from the one before
    changes = {"epochs": 1, "num_workers": 1, "eval_batch_size": 2, "save_dtype": "float16", "resume": True}
    found = find_last_checkpoint(settings(scores_csv, blank, tmp_path, **changes))
    assert Path(found).name == "checkpoint-4"


def test_directory_of_another_run_is_not_mixed_up(scores_csv, blank, tmp_path):
    (tmp_path / "checkpoint-4").mkdir()
    sentence = "another run, which is not finished. .* another `--output_dir`, .*; `--resume` continues that run"
    with pytest.raises(ValueError, match=sentence):
        finetune(settings(scores_csv, blank, tmp_path))
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(ValueError, match="another run, which is finished. .*; `--resume` only measures that"):
        finetune(settings(scores_csv, blank, tmp_path))


def test_checkpoint_and_processor_must_agree(scores_csv, blank, tmp_path):
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_text((Path(blank) / name).read_text())
    MusiqImageProcessor(patch_size=16).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="must agree on `patch_size`"):
        finetune(settings(scores_csv, str(tmp_path), tmp_path / "out"))


def run_example(*words: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(ROOT / "examples" / "finetune.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_command_without_data_says_what_to_type(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["finetune.py"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "examples" / "finetune.py"), run_name="__main__")
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert "finetune: --data is needed" in said
    assert "accelerate launch examples/finetune.py --data" in said


@pytest.mark.slow
def test_command_trains_and_accepts_hyphens(scores_csv, blank, tmp_path):
    words = ("--data", scores_csv, "--model", blank, "--output-dir", str(tmp_path), "--epochs", "1")
    result = run_example(*words)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "metrics.json").exists()
    assert MusiqConfig.from_pretrained(tmp_path).architectures == ["MusiqForImageQualityAssessment"]


@pytest.mark.slow
def test_command_answers_wrong_data_with_one_sentence(blank, tmp_path):
    result = run_example("--data", "absent.csv", "--model", blank, "--output_dir", str(tmp_path))
    assert result.returncode == 2
    assert "finetune: absent.csv: no such file" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "`epochs` must be positive, got 0"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"save_dtype": "float8"}, "`save_dtype` must be 'float32' or 'float16', got 'float8'"),
    ],
)
def test_wrong_settings_are_refused_at_once(changes, message):
    with pytest.raises(ValueError, match=message):
        FinetuneSettings(data="d", output_dir="o", model="m", **changes)


def test_too_few_pictures_are_refused_before_training(scores_csv, blank, tmp_path):
    with pytest.raises(ValueError, match="The selection pictures must be at least 3, got 1"):
        finetune(settings(scores_csv, blank, tmp_path, holdout_fraction=0.05))
