# SPDX-License-Identifier: Apache-2.0
"""Words of the subcommands: their arguments, read from a file, and checks that need nothing but the words.

The modules of the subcommands import PyTorch and Transformers, which takes seconds: too long for a help text, or for a
word that is refused. So words.json holds what their `add_arguments` add, see `recording`.
"""

import argparse
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..common.arguments import positive, read_flag
from ..common.checks import are_weights, check_calibration_choice, check_ensemble, check_intervals
from ..common.codecs import check_ladder
from ..common.enlargement import Target, check_copies
from ..common.files import NOTHING, check_output_file, leads_nowhere, read_json
from ..common.outputs import (
    PLAN,
    TABLES,
    check_local_table,
    check_new_file,
    check_page_path,
    check_plan_folder,
    check_report_path,
    check_table_path,
)
from ..common.stores import check_url, is_remote
from ..common.systems import check_metrics, read_systems

FILE = Path(__file__).with_name("words.json")
SHARD = re.compile(r"([1-9]\d*)/([1-9]\d*)")
STDIN = "-"  # path that stands for the names on standard input
EXPORTED = (".onnx", ".pt2")
# Arguments of `musiq evaluate`: of measuring alone, and of repeated training alone. None marks those not given.
MEASURING = ("preset", "split", "split_seed", "batch_size", "ensemble", "write_calibration")
REPEATING = ("recipe", "set", "fixed_splits", "output_dir")


def read_shard(text: str) -> tuple[int, int]:
    """Read `i/n`, the number of a shard and that of all shards."""
    match = SHARD.fullmatch(text)
    index, count = map(int, match.groups()) if match else (1, 0)
    if index > count:
        raise argparse.ArgumentTypeError(f"must be i/n with i from 1 to n, as 3/8, got {text}")
    return index, count


def read_limit(text: str) -> float:
    """Read a number above 0, which may be infinite."""
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, or inf for no limit, got {text}")
    return value


def read_weights(text: str) -> tuple[float, ...]:
    """Read weights that are separated by commas."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not are_weights(values):
        raise argparse.ArgumentTypeError(f"must be numbers from 0 on, not all 0, as 0.7,0.3, got {text}")
    return values


def read_intervals(text: str) -> tuple[float, ...]:
    """Read scores that are separated by commas."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers with commas, as 20,40,60,80, got {text}") from None


def read_names(text: str) -> tuple[str, ...]:
    """Read names that are separated by commas."""
    return tuple(name.strip() for name in text.split(","))


def read_qualities(text: str) -> tuple[int, ...]:
    """Read qualities that are separated by commas."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be whole numbers with commas, as 10,50,90, got {text}") from None


def read_size(text: str) -> tuple[int, int]:
    """Read a width and a height, in pixels."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT in pixels, as 1920x1080, got {text}")
    return int(match[1]), int(match[2])


# Types of arguments by the names that the file has for them.
READERS = (read_flag, read_intervals, read_limit, read_names, read_qualities, read_shard, read_size, read_weights)
TYPES = {kind.__name__: kind for kind in (int, float, str, Path, positive, *READERS)}


def read_words() -> dict[str, Any]:
    """Read the words of all subcommands, by their names: description, epilog and groups of arguments."""
    return read_json(FILE)


def add_words(parser: argparse.ArgumentParser, groups: list[dict[str, Any]]) -> None:
    """Add arguments to a parser.

    Args:
        parser: Parser of a subcommand.
        groups: Groups of arguments as the file has them; the title of the first one is None.
    """
    for group in groups:
        place = parser if group["title"] is None else parser.add_argument_group(group["title"])
        for names, options in group["arguments"]:
            if "type" in options:
                options["type"] = TYPES[options["type"]]
            if isinstance(options.get("metavar"), list):
                options["metavar"] = tuple(options["metavar"])
            if options.get("default") == argparse.SUPPRESS:
                options["default"] = argparse.SUPPRESS  # argparse knows it by identity
            place.add_argument(*names, **options)


def check_evaluate(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if `musiq evaluate` lacks data, or has arguments of its other way of use."""
    if arguments.data is None:
        raise ValueError("--data is needed: pictures with opinion scores.")
    if arguments.output is not None:
        check_report_path(arguments.output)
    if arguments.figure is not None:
        check_figure(arguments)
    foreign = (*MEASURING, "figure") if arguments.runs is not None else REPEATING
    for name in foreign:
        if getattr(arguments, name) is not None:
            hint = "cannot be combined with `--runs`" if arguments.runs is not None else "needs `--runs`"
            raise ValueError(f"`--{name}` {hint}.")
    if arguments.card_title is not None and not (arguments.update_card and len(arguments.data) == 1):
        raise ValueError("`--card_title` names the results on one data set and needs `--update_card`.")


def check_figure(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if `musiq evaluate` measures more than one figure shows, or cannot write it."""
    check_new_file(arguments.figure, (".png",), overwrite=True)
    several = [name for name in ("model", "data") if len(getattr(arguments, name) or []) > 1]
    if several:
        raise ValueError(f"`--figure` shows one checkpoint on one data set, got several `--{several[0]}`. Give one.")


def check_explain(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if `musiq explain` cannot write its page there."""
    check_page_path(arguments.output)


def check_export(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if the file of `musiq export` has another format."""
    if arguments.output.suffix not in EXPORTED:
        raise ValueError(f"OUT must end in {' or '.join(EXPORTED)}, got {arguments.output}. Rename it.")


def check_score(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if `musiq score` is to read or write what it cannot, or has weights that do not fit."""
    num_lists = arguments.paths.count(STDIN)
    if num_lists > 1:
        raise ValueError(f"{STDIN} stands for the names on standard input. Give it once, not {num_lists} times.")
    if arguments.null and not num_lists:
        raise ValueError(f"`--null` says how names on standard input end, and needs the path {STDIN}.")
    _check_paths(path for path in arguments.paths if path != STDIN)
    if arguments.output is not None:
        output = check_table_path(arguments.output)
        if isinstance(output, Path) and arguments.shard is None:  # the file of a shard has another name
            check_output_file(output)
    check_ensemble(arguments.model or ["the default"], arguments.weights)
    _check_calibration(arguments)


def _check_calibration(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if the calibration of `musiq score` contradicts other words, or would be replaced."""
    check_calibration_choice(
        arguments.model or ["the default"], arguments.calibration, percentile=arguments.percentile
    )
    if arguments.calibration is not None and arguments.calibration == arguments.output:
        raise ValueError(f"{arguments.output} is the calibration, and would be lost. Choose another name.")


def _check_paths(paths: Iterable[str]) -> None:
    """Raise a ValueError if a path leads to nothing, or is a URL that cannot be read."""
    for path in paths:
        if is_remote(path):
            check_url(path)
        elif "://" not in path and leads_nowhere(path):
            raise ValueError(f"{path}: {NOTHING}")


def check_table(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if a command of `assessment` names nothing to measure, or cannot write its table."""
    _check_paths(arguments.paths)
    if arguments.output is not None:
        check_local_table(arguments.output)


def check_finetune(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if nothing that could name the data of `musiq finetune` was given."""
    if not (hasattr(arguments, "data") or arguments.recipe or arguments.set):
        raise ValueError("--data is needed: a table of pictures with opinion scores, or another form of data.")


def check_verify(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if `musiq verify` is told official scores, but has no pictures."""
    if arguments.name is not None and arguments.images is None:
        raise ValueError("`--name` says which official scores to compare with and needs `--images`.")


def check_plan_session(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if `musiq plan-session` would replace another plan, or cannot write there."""
    if arguments.render is not None and not os.path.isdir(arguments.render):
        raise ValueError(f"{arguments.render}: no such folder. Give the folder of the clips.")
    # Videos can be made of a plan that is there, and the command compares it with its own.
    goes_on = arguments.render is not None and (Path(arguments.output) / PLAN).is_file()
    check_plan_folder(arguments.output, overwrite=arguments.overwrite or goes_on)


def check_mos(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if `musiq mos` cannot write its files, or has more than one table without a plan."""
    if len(arguments.votes) > 1 and arguments.plan is None:
        raise ValueError(
            f"One table of votes is read, got {len(arguments.votes)}. Several are the sheets of a plan: add --plan."
        )
    _check_files(arguments, {"output": TABLES, "viewers": TABLES, "figure": (".png",)}, arguments.votes)


def check_pairs(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if `musiq pairs` cannot write its file."""
    _check_files(arguments, {"output": TABLES}, [arguments.comparisons])


def check_ladder_words(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if `musiq ladder` names no picture, codec or quality, or cannot write its files."""
    check_ladder(arguments.codecs, arguments.qualities, arguments.max_drop)
    check_table(arguments)
    _check_files(arguments, {"figure": (".png",)}, arguments.paths)


def check_rate(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if `musiq rate` names no picture, has no rule for stars, or cannot write its table."""
    check_table(arguments)
    check_intervals(arguments.intervals, arguments.calibration)
    if arguments.calibration is not None and arguments.calibration == arguments.output:
        raise ValueError(f"{arguments.output} is the calibration, and would be lost. Choose another name.")
    unused = [name for name in ("overwrite_ratings", "names") if getattr(arguments, name) and not arguments.sidecars]
    if unused:
        raise ValueError(f"`--{unused[0]}` is of sidecars, and needs `--sidecars`.")


def check_upscale(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if `musiq upscale` names no picture or size, or its copies cannot go there."""
    Target(scale=arguments.scale, size=arguments.size, longer_side=arguments.longer_side)
    check_copies(arguments.output, arguments.paths)


def check_compare(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if `musiq compare` has no systems to compare, no such metric, or cannot write its files."""
    systems = read_systems(arguments.reference, arguments.distorted)
    options = {name: getattr(arguments, name) for name in ("bins", "crop_border", "every", "model")}
    check_metrics(arguments.metrics, **options)
    tables = [path for path in (arguments.groups, arguments.mos) if path is not None]
    for path in tables:
        if not os.path.isfile(path):
            raise ValueError(f"{path}: no such file. Give a CSV table.")
    if arguments.report is not None:
        check_report_path(arguments.report)
    if arguments.output is not None:
        output = check_local_table(arguments.output)
        inputs = [*tables, arguments.reference, *(system.path for system in systems)]
        if os.path.realpath(output) in map(os.path.realpath, inputs):
            raise ValueError(f"{output} is read, and would be lost. Choose another OUT.")


def _check_files(arguments: argparse.Namespace, suffixes: dict[str, tuple[str, ...]], inputs: list[str]) -> None:
    """Raise a ValueError if a file cannot be written, or two are one.

    Args:
        arguments: Words of the command.
        suffixes: Ends that the name of each file may have, by the argument that names it.
        inputs: Files that are read.
    """
    taken = {os.path.realpath(path) for path in inputs}
    for argument, allowed in suffixes.items():
        path = getattr(arguments, argument)
        if path is not None:
            check_new_file(path, allowed, overwrite=arguments.overwrite)
            if os.path.realpath(path) in taken:
                raise ValueError(f"{path} is named twice, and would be lost. Choose another --{argument}.")
            taken.add(os.path.realpath(path))
