# SPDX-License-Identifier: Apache-2.0
"""Cost of covariance pooling, localisation and whitening: time and memory of a training step, and time of scoring.

OMP_NUM_THREADS=1 python -m benchmarks.matrix.options

A step is that of fine-tuning `musiq-tiny`: 16 pictures of 48 patches, and AdamW. Whitening takes as many crops of 8 or
4 pictures. Scoring is one picture of 512 x 384 pixels by the published architecture. Times are of runs in turns, and
the memory of every option is measured in a process of its own.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.inputs import Features, make_features, make_model
from benchmarks.matrix import DOCUMENT
from benchmarks.measure import describe_machine, interleave, peak_above
from musiq_hf import MusiqConfig
from musiq_hf.common.arguments import CommandParser, parse_arguments, run_command
from musiq_hf.common.markdown import markdown_table, update_document
from musiq_hf.training import FinetuneSettings
from musiq_hf.training.self_supervised.localisation import LOCALISATION_LOSS, add_localisation
from musiq_hf.training.self_supervised.view_whitening import WhiteningModel, WhiteningSettings

PLACE = "options"
EXAMPLE = "OMP_NUM_THREADS=1 python -m benchmarks.matrix.options"
TINY = Path("configuration/checkpoints/musiq-tiny")
BATCH_SIZE, NUM_PATCHES, WIDTH, HEIGHT = 16, 48, 512, 384
COVARIANCE = {"pooling": "cls+covariance"}
# Fields of the configuration, weight of the localisation, and views of the whitening.
OPTIONS: dict[str, tuple[dict[str, Any], float, int]] = {
    "none": ({}, 0.0, 0),
    "covariance beside CLS": (COVARIANCE, 0.0, 0),
    "localisation": ({}, 0.6, 0),
    "covariance and localisation": (COVARIANCE, 0.6, 0),
    "whitening, 2 views": ({}, 0.0, 2),
    "whitening, 4 views": ({}, 0.0, 4),
}


def make_batch(config: MusiqConfig) -> Features:
    """Make a batch of random patches, of which a third is of the resized copy."""
    shape = BATCH_SIZE, NUM_PATCHES
    return {
        "pixel_values": torch.rand(*shape, config.patch_size**2 * 3) * 2 - 1,
        "pixel_attention_mask": torch.ones(shape, dtype=torch.long),
        "spatial_position_ids": torch.randint(config.num_spatial_positions, shape),
        "scale_position_ids": (torch.arange(NUM_PATCHES) >= NUM_PATCHES // 3).long().expand(shape),
    }


def make_step(fields: dict[str, Any], weight: float, views: int) -> Callable[[], None]:
    """Make a function that does one step of AdamW with an option."""
    config = MusiqConfig.from_pretrained(TINY, **fields)
    quality = make_model(config).train()
    batch = make_batch(config)
    if views:
        sizes = WhiteningSettings(views=views, embedding_size=BATCH_SIZE // views // 2)
        whole: torch.nn.Module = WhiteningModel(quality, sizes)
    else:
        batch["labels"] = torch.rand(BATCH_SIZE)
        settings = FinetuneSettings(data="", model=str(TINY), output_dir="", localisation_weight=weight)
        whole = add_localisation(quality, quality, settings)
    whole.train()
    optimizer = torch.optim.AdamW(whole.parameters(), lr=1e-5)

    def step() -> None:
        outputs = whole(**batch)
        loss = outputs["loss"] + weight * outputs.get(LOCALISATION_LOSS, 0.0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def measure_peak(name: str) -> int:
    """Measure the bytes that steps with an option take above the model, in this process, which should be fresh."""
    torch.manual_seed(0)
    step = make_step(*OPTIONS[name])
    _, peak = peak_above(lambda: (step(), step()))  # from the second on, the optimizer's state is in memory
    return peak


def measure_steps(repeats: int) -> dict[str, float]:
    """Measure seconds of a step with each option, in turns."""
    torch.manual_seed(0)
    steps = {name: make_step(*option) for name, option in OPTIONS.items()}
    return {name: found["median"] for name, found in interleave(steps, repeats=repeats).items()}


def make_scorer(fields: dict[str, Any]) -> Callable[[], object]:
    """Make a function that scores a picture by the published architecture."""
    config = MusiqConfig(**fields)
    model, features = make_model(config), make_features(config, WIDTH, HEIGHT)
    return lambda: model(**features)


def measure_scoring(repeats: int) -> dict[str, float]:
    """Measure seconds of scoring a picture, with and without covariances, in turns."""
    scorers = {"plain": make_scorer({}), "covariance": make_scorer(COVARIANCE)}
    with torch.inference_mode():
        return {name: found["median"] for name, found in interleave(scorers, repeats=repeats).items()}


def run_alone(name: str) -> int:
    """Measure the memory of an option in a new process."""
    command = [sys.executable, "-m", "benchmarks.matrix.options", "--only", name]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return int(output.splitlines()[-1])


def measure(repeats: int) -> str:
    """Measure all options and scoring, and return a table of costs and a sentence."""
    machine, peaks = describe_machine(), {name: run_alone(name) for name in OPTIONS}
    steps, scoring = measure_steps(repeats), measure_scoring(repeats)
    rows = []
    for name, seconds in steps.items():
        cells = [f"{1000 * seconds:.0f}", f"{seconds / steps['none']:.2f}", f"{peaks[name] / 2**20:.0f}"]
        rows.append([name, *cells])
    plain, pooled = (1000 * scoring[name] for name in ("plain", "covariance"))
    return "\n\n".join(
        (
            f"Measured on {machine['processor']}, threads: {machine['threads']}, PyTorch {machine['torch']}, "
            f"{machine['date']}, load {machine['load']}. Times are medians of {repeats}.",
            markdown_table(["option", "ms a step", "relative", "MiB of a step"], rows),
            f"Scoring takes {plain:.0f} ms, and {pooled:.0f} ms with covariances: {pooled / plain:.3f} times as long.",
        )
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the table; return 2 if the document has no place for it."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DOCUMENT, help="the document")
    parser.add_argument("--repeats", type=int, default=15, help="timed calls of each kind")
    parser.add_argument(
        "--only", choices=OPTIONS, help="measure the memory of one option in this process, and print the bytes"
    )
    arguments = parse_arguments(parser, argv)
    if arguments.only is not None:
        print(measure_peak(arguments.only))
        return 0
    return run_command(
        "benchmarks.matrix.options",
        lambda: update_document(arguments.output, PLACE, lambda: measure(arguments.repeats)),
        example=EXAMPLE,
    )


if __name__ == "__main__":
    sys.exit(main())
