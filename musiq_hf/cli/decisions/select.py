# SPDX-License-Identifier: Apache-2.0
"""Command `musiq select`: chooses pictures by their scores, and copies, links or moves them."""

import argparse
import os
import sys
from collections.abc import Sequence
from itertools import islice
from typing import Any, cast

from ...common.arguments import positive
from ...common.terminal import print_line
from ...decisions.bursts import DISTANCE, SECONDS, BurstSettings, add_bursts
from ...decisions.page import NUM_SHOWN, write_report
from ...decisions.percentiles import add_percentiles
from ...decisions.selecting import NUM_BINS, Selection, select_rows
from ...decisions.tables import SCORE, ScoreTable, read_scores, write_scores
from ...decisions.transferring import (
    Failure,
    TransferResult,
    Way,
    find_file,
    plan_transfers,
    transfer_files,
    undo_moves,
)
from .keepers import NOTE, WARNING
from .words import find_journal, find_way, make_conditions, name_scores

DESCRIPTION = f"""\
Choose pictures by their scores, and list, copy, link or move them.

musiq select scores.csv --min 50 -o kept.csv
musiq select scores.parquet --top 10% --copy_to best --root photos
musiq select photos --max 30 --move_to rejected
musiq select --undo rejected.journal.jsonl

INPUT is a table that `musiq score` wrote (.csv, .parquet, .jsonl), or a folder of pictures, which is scored first into
--scores; that can be killed and continued.
Bounds come first: --min, --max and --percentile, all inclusive. --top and --bottom take the best and worst of what
passes them: a number, or a share as 10%, which is rounded up. Of equal scores the first in the table is taken. With
--per they do so in each group: of a column, or by the word folder of each folder. --sample draws N pictures evenly
over the range of scores, to look at before a threshold is chosen.
Chosen rows keep their order and all their columns. Without -o and a folder to go to, their keys are printed, one a
line. Rows without a score are never chosen: how many there are and why is said on stderr, and --unscored lists them.

Files keep their folders below the one that all keys of the table share, or below --root. Nothing is overwritten or
deleted: a name that is taken by another content is an error, and by the same content counts as done. --link_to makes
hard links, which stay if the picture is moved or deleted; --symbolic makes relative symbolic links. --move_to notes
each move in a journal before it is made, and --undo puts all of them back. Killed at any moment, the same command
continues.

--bursts groups pictures that were taken within {SECONDS:g} seconds and look alike, and takes the best of each. The
column burst numbers the groups. It needs the extra bursts.
{NOTE}
"""
EPILOG = """\
exit code: 0 done, 1 some pictures could not be copied, linked, moved or put back, 2 a mistake in the command,
130 interrupted
"""
MOST_LISTED = 10  # reasons or failures that are printed


def add_arguments(parser: Any) -> None:
    """Add the arguments."""
    parser.add_argument("input", nargs="?", metavar="INPUT", help="table of scores, or folder of pictures")
    parser.add_argument("-m", "--model", help="checkpoint, of a table with several or to score a folder with")
    parser.add_argument("--by", default=SCORE, metavar="COLUMN", help=f"column of the scores ({SCORE}), as ensemble")
    parser.add_argument(
        "--scores", metavar="FILE", help="table into which a folder is scored (default: beside what is written)"
    )
    parser.add_argument("--device", default="auto", help="to score a folder: cpu, cuda, mps (a GPU if there is one)")
    group = parser.add_argument_group("conditions")
    group.add_argument("--min", type=float, metavar="SCORE", help="lowest score")
    group.add_argument("--max", type=float, metavar="SCORE", help="highest score")
    group.add_argument(
        "--percentile",
        type=float,
        metavar="P",
        help="lowest percentile, 0 to 100, by the column of the table or the calibration of its checkpoint",
    )
    group.add_argument("--top", metavar="N|P%%", help="the best, as 100 or 10%%")
    group.add_argument("--bottom", metavar="N|P%%", help="the worst")
    group.add_argument("--per", metavar="COLUMN", help="take the best or worst of each group; folder: of each folder")
    group.add_argument("--sample", type=positive, metavar="N", help="draw so many, evenly over the scores")
    group.add_argument(
        "--bins",
        type=positive,
        default=NUM_BINS,
        metavar="K",
        help=f"equal ranges of scores to draw from ({NUM_BINS})",
    )
    group.add_argument("--seed", type=int, default=0, help="of the draw (0)")
    group.add_argument("--bursts", action="store_true", help="take the best of each burst, see above")
    group.add_argument(
        "--seconds",
        type=float,
        default=SECONDS,
        metavar="S",
        help=f"longest time between two pictures of a burst ({SECONDS:g}); without times, neighbours are compared",
    )
    group.add_argument(
        "--distance",
        type=int,
        default=DISTANCE,
        metavar="BITS",
        help=f"largest difference of the perceptual hashes of two, of 64 bits ({DISTANCE})",
    )
    group = parser.add_argument_group("results")
    group.add_argument("-o", "--output", metavar="OUT", help="table of the chosen rows: .csv, .jsonl or .parquet")
    group.add_argument("--unscored", metavar="FILE", help="table of the rows without a score")
    group.add_argument(
        "--report",
        metavar="FILE",
        help=f".html page: histogram, the best and worst {NUM_SHOWN}, groups of --per, errors",
    )
    group.add_argument("--null", action="store_true", help="print the files, as they are, each ending in a zero byte")
    group.add_argument("--overwrite", action="store_true", help="replace the tables and the page")
    group = parser.add_argument_group("files")
    group.add_argument("--copy_to", metavar="FOLDER", help="copy the chosen pictures")
    group.add_argument("--link_to", metavar="FOLDER", help="make hard links")
    group.add_argument("--symbolic", action="store_true", help="make symbolic links instead")
    group.add_argument("--move_to", metavar="FOLDER", help="move them, with a journal")
    group.add_argument("--journal", metavar="FILE", help="journal of the moves (FOLDER.journal.jsonl)")
    group.add_argument(
        "--root", metavar="FOLDER", help="folder of relative keys, below which files keep their folders"
    )
    group.add_argument("--undo", metavar="JOURNAL", help="put moved files back")


def run(arguments: argparse.Namespace) -> int:
    """Choose, and return the exit code.

    Raises:
        ValueError: If the arguments are wrong.
        OSError: If a file cannot be written.
    """
    if arguments.undo is not None:
        return _report_transfer(undo_moves(arguments.undo), "put back")
    table = _read(arguments)
    if arguments.percentile is not None:
        table = add_percentiles(table)
    if arguments.bursts:
        print_line(f"musiq select: {WARNING}", file=sys.stderr)
        files = [find_file(key, arguments.root or "") for key in table.keys]
        table = add_bursts(table, files, BurstSettings(seconds=arguments.seconds, distance=arguments.distance))
    selection = select_rows(table, make_conditions(arguments))
    _write(arguments, selection)
    _report_unscored(selection, is_listed=arguments.unscored is not None)
    return _transfer(arguments, selection)


def _read(arguments: argparse.Namespace) -> ScoreTable:
    """Read the table; a folder is scored into one first, unless its pictures are being moved already."""
    path, model = arguments.input, arguments.model
    if os.path.isdir(path):
        path = name_scores(arguments)
        is_moving = arguments.move_to is not None and os.path.exists(find_journal(arguments))
        if not (is_moving and path.is_file()):
            _score(arguments, path)
        model = None
    return read_scores(path, model=model, by=arguments.by)


def _score(arguments: argparse.Namespace, path: os.PathLike[str]) -> None:
    """Score a folder into a table; it loads PyTorch, which tables alone do without."""
    from ...models.auto import DEFAULT_CHECKPOINT, register
    from ...pictures.decoding import silence_decoders
    from ...scoring.job import ScoreJob
    from ..progress import show_warnings
    from ..score_output import write_scores as write_table

    register()
    silence_decoders()
    job = ScoreJob(
        [arguments.input],
        output=path,
        models=[arguments.model or str(DEFAULT_CHECKPOINT)],
        device=arguments.device,
    )
    with show_warnings():
        if write_table(job, show_progress=False) not in (0, 1):
            raise KeyboardInterrupt


def _write(arguments: argparse.Namespace, selection: Selection) -> None:
    """Write the tables, the page, or the list of the chosen pictures."""
    table, chosen = selection.table, selection.table.take(selection.chosen)
    if arguments.output is not None:
        write_scores(arguments.output, chosen)
    if arguments.unscored is not None:
        write_scores(arguments.unscored, table.take(selection.unscored))
    if arguments.report is not None:
        write_report(arguments.report, selection, per=arguments.per, root=arguments.root)
    counts = f"{len(chosen):,} of {len(table):,} pictures chosen"
    print_line(f"{counts}: {arguments.output}" if arguments.output else f"{counts}.", file=sys.stderr)
    if arguments.null:
        files = (os.fsencode(_name_file(key, arguments.root)) + b"\0" for key in chosen.keys)
        sys.stdout.buffer.write(b"".join(files))
        sys.stdout.buffer.flush()
    elif arguments.output is None and arguments.report is None and find_way(arguments) is None:
        for key in chosen.keys:
            print_line(key)


def _name_file(key: str, root: str | None) -> str:
    """Return the path of a key for other programs, relative if the key is, with the bytes that the name has."""
    path = find_file(key, root or "")
    return path if os.path.isabs(key) or root is not None else os.path.join(".", os.path.relpath(path))


def _report_unscored(selection: Selection, *, is_listed: bool) -> None:
    """Say on stderr how many rows have no score, and why."""
    if not len(selection.unscored):
        return
    where = "" if is_listed else "; --unscored FILE lists them"
    print_line(f"{len(selection.unscored):,} have no score and are not chosen{where}:", file=sys.stderr)
    reasons = selection.reasons
    for reason, count in reasons.most_common(MOST_LISTED):
        print_line(f"  {count:,}: {reason}", file=sys.stderr)
    if len(reasons) > MOST_LISTED:
        print_line(f"  and {len(reasons) - MOST_LISTED:,} other reasons", file=sys.stderr)


def _transfer(arguments: argparse.Namespace, selection: Selection) -> int:
    """Copy, link or move the chosen files if that is asked for, and return the exit code."""
    found = find_way(arguments)
    if found is None:
        return 0
    way, folder = found
    keys: list[str] = selection.table.keys.tolist()
    chosen = [keys[place] for place in selection.chosen]
    plan = plan_transfers(chosen, folder, among=keys, root=arguments.root)
    journal = find_journal(arguments) if way == "move" else None
    result = transfer_files(plan.transfers, folder, cast(Way, way), journal=journal)
    result.failures[:0] = plan.failures
    words = {"copy": "copied", "link": "linked", "symlink": "linked", "move": "moved"}
    where = f"{words[way]} to {folder}"
    return _report_transfer(result, where if journal is None else f"{where}; --undo {journal} puts them back")


def _report_transfer(result: TransferResult, words: str) -> int:
    """Say on stderr what was done, and return the exit code."""
    before = f", {result.found:,} were so before" if result.found else ""
    print_line(f"{result.done:,} {'file' if result.done == 1 else 'files'} {words}{before}.", file=sys.stderr)
    failures: Sequence[Failure] = result.failures
    if not failures:
        return 0
    print_line(f"{len(failures):,} left as they are:", file=sys.stderr)
    for failure in islice(failures, MOST_LISTED):
        print_line(f"  {failure.key}: {failure.reason}", file=sys.stderr)
    if len(failures) > MOST_LISTED:
        print_line(f"  and {len(failures) - MOST_LISTED:,} more", file=sys.stderr)
    return 1
