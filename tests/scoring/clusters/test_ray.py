# SPDX-License-Identifier: Apache-2.0
"""Jobs in workers: some live in this process, and others in a cluster, which is started where Ray is installed."""

import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile
from places import ROOT

from musiq_hf import DEFAULT_CHECKPOINT, MusiqImageProcessor
from musiq_hf.assessment import Calibration
from musiq_hf.pictures import Columns, find_parts
from musiq_hf.pictures.decoding import CRASHED, DecoderLimits
from musiq_hf.pictures.sources.parts import Part
from musiq_hf.scoring import RayScorers, ScoreJob, ScorerSettings, Share, run_job, score_rows
from musiq_hf.scoring import ray as engine
from musiq_hf.scoring.dispatch import WorkerLost
from musiq_hf.scoring.ray import Resources, Worker, choose_resources

NUM_PICTURES = 25  # more than one part
ONE_CPU = Resources(1, 1, 0)
PATTERNS = ["photos/*.png", "hf://datasets/owner/name"]


@pytest.fixture
def photos(tmp_path, monkeypatch, alone, tiny_model):
    """Pictures in files, a table with repeated keys and a tar, and checkpoints a and b, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name, options in (("a", {"score_range": (-10, 10)}), ("b", {"score_range": (30, 50), "seed": 1})):
        model = tiny_model(**options)
        model.save_pretrained(name)
        MusiqImageProcessor.from_config(model.config).save_pretrained(name)
    Path("photos").mkdir()
    for i in range(NUM_PICTURES):
        pixels = np.random.default_rng(i).integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{i:02d}.png")
    Path("photos/20.png").write_bytes(b"no picture")
    Path("photos/notes.txt").touch()
    lines = [f"photos/{i:02d}.png,id{min(i, 23)}" for i in range(NUM_PICTURES)]
    Path("table.csv").write_text("\n".join(["image,id", *lines]) + "\n")
    with tarfile.open("photos.tar", "w") as tar:
        tar.add("photos")
    return tmp_path


def make_job(output=None, paths=("photos", "photos.tar", "table.csv"), **settings):
    return ScoreJob(paths, **{"output": output, "models": ["a"], "device": "cpu"} | settings)


def interrupt_at(number):
    """Progress that Ctrl-C ends as soon as a number of pictures is scored."""

    def on_progress(totals):
        if totals.pictures == number:
            raise KeyboardInterrupt

    return on_progress


class LocalPool:
    """Pool whose workers live in this process: what they are given is done at once."""

    def __init__(self, ray, setup, resources):
        self.setup, self.workers, self.results = setup, {}, {}

    def start(self, worker):
        self.workers[worker] = Worker(self.setup)
        return self.add(self.workers[worker].load)

    def submit(self, worker, part):
        return self.add(partial(self.workers[worker].score, part))

    def add(self, work):
        self.results[len(self.results)] = work
        return len(self.results) - 1

    def wait(self, tickets, timeout=None):
        return tickets[-1]

    def take(self, ticket):
        return self.results[ticket]()

    def close(self):
        self.workers.clear()


@pytest.fixture
def local_cluster(monkeypatch):
    """Cluster of one machine with four CPUs, whose workers live in this process."""
    node = {"Alive": True, "Resources": {"CPU": 4.0}}
    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(is_initialized=lambda: True, nodes=lambda: [node]))
    monkeypatch.setattr(engine, "_RayPool", LocalPool)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"models": ["a", "b"], "weights": (3, 1), "shorter_side": 18},
        {"share": Share(2, 3), "preset": "google"},
        {"columns": Columns(key="id"), "paths": ["table.csv", "photos"], "max_megapixels": 0.0009},
        {"calibration": Calibration.fit(range(100))},
    ],
)
def test_the_table_of_workers_is_that_of_one_process(photos, local_cluster, caplog, settings):
    one, several = (make_job(f"{name}.csv", engine=name, **settings) for name in ("local", "ray"))
    result = run_job(one)
    messages = list(caplog.messages)
    caplog.clear()
    assert run_job(several) == result and result.errors
    assert several.table.read_bytes() == one.table.read_bytes()
    assert sorted(caplog.messages) == sorted(messages)
    assert run_job(several).state == "found"


@pytest.mark.parametrize("engines", [("local", "ray"), ("ray", "local"), ("ray", "ray")])
def test_a_run_goes_on_with_another_engine(photos, local_cluster, engines, caplog):
    settings = {"paths": ["table.csv", "photos.tar"], "columns": Columns(key="id")}
    run_job(make_job("whole.csv", **settings))
    for name, number in zip(engines * 2, (3, 18, 40), strict=False):
        with pytest.raises(KeyboardInterrupt):
            run_job(make_job("scores.csv", engine=name, **settings), on_progress=interrupt_at(number))
    seen = []
    caplog.clear()
    run_job(make_job("scores.csv", engine=engines[1], **settings), on_progress=seen.append)
    assert seen[0].pictures == 40 and Path("scores.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert any("Several rows have the key 'id23'" in message for message in caplog.messages)


def test_pictures_that_have_changed_are_noticed(photos, local_cluster):
    with pytest.raises(KeyboardInterrupt):
        run_job(make_job("scores.csv", engine="ray"), on_progress=interrupt_at(20))
    Path("photos/00.png").rename("photos/zz.png")
    with pytest.raises(ValueError, match="the pictures have changed since the run began .photos/00.png was expected"):
        run_job(make_job("scores.csv", engine="ray"))


def test_rows_of_workers_come_as_a_stream(photos, local_cluster):
    expected = list(score_rows(make_job(models=["a", "b"])))
    with closing(score_rows(make_job(models=["a", "b"], engine="ray"))) as stream:
        assert list(stream) == expected and stream.models == ["a", "b"]
    empty = Path("empty")
    empty.mkdir()
    with pytest.raises(ValueError, match="There is no picture in empty"):
        list(score_rows(make_job(paths=["empty"], engine="ray")))


def test_a_worker_scores_several_parts_as_one_stream(photos, monkeypatch):
    streams = []
    score = engine.Scorers.score

    def watch(self, sources):
        streams.append(threading.current_thread())
        return score(self, sources)

    monkeypatch.setattr(engine.Scorers, "score", watch)
    worker = Worker(engine._prepare(ScorerSettings(["a"], device="cpu"), ONE_CPU, ["photos"]))
    facts = worker.load()
    assert facts.terms.names == ["a"] and facts.threads == 1
    parts = list(find_parts(["photos"], size=4))
    with ThreadPoolExecutor(len(parts)) as threads:
        found = list(threads.map(worker.score, parts))
    assert [entry for entries in found for entry in entries] == list(score_rows(make_job(paths=["photos"])))
    assert list(map(len, found)) == [4] * 6 + [1]
    assert len(set(streams) - {threading.current_thread()}) == 1


def test_an_error_of_a_part_is_raised_for_it_and_the_worker_goes_on(photos):
    worker = Worker(engine._prepare(ScorerSettings(["a"], device="cpu"), ONE_CPU, ["photos"]))
    worker.load()
    (part,) = find_parts(["photos"], size=64)
    with pytest.raises(ValueError, match="photos: 2 rows were expected, got 0"):
        worker.score(Part("photos", lambda rows: iter(()), range(2)))
    assert len(worker.score(part)) == NUM_PICTURES


def test_a_worker_takes_over_the_folder_and_the_limits_of_its_process(photos, monkeypatch):
    for module, name in ((Image, "MAX_IMAGE_PIXELS"), (ImageFile, "LOAD_TRUNCATED_IMAGES")):
        monkeypatch.setattr(module, name, getattr(module, name))
    Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = 12345, True
    setup = engine._prepare(ScorerSettings(["a", str(DEFAULT_CHECKPOINT)], device="cpu"), ONE_CPU, PATTERNS)
    Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
    monkeypatch.chdir("photos")
    assert setup.settings.models == ["a", DEFAULT_CHECKPOINT.name] and setup.needed == ["a", "photos/00.png"]
    assert setup.load().terms.names == ["a", DEFAULT_CHECKPOINT.name]
    assert Path.cwd() == photos and DecoderLimits.read() == (12345, True)
    Path("photos/00.png").unlink()
    with pytest.raises(ValueError, match="photos/00.png is not on .*, a machine of the cluster, seen from .*. Give"):
        setup.load()


CPUS = [{"CPU": 4.0}, {"CPU": 3.0}]
GPUS = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 64.0}]


@pytest.mark.parametrize(
    ("nodes", "asked", "device", "expected"),
    [
        (CPUS, (None, 1, None), "auto", (7, 1, 0)),
        (CPUS, (None, 2, None), "auto", (3, 2, 0)),
        (CPUS, (5, 1, 0), "cpu", (5, 1, 0)),
        (GPUS, (None, 1, None), "auto", (2, 1, 1)),
        (GPUS, (None, 4, None), "cuda", (2, 4, 1)),
        (GPUS, (None, 1, 0.25), "auto", (8, 1, 0.25)),
        (GPUS, (None, 8, None), "cpu", (9, 8, 0)),
        (GPUS, (1, 1, 2), "auto", (1, 1, 2)),
    ],
)
def test_workers_are_as_many_as_there_is_room_for(nodes, asked, device, expected):
    assert choose_resources(nodes, *asked, device=device) == Resources(*expected)


@pytest.mark.parametrize(
    ("nodes", "asked", "device", "message"),
    [
        (
            CPUS,
            (1, 1, 1),
            "auto",
            "room for 0 workers, and 1 must fit: each takes 1 CPUs and 1 GPUs of .* all 2 machines have 7 and 0",
        ),
        (
            CPUS,
            (8, 1, 0),
            "auto",
            "room for 7 workers, and 8 must fit: each takes 1 CPUs and 0 GPUs",
        ),
        (
            CPUS,
            (None, 5, None),
            "auto",
            "room for 0 workers, and 1 must fit: each takes 5 .* Change --workers",
        ),
        (GPUS, (3, 1, 1), "auto", "room for 2 workers, and 3 must fit: each takes 1 CPUs and 1 GPUs"),
        (GPUS, (None, 1, 0), "cuda:0", "--device cuda:0 needs --gpus_per_worker, and the cluster has 2 GPUs"),
    ],
)
def test_workers_for_whom_there_is_no_room_are_refused(nodes, asked, device, message):
    with pytest.raises(ValueError, match=message):
        choose_resources(nodes, *asked, device=device)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 2}, "--workers is of the workers of a cluster, and needs --engine ray"),
        ({"gpus_per_worker": 0}, "--gpus_per_worker is of the workers of a cluster"),
        ({"engine": "spark"}, "`engine` must be 'local' or 'ray', got 'spark'"),
        ({"engine": "ray", "workers": 0}, "`workers` must be at least 1, got 0"),
        ({"engine": "ray", "gpus_per_worker": 1.5}, "`gpus_per_worker` must be a whole number or lie between 0 and 1"),
        ({"engine": "ray", "gpus_per_worker": -1}, "`gpus_per_worker` must be a whole number or lie between 0 and 1"),
        ({"engine": "ray", "gpus_per_worker": 1}, "--device cpu leaves no work for --gpus_per_worker 1. Drop one"),
    ],
)
def test_settings_of_workers_that_contradict_others_are_refused(alone, settings, message):
    with pytest.raises(ValueError, match=message):
        make_job("scores.csv", **settings)


def test_the_processes_of_a_launch_start_no_workers(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ValueError, match="--engine ray cannot be used by the 4 processes of one launch. Start"):
        make_job("scores.csv", engine="ray")


def test_a_missing_ray_is_named_with_its_extra(photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r'ray is needed here. Install it with: pip install "musiq_hf\[ray\]"'):
        run_job(make_job("scores.csv", engine="ray"))
    assert not Path("scores.csv.part").exists()


def test_a_gpu_that_is_not_there_or_cannot_be_used_is_refused(photos, monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(is_initialized=lambda: False))
    with pytest.raises(ValueError, match="--gpus_per_worker needs GPUs, and PyTorch finds none on this machine. Name"):
        run_job(make_job("scores.csv", engine="ray", device="auto", gpus_per_worker=0.5))
    setup = engine._prepare(ScorerSettings(["a"]), Resources(1, 1, 0.5), [])
    with pytest.raises(ValueError, match="PyTorch on .*, a machine of the cluster, cannot use the GPU there. Install"):
        setup.load()


def test_an_address_where_nobody_answers_is_said_at_once(photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(is_initialized=lambda: False))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
            monkeypatch.setenv("RAY_ADDRESS", address)
            with pytest.raises(OSError, match=f"No Ray cluster answers at {address}, which RAY_ADDRESS names"):
                run_job(make_job("scores.csv", engine="ray"))


def test_the_end_of_a_worker_is_described_in_one_line():
    ended = engine._describe_end("The actor died unexpectedly.\n\tclass_name: Worker\n\tactor_id: 1\n")
    assert isinstance(ended, WorkerLost) and str(ended) == "The actor died unexpectedly"
    text = (
        "The actor died because of an error raised in its creation task, \x1b[36mray::Worker\x1b[39m (pid=1)\n  ^^\n"
    )
    missing = engine._describe_end(text + "ModuleNotFoundError: No module named 'musiq_hf'\n")
    assert isinstance(missing, ImportError)
    assert str(missing).startswith(
        "musiq_hf cannot be loaded on a machine of the cluster (ModuleNotFoundError: No mod"
    )


# With a real cluster, on this machine.


@pytest.fixture(scope="module")
def cluster():
    """Cluster of two CPUs."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield ray
        ray.shutdown()


def find_workers(process=None):
    """Processes of the workers that descend from a process, or from this one."""
    import psutil

    def is_worker(process):
        try:
            return "".join(process.cmdline()[:1]).startswith("ray::Worker")
        except psutil.NoSuchProcess:  # it has just ended
            return False

    return [*filter(is_worker, (process or psutil.Process()).children(recursive=True))]


@pytest.mark.slow
def test_a_cluster_gives_the_table_of_one_process_though_a_worker_is_killed(photos, cluster):
    settings = {"models": ["a", "b"], "weights": (3, 1)}
    result = run_job(make_job("whole.csv", **settings))
    killed = []

    def kill_one(totals):
        if totals.pictures == 20:
            worker = find_workers()[0]
            worker.kill()
            killed.append(worker)

    job = make_job("scores.csv", engine="ray", cpus_per_worker=1, **settings)
    assert run_job(job, on_progress=kill_one) == result and len(killed) == 1
    assert job.table.read_bytes() == Path("whole.csv").read_bytes()
    assert cluster.is_initialized()


def read_some(paths, poison, rows):
    """Sources of files, one of which ends the process that reads it."""
    for row in rows:
        if row == poison and threading.current_thread() is not threading.main_thread():
            os.kill(os.getpid(), signal.SIGKILL)
        yield paths[row], paths[row]


@pytest.mark.slow
def test_a_picture_that_ends_its_worker_is_one_row_and_nothing_else_is_missing(photos, cluster):
    paths = [str(path) for path in sorted(Path("photos").glob("*.png"))]
    read = partial(read_some, paths, 7)
    parts = [Part("photos", read, range(first, min(first + 4, len(paths)))) for first in range(0, len(paths), 4)]
    with closing(RayScorers(ScorerSettings(["a"], device="cpu"), workers=2, paths=["photos"])) as scorers:
        rows = [row for (row,) in scorers.score(iter(parts))]
    expected = [row for (row,) in score_rows(make_job(paths=["photos"]))]
    assert rows[7].error == f"{paths[7]}: {CRASHED}."
    assert rows[:7] + rows[8:] == expected[:7] + expected[8:]
    assert not find_workers()


@pytest.mark.slow
def test_errors_of_workers_are_those_of_one_process(photos, cluster):
    with pytest.raises(ValueError, match="room for 0 workers, and 1 must fit: each takes 1 CPUs and 1 GPUs"):
        run_job(make_job("scores.csv", engine="ray", device="auto", workers=1, gpus_per_worker=1))
    Path("b/config.json").unlink()
    with pytest.raises(ValueError, match="b: neither a directory with a config.json nor an id on the Hub"):
        run_job(make_job("scores.csv", engine="ray", models=["b"]))
    assert not Path("scores.csv.part").exists()


@pytest.mark.slow
def test_nothing_of_ray_is_imported_until_a_cluster_is_asked_for(cluster):
    script = "import musiq_hf.scoring, musiq_hf.cli.score, sys; raise SystemExit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=300).returncode == 0


def run_command(*words, kill=False):
    """Run `musiq score` in a process of its own, and kill its worker after the first line if that is asked for."""
    import psutil

    command = [sys.executable, "-m", "musiq_hf.cli", "score", "photos", "-m", "a", "--device", "cpu", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    output = Path("output.txt")
    with open(output, "w") as file:
        process = subprocess.Popen(command, env=environment, text=True, stdout=file, stderr=subprocess.PIPE)
        with process:
            while kill and not output.stat().st_size and process.poll() is None:
                time.sleep(0.05)
            if kill:
                (worker,) = find_workers(psutil.Process(process.pid))
                worker.kill()
            errors = process.communicate(timeout=300)[1]
    return process.returncode, output.read_text(), errors


@pytest.mark.slow
def test_the_command_prints_nothing_of_ray_even_if_a_worker_ends(photos, cluster):
    for i in range(200):  # so many that a worker is still at work after the first of them
        os.link("photos/00.png", f"photos/more{i}.png")
    expected = run_command()
    assert expected[0] == 1 and "made with a, signature a|" in expected[2]
    assert run_command("--engine", "ray", "--workers", "1", kill=True) == expected
