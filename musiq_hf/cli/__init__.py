# SPDX-License-Identifier: Apache-2.0
"""The `musiq` command: one module of this package for each subcommand, imported only if that subcommand runs.

Each module has a `DESCRIPTION`, perhaps an `EPILOG`, and `add_arguments(parser)`, all of which `words` repeats without
the module. Its `run(arguments)` returns the exit code: 0 done, 1 some pictures failed, 2 a mistake.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ..common.arguments import CommandParser, parse_arguments, run_command
from ..version import __version__
from .words import (
    add_words,
    check_compare,
    check_evaluate,
    check_explain,
    check_export,
    check_finetune,
    check_ladder_words,
    check_mos,
    check_pairs,
    check_plan_session,
    check_rate,
    check_score,
    check_table,
    check_upscale,
    check_verify,
    read_words,
)

DESCRIPTION = "Score the quality of pictures with MUSIQ, and see what the scores are made of."
EPILOG = """\
examples:
  musiq score photo.jpg                      print the score of one picture
  musiq score photos -o scores.csv           score a folder; killed, the same command continues
  musiq score --help                         all about one command
"""


def _load_score() -> ModuleType:
    from . import score

    return score


def _load_explain() -> ModuleType:
    from . import explain

    return explain


def _load_info() -> ModuleType:
    from . import info

    return info


def _load_verify() -> ModuleType:
    from . import verify

    return verify


def _load_convert() -> ModuleType:
    from . import convert

    return convert


def _load_export() -> ModuleType:
    from . import export

    return export


def _load_evaluate() -> ModuleType:
    from . import evaluate

    return evaluate


def _load_finetune() -> ModuleType:
    from . import finetune

    return finetune


def _load_compare() -> ModuleType:
    from .assessment import compare

    return compare


def _load_describe() -> ModuleType:
    from .assessment import describe

    return describe


def _load_ladder() -> ModuleType:
    from .assessment import ladder

    return ladder


def _load_native() -> ModuleType:
    from .assessment import native

    return native


def _load_upscale() -> ModuleType:
    from . import upscale

    return upscale


def _load_rate() -> ModuleType:
    from .decisions import rate

    return rate


def _load_plan_session() -> ModuleType:
    from .subjective import plan_session

    return plan_session


def _load_mos() -> ModuleType:
    from .subjective import mos

    return mos


def _load_pairs() -> ModuleType:
    from .subjective import pairs

    return pairs


def _load_serve() -> ModuleType:
    from . import serve

    return serve


def _load_select() -> ModuleType:
    from .decisions import select

    return select


def _check_select(arguments: argparse.Namespace) -> None:
    from .decisions.words import check_select

    check_select(arguments)


def _load_gate() -> ModuleType:
    from .decisions import gate

    return gate


def _check_gate(arguments: argparse.Namespace) -> None:
    from .decisions.words import check_gate

    check_gate(arguments)


@dataclass(frozen=True)
class Command:
    """Subcommand, with what is known of it before its module is imported.

    Attributes:
        summary: Line about it in the help of `musiq`.
        load: Function that imports its module.
        example: Command line that would work, shown below a mistake; None shows none.
        check: Function that raises a ValueError if arguments contradict each other; None checks nothing.
        is_light: Whether it can do without PyTorch and Transformers; it registers the classes itself if it needs them.
    """

    summary: str
    load: Callable[[], ModuleType]
    example: str | None = None
    check: Callable[[argparse.Namespace], None] | None = None
    is_light: bool = False


# The help lists them in this order.
COMMANDS = {
    "score": Command("score pictures, folders, archives, tables and data sets", _load_score, check=check_score),
    "explain": Command(
        "why a picture has its score: one page of HTML with figures", _load_explain, check=check_explain
    ),
    "serve": Command("score in a browser, and by HTTP", _load_serve, "musiq serve --port 8000"),
    "info": Command("what a checkpoint is, and its signature", _load_info),
    "verify": Command("whether a checkpoint gives the numbers that it should", _load_verify, check=check_verify),
    "convert": Command(
        "convert a published checkpoint, and back", _load_convert, "musiq convert koniq_ckpt.npz musiq-koniq"
    ),
    "export": Command(
        "write a checkpoint as ONNX, or for torch.export",
        _load_export,
        "musiq export musiq-koniq musiq-koniq.onnx",
        check_export,
    ),
    "evaluate": Command(
        "measure checkpoints on scored pictures",
        _load_evaluate,
        "musiq evaluate --data scores.csv --image_root photos --output report.json",
        check_evaluate,
    ),
    "finetune": Command(
        "train on your own opinion scores",
        _load_finetune,
        "musiq finetune --data scores.csv --image_root photos --output_dir runs/new",
        check_finetune,
    ),
    "compare": Command(
        "compare upscalers, codecs or other systems with a reference, on pictures or videos",
        _load_compare,
        "musiq compare originals bicubic network -o rows.csv --report report.json",
        check_compare,
    ),
    "describe": Command(
        "describe the content of pictures and videos in numbers",
        _load_describe,
        "musiq describe photos -o content.csv",
        check_table,
    ),
    "ladder": Command(
        "encode pictures by several codecs and qualities, and see which file is small and good",
        _load_ladder,
        "musiq ladder photos -o ladder.csv --max_drop 2",
        check_ladder_words,
    ),
    "native": Command(
        "say whether pictures and videos are native or upscaled",
        _load_native,
        "musiq native photos -o verdicts.csv",
        check_table,
    ),
    "upscale": Command(
        "enlarge pictures to any size",
        _load_upscale,
        "musiq upscale photos -o large --scale 2",
        check_upscale,
    ),
    "rate": Command(
        "put stars into the sidecars of photographs", _load_rate, "musiq rate photos --sidecars", check_rate
    ),
    "select": Command(
        "choose pictures by their scores, and copy, link or move them",
        _load_select,
        "musiq select scores.csv --min 50 -o kept.csv",
        _check_select,
        is_light=True,
    ),
    "gate": Command(
        "let pictures pass or fail by a threshold, with an exit status",
        _load_gate,
        "musiq gate renders --min 50",
        _check_gate,
    ),
    "plan-session": Command(
        "plan the sessions of a viewing test",
        _load_plan_session,
        "musiq plan-session cells.csv -o plan",
        check_plan_session,
    ),
    "mos": Command("opinion scores from the votes of viewers", _load_mos, "musiq mos votes.csv -o mos.csv", check_mos),
    "pairs": Command(
        "a scale from paired comparisons", _load_pairs, "musiq pairs comparisons.csv -o scale.csv", check_pairs
    ),
}


def build_parser() -> argparse.ArgumentParser:
    """Build the command line, without importing the modules of the subcommands."""
    options: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = CommandParser(prog="musiq", description=DESCRIPTION, epilog=EPILOG, **options)
    parser.add_argument("--version", action="version", version=f"musiq_hf {__version__}")
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name, words in read_words().items():
        texts = {"description": words["description"], "epilog": words["epilog"], "help": COMMANDS[name].summary}
        add_words(subparsers.add_parser(name, **texts, **options), words["groups"])
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code; a mistake is one sentence on stderr.

    Args:
        argv: Words of the command line after `musiq`; None reads them from `sys.argv`.

    Raises:
        SystemExit: If argparse prints the help (exit code 0), or does not understand the words (exit code 2).
    """
    arguments = parse_arguments(build_parser(), argv)
    command = COMMANDS[arguments.command]

    def run() -> int:
        if command.check is not None:
            command.check(arguments)
        module = command.load()
        if command.is_light:
            return int(module.run(arguments))
        from ..models.auto import register  # it loads Transformers and PyTorch
        from ..pictures.decoding import silence_decoders

        register()
        silence_decoders()
        return int(module.run(arguments))

    return run_command(f"musiq {arguments.command}", run, example=command.example)
