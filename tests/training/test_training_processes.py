# SPDX-License-Identifier: Apache-2.0
"""Training in processes of its own: several at once, killed and resumed, from every recipe. All slow."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from places import ROOT
from safetensors.numpy import load_file

from musiq_hf import MusiqImageProcessor
from musiq_hf.hub.checkpoints import save_checkpoint
from musiq_hf.training.recipes import RECIPES, read_recipe

SCRIPT = str(ROOT / "examples/finetune.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
pytestmark = pytest.mark.slow


@pytest.fixture
def table(tmp_path) -> str:
    """Pictures that a flip does not change, so that random flips change no loss."""
    generator, lines = np.random.default_rng(0), ["image,mos,split"]
    for index in range(36):
        half = generator.integers(0, 256, (24, 16, 3), dtype=np.uint8)
        Image.fromarray(np.concatenate((half, half[:, ::-1]), axis=1)).save(tmp_path / f"{index}.png")
        lines.append(f"{index}.png,{index % 7},{'train' if index < 24 else 'validation'}")
    (tmp_path / "scores.csv").write_text("\n".join(lines) + "\n")
    return str(tmp_path / "scores.csv")


def words(table: str, blank: str, output: Path, **changes: object) -> list[str]:
    values = {"data": table, "model": blank, "output_dir": output, "epochs": 2, "batch_size": 6, "optimizer": "sgd"}
    values |= {"learning_rate": 0.05} | changes
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def start(command: list[str]) -> subprocess.Popen:
    # Every step in the log; the scripts themselves log every twentieth.
    program = "import sys, runpy; from musiq_hf.training import trainer; trainer.LOGGING_STEPS = 1; "
    program += "sys.argv = sys.argv[1:]; "
    (Path(command[command.index("--output_dir") + 1]).parent / "run.py").write_text(
        program + "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    runner = str(Path(command[command.index("--output_dir") + 1]).parent / "run.py")
    position = next(index for index, word in enumerate(command) if word.endswith(".py"))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command[:position], runner, *command[position:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(process: subprocess.Popen) -> str:
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    return stdout


def log_of(output: Path, key: str) -> list[float]:
    log = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [entry[key] for entry in log if key in entry]


def test_two_processes_have_the_losses_and_gradients_of_one(table, blank, tmp_path):
    finish(start([sys.executable, SCRIPT, *words(table, blank, tmp_path / "one", ema_decay=0.6)]))
    output = finish(start([*TORCHRUN, SCRIPT, *words(table, blank, tmp_path / "two", batch_size=3, ema_decay=0.6)]))
    assert output.count('"selection"') == 1  # the main process alone reports
    for key in ("loss", "grad_norm"):
        one, two = log_of(tmp_path / "one", key), log_of(tmp_path / "two", key)
        assert len(one) == 8
        np.testing.assert_allclose(two, one, rtol=1e-3)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name in one:
        np.testing.assert_allclose(two[name], one[name], atol=1e-4)


def test_two_processes_train_where_a_part_of_the_forwards_has_a_further_loss(table, blank, tmp_path):
    changes = {"batch_size": 3, "fault_pairs": 1, "localisation_weight": 0.6, "max_steps": 2}
    finish(start([*TORCHRUN, SCRIPT, *words(table, blank, tmp_path / "out", **changes)]))
    assert len(log_of(tmp_path / "out", "localisation_loss")) == 2


def test_killed_run_resumes_with_the_losses_of_an_uninterrupted_one(table, blank, tmp_path):
    finish(start([sys.executable, SCRIPT, *words(table, blank, tmp_path / "whole", epochs=6)]))
    killed = tmp_path / "killed"
    command = [sys.executable, SCRIPT, *words(table, blank, killed, epochs=6)]
    process = start(command)
    while not list(killed.glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "metrics.json").exists()
    finish(start([*command, "--resume"]))
    assert log_of(killed, "loss") == log_of(tmp_path / "whole", "loss")
    assert log_of(killed, "eval_srcc") == log_of(tmp_path / "whole", "eval_srcc")


OTHERS = {"distill", "imagenet_pretrain", "quality_pretrain", "wmse_pretrain", "loda"}  # tested on their own
RECIPE_NAMES = sorted({path.stem for path in RECIPES.glob("*.yaml")} - OTHERS)


@pytest.mark.parametrize("recipe", RECIPE_NAMES)
def test_every_recipe_runs_two_steps(recipe, blank, tmp_path):
    lines = ["image,mos,split"]
    has_distributions = recipe == "ava"
    if has_distributions:
        lines = ["image,c1,c2,c3,split"]
    for index in range(12):
        Image.new("RGB", (40 + index, 32), (20 * index, 0, 0)).save(tmp_path / f"{index}.png")
        label = f"{index},5,3" if has_distributions else str(index)
        lines.append(f"{index}.png,{label},{'train' if index < 8 else 'validation'}")
    (tmp_path / "scores.csv").write_text("\n".join(lines) + "\n")
    command = [
        sys.executable,
        SCRIPT,
        "--recipe",
        recipe,
        "--dataset",
        "scores",
        "--data",
        str(tmp_path / "scores.csv"),
    ]
    command += ["--model", blank, "--output_dir", str(tmp_path / "out"), "--max_steps", "2", "--batch_size", "8"]
    if "holdout_fraction" in read_recipe(recipe):
        command += ["--holdout_fraction", "0"]
    finish(start(command))
    assert len(log_of(tmp_path / "out", "loss")) == 2


STAGES = {"quality_pretrain": ("eval_pair_accuracy", []), "wmse_pretrain": ("eval_loss", ["--embedding_size", "1"])}


@pytest.mark.parametrize("recipe", STAGES)
def test_stage_1_runs_two_steps_in_two_processes(recipe, blank, tmp_path):
    metric, words = STAGES[recipe]
    (tmp_path / "photos").mkdir()
    for index in range(8):
        Image.new("RGB", (60 + index, 52), (30 * index, 0, 99)).save(tmp_path / "photos" / f"{index}.png")
    command = [*TORCHRUN, str(ROOT / "examples/pretrain_quality.py"), "--recipe", recipe, *words]
    command += ["--data", str(tmp_path / "photos"), "--model", blank, "--output_dir", str(tmp_path / "out")]
    command += ["--max_steps", "2", "--batch_size", "2", "--self_made", "2", "--holdout_fraction", "0.4"]
    output = finish(start([*command, "--num_workers", "0"]))
    assert output.count(f'"{metric}"') == 1
    assert len(log_of(tmp_path / "out", "loss")) == 2


def test_a_teacher_teaches_in_two_processes(tiny_model, table, blank, tmp_path):
    model = tiny_model(score_range=[0, 100])
    save_checkpoint(model, MusiqImageProcessor.from_config(model.config), tmp_path / "teacher", dtype="float32")
    command = [*TORCHRUN, str(ROOT / "examples/distill.py"), "--recipe", "distill", "--dataset", "scores"]
    command += words(table, blank, tmp_path / "out", teacher=tmp_path / "teacher", max_steps=2, label_weight=0)
    output = finish(start(command))
    assert output.count('"selection"') == 1
    assert len(log_of(tmp_path / "out", "loss")) == 2
    assert "Its teacher was `teacher`." in (tmp_path / "out" / "README.md").read_text()
