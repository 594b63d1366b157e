# SPDX-License-Identifier: Apache-2.0
"""Checks of the words of `musiq select` and `musiq gate`, which need neither PyTorch nor Transformers."""

import argparse
import os
from pathlib import Path

from ...common.files import NOTHING, check_output_file, leads_nowhere
from ...common.outputs import TABLES, check_new_file, check_page_path
from ...common.stores import check_url, is_remote
from ...decisions.bursts import BURST, BurstSettings
from ...decisions.selecting import Amount, Conditions

WAYS = {"copy_to": "copy", "link_to": "link", "move_to": "move"}
RANKING = ("top", "bottom", "per", "sample")


def make_conditions(arguments: argparse.Namespace) -> Conditions:
    """Make the conditions that the words ask for; --bursts takes the best one of each burst.

    A page has a table of the groups of --per, also where no best or worst of each are taken.

    Raises:
        ValueError: If they contradict each other.
    """
    top, bottom = (None if text is None else Amount.read(text) for text in (arguments.top, arguments.bottom))
    per = arguments.per
    if arguments.bursts:
        given = [name for name in RANKING if getattr(arguments, name) is not None]
        if given:
            raise ValueError(f"--bursts takes the best one of each burst, and --{given[0]} others. Drop one of them.")
        top, per = Amount.read("1"), BURST
    elif arguments.report is not None and top is None and bottom is None:
        per = None  # groups of the page alone
    return Conditions(
        minimum=arguments.min,
        maximum=arguments.max,
        percentile=arguments.percentile,
        top=top,
        bottom=bottom,
        per=per,
        sample=arguments.sample,
        bins=arguments.bins,
        seed=arguments.seed,
    )


def find_way(arguments: argparse.Namespace) -> tuple[str, str] | None:
    """Return the way of transferring files and the folder that they go to; None if they stay.

    Raises:
        ValueError: If several ways are given.
    """
    given = [name for name in WAYS if getattr(arguments, name) is not None]
    if len(given) > 1:
        raise ValueError(f"--{given[0]} and --{given[1]} exclude each other. Give one of them.")
    if arguments.symbolic and given != ["link_to"]:
        raise ValueError("--symbolic is of --link_to. Add it, or drop --symbolic.")
    if arguments.journal is not None and given != ["move_to"]:
        raise ValueError("--journal is of --move_to. Add it, or drop --journal.")
    if not given:
        return None
    way = "symlink" if arguments.symbolic else WAYS[given[0]]
    return way, str(getattr(arguments, given[0]))


def find_journal(arguments: argparse.Namespace) -> str:
    """Return the journal of `--move_to`: the given one, or one beside the folder."""
    return str(arguments.journal or f"{os.path.normpath(arguments.move_to)}.journal.jsonl")


def name_scores(arguments: argparse.Namespace) -> Path:
    """Return the table into which a folder is scored: the given one, or one beside what is written."""
    if arguments.scores is not None:
        return Path(arguments.scores)
    beside = (arguments.output, arguments.copy_to, arguments.link_to, arguments.move_to, arguments.report)
    return Path(f"{os.path.normpath(next((path for path in beside if path is not None), arguments.input))}.scores.csv")


def check_select(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if words of `musiq select` contradict each other, or what it writes cannot be written."""
    if arguments.undo is not None:
        _check_alone(arguments)
        return
    if arguments.input is None:
        raise ValueError("A table of scores, or a folder of pictures, is needed.")
    if not os.path.exists(arguments.input):
        raise ValueError(f"{arguments.input}: no such file or folder. Name a table of `musiq score`, or a folder.")
    make_conditions(arguments)
    BurstSettings(seconds=arguments.seconds, distance=arguments.distance)
    _check_files(arguments)
    found = find_way(arguments)
    if found is not None:
        check_output_file(Path(found[1]) / "picture")
    if os.path.isdir(arguments.input):
        _check_folder(arguments, None if found is None else found[1])
    elif arguments.scores is not None:
        raise ValueError("--scores names the table into which a folder is scored, and the input is a table. Drop it.")


def _check_alone(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if other words stand beside --undo."""
    others = ("input", *WAYS, "output", "unscored", "report", "journal", "scores", "top", "bottom", "min", "max")
    given = [name for name in others if getattr(arguments, name) is not None]
    if given:
        word = "an input" if given[0] == "input" else f"--{given[0]}"
        raise ValueError(f"--undo puts back the files of its journal, and needs nothing else. Drop {word}.")


def _check_files(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if a file cannot be written, or would replace another one."""
    taken = {os.path.realpath(arguments.input): "the input"}
    for name in ("output", "unscored", "report"):
        path = getattr(arguments, name)
        if path is None:
            continue
        if name == "report":
            check_page_path(path)
        check_new_file(path, (".html", ".htm") if name == "report" else TABLES, overwrite=arguments.overwrite)
        other = taken.setdefault(os.path.realpath(path), f"--{name}")
        if other != f"--{name}":
            raise ValueError(f"{path} is {other} too, and would be lost. Choose another name.")


def _check_folder(arguments: argparse.Namespace, place: str | None) -> None:
    """Raise a ValueError if a folder cannot be scored, or its files would be put into itself."""
    check_output_file(name_scores(arguments))
    if name_scores(arguments).suffix.lower() not in TABLES:
        raise ValueError(
            f"--scores is a {', '.join(TABLES)} file, got {arguments.scores}. Change the end of the name."
        )
    if place is not None and Path(os.path.realpath(place)).is_relative_to(os.path.realpath(arguments.input)):
        raise ValueError(
            f"{place} lies in {arguments.input}, and the next run would score it too. Choose a folder outside of it."
        )


def check_gate(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if `musiq gate` has no threshold, or names no picture."""
    if (arguments.min is None) == (arguments.expect_fail_rate is None):
        raise ValueError("A threshold is needed: --min SCORE, or --expect_fail_rate SHARE. Give one of them.")
    rate = arguments.expect_fail_rate
    if rate is not None and not 0 < rate < 1:
        raise ValueError(f"--expect_fail_rate must lie between 0 and 1, as 0.05, got {rate:g}.")
    for path in arguments.paths:
        if is_remote(path):
            check_url(path)
        elif "://" not in path and leads_nowhere(path):
            raise ValueError(f"{path}: {NOTHING}")
