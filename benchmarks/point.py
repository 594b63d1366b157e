# SPDX-License-Identifier: Apache-2.0
"""Measurement in a process of its own: time and peak memory of scoring one picture, or of training steps.

python -m benchmarks.point '{"who": "ours", "dtype": "bfloat16", "width": 1024, "height": 768}'
"""

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks import pyiqa_musiq
from benchmarks.inputs import Features, in_type, make_array, make_features, make_model, num_tokens, score_all
from benchmarks.measure import DTYPES, interleave, peak_above, summarize, time_once
from benchmarks.training_step import TrainingSpec, measure_training
from musiq_hf import MusiqConfig, MusiqForImageQualityAssessment, MusiqImageProcessor

ROOT = Path(__file__).parent.parent
MARK = "point: "  # beginning of the line that holds the result
WHO = ("ours", "ours from pixels", "pyiqa")


@dataclass(frozen=True)
class PointSpec:
    """Picture that one process scores, and the model that it measures.

    Attributes:
        who: "ours", "ours from pixels" (the streaming scorer on a decoded picture) or "pyiqa".
        dtype: "float32" or "bfloat16".
        width: Columns of the picture, in pixels.
        height: Rows of the picture, in pixels.
        threads: Number of threads of torch.
        repeats: Number of timed calls after the first, whose memory is measured; 0 = time the first call.
        config: Fields of `MusiqConfig` that differ from its defaults.
    """

    who: str
    dtype: str
    width: int
    height: int
    threads: int
    repeats: int = 0
    config: dict[str, Any] = field(default_factory=dict)


def _make_model_call(model: MusiqForImageQualityAssessment, features: Features) -> Callable[[], Any]:
    return lambda: model(**features)


def _build_scorer(spec: PointSpec) -> Callable[[], Any]:
    """Build the model, and return a function that makes the input and returns the call to measure.

    The input is made later than the model, so that its memory counts.
    """
    config = MusiqConfig(**spec.config)
    model = make_model(config)
    if spec.who == "pyiqa":
        network = pyiqa_musiq.build(model)
        del model
        return lambda: functools.partial(
            pyiqa_musiq.score,
            network,
            pyiqa_musiq.sequence(make_features(config, spec.width, spec.height), config),
        )
    in_type(model, DTYPES[spec.dtype])
    if spec.who == "ours":
        return lambda: _make_model_call(model, make_features(config, spec.width, spec.height))
    processor, picture = MusiqImageProcessor.from_config(config), make_array(spec.width, spec.height)
    return lambda: lambda: score_all([picture], model=model, processor=processor)


def measure_point(spec: PointSpec) -> dict[str, Any]:
    """Measure scoring in this process, which should be fresh.

    Returns:
        `seconds` (median), `timing` and `peak_bytes` above the loaded model, the input included.

    Raises:
        ValueError: If `who` or `dtype` is unknown, or pyiqa is to run in another type than float32.
    """
    if spec.who not in WHO or spec.dtype not in DTYPES:
        raise ValueError(f"`who` must be one of {WHO} and `dtype` of {tuple(DTYPES)}, got {spec.who}, {spec.dtype}.")
    if spec.who == "pyiqa" and spec.dtype != "float32":
        raise ValueError(f"pyiqa is measured in float32 only, got {spec.dtype}.")
    torch.set_num_threads(spec.threads)
    prepare = _build_scorer(spec)

    def first_call() -> tuple[Callable[[], Any], float]:
        call = prepare()
        return call, time_once(call)

    with torch.inference_mode():
        (call, first), peak = peak_above(first_call)
        timing = interleave({"call": call}, repeats=spec.repeats)["call"] if spec.repeats else summarize([first])
    tokens = num_tokens(MusiqConfig(**spec.config), spec.width, spec.height)
    return {"seconds": timing["median"], "timing": timing, "peak_bytes": peak, "tokens": tokens, **asdict(spec)}


def run_module(arguments: list[str], *, timeout: float | None = None) -> dict[str, Any]:
    """Run a module of this folder in a fresh process and read the JSON of its marked line.

    Args:
        arguments: Words of the command line after `python -m`.
        timeout: Largest time in seconds; None = no limit.

    Returns:
        The result, or an `error` with the last line that the process wrote.
    """
    command = [sys.executable, "-m", *arguments]
    try:
        finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"error": f"no result within {timeout:.0f} s"}
    lines = [line for line in finished.stdout.splitlines() if line.startswith(MARK)]
    if finished.returncode or not lines:
        told = (finished.stderr or finished.stdout).strip().splitlines()
        return {"error": told[-1] if told else f"the process ended with code {finished.returncode}"}
    result: dict[str, Any] = json.loads(lines[-1].removeprefix(MARK))
    return result


def point(spec: PointSpec | TrainingSpec) -> dict[str, Any]:
    """Measure in a fresh process; a point that was measured before in this run is not measured again."""
    return _run_spec(json.dumps(asdict(spec), sort_keys=True))


@functools.cache
def _run_spec(content: str) -> dict[str, Any]:
    return run_module(["benchmarks.point", content])


def main() -> int:
    """Measure the point that the command line describes, and print it."""
    content = json.loads(sys.argv[1])
    if "variant" in content:
        result = measure_training(TrainingSpec(**content))
    else:
        result = measure_point(PointSpec(**content))
    print(MARK + json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
