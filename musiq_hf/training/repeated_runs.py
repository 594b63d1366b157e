# SPDX-License-Identifier: Apache-2.0
"""Training repeated over seeds and splits, with a summary of the runs (section 4.1 of the paper).

MUSIQ reports the mean and standard deviation over 10 runs, LoDa the median; `summarize_runs` gives all three.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers.trainer_utils import get_last_checkpoint

from ..common.devices import without_accelerator
from ..common.files import read_json, write_json
from ..hub.card_updates import update_card
from ..metrics.report_files import METRICS_FILE, read_metrics
from ..metrics.reports import QualityReport, RunsReport, summarize_runs
from .finetuning import finetune
from .settings import FinetuneSettings
from .starting import flatten_settings

CARD_TITLE = "Repeated runs"
_RUNS_FILE = "runs.json"
# Splits that training measures. Other entries of a run's metrics.json were added to its card later.
_SPLITS = ("selection", "validation", "test")
# Settings that may differ between the runs of one protocol.
_OWN_TO_A_RUN = ("output_dir", "seed", "split_seed", "resume", "num_workers", "eval_batch_size", "save_steps")


_train = partial(finetune, command="musiq_hf.training.repeat_runs")


def run_directory(output_dir: str | Path, seed: int) -> Path:
    """Return the folder of run `seed` of `repeat_runs`."""
    return Path(output_dir) / f"run_{seed:02d}"


def repeat_runs(
    settings: FinetuneSettings,
    *,
    runs: int,
    output_dir: str | Path,
    repeat_splits: bool = True,
    train: Callable[[FinetuneSettings], dict[str, QualityReport]] = _train,
) -> RunsReport:
    """Train and measure several times, the paper's protocol: run i with seed i on random split i.

    Call it again after an interruption: it reads the finished runs and resumes a half-finished one.

    Args:
        settings: Settings of all runs; `seed`, `split_seed`, `output_dir` and `resume` are set for each.
        runs: Number of runs, >= 1.
        output_dir: Folder that will hold `run_00`, `run_01`, ..., one folder for each run.
        repeat_splits: Whether each run draws a random split of its own from all pictures, as the paper does on
            KonIQ-10k and SPAQ. False keeps the split of `settings` and changes the seed alone, as for the official
            splits of PaQ-2-PiQ and AVA.
        train: Function that trains one run, writes its reports to metrics.json, and returns them.

    Returns:
        Settings, the reports of all runs, and their summary.

    Raises:
        ValueError: If `runs` is below 1, or `output_dir` holds runs of other settings.
    """
    if runs < 1:
        raise ValueError(f"`runs` must be at least 1, got {runs}.")
    if settings.push_to_hub is not None:
        raise ValueError("`push_to_hub` uploads one checkpoint, but several runs make several. Leave it out.")
    output = Path(output_dir)
    common = {key: value for key, value in flatten_settings(settings).items() if key not in _OWN_TO_A_RUN}
    common["repeat_splits"] = repeat_splits
    _check_same_settings(output, common)
    reports = []
    for seed in range(runs):
        folder = run_directory(output, seed)
        if (folder / METRICS_FILE).is_file():
            reports.append(_read_splits(folder))
            continue
        started = folder.is_dir() and get_last_checkpoint(str(folder)) is not None
        split_seed = seed if repeat_splits else settings.split_seed
        own = dataclasses.replace(settings, seed=seed, split_seed=split_seed, output_dir=str(folder), resume=started)
        reports.append(train(own))
    return RunsReport(settings=common, runs=tuple(reports), summary=summarize_runs(reports))


def _read_splits(folder: Path) -> dict[str, QualityReport]:
    """Read the reports that training wrote in a finished run."""
    known = read_metrics(folder).reports
    return {split: own for split in _SPLITS if isinstance(own := known.get(split), QualityReport)}


def update_cards(output_dir: str | Path, report: RunsReport, *, title: str | None = None) -> None:
    """Add the summary to the card and metrics.json of every run, since any of them may be the one to publish.

    Args:
        output_dir: Folder that `repeat_runs` was given.
        report: Report that `repeat_runs` returned.
        title: Name of the entry in the cards; None = `CARD_TITLE`.

    Raises:
        ValueError: If the folder of a run holds no checkpoint any more.
    """
    for seed in range(len(report.runs or ())):
        update_card(run_directory(output_dir, seed), report, title=title or CARD_TITLE)


def _check_same_settings(output: Path, common: dict[str, Any]) -> None:
    """Note the settings in the folder of the runs, or compare them with those noted there."""
    noted, common = output / _RUNS_FILE, {key: list(v) if isinstance(v, tuple) else v for key, v in common.items()}
    # Without any run the noted settings come from a failed start (a wrong column, say) that is being corrected.
    if noted.is_file() and any(output.glob("run_*")):
        known = read_json(noted)
        differing = sorted(key for key in known.keys() | common.keys() if known.get(key) != common.get(key))
        if differing:
            raise ValueError(
                f"{output} holds runs with other settings ({', '.join(differing)}). Choose a new directory."
            )
    elif PartialState(cpu=without_accelerator()).is_main_process:
        output.mkdir(parents=True, exist_ok=True)
        write_json(noted, common)
