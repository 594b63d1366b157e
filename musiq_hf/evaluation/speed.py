# SPDX-License-Identifier: Apache-2.0
"""Speed of `musiq score` on pictures that a program makes."""

import statistics
import tempfile
import time
from pathlib import Path

import torch

from ..common.devices import name_processor
from ..metrics.reports import SpeedReport
from ..pictures.synthetic import make_picture
from ..scoring.job import ScoreJob, run_job
from ..scoring.journal import Totals

QUALITY = 75  # of JPEG, about that of BIQ2021's photographs


def _time_job(job: ScoreJob) -> float:
    """Run a job, and return the seconds from before its first picture to after its last one."""
    moments: list[float] = []

    def note(totals: Totals) -> None:
        moments.append(time.perf_counter())

    result = run_job(job, on_progress=note)
    if result.errors:
        raise ValueError(f"{result.errors} of the pictures could not be scored. Check the checkpoint.")
    return moments[-1] - moments[0]


def measure_speed(
    model: str, *, num_pictures: int = 64, num_repeats: int = 3, width: int = 512, height: int = 512
) -> SpeedReport:
    """Score JPEG files on the CPU as `musiq score` does, and measure how long it takes.

    Args:
        model: Directory or Hub id of a checkpoint with a quality head.
        num_pictures: Number of files, >= 1.
        num_repeats: Number of times that all of them are scored, >= 1.
        width: Columns of the pictures, in pixels.
        height: Rows of the pictures, in pixels.

    Returns:
        The report.

    Raises:
        ValueError: If a number is below 1, `model` is no such checkpoint, or it cannot score the pictures.
    """
    for name, value in (("num_pictures", num_pictures), ("num_repeats", num_repeats)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures"
        pictures.mkdir()
        for seed in range(num_pictures):
            make_picture(seed=seed, width=width, height=height).save(pictures / f"{seed}.jpg", quality=QUALITY)
        job = ScoreJob(
            [str(pictures)], output=Path(folder) / "scores.csv", models=[model], device="cpu", overwrite=True
        )
        seconds = [_time_job(job) for _ in range(num_repeats)]
    return SpeedReport(
        pictures_per_second=num_pictures / statistics.median(seconds),
        num_pictures=num_pictures,
        num_repeats=num_repeats,
        width=width,
        height=height,
        num_threads=torch.get_num_threads(),
        processor=name_processor(),
    )
