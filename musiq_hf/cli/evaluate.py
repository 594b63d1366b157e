# SPDX-License-Identifier: Apache-2.0
"""Command `musiq evaluate`: measures checkpoints on scored pictures, or repeats training over seeds and splits."""

import argparse
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from transformers.utils import logging

from ..common.extras import require
from ..common.terminal import print_text
from ..evaluation.checkpoints import EvaluationSettings, evaluate_checkpoints
from ..explain.figures import save_figure
from ..explain.scatter import plot_scatter
from ..hub.card_updates import check_card_directory, update_card
from ..metrics.rendering import render
from ..metrics.report_files import write_report
from ..metrics.reports import ComparisonReport, RunsReport
from ..models.auto import DEFAULT_CHECKPOINT
from ..pictures.opening import PRESETS
from ..training.finetuning import finetune
from ..training.recipes import load_settings
from ..training.repeated_runs import repeat_runs, update_cards
from ..training.settings import FinetuneSettings
from .words import MEASURING

DESCRIPTION = """\
Measure checkpoints, their mean and their differences on scored pictures, or repeat training over seeds and splits.

musiq evaluate --data scores.csv --image_root photos --output report.json
musiq evaluate --model musiq-koniq musiq-spaq --data koniq.csv mine.csv --ensemble
accelerate launch -m musiq_hf.cli evaluate --runs 10 --recipe koniq --data koniq10k --output_dir runs/koniq
"""
COLUMNS = ("image_column", "score_column", "split_column")
# Arguments of both ways of use.
SHARED = ("dataset", "image_root", *COLUMNS, "group_by", "shorter_side", "num_workers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of both ways of use."""
    texts = {field.name: field.metadata["help"] for field in fields(EvaluationSettings)}
    add = parser.add_argument
    add("--data", nargs="+", help=texts["data"])
    add("--dataset", help=texts["dataset"])
    add("--image_root", help=texts["image_root"])
    for name in COLUMNS:
        add(f"--{name}", help=texts[name])
    add("--model", nargs="+", help=texts["models"])
    add("--shorter_side", type=int, help=texts["shorter_side"])
    add("--num_workers", type=int, help=texts["num_workers"])
    add("--output", help="report.json; the tables go to report.md beside it (default: printed only)")
    add("--group_by", help=texts["group_by"])
    add("--update_card", action="store_true", default=None, help="add the results to metrics.json and model card")
    add("--card_title", help='name of the results in the card (default: "<data>, <split>" or "Repeated runs")')
    measure = parser.add_argument_group("measuring checkpoints").add_argument
    measure("--preset", choices=PRESETS, help=texts["preset"])
    measure("--split", help=texts["split"])
    measure("--split_seed", type=int, help=texts["split_seed"])
    measure("--batch_size", type=int, help=texts["batch_size"])
    measure("--ensemble", action="store_true", default=None, help=texts["ensemble"])
    measure("--write_calibration", action="store_true", default=None, help=texts["write_calibration"])
    measure("--figure", help="scatter.png: scores of one checkpoint against opinion scores, with the fitted curve")
    repeat = parser.add_argument_group("repeating training (the paper's protocol)").add_argument
    repeat("--runs", type=int, help="train so often, run i with seed i and split i; 10 in the paper")
    repeat("--recipe", help="YAML file with settings, or the name of one in configuration/recipes")
    repeat("--set", action="append", metavar="NAME=VALUE", help="override a setting or the configuration")
    repeat("--fixed_splits", action="store_true", default=None, help="repeat the seed alone, on the data's own split")
    repeat("--output_dir", help="where the runs go; finished ones are kept (default: runs/repeated)")


def _select_given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}


def measure_checkpoints(arguments: argparse.Namespace) -> ComparisonReport:
    """Measure existing checkpoints, and fill their cards if that is wanted."""
    models = arguments.model or [str(DEFAULT_CHECKPOINT)]
    settings = EvaluationSettings(models=models, **_select_given(arguments, "data", *SHARED, *MEASURING))
    directories = [check_card_directory(name) for name in settings.models] if arguments.update_card else []
    if arguments.figure is not None:
        require("matplotlib.figure", extra="explain")  # fails now, not after hours of scoring
    answers: list[tuple[np.ndarray, np.ndarray]] = []
    comparison = evaluate_checkpoints(settings, on_scores=lambda *pair: answers.append(pair))
    if PartialState().is_main_process:
        if arguments.figure is not None:
            (report,) = comparison.results
            title = f"{report.model} on {report.data}"
            save_figure(arguments.figure, plot_scatter(*answers[0], title=title))
        # Not strict: the reports of an ensemble come last, and it has no card.
        owners = [directory for directory in directories for _ in arguments.data]
        for directory, report in zip(owners, comparison.results, strict=False):
            update_card(directory, report, title=arguments.card_title)
    return comparison


def repeat_training(arguments: argparse.Namespace) -> RunsReport:
    """Train and measure repeatedly, and fill the cards of the runs if that is wanted."""
    several = [name for name in ("model", "data") if len(getattr(arguments, name) or []) > 1]
    if several:
        raise ValueError(f"`--runs` trains from one `--{several[0]}`, got several.")
    given = {name: values[0] for name, values in _select_given(arguments, "data", "model").items()}
    settings = load_settings(
        FinetuneSettings,
        recipe=arguments.recipe,
        overrides=arguments.set or (),
        arguments=given | _select_given(arguments, *SHARED, "output_dir"),
        defaults={"model": str(DEFAULT_CHECKPOINT), "output_dir": "runs/repeated"},
    )
    output_dir = Path(settings.output_dir)
    arguments.output = arguments.output or str(output_dir / "report.json")
    report = repeat_runs(
        settings,
        runs=arguments.runs,
        output_dir=output_dir,
        repeat_splits=not arguments.fixed_splits,
        train=partial(finetune, command="musiq evaluate"),
    )
    if arguments.update_card and PartialState().is_main_process:
        update_cards(output_dir, report, title=arguments.card_title)
    return report


def evaluate(arguments: argparse.Namespace) -> None:
    """Measure, print and write the tables."""
    report = (measure_checkpoints if arguments.runs is None else repeat_training)(arguments)
    if PartialState().is_main_process:
        print_text(render(report))
        if arguments.output is not None:
            write_report(arguments.output, report)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print and write the tables.

    Raises:
        ValueError: If the arguments or the data are wrong.
    """
    logging.disable_progress_bar()  # it shows the loading of weights; scoring has a bar of its own
    evaluate(arguments)
    return 0
