# SPDX-License-Identifier: Apache-2.0
"""Checkpoints on the machines of a Ray cluster, each copy in a process of its own that reads and scores parts.

Ray is imported where a cluster is asked for, and is an extra. Nothing of it is in a table.
"""

import itertools
import multiprocessing
import os
import platform
import queue
import re
import socket
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, NamedTuple

import torch

from ..common.devices import find_device
from ..common.extras import require
from ..models.auto import EMBEDDED, register
from ..pictures import decoding
from ..pictures.decoding import DecoderLimits
from ..pictures.lazy import Source
from ..pictures.sources.parts import Part, read_part
from ..pictures.sources.paths import find_matches
from .dispatch import IN_FLIGHT, Dispatcher, WorkerFacts, WorkerLost
from .rows import Entry, Scorers, ScorerSettings, Terms

ADDRESS = "RAY_ADDRESS"  # of a cluster, as for every program that uses Ray
LOCAL = "local"  # address that starts a cluster on this machine
SECONDS_TO_ANSWER = 5.0
COLOURS = re.compile(r"\x1b\[\d+m")
MOST_NEEDED = 100  # paths that each worker looks for
PART_SIZES = {"cpu": 16, "gpu": 64}  # pictures of a part: a few seconds of work


class Resources(NamedTuple):
    """Workers of a cluster, and what each of them holds.

    Attributes:
        workers: Number of workers.
        cpus: CPUs of each worker, which compute and decode.
        gpus: GPUs of each worker, which may be a fraction.
    """

    workers: int
    cpus: int
    gpus: float


def choose_resources(
    nodes: Sequence[Mapping[str, float]], workers: int | None, cpus: int, gpus: float | None, *, device: str
) -> Resources:
    """Choose the workers of a cluster, by default as many as it has GPUs or, without any, CPUs.

    Args:
        nodes: Resources of each machine, by the names that Ray has for them.
        workers: Number of workers; None takes as many as there is room for.
        cpus: CPUs of each worker.
        gpus: GPUs of each worker; None takes one where the cluster has any and the device may be one.
        device: Device on which workers score.

    Raises:
        ValueError: If there is no room for the workers, or their device contradicts their GPUs.
    """
    total = {name: sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
    if gpus is None:
        gpus = 1 if total["GPU"] and device != "cpu" else 0
    if device.startswith("cuda") and not gpus:
        raise ValueError(f"--device {device} needs --gpus_per_worker, and the cluster has {total['GPU']:g} GPUs.")
    wanted = {"CPU": cpus, "GPU": gpus}
    room = sum(min(int(node.get(name, 0) / need) for name, need in wanted.items() if need) for node in nodes)
    if room < (workers or 1):
        raise ValueError(
            f"The cluster has room for {room} workers, and {workers or 1} must fit: each takes {cpus:g} CPUs and "
            f"{gpus:g} GPUs of one machine, and all {len(nodes)} machines have {total['CPU']:g} and "
            f"{total['GPU']:g}. Change --workers, --cpus_per_worker or --gpus_per_worker, or start machines first."
        )
    return Resources(workers or room, cpus, gpus)


@dataclass(frozen=True)
class _Setup:
    """Orders of a worker: what it loads, and what it has to take over from the process that gives the orders.

    Attributes:
        settings: Checkpoints and the way in which they score.
        cpus: Threads that compute, and cores that may be used.
        has_gpu: Whether the worker has a GPU, or a part of one.
        limits: Pillow's limits.
        folder: Working directory, from which relative paths start.
        needed: Paths that must be there.
    """

    settings: ScorerSettings
    cpus: int
    has_gpu: bool
    limits: DecoderLimits
    folder: str
    needed: Sequence[str]

    def load(self) -> Scorers:
        """Load the checkpoints in the process of a worker.

        Raises:
            ValueError: If a path, a checkpoint or the device cannot be used here.
        """
        if os.path.isdir(self.folder):
            os.chdir(self.folder)
        for path in self.needed:
            if not os.path.lexists(path):
                raise ValueError(
                    f"{path} is not on {platform.node()}, a machine of the cluster, seen from {self.folder}. Give "
                    "pictures and checkpoints paths that lead to the same files on all machines."
                )
        if self.has_gpu and find_device(self.settings.device).type == "cpu":
            raise ValueError(
                f"PyTorch on {platform.node()}, a machine of the cluster, cannot use the GPU there. Install it for "
                "that GPU, or score on CPUs by --gpus_per_worker 0."
            )
        self.limits.adopt()
        if sys.platform != "win32":  # imports what decoding needs once, for all processes that decode
            multiprocessing.set_forkserver_preload([decoding.__name__])
        register()
        torch.set_num_threads(self.cpus)
        return self.settings.load(cores=self.cpus)


class _Work:
    """Part that a worker has been given, its rows so far, and their future."""

    def __init__(self, part: Part):
        self.part, self.entries, self.future = part, list[Entry](), Future[list[Entry]]()


class Worker:
    """Process of a cluster that holds the checkpoints and scores parts, several of which are there at once.

    One thread scores them as one stream, so that decoding and batches run on from part to part.
    """

    def __init__(self, setup: _Setup):
        self._setup = setup
        self._waiting = queue.SimpleQueue[_Work]()

    def load(self) -> WorkerFacts:
        """Load the checkpoints, and say what they are."""
        scorers = self._setup.load()
        threading.Thread(target=self._run, args=(scorers,), daemon=True).start()
        return WorkerFacts(scorers.terms, scorers.threads, platform.node())

    def score(self, part: Part) -> list[Entry]:
        """Score the pictures of a part, and return the rows of each; an error of reading them is raised."""
        work = _Work(part)
        self._waiting.put(work)
        return work.future.result()

    def _run(self, scorers: Scorers) -> None:
        """Score all that comes, one stream after the other; a stream ends where nothing more waits."""
        while True:
            begun = deque([self._waiting.get()])
            try:
                for entry in scorers.score(self._read(begun)):
                    work = begun[0]
                    work.entries.append(entry)
                    if len(work.entries) == len(work.part):
                        begun.popleft().future.set_result(work.entries)
            except BaseException as error:
                for work in begun:
                    work.future.set_exception(error)

    def _read(self, begun: deque[_Work]) -> Iterator[Source]:
        """Read the pictures of the part that has begun, and then of all that wait."""
        while True:
            yield from read_part(begun[-1].part)
            try:
                begun.append(self._waiting.get_nowait())
            except queue.Empty:
                return


class _RayPool:
    """Workers as actors of Ray, which start them where there is room."""

    def __init__(self, ray: ModuleType, setup: _Setup, resources: Resources):
        self._ray, self._setup = ray, setup
        self._actors: dict[int, Any] = {}
        # Restarts and retries are the dispatcher's: it knows which part was alone.
        self._kind = ray.remote(Worker).options(
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=IN_FLIGHT + 1,
        )

    def start(self, worker: int) -> Any:
        if worker in self._actors:
            self._end(self._actors.pop(worker))
        self._actors[worker] = self._kind.remote(self._setup)
        return self._actors[worker].load.remote()

    def submit(self, worker: int, part: Part) -> Any:
        return self._actors[worker].score.remote(part)

    def wait(self, tickets: Sequence[Any], timeout: float | None = None) -> Any:
        done, _ = self._ray.wait(list(tickets), timeout=timeout)
        return done[0] if done else None

    def take(self, ticket: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(ticket)
        except errors.RayTaskError as error:  # raised by our code
            raise error.cause from None
        except errors.RayError as error:  # the process or its machine has ended, or what it answered is lost
            raise _describe_end(str(error)) from None

    def _end(self, actor: Any) -> None:
        self._ray.kill(actor)

    def close(self) -> None:
        """End all workers."""
        while self._actors:
            self._end(self._actors.popitem()[1])


def _describe_end(message: str) -> Exception:
    """Return the error for Ray's message about a process that has ended, or could not begin."""
    lines = [line.strip() for line in COLOURS.sub("", message).splitlines() if line.strip()]
    if "creation task" in lines[0]:  # making a `Worker` loads this package, and nothing else
        return ImportError(
            f"musiq_hf cannot be loaded on a machine of the cluster ({lines[-1]}). Install the same version on all of "
            "them."
        )
    return WorkerLost(lines[0].rstrip("."))


class RayScorers:
    """Checkpoints in processes of a Ray cluster; `score` answers as those of one process would.

    The cluster is that to which Ray is connected already, or that of `RAY_ADDRESS`. Without either, one is started on
    this machine, and ended by `close`.

    Args:
        settings: Checkpoints, and the way in which they score.
        workers: Number of processes; None takes as many as the cluster has GPUs, or CPUs if it has none.
        cpus_per_worker: CPUs of each, which is the number of its threads.
        gpus_per_worker: GPUs of each, which may be a fraction. None takes one if the cluster has any.
        paths: Paths of pictures, as `pictures.find_parts` takes them. They must be on every machine.

    Attributes:
        terms: Names and signatures of the checkpoints, and what else follows from them.
        threads: Number of threads that compute in each worker.
        part_size: Number of pictures that a part should have.

    Raises:
        ImportError: If Ray is not installed.
        ValueError: If the cluster has no room for the workers, or a checkpoint, a path or the device cannot be used.
        OSError: If the cluster cannot be reached, or workers end while they start.
    """

    def __init__(
        self,
        settings: ScorerSettings,
        *,
        workers: int | None = None,
        cpus_per_worker: int = 1,
        gpus_per_worker: float | None = None,
        paths: Sequence[str] = (),
    ):
        self._ray = require("ray", extra="ray")
        self._pool: _RayPool | None = None
        self._end_connection = _connect(self._ray, needs_gpu=bool(gpus_per_worker))
        try:
            nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            resources = choose_resources(nodes, workers, cpus_per_worker, gpus_per_worker, device=settings.device)
            setup = _prepare(settings, resources, paths)
            self._pool = _RayPool(self._ray, setup, resources)
            self._dispatcher = Dispatcher(self._pool, resources.workers)
        except BaseException:
            self.close()
            raise
        self.terms: Terms = self._dispatcher.facts.terms
        self.threads = self._dispatcher.facts.threads
        self.part_size = PART_SIZES["gpu" if resources.gpus else "cpu"]

    def score(self, parts: Iterator[Part]) -> Generator[Entry, None, None]:
        """Score the pictures of parts, in order, with each checkpoint; to be called once.

        Args:
            parts: Parts, as `pictures.find_parts` finds them.

        Yields:
            Rows of one picture, in the order of the checkpoints.

        Raises:
            ValueError: If workers have different versions or checkpoints, or the parts raise it.
            OSError: If workers end again and again, or the parts raise it.
        """
        return self._dispatcher.score(parts)

    def close(self) -> None:
        """End the workers, and the cluster if it was started here."""
        if self._pool is not None:
            self._pool.close()
        self._end_connection()


def _prepare(settings: ScorerSettings, resources: Resources, paths: Sequence[str]) -> _Setup:
    """Prepare the orders of workers, which may have this package, and embedded checkpoints in it, in another place."""
    embedded = {str(path): name for name, path in EMBEDDED.items()}
    models = [embedded.get(model, model) for model in settings.models]
    needed = itertools.islice(find_matches([*models, *paths]), MOST_NEEDED)
    settings, has_gpu = replace(settings, models=models), resources.gpus > 0
    return _Setup(settings, resources.cpus, has_gpu, DecoderLimits.read(), os.getcwd(), list(needed))


def _connect(ray: ModuleType, *, needs_gpu: bool) -> Callable[[], None]:
    """Connect to the cluster of `RAY_ADDRESS`, or start one on this machine, unless there is a connection.

    Returns:
        Function that ends what was begun here.

    Raises:
        ValueError: If this machine lacks the GPU that is needed.
        OSError: If the cluster cannot be reached.
    """
    if ray.is_initialized():
        return _do_nothing
    address = os.environ.get(ADDRESS) or LOCAL
    _check_address(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == LOCAL:
        if needs_gpu and find_device("auto").type == "cpu":
            raise ValueError(
                f"--gpus_per_worker needs GPUs, and PyTorch finds none on this machine. Name a cluster by {ADDRESS}, "
                "or leave it out."
            )
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options["include_dashboard"] = False
    # Ray prints that a worker has ended on stdout, where a table may be, and has no setting for that.
    printing, show = ray._private.worker, ray._private.worker.print_to_stdstream
    printing.print_to_stdstream = _print_nothing

    def disconnect() -> None:
        ray.shutdown()
        printing.print_to_stdstream = show

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about Ray's own future
            ray.init(address, **options)
    except BaseException as error:
        disconnect()
        if not isinstance(error, OSError | RuntimeError | ValueError):
            raise
        reason = " ".join(str(error).split())
        raise OSError(
            f"The Ray cluster {address} ({ADDRESS}) cannot be used ({reason}). It must run the same versions of Ray "
            "and Python, and may ask for RAY_AUTH_MODE=token."
        ) from error
    return disconnect


def _check_address(address: str) -> None:
    """Raise an OSError if nobody answers at a host and port; Ray would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS_TO_ANSWER).close()
        except OSError as error:
            raise OSError(
                f"No Ray cluster answers at {address}, which {ADDRESS} names ({error}). Start it, or unset {ADDRESS} "
                "for a cluster on this machine."
            ) from error


def _do_nothing() -> None:
    """Do nothing."""


def _print_nothing(*words: Any, **options: Any) -> None:
    """Print nothing."""
