# SPDX-License-Identifier: Apache-2.0
"""Methods of measuring: interleaved medians, the rate of a large matrix product, peak resident memory.

A busy machine changes its pace within seconds. Functions that are compared therefore run in turns (A, B, A, B, ...),
and only ratios of medians of one run are taken as results.
"""

import contextlib
import ctypes
import datetime
import gc
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from musiq_hf.common.devices import name_processor

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # written to clear_refs, it makes Linux reset the record of the peak
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PRODUCT_SIDES = (2048, 3072, 4096)


def summarize(seconds: Sequence[float]) -> dict[str, Any]:
    """Return median, median absolute deviation and the raw times, in seconds.

    Raises:
        ValueError: If no time is given.
    """
    if not seconds:
        raise ValueError("At least one time is needed, got none.")
    median = statistics.median(seconds)
    deviation = statistics.median(abs(value - median) for value in seconds)
    return {"median": median, "deviation": deviation, "seconds": list(seconds)}


def ratio(slower: Mapping[str, Any], faster: Mapping[str, Any]) -> float:
    """Return how many times as long the first takes as the second, from two summaries."""
    return float(slower["median"] / faster["median"])


def synchronize(device: str) -> None:
    """Wait until a GPU has finished its work; a CPU has none left when a call returns."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def time_once(function: Callable[[], object], *, device: str = "cpu") -> float:
    """Measure the seconds of one call."""
    synchronize(device)
    start = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - start


def interleave(
    contenders: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    warmups: int = 1,
    device: str = "cpu",
    budget: float | None = None,
) -> dict[str, dict[str, Any]]:
    """Time functions in turns.

    Args:
        contenders: Functions by name.
        repeats: Number of rounds, >= 1; in each of them every function runs once.
        warmups: Number of rounds before these, which are not counted.
        device: Device that the functions use.
        budget: Seconds after which no further round begins; one round always runs. None = no limit.

    Returns:
        Summary of the times by name, as `summarize` makes it.

    Raises:
        ValueError: If `repeats` is below 1.
    """
    if repeats < 1:
        raise ValueError(f"`repeats` must be at least 1, got {repeats}.")
    start = time.monotonic()
    for _ in range(warmups):
        for function in contenders.values():
            function()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(repeats):
        if number and budget is not None and time.monotonic() - start > budget:
            break
        for name, function in contenders.items():
            times[name].append(time_once(function, device=device))
    return {name: summarize(values) for name, values in times.items()}


@dataclass(frozen=True)
class Product:
    """Matrix product whose rate is an upper bound for that of a model.

    Attributes:
        name: Library and side, such as "torch.mm 4096".
        operations: Number of floating point operations of one call.
        run: Function that computes the product.
        rate: Operations per second of the fastest call.
    """

    name: str
    operations: float
    run: Callable[[], object]
    rate: float


def _make_products(side: int, dtype: torch.dtype, device: str) -> dict[str, Callable[[], object]]:
    """Make functions that compute one product by each library; that of torch.mm may be slow, such as MKL on AMD."""
    x, w = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    functions: dict[str, Callable[[], object]] = {f"torch.mm {side}": lambda: torch.mm(x, w)}
    onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if device == "cpu" else None
    if onednn is not None:
        functions[f"oneDNN {side}"] = lambda: onednn(x, w, None, "none", [], "")
    return functions


def measure_products(
    dtype: str, *, sides: Sequence[int] = PRODUCT_SIDES, repeats: int = 3, device: str = "cpu"
) -> list[Product]:
    """Measure square matrix products, best first; a library that refuses the type is left out."""
    found = []
    for side in sides:
        for name, run in _make_products(side, DTYPES[dtype], device).items():
            try:
                run()
                seconds = min(time_once(run, device=device) for _ in range(repeats))
            except (RuntimeError, NotImplementedError):
                continue
            found.append(Product(name, 2.0 * side**3, run, 2.0 * side**3 / seconds))
    return sorted(found, key=lambda product: -product.rate)


def rates(products: Sequence[Product]) -> dict[str, float]:
    """Return the operations per second of products by name, for the JSON file."""
    return {product.name: product.rate for product in products}


def _read_status_bytes(field: str) -> int | None:
    if not STATUS.exists():
        return None
    lines = [line.split() for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:")]
    return int(lines[0][1]) * 1024 if lines else None


def _read_largest_resident() -> int:
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _return_free_memory() -> None:
    """Return freed memory to the system, if the C library can; memory that is used again would not raise the peak."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def peak_above(function: Callable[[], Any]) -> tuple[Any, int]:
    """Run a function, and measure how far resident memory rose above its level before.

    Outside of Linux the system's record of the peak cannot be reset. Use a fresh process there: if this one was larger
    before, the measured rise is too small.

    Args:
        function: Function to run.

    Returns:
        The result of the function, and the rise in bytes.
    """
    gc.collect()
    _return_free_memory()
    try:
        CLEAR_REFS.write_text(RESET_PEAK)
        before = _read_status_bytes("VmRSS")
    except OSError:
        before = None
    if before is None:
        largest = _read_largest_resident()
        return function(), _read_largest_resident() - largest
    result = function()
    return result, (_read_status_bytes("VmHWM") or before) - before


def describe_machine(device: str = "cpu") -> dict[str, Any]:
    """Describe what a result depends on: processor or GPU, threads, versions, date, and load of the machine."""
    machine: dict[str, Any] = {
        "processor": name_processor(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }
    if torch.device(device).type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(device)
        machine["cuda"] = torch.version.cuda
    return machine
