# SPDX-License-Identifier: Apache-2.0
"""A server as a user starts it, and pictures of every kind; what uses them skips where gradio is missing."""

import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from places import ROOT

from musiq_hf.scoring import ScoreJob, score_rows

MODELS = ("musiq-lite-biq2021", "musiq-tiny-biq2021")
TURNED = 6  # value of EXIF's orientation: turn by a quarter
SECONDS = 120  # in which a server must have started on a busy machine


@dataclass(frozen=True)
class Server:
    """A server that runs: its process, the folder in which it keeps uploads, and the file of what it prints."""

    url: str
    process: subprocess.Popen
    temporary: Path
    log: Path


def find_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start(folder, *words, **variables):
    """Start `musiq serve`, and wait until it answers."""
    port = find_port()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment |= {"TMPDIR": str(folder)} | variables
    command = [sys.executable, "-m", "musiq_hf", "serve", "--port", str(port), *words]
    log = folder.with_name(f"{folder.name}.log")  # not a pipe, which would be full one day
    with open(log, "w") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
    server = Server(f"http://127.0.0.1:{port}", process, folder, log)
    for _ in range(SECONDS * 5):
        time.sleep(0.2)
        if process.poll() is not None:
            pytest.fail(log.read_text())
        if "Ctrl-C ends it" in log.read_text():
            return server
    process.kill()
    pytest.fail(log.read_text())


def stop(server):
    """End a server as the system does, and return what it has printed."""
    server.process.terminate()
    server.process.wait(timeout=60)
    return server.log.read_text()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    running = start(tmp_path_factory.mktemp("server"), "-m", MODELS[0], "-m", MODELS[1], "--max_megabytes", "2")
    yield running
    stop(running)


@pytest.fixture(scope="session")
def kinds(tmp_path_factory):
    """Pictures of every kind whose pixels are easily lost on the way, by name."""
    folder = tmp_path_factory.mktemp("kinds")
    whole = Image.open(ROOT / "examples" / "pictures" / "rocket_sharp.jpg").resize((320, 214))
    gray = (np.asarray(whole.convert("L"), dtype=np.uint16) * 257) // 2 + 8000
    exif = Image.Exif()
    exif[0x0112] = TURNED
    alpha = whole.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(whole.size))
    whole.save(folder / "photo.jpg", quality=90)
    whole.save(folder / "turned.jpg", quality=90, exif=exif)
    whole.convert("CMYK").save(folder / "cmyk.jpg", quality=90)
    whole.save(folder / "photo.webp", quality=80)
    whole.quantize(64).save(folder / "palette.gif")
    alpha.save(folder / "alpha.png")
    Image.fromarray(gray.astype(np.uint16)).save(folder / "gray16.png")
    Image.fromarray(gray.astype(np.uint16)).save(folder / "gray16.tif")
    whole.save(folder / "pages.tif", save_all=True, append_images=[whole.resize((80, 54))])
    return {path.name: path for path in sorted(folder.iterdir())}


@pytest.fixture(scope="session")
def expected(kinds):
    """Score of each of these pictures by the command, by name of picture and checkpoint."""
    paths = list(map(str, kinds.values()))
    scores = {}
    for entry in score_rows(ScoreJob(paths, models=MODELS, device="cpu")):
        for model, row in zip(MODELS, entry, strict=True):
            assert row.error is None
            scores[Path(row.key).name, model] = row.score
    return scores
