# SPDX-License-Identifier: Apache-2.0
"""`musiq evaluate`: measure checkpoints on scored pictures, or repeat training over seeds and splits."""

import argparse
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers.utils import logging

from ..common.arguments import run_command
from ..evaluation.checkpoints import EvaluationSettings, evaluate_checkpoints
from ..hub.card_updates import check_card_directory, update_card
from ..metrics.rendering import render_evaluations, render_runs
from ..metrics.reports import check_report_path, write_report
from ..models.auto import DEFAULT_CHECKPOINT
from ..pictures.opening import PRESETS
from ..training.recipes import load_settings
from ..training.repeated_runs import repeat_runs, update_cards
from ..training.settings import FinetuneSettings

SUMMARY = "measure checkpoints on scored pictures"
DESCRIPTION = """\
Measure checkpoints, and the mean of their scores, on scored pictures, or repeat training over seeds and splits.

musiq evaluate --data scores.csv --image_root photos --output report.json
musiq evaluate --model musiq-koniq musiq-spaq --data koniq.csv mine.csv --ensemble
accelerate launch -m musiq_hf.cli evaluate --runs 10 --recipe koniq --data koniq10k --output_dir runs/koniq
"""
EXAMPLE = "musiq evaluate --data scores.csv --image_root photos --output report.json"
# Of one way of use only; None marks what was not given.
MEASURING = ("preset", "split", "split_seed", "batch_size", "ensemble")
REPEATING = ("recipe", "set", "fixed_splits", "output_dir")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of both ways of use."""
    add = parser.add_argument
    add("--data", nargs="+", help="CSV with columns image,mos[,split][,group], a folder, or a data set id on the Hub")
    add("--dataset", help='reader of --data: "scores" or the name of a known data set (default: scores)')
    add("--image_root", help="directory that the paths of a table start from (default: the table's own)")
    add("--model", nargs="+", help="checkpoints (default: the embedded one)")
    add("--shorter_side", type=int, help="shrink pictures to this shorter side in pixels first (default: native size)")
    add("--num_workers", type=int, help="decoding processes (default: 0)")
    add("--output", help="report.json; the tables go to report.md beside it (default: printed only)")
    add("--group_by", help='column whose values are measured on their own too, or "none" (default: group)')
    add("--update_card", action="store_true", default=None, help="add the results to metrics.json and model card")
    add("--card_title", help='name of the results in the card (default: "<data>, <split>" or "Repeated runs")')
    measure = parser.add_argument_group("measuring checkpoints").add_argument
    measure("--preset", choices=PRESETS, help="how files become pixels; google: as in the published program")
    measure("--split", help="default: test if there is one, else validation")
    measure("--split_seed", type=int, help="of a random split (default: the data's own split)")
    measure("--batch_size", type=int, help="pictures per step and device (default: 8)")
    measure("--ensemble", action="store_true", default=None, help="measure the mean score of all checkpoints as well")
    repeat = parser.add_argument_group("repeating training (the paper's protocol)").add_argument
    repeat("--runs", type=int, help="train so often, run i with seed i and split i; 10 in the paper")
    repeat("--recipe", help="YAML file with settings, or the name of one in configuration/recipes")
    repeat("--set", action="append", metavar="NAME=VALUE", help="override a setting or the configuration")
    repeat("--fixed_splits", action="store_true", default=None, help="repeat the seed alone, on the data's own split")
    repeat("--output_dir", help="where the runs go; finished ones are kept (default: runs/repeated)")


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "evaluate", help=SUMMARY, description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def measure_checkpoints(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Content and tables of the report on existing checkpoints."""
    models = arguments.model or [str(DEFAULT_CHECKPOINT)]
    if arguments.update_card:
        for name in models:
            check_card_directory(name)
    names = ("data", "dataset", "image_root", "group_by", "shorter_side", "num_workers")
    given = {name: getattr(arguments, name) for name in (*names, *MEASURING)}
    settings = EvaluationSettings(models=models, **{name: v for name, v in given.items() if v is not None})
    reports = evaluate_checkpoints(settings)
    if arguments.update_card and PartialState().is_main_process:
        directories = [name for name in models for _ in arguments.data]
        own = reports[: len(directories)]  # an ensemble, at the end, has no card
        for directory, report in zip(directories, own, strict=True):
            update_card(directory, report, title=arguments.card_title)
    return {"results": reports}, render_evaluations(reports)


def repeat_training(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Content and tables of the report on repeated runs."""
    several = [name for name in ("model", "data") if len(getattr(arguments, name) or []) > 1]
    if several:
        raise ValueError(f"`--runs` trains from one `--{several[0]}`, got several.")
    names = ("dataset", "image_root", "group_by", "shorter_side", "num_workers", "output_dir")
    given = {name: getattr(arguments, name) for name in names}
    given |= {"data": arguments.data[0], "model": arguments.model and arguments.model[0]}
    settings = load_settings(
        FinetuneSettings,
        recipe=arguments.recipe,
        overrides=arguments.set or (),
        arguments={name: value for name, value in given.items() if value is not None},
        defaults={"model": str(DEFAULT_CHECKPOINT), "output_dir": "runs/repeated"},
    )
    output_dir = Path(settings.output_dir)
    arguments.output = arguments.output or str(output_dir / "report.json")
    content = repeat_runs(
        settings, runs=arguments.runs, output_dir=output_dir, repeat_splits=not arguments.fixed_splits
    )
    if arguments.update_card and PartialState().is_main_process:
        update_cards(output_dir, content, title=arguments.card_title)
    return content, render_runs(content["summary"])


def check_arguments(arguments: argparse.Namespace) -> None:
    """Refuse arguments of the other way of use and, before hours of work, a wrong file name."""
    if arguments.data is None:
        raise ValueError("--data is needed: pictures with opinion scores.")
    foreign = MEASURING if arguments.runs is not None else REPEATING
    for name in foreign:
        if getattr(arguments, name) is not None:
            hint = "cannot be combined with `--runs`" if arguments.runs is not None else "needs `--runs`"
            raise ValueError(f"`--{name}` {hint}.")
    if arguments.card_title is not None and not (arguments.update_card and len(arguments.data) == 1):
        raise ValueError("`--card_title` names the results on one data set and needs `--update_card`.")
    if arguments.output is not None:
        check_report_path(arguments.output)


def evaluate(arguments: argparse.Namespace) -> None:
    """Check every argument, measure, print and write the tables."""
    check_arguments(arguments)
    content, tables = (measure_checkpoints if arguments.runs is None else repeat_training)(arguments)
    if PartialState().is_main_process:
        print(tables, end="")
        if arguments.output is not None:
            write_report(arguments.output, content, tables)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print and write the tables; 0, or 2 for a mistake in the arguments or the data."""
    logging.disable_progress_bar()  # of loading weights; scoring has its own
    return run_command("musiq evaluate", lambda: evaluate(arguments), example=EXAMPLE)
