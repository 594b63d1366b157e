# SPDX-License-Identifier: Apache-2.0
"""Measure on a CUDA machine, unattended, in less than 8 minutes, into one JSON file.

python -m benchmarks.gpu --output runs/gpu.json

Every part runs in a process of its own and has its own time: one that fails, or crashes the driver's context, is
recorded as an error and loses no other.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks import pyiqa_musiq
from benchmarks.gpu_correctness import compare_all
from benchmarks.inputs import (
    Features,
    Size,
    in_type,
    make_array,
    make_features,
    make_model,
    mixed_sizes,
    pad_features,
    score_all,
    to_device,
)
from benchmarks.measure import DTYPES, describe_machine, interleave, measure_products, rates, ratio, synchronize
from benchmarks.operations import picture_operations
from benchmarks.point import MARK, run_module
from benchmarks.results import add_section
from benchmarks.training_step import TrainingSpec, measure_training
from musiq_hf import MusiqConfig, MusiqForImageQualityAssessment, MusiqImageProcessor
from musiq_hf.common.arguments import CommandParser, one_sentence, parse_arguments

TOTAL_SECONDS = 460.0
LEAST_SECONDS = 20.0  # with less left a part is not begun, because importing alone would take as long


@dataclass(frozen=True)
class GpuSettings:
    """Settings of the parts.

    Attributes:
        device: Device of the models.
        budget: Seconds after which a measurement begins no further round.
        repeats: Rounds of interleaved measurements.
        num_pictures: Number of pictures of mixed sizes.
        largest: Longer side of the largest of these pictures, in pixels; that of the smallest is an eighth.
        max_tokens: Largest number of patches of a padded batch.
        product_side: Side of the matrix products.
        training_size: Width and height of the pictures of a training step, in pixels.
        batch_size: Number of pictures of a training step.
        config: Fields of `MusiqConfig` that differ from its defaults.
    """

    device: str = "cuda"
    budget: float = 20.0
    repeats: int = 10
    num_pictures: int = 64
    largest: int = 1600
    max_tokens: int = 32768
    product_side: int = 8192
    training_size: Size = (768, 512)
    batch_size: int = 32
    config: dict[str, Any] = field(default_factory=dict)

    def sizes(self) -> list[Size]:
        """Return the sizes of the pictures of mixed sizes."""
        return mixed_sizes(self.num_pictures, smallest=self.largest // 8, largest=self.largest)


def token_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Group sequences of similar lengths into batches whose padded size stays within `max_tokens`.

    Args:
        lengths: Number of tokens of each sequence; a longer one than `max_tokens` is a batch by itself.
        max_tokens: Largest number of tokens of a batch, padding included.

    Returns:
        Indices of the sequences of each batch.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batches and lengths[index] * (len(batches[-1]) + 1) <= max_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _make_inputs(settings: GpuSettings, config: MusiqConfig) -> tuple[list[Features], list[Features], int]:
    """Make single sequences and padded batches on the device, and count the operations of one pass over all."""
    features = [make_features(config, *size, seed=seed) for seed, size in enumerate(settings.sizes())]
    lengths = [feature["pixel_values"].shape[1] for feature in features]
    operations = sum(picture_operations(config, length, executed=True) for length in lengths)
    batches = [
        pad_features([features[index] for index in group]) for group in token_batches(lengths, settings.max_tokens)
    ]
    device = settings.device
    singles = [to_device(feature, device) for feature in features]
    return singles, [to_device(batch, device) for batch in batches], operations


def _score_batches(model: MusiqForImageQualityAssessment, batches: Sequence[Features]) -> torch.Tensor:
    return torch.cat([model(**batch).scores for batch in batches])


def _measure_peak_gigabytes(function: Callable[[], object], device: str) -> float | None:
    """Measure how far the memory in use on the GPU rises; None on a CPU."""
    if torch.device(device).type != "cuda":
        return None
    synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    function()
    synchronize(device)
    return float(torch.cuda.max_memory_allocated(device) - before) / 1e9


def check_agreement(settings: GpuSettings) -> dict[str, Any]:
    """Compare scores and a training step with those of the CPU, before anything is timed."""
    config = MusiqConfig(**{"drop_path_rate": 0.0, **settings.config})
    sizes = mixed_sizes(6, smallest=settings.largest // 10, largest=settings.largest * 2 // 5)
    return compare_all(config, sizes, settings.device)


def measure_rates(settings: GpuSettings) -> dict[str, Any]:
    """Measure operations per second of large matrix products; float32 is without TF32."""
    rows = []
    for dtype in DTYPES:
        products = measure_products(dtype, sides=(settings.product_side,), repeats=20, device=settings.device)
        rows += [{"dtype": dtype, "product": name, "teraflops": rate / 1e12} for name, rate in rates(products).items()]
    return {"rows": rows}


def measure_mixed(settings: GpuSettings) -> dict[str, Any]:
    """Measure our model on mixed sizes, in batches and one by one, in both types, beside a matrix product."""
    config = MusiqConfig(**settings.config)
    singles, batches, operations = _make_inputs(settings, config)
    rows = []
    for dtype in ("bfloat16", "float32"):
        model = make_model(config, dtype=DTYPES[dtype], device=settings.device)
        product = measure_products(dtype, sides=(settings.product_side,), device=settings.device)[0]
        contenders: dict[str, Callable[[], object]] = {
            "batches": lambda model=model: _score_batches(model, batches),  # type: ignore[misc]
            "one by one": lambda model=model: _score_batches(model, singles),  # type: ignore[misc]
            "product": product.run,
        }
        with torch.inference_mode():
            timings = interleave(
                contenders, repeats=settings.repeats, warmups=2, device=settings.device, budget=settings.budget
            )
            peak = _measure_peak_gigabytes(contenders["batches"], settings.device)
        rate = operations / timings["batches"]["median"]
        rows.append(
            {
                "dtype": dtype,
                "pictures_per_second": len(singles) / timings["batches"]["median"],
                "one_by_one_per_second": len(singles) / timings["one by one"]["median"],
                "teraflops": rate / 1e12,
                "share": rate * timings["product"]["median"] / product.operations,
                "peak_gigabytes": peak,
                "num_pictures": len(singles),
                "num_batches": len(batches),
                "timings": timings,
            }
        )
    return {"rows": rows}


def measure_against_pyiqa(settings: GpuSettings) -> dict[str, Any]:
    """Measure our model in batches against pyiqa in float32 one by one, with the same weights and pictures.

    Raises:
        ImportError: If pyiqa is not installed.
    """
    config = MusiqConfig(**settings.config)
    singles, batches, _ = _make_inputs(settings, config)
    model = make_model(config, device=settings.device)
    network = pyiqa_musiq.build(model)
    rows = [pyiqa_musiq.sequence(feature, config) for feature in singles]
    exact = make_model(config, device=settings.device)
    in_type(model, torch.bfloat16)
    contenders: dict[str, Callable[[], object]] = {
        "ours bfloat16": lambda: _score_batches(model, batches),
        "ours float32": lambda: _score_batches(exact, batches),
        "pyiqa float32": lambda: [pyiqa_musiq.score(network, row) for row in rows],
    }
    with torch.inference_mode():
        timings = interleave(
            contenders, repeats=settings.repeats, warmups=2, device=settings.device, budget=settings.budget
        )
        theirs = torch.cat([pyiqa_musiq.score(network, row) for row in rows])
        deviation = float((_score_batches(exact, singles) - theirs).abs().max())
        rounding = float((_score_batches(model, batches) - _score_batches(exact, batches)).abs().max())
    row = {
        "ratio": ratio(timings["pyiqa float32"], timings["ours bfloat16"]),
        "ratio_float32": ratio(timings["pyiqa float32"], timings["ours float32"]),
        "pyiqa_per_second": len(singles) / timings["pyiqa float32"]["median"],
        "deviation_float32": deviation,
        "deviation_of_bfloat16": rounding,
        "timings": timings,
    }
    return {"rows": [row]}


def measure_end_to_end(settings: GpuSettings) -> dict[str, Any]:
    """Measure the way from decoded pictures to scores, preprocessing and copies included, in bfloat16."""
    config = MusiqConfig(**settings.config)
    _, batches, _ = _make_inputs(settings, config)
    model = make_model(config, dtype=torch.bfloat16, device=settings.device)
    processor = MusiqImageProcessor.from_config(config)
    arrays = [make_array(*size, seed=seed) for seed, size in enumerate(settings.sizes())]
    contenders: dict[str, Callable[[], object]] = {
        "end to end": lambda: score_all(arrays, model=model, processor=processor),
        "model alone": lambda: _score_batches(model, batches),
    }
    with torch.inference_mode():
        timings = interleave(contenders, repeats=settings.repeats, device=settings.device, budget=settings.budget)
    row = {
        "pictures_per_second": len(arrays) / timings["end to end"]["median"],
        "model_alone_per_second": len(arrays) / timings["model alone"]["median"],
        "timings": timings,
    }
    return {"rows": [row]}


def _measure_training(settings: GpuSettings, variants: Sequence[str]) -> dict[str, Any]:
    product = measure_products("bfloat16", sides=(settings.product_side,), device=settings.device)[0]
    rows = []
    for variant in variants:
        spec = TrainingSpec(
            variant,
            *settings.training_size,
            batch_size=settings.batch_size,
            repeats=settings.repeats,
            threads=torch.get_num_threads(),
            device=settings.device,
            budget=settings.budget,
            config=settings.config,
        )
        row = measure_training(spec)
        rows.append({**row, "share": row["operations_per_second"] / product.rate})
    return {"rows": rows}


def measure_training_eager(settings: GpuSettings) -> dict[str, Any]:
    """Measure the fine-tuning step in bfloat16, with and without gradient checkpointing."""
    return _measure_training(settings, ("bfloat16", "bfloat16, checkpointing"))


def measure_training_compiled(settings: GpuSettings) -> dict[str, Any]:
    """Measure the fine-tuning step in bfloat16 under torch.compile."""
    return _measure_training(settings, ("bfloat16, compiled",))


# Function and time limit of each part, in seconds with the start of Python; the first parts matter most.
PARTS: dict[str, tuple[Callable[[GpuSettings], dict[str, Any]], float]] = {
    "agreement": (check_agreement, 100.0),
    "rates": (measure_rates, 45.0),
    "mixed": (measure_mixed, 100.0),
    "against pyiqa": (measure_against_pyiqa, 100.0),
    "training": (measure_training_eager, 90.0),
    "end to end": (measure_end_to_end, 70.0),
    "training compiled": (measure_training_compiled, 150.0),
}


def run_part(name: str, settings: GpuSettings) -> dict[str, Any]:
    """Measure one part in this process; a failure becomes its `error`."""
    try:
        section = PARTS[name][0](settings)
    except Exception as error:  # no failure may stop the other parts
        section = {"error": f"{type(error).__name__}: {one_sentence(error)[:500]}"}
    return {"machine": describe_machine(settings.device), **section}


def run_parts(
    names: Sequence[str], run: Callable[[str, float], dict[str, Any]], *, output: Path, seconds: float = TOTAL_SECONDS
) -> int:
    """Measure parts one after the other and write each as soon as it is done.

    Args:
        names: Names in `PARTS`.
        run: Function that takes a name and its time limit, and returns the section, or one with an `error`.
        output: JSON file to write.
        seconds: Time limit of all parts together.

    Returns:
        Number of parts with an error.
    """
    start, failed = time.monotonic(), 0
    for name in names:
        left = seconds - (time.monotonic() - start)
        if left < LEAST_SECONDS:
            section: dict[str, Any] = {"error": "no time was left"}
        else:
            section = run(name, min(left, PARTS[name][1]))
        failed += "error" in section
        add_section(output, f"gpu {name}", section)
        print(f"{name}: {section.get('error', 'measured')} ({time.monotonic() - start:.0f} s)", flush=True)
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the parts, and return the exit code: 1 if a part failed, 2 without a CUDA device."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/gpu.json"), help="JSON file")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--part", choices=PARTS, help="measure one part in this process and print it")
    arguments = parse_arguments(parser, argv)
    if not torch.cuda.is_available():
        print("benchmarks.gpu: a CUDA device is needed, PyTorch finds none. Use benchmarks.cpu here.", file=sys.stderr)
        return 2
    if arguments.part:
        print(MARK + json.dumps(run_part(arguments.part, GpuSettings())), flush=True)
        return 0

    def in_process(name: str, seconds: float) -> dict[str, Any]:
        return run_module(["benchmarks.gpu", "--part", name], timeout=seconds)

    return int(run_parts(arguments.only or list(PARTS), in_process, output=arguments.output) > 0)


if __name__ == "__main__":
    sys.exit(main())
