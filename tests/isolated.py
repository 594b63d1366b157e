# SPDX-License-Identifier: Apache-2.0
"""Checkpoints to load, and fresh processes to load them in as a user would."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from launching import BELOW_TRANSFORMERS, launch
from PIL import Image
from places import ROOT

from musiq_hf import MusiqForImageClassification, MusiqImageProcessor, MusiqModel
from musiq_hf.common.files import read_json, write_json

# What every script starts with: no way out but the loopback, a picture, and all the ways to load a checkpoint.
PRELUDE = '''
import json, os, sys

strangers = []

def watch(event, arguments):
    if event == "socket.getaddrinfo" and arguments[0] != "127.0.0.1":
        strangers.append(str(arguments[0]))
        raise OSError(f"only the loopback may be reached, not {arguments[0]}")

sys.addaudithook(watch)

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification, pipeline

PICTURE, result = os.environ["PICTURE"], {}
autos = [AutoModel, AutoModelForImageClassification]

def describe(model, name, options):
    """Class, where its code is, and what it says about the picture."""
    processor = AutoImageProcessor.from_pretrained(name, **options)
    with torch.no_grad():
        output = model(**processor(Image.open(PICTURE), return_tensors="pt"))
    scores = output.scores.tolist() if "scores" in output else None
    return {"class": type(model).__name__, "module": type(model).__module__, "scores": scores}

def load(name, **options):
    """What the Auto classes and the two pipelines make of `name`."""
    report = {auto.__name__: describe(auto.from_pretrained(name, **options), name, options) for auto in autos}
    for task in ("image-quality-assessment", "image-classification"):
        answer = pipeline(task, model=name, **options)(PICTURE)
        report[task] = answer["score"] if isinstance(answer, dict) else answer[0]["score"]
    return report
'''
EPILOGUE = """
print("\\n" + json.dumps(result | {"strangers": strangers, "musiq_hf imported": "musiq_hf" in sys.modules}))
"""


def save_picture(path: Path) -> Path:
    """A picture with gradients and noise, as a file without losses."""
    noise = torch.randint(0, 64, (30, 41, 3), generator=torch.Generator().manual_seed(11))
    ramp = torch.linspace(0, 190, 41)[None, :, None]
    Image.fromarray((noise + ramp).to(torch.uint8).numpy()).save(path)
    return path


def remove_code(directory: Path) -> None:
    """Make a checkpoint one that an earlier version saved: without code, and without names of classes in it."""
    for path in directory.glob("*_*.py"):
        path.unlink()
    for name in ("config.json", "preprocessor_config.json"):
        named = {"auto_map", "custom_pipelines"}
        content = {key: value for key, value in read_json(directory / name).items() if key not in named}
        write_json(directory / name, content)


def save_checkpoints(directory: Path, tiny_model: Any, tiny_config: Any) -> dict[str, Path]:
    """Four checkpoints by kind: plain and published (both named musiq-koniq), classifier and backbone."""
    # A score far from what a sigmoid could give, in a unit that is not the logit's.
    model = tiny_model(score_range=(0, 100), score_offset=60.0, score_scale=20.0)
    checkpoints = {
        "plain": (model, directory / "plain" / "musiq-koniq"),
        "published": (model, directory / "published" / "musiq-koniq"),
        "classifier": (MusiqForImageClassification(tiny_config(num_labels=7)), directory / "imagenet"),
        "backbone": (MusiqModel(tiny_config()), directory / "backbone"),
    }
    for saved, path in checkpoints.values():
        saved.save_pretrained(path)
        MusiqImageProcessor.from_config(saved.config).save_pretrained(path)
    remove_code(checkpoints["plain"][1])
    return {kind: path for kind, (_, path) in checkpoints.items()}


def fill_cache(home: Path, repo: str, folder: Path) -> None:
    """Lay a folder out as the cache entry of a repository, as huggingface_hub would after a download."""
    entry, commit = home / "hub" / f"models--{repo.replace('/', '--')}", "c0ffee" + "0" * 34
    shutil.copytree(folder, entry / "snapshots" / commit)
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text(commit)


def run_isolated(
    script: str, *, home: Path, cwd: Path, picture: Path, endpoint: str | None = None, package: bool, **variables: str
) -> dict[str, Any]:
    """Run a script in a fresh process without terminal and return its `result`.

    Args:
        script: Python; it may use what `PRELUDE` defines, and fills `result`.
        home: Its HF_HOME.
        cwd: Where it runs.
        picture: The picture that it scores.
        endpoint: Address of a fake Hub; without one the process is offline.
        package: Whether the repository is on its path. If not, it must not have imported `musiq_hf`.
        **variables: Further environment.
    """
    foreign = ("HF_", "HUGGING", "TRANSFORMERS_", "PYTHONPATH", "HTTP", "ALL_PROXY", "OMP_")
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith(foreign)}
    environment |= {"HF_HOME": str(home), "PICTURE": str(picture), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment |= {"HF_ENDPOINT": endpoint} if endpoint else {"HF_HUB_OFFLINE": "1"}
    environment |= {"PYTHONPATH": str(ROOT)} if package else {}
    words = ["-c", PRELUDE + script + EPILOGUE]
    done = launch(words, environment=environment | variables, cwd=cwd, libraries=BELOW_TRANSFORMERS)
    if done.returncode:
        raise RuntimeError(f"The script failed.\n{done.stdout}\n{done.stderr}")
    result = json.loads(done.stdout.splitlines()[-1])
    assert result.pop("strangers") == []
    assert result.pop("musiq_hf imported") is package
    return result | {"stderr": done.stderr}
