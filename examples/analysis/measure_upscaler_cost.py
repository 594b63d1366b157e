# SPDX-License-Identifier: Apache-2.0
"""Table of the memory and the time in which a model for super-resolution enlarges pictures, by the side of its tiles.

python examples/analysis/measure_upscaler_cost.py --update_document

Pictures of noise become pictures of `--megapixels` by each of `--scales`, with tiles of each of `--tile_sizes`. Files
are neither read nor written. Each row is measured in a fresh process, after a small picture has warmed the model up.
Memory is the largest resident memory of that process, less the resident memory with model and picture before. Measure
on a machine that does nothing else.

`--update_document` writes the table into docs/super_resolution.md too.
"""

import argparse
import math
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import torch
from PIL import Image

from musiq_hf.common.arguments import CommandParser, parse_arguments, positive, run_command
from musiq_hf.common.devices import name_processor
from musiq_hf.common.markdown import markdown_table, update_document
from musiq_hf.upscaling import UPSCALER_CHECKPOINT, load_upscaler, upscale_picture

DOCUMENT = Path(__file__).parents[2] / "docs" / "super_resolution.md"
PLACE = "memory and time"
ASPECT = 4 / 3
SMALL = 48  # pixels along the sides of the picture that warms the model up
COUNTED = 1 if sys.platform == "darwin" else 2**10  # bytes in which the system counts resident memory
HEADS = ("picture", "scale", "side of a tile", "memory above the loaded model", "CPU seconds", "seconds")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the measurement, by the names of the flags."""

    megapixels: float
    scales: Sequence[float]
    tile_sizes: Sequence[int]
    threads: int
    model: str
    update_document: bool

    def __post_init__(self) -> None:
        if not (math.isfinite(self.megapixels) and self.megapixels > 0):
            raise ValueError(f"`megapixels` must be above 0, got {self.megapixels}.")
        if not all(1 < scale < math.inf for scale in self.scales):
            raise ValueError(f"`scales` must be above 1, got {list(self.scales)}. At x1 a picture keeps its pixels.")

    @property
    def target(self) -> tuple[int, int]:
        """Width and height of the enlarged pictures, in pixels."""
        width = math.sqrt(self.megapixels * 1e6 * ASPECT)
        return round(width), round(width / ASPECT)


class Cost(NamedTuple):
    """Cost of an enlargement.

    Attributes:
        megabytes: Largest resident memory above that before, in MB of a million bytes.
        cpu_seconds: Time of the processor, of all threads together.
        seconds: Time on the clock.
    """

    megabytes: float
    cpu_seconds: float
    seconds: float


def make_noise(size: tuple[int, int]) -> Image.Image:
    """Make a picture of noise, without further memory."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def measure(settings: Settings, source: tuple[int, int], tile_size: int) -> Cost:
    """Enlarge a picture in this process, which must be a fresh one: no memory is counted that was used before.

    Args:
        settings: Settings of the measurement.
        source: Width and height of the picture, in pixels.
        tile_size: Side of a tile, in pixels of the picture.
    """
    import resource  # there is none on Windows

    torch.set_num_threads(settings.threads)
    upscaler = load_upscaler(settings.model)
    small, picture = make_noise((SMALL, SMALL)), make_noise(source)
    upscale_picture(small, scale=2, model=upscaler)
    resident, cpu, clock = psutil.Process().memory_info().rss, time.process_time(), time.perf_counter()
    upscale_picture(picture, size=settings.target, model=upscaler, tile_size=tile_size)
    cpu_seconds, seconds = time.process_time() - cpu, time.perf_counter() - clock
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * COUNTED
    return Cost((peak - resident) / 1e6, cpu_seconds, seconds)


def measure_freshly(settings: Settings, source: tuple[int, int], tile_size: int) -> Cost:
    """Measure in a fresh process; see `measure`.

    Raises:
        ValueError: If the system has ended the process.
    """
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(measure, settings, source, tile_size).result()
    except BrokenExecutor as error:
        raise ValueError(
            f"The process that enlarged {source[0]} x {source[1]} pixels was ended, perhaps since no memory was left. "
            "Give fewer `megapixels` or smaller tiles."
        ) from error


def make_table(settings: Settings) -> str:
    """Measure, and write the sentence and the table."""
    rows = []
    for scale, tile_size in product(settings.scales, settings.tile_sizes):
        width, height = (max(1, round(side / scale)) for side in settings.target)
        print(f"x{scale:g}, tiles of {tile_size}", file=sys.stderr)
        cost = measure_freshly(settings, (width, height), tile_size)
        costs = f"{cost.megabytes:.0f} MB", f"{cost.cpu_seconds:.0f}", f"{cost.seconds:.0f}"
        rows.append([f"{width} x {height}", f"x{scale:g}", str(tile_size), *costs])
    threads = "one thread" if settings.threads == 1 else f"{settings.threads} threads"
    sentence = (
        f"To {settings.target[0]} x {settings.target[1]} pixels by {Path(settings.model).name}, in {threads} of a "
        f"machine with {name_processor()}."
    )
    return f"{sentence}\n\n{markdown_table(HEADS, rows)}"


def run(settings: Settings) -> None:
    """Measure and print the table, and write it into the document."""
    if sys.platform == "win32":
        raise ValueError("Windows does not tell the largest memory of a process. Measure on Linux or macOS.")
    if settings.update_document:
        update_document(DOCUMENT, PLACE, partial(make_table, settings))
    else:
        print(make_table(settings))


def main() -> int:
    """Measure; return 2 for a mistake in the arguments."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--megapixels", type=float, default=12.0, help="of the enlarged pictures (default: %(default)g)")
    add("--scales", nargs="+", type=float, default=[1.1, 2.0, 4.0], metavar="S", help="scales above 1 (1.1 2 4)")
    add("--tile_sizes", nargs="+", type=positive, default=[192, 96], metavar="N", help="sides of tiles (192 96)")
    add("--threads", type=positive, default=1, help="threads of the processor (default: %(default)s)")
    add("--model", default=UPSCALER_CHECKPOINT.name, help="checkpoint of the family msit (%(default)s)")
    add("--update_document", action="store_true", help="write the table into docs/super_resolution.md")
    values = vars(parse_arguments(parser))
    return run_command("measure_upscaler_cost", lambda: run(Settings(**values)))


if __name__ == "__main__":
    sys.exit(main())
