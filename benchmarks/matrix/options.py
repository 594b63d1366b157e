# SPDX-License-Identifier: Apache-2.0
"""Cost of covariance pooling, localisation and whitening: time and memory of a training step, and time of scoring.

OMP_NUM_THREADS=1 python -m benchmarks.matrix.options

Every option runs in a process of its own. A step is that of fine-tuning `musiq-tiny`: 16 pictures of 48 patches, and
AdamW. Whitening takes as many crops of 8 or 4 pictures. Scoring is one picture of 512 x 384 pixels by the published
architecture.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.inputs import Features, make_features, make_model
from benchmarks.matrix.document import DOCUMENT, update
from benchmarks.measure import describe_machine, interleave, peak_above
from musiq_hf import MusiqConfig
from musiq_hf.common.arguments import CommandParser, parse_arguments, run_command
from musiq_hf.common.markdown import markdown_table
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


def measure_option(name: str, repeats: int) -> dict[str, float]:
    """Measure an option in this process, which should be fresh: seconds of a step and of scoring, bytes of a step."""
    fields, weight, views = OPTIONS[name]
    torch.manual_seed(0)
    step = make_step(fields, weight, views)
    _, peak = peak_above(lambda: (step(), step()))  # from the second on, the optimizer's state is in memory
    seconds = interleave({"step": step}, repeats=repeats)["step"]["median"]
    config = MusiqConfig(**fields)
    model, features = make_model(config).eval(), make_features(config, WIDTH, HEIGHT)
    with torch.inference_mode():
        scoring = interleave({"score": lambda: model(**features)}, repeats=repeats)["score"]["median"]
    return {"step": seconds, "peak": peak, "scoring": scoring}


def run_alone(name: str, repeats: int) -> dict[str, float]:
    """Measure an option in a new process."""
    command = [sys.executable, "-m", "benchmarks.matrix.options", "--only", name, "--repeats", str(repeats)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found


def measure(repeats: int) -> str:
    """Measure all options, and return a table of their cost relative to that of none."""
    found = {name: run_alone(name, repeats) for name in OPTIONS}
    base, rows = found["none"], []
    for name, one in found.items():
        cells = [f"{1000 * one['step']:.0f}", f"{one['step'] / base['step']:.2f}", f"{one['peak'] / 2**20:.0f}"]
        scores = [f"{1000 * one['scoring']:.0f}", f"{one['scoring'] / base['scoring']:.2f}"]
        trained_only = OPTIONS[name][0] == {} and name != "none"
        rows.append([name, *cells, *(["as none"] * 2 if trained_only else scores)])
    machine = describe_machine()
    header = ["option", "ms a step", "relative", "MiB of a step", "ms to score", "relative"]
    text = f"{machine['processor']}, {torch.get_num_threads()} thread, torch {machine['torch']}, medians of {repeats}."
    return f"{text}\n\n{markdown_table(header, rows)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the table; return 2 if the document has no place for it."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DOCUMENT, help="the document")
    parser.add_argument("--repeats", type=int, default=15, help="timed calls of each kind")
    parser.add_argument("--only", choices=OPTIONS, help="measure one option in this process, and print numbers")
    arguments = parse_arguments(parser, argv)
    if arguments.only is not None:
        print(json.dumps(measure_option(arguments.only, arguments.repeats)))
        return 0
    return run_command(
        "benchmarks.matrix.options",
        lambda: update(arguments.output, PLACE, lambda: measure(arguments.repeats)),
        example=EXAMPLE,
    )


if __name__ == "__main__":
    sys.exit(main())
