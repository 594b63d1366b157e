# SPDX-License-Identifier: Apache-2.0
"""Super-resolution in two processes: they train together and write one checkpoint. Slow."""

import os
import subprocess
import sys

import pytest
import torch
from places import ROOT
from safetensors.torch import load_file

from musiq_hf.pictures import make_picture

SCRIPT = str(ROOT / "examples" / "training" / "train_msit.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]


def train(command, folder, output):
    words = ["--pictures", str(folder), "--output", str(output), "--steps", "3", "--batch_size", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, SCRIPT, *words], capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_two_processes_train_together_and_write_one_checkpoint(tmp_path):
    for seed in range(3):
        make_picture(seed=seed, width=220, height=200).save(tmp_path / f"{seed}.png")
    printed = train(TORCHRUN, tmp_path, tmp_path / "two")
    assert printed.count("3 steps, ") == 1 and "x2.7" in printed
    assert "3 steps of Adam in 2 processes" in (tmp_path / "two" / "README.md").read_text()
    train([sys.executable], tmp_path, tmp_path / "one")
    two, one = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "one"))
    assert any(not torch.equal(two[name], one[name]) for name in two)
