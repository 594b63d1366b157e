# SPDX-License-Identifier: Apache-2.0
"""`musiq score`: pictures of any number to a table of scores, which a kill at any moment does not harm."""

import argparse
import itertools
import math
import multiprocessing
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm
from transformers.utils import logging

from ..common.arguments import INTERRUPTED, positive
from ..common.devices import find_device
from ..models.auto import DEFAULT_CHECKPOINT
from ..pictures import decoding
from ..pictures.opening import PRESETS, has_fast_decoder
from ..pictures.sources import check_sources, count_sources, find_sources
from ..pictures.table_sources import Columns
from ..scoring.journal import (
    COLUMNS,
    ENSEMBLE,
    Journal,
    Totals,
    check_no_other_journal,
    check_output,
    journal_paths,
    shard_output,
    write_output,
)
from ..scoring.rows import Entry, Scorers

DESCRIPTION = f"""\
Score pictures: one row for each, with its error if it cannot be read or scored, in the order of the inputs.

PATH is one of
  a picture               JPEG, PNG, WebP, TIFF, BMP or GIF (its first frame)
  a URL                   of a picture, http or https
  a folder                all pictures below it, known by these endings; hidden files are left out
  a pattern in quotes     'photos/**/*.jpg', 'shards/*.tar'
  a .tar file             WebDataset shard or not; read in place, never unpacked
  a .parquet file         with a column of pictures, as `datasets` writes it
  a .csv file             with a column of paths, relative to the file
  a data set              a folder that `save_to_disk` has written, or on the Hub and read as a stream:
                          hf://datasets/owner/name, with /configuration, @revision and :split as needed (shards
                          and continued runs read past the rows of others and those that are done)

Columns of OUT: {", ".join(COLUMNS)}; with --weights also {ENSEMBLE}.
The key is the path, shard.tar::member, file.parquet::row (from 0; data sets alike) or the path as a CSV file has it;
--key takes it from a column of tables and data sets instead.
A row has an error, or a score in MOS points, which is not clipped; score_0_1 is its place in the checkpoint's range,
clipped to 0..1; std is the standard deviation of the predicted distribution, of checkpoints that predict one. Several
checkpoints give a row each, side by side, and the ensemble of a picture, the mean of the places of its scores in their
ranges, not clipped, stands in all of its rows; it is missing where one of the scores is.

While it runs, OUT.part holds the rows. Interrupted or killed, the same command continues, and the result is that of a
run that was never interrupted, bit by bit on a CPU. Of batches (a GPU, or --max_tokens) the last digits can differ.
"""
EPILOG = """\
examples:
  musiq score photo.jpg
  musiq score photos -o scores.csv
  musiq score 'shards/*.tar' -o scores.parquet -m musiq-koniq
  musiq score photos -o scores.csv -m musiq-koniq -m musiq-spaq --weights 0.6,0.4
  musiq score photos -o scores.parquet --shard 3/8                    one of 8 jobs: scores.3-of-8.parquet
  accelerate launch -m musiq_hf.cli score photos -o scores.parquet    all processes write one file

The file of a shard is a table of its own, and most readers take several at once ('scores.*-of-8.parquet'); their
signatures must agree. Processes
of a launch must see one file system; the last of them makes OUT, with the rows in the order of the inputs. On CPUs
accelerate starts a single process; `torchrun --nproc_per_node 4 -m musiq_hf.cli score ...` starts several.

exit code: 0 all scored, 1 some rows are errors, 2 a mistake in the command, 130 interrupted
"""
SHARD = re.compile(r"([1-9]\d*)/([1-9]\d*)")
HEADS = ("score", "in 0..1", "std", "size")


@dataclass(frozen=True)
class Share:
    """Which inputs are this process's: number `index` (from 1) of every `count`.

    Attributes:
        index: From 1.
        count: Shares in all.
        is_launched: Whether they are processes of one launch, which write one output together.
    """

    index: int = 1
    count: int = 1
    is_launched: bool = False


def shard(text: str) -> Share:
    """Read `i/n`."""
    match = SHARD.fullmatch(text)
    share = Share(int(match[1]), int(match[2])) if match else None
    if share is None or share.index > share.count:
        raise argparse.ArgumentTypeError(f"must be i/n with i from 1 to n, as 3/8, got {text}")
    return share


def weights(text: str) -> tuple[float, ...]:
    """Read weights between commas."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not all(math.isfinite(value) and value >= 0 for value in values) or not any(values):
        raise argparse.ArgumentTypeError(f"must be numbers from 0 on, not all 0, as 0.7,0.3, got {text}")
    return values


def add_parser(subparsers: Any, summary: str) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "score",
        help=summary,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="what to score, see above")
    parser.add_argument(
        "-o", "--output", metavar="OUT", help=".csv, .jsonl or .parquet file (default: a table on the terminal)"
    )
    parser.add_argument(
        "-m", "--model", action="append", help="checkpoint (the embedded one); several score what is decoded once"
    )
    parser.add_argument(
        "--weights",
        type=weights,
        metavar="W,W",
        help="of several checkpoints, for a column `ensemble`",
    )
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        default="default",
        help="how files become pixels; google: as in the published program, pictures not turned, JPEG as TensorFlow's",
    )
    parser.add_argument(
        "--shorter_side", type=positive, metavar="N", help="shrink pictures to this shorter side, in pixels, first"
    )
    parser.add_argument("--column", metavar="NAME", help="column of tables and data sets with the pictures")
    parser.add_argument("--key", metavar="NAME", help="column of tables and data sets with the keys")
    parser.add_argument("--shard", type=shard, metavar="i/n", help="score only every n-th input, from the i-th on")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the model (float32)")
    parser.add_argument("--max_tokens", type=positive, metavar="N", help="patches of a batch, padding counted")
    parser.add_argument(
        "--num_workers",
        type=positive,
        metavar="N",
        help="processes that decode; a file that crashes its decoder costs them its row alone (default: for a GPU up "
        "to 8; for a CPU two threads of this process, which are faster but crash with it)",
    )
    parser.add_argument("--progress", action="store_true", help="show progress on stderr even where it is no terminal")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Score, and return the exit code."""
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # twice as many pixels are an error
    if sys.platform != "win32":  # what the processes that decode need is imported once for all of them
        multiprocessing.set_forkserver_preload(["__main__", decoding.__name__])
    share = _share(arguments)
    output = None if arguments.output is None else check_output(arguments.output)
    check_sources(arguments.paths, columns=_columns(arguments))
    if output is None:
        if share.is_launched:
            raise ValueError("Several processes need an output that they write together. Give one with -o.")
        return _print_scores(arguments, share)
    if share.count > 1 and not share.is_launched:
        output = shard_output(output, share.index, share.count)
    return _write_scores(arguments, share, output)


def _share(arguments: argparse.Namespace) -> Share:
    """From `--shard`, or from what accelerate launch and torchrun tell their processes."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return arguments.shard or Share()
    if arguments.shard is not None or arguments.overwrite:
        option = "--overwrite" if arguments.shard is None else "--shard"
        advice = "Delete the output first" if arguments.shard is None else "Each of them scores its share anyway"
        raise ValueError(f"{option} cannot be used by the {count} processes of one launch. {advice}.")
    return Share(int(os.environ.get("RANK", "0")) + 1, count, True)


def _load(arguments: argparse.Namespace) -> Scorers:
    """The checkpoints, and how pictures are scored with them."""
    checkpoints = arguments.model or [str(DEFAULT_CHECKPOINT)]
    repeated = [name for name in checkpoints if checkpoints.count(name) > 1]
    if repeated:
        raise ValueError(f"-m {repeated[0]} is given {len(repeated)} times. Give each checkpoint once.")
    if arguments.weights is not None and (len(checkpoints) == 1 or len(arguments.weights) != len(checkpoints)):
        raise ValueError(
            f"--weights needs several checkpoints (-m) and a weight for each, got {len(checkpoints)} and "
            f"{len(arguments.weights)}."
        )
    if arguments.preset == "google" and not has_fast_decoder():
        print(
            "musiq score: without simplejpeg, Pillow decodes JPEG files, and their scores are not the published "
            'program\'s: some differ by several points of 100. Install it with: pip install "musiq_hf[google]"',
            file=sys.stderr,
        )
    logging.disable_progress_bar()
    return Scorers(
        checkpoints,
        device=find_device(arguments.device),
        dtype=getattr(torch, arguments.dtype),
        weights=arguments.weights,
        shorter_side=arguments.shorter_side,
        preset=arguments.preset,
        max_tokens=arguments.max_tokens,
        num_workers=arguments.num_workers,
    )


def _progress(arguments: argparse.Namespace, share: Share, done: int) -> Any:
    """A bar with pictures/s and, as soon as a thread has counted the pictures, the time left."""
    bar = tqdm(
        initial=done,
        unit=" pictures",
        disable=not (arguments.progress or sys.stderr.isatty()) or share.index > 1 and share.is_launched,
        dynamic_ncols=True,
        smoothing=0.05,
    )
    if not bar.disable:

        def count() -> None:
            try:
                number = count_sources(arguments.paths, columns=_columns(arguments))
            except (OSError, ValueError):  # the run meets it too, and says so
                return
            bar.total = None if number is None else len(range(share.index - 1, number, share.count))

        threading.Thread(target=count, daemon=True).start()
    return bar


def _columns(arguments: argparse.Namespace) -> Columns:
    return Columns(picture=arguments.column, key=arguments.key)


def _sources(arguments: argparse.Namespace, share: Share) -> Iterator[tuple[str, Any]]:
    """The inputs of this process."""
    sources = find_sources(arguments.paths, columns=_columns(arguments))
    return itertools.islice(sources, share.index - 1, None, share.count)


def _print_scores(arguments: argparse.Namespace, share: Share) -> int:
    """Print a table line by line."""
    scorers, num_pictures, num_errors = _load(arguments), 0, 0
    with _progress(arguments, share, 0) as bar, closing(scorers.rows(_sources(arguments, share))) as entries:
        for entry in entries:
            bar.clear()
            if not num_pictures:
                print(_line(*HEADS, "key" if len(entry) == 1 else "checkpoint, key"))
            for line in _lines(entry, scorers):
                print(line, flush=True)
            bar.update()
            num_pictures += 1
            num_errors += any(row.error is not None for row in entry)
    if num_errors:
        print(f"{_pictures(num_pictures)}, {num_errors} of them with an error instead of a score", file=sys.stderr)
    for name, signature in zip(scorers.names, scorers.signatures, strict=True):
        print(f"made with {name}, signature {signature}", file=sys.stderr)
    return 1 if num_errors else 0


def _pictures(number: int) -> str:
    return f"{number} picture{'' if number == 1 else 's'}"


def _line(score: str, place: str, std: str, size: str, key: str) -> str:
    return f"{score:>8}  {place:>7}  {std:>7}  {size:>11}  {key}"


def _lines(entry: Entry, scorers: Scorers) -> Iterator[str]:
    """A picture's lines of the table."""
    for row, name in zip(entry, scorers.names, strict=True):
        size = "" if row.width is None else f"{row.width}x{row.height}"
        score, place, std = ("" if value is None else f"{value:.2f}" for value in (row.score, row.score_0_1, row.std))
        key = " ".join(row.key.split())
        if row.error is not None:
            key = f"error: {row.error}" if key in row.error else f"error: {key}: {row.error}"
        yield _line(score, place, std, size, key if len(entry) == 1 else f"{name}, {key}")
    if scorers.weights is not None:
        mean = entry[0].ensemble
        yield _line("", "" if mean is None else f"{mean:.2f}", "", "", f"ensemble, {' '.join(entry[0].key.split())}")


def _write_scores(arguments: argparse.Namespace, share: Share, output: Path) -> int:
    """Score into a journal, and make the output of it."""
    journals = journal_paths(output, share.count if share.is_launched else 1)
    own = journals[share.index - 1 if share.is_launched else 0]
    if not own.exists() and _is_made(output, arguments, share):
        return 0
    check_no_other_journal(output, journals)
    scorers = _load(arguments)
    settings = {
        name: getattr(arguments, name) for name in ("paths", "column", "key", "shorter_side", "preset", "dtype")
    }
    settings |= {"models": scorers.names, "signatures": scorers.signatures, "weights": scorers.weights}
    settings["share"] = f"{share.index}/{share.count}"
    journal = Journal(own, settings)
    try:
        if not journal.is_finished and _is_made(output, arguments, share):
            return 0
        _fill(journal, arguments, share, scorers)
    except KeyboardInterrupt:
        print(f"\nStopped after {_pictures(journal.pictures)}. The same command continues.", file=sys.stderr)
        return INTERRUPTED
    finally:
        journal.close()
    totals = write_output(output, journals, temporary=Path(f"{own}.tmp"))
    _report(output, totals, journal)
    if totals is None:  # a launcher would end the other processes if this one failed
        return 0
    return 1 if totals.errors else 0


def _is_made(output: Path, arguments: argparse.Namespace, share: Share) -> bool:
    """Whether a launch has nothing left to do; for a single process an output that is there is a mistake."""
    if arguments.overwrite or not output.exists():
        return False
    message = f"{output} exists already. Add --overwrite, choose another name, or delete it."
    if not share.is_launched:
        raise ValueError(message)
    print(message, file=sys.stderr)  # a restarted launch had only its file to make, and another process was faster
    return True


def _fill(journal: Journal, arguments: argparse.Namespace, share: Share, scorers: Scorers) -> None:
    """Score what the journal lacks."""
    if journal.is_finished:
        return
    if journal.pictures:
        print(f"{journal.path}: continuing after {_pictures(journal.pictures)}.", file=sys.stderr)
    sources = journal.skip_done(_sources(arguments, share))
    with _progress(arguments, share, journal.pictures) as bar, closing(scorers.rows(sources)) as entries:
        for entry in entries:
            journal.append(entry)
            bar.update()
    journal.finish()


def _report(output: Path, totals: Totals | None, journal: Journal) -> None:
    """Say what has been done."""
    if totals is None:
        print(f"{journal.path}: done; the last process makes {output} of all parts.", file=sys.stderr)
        return
    failed = f", {totals.errors} of them with an error instead of a score (column `error`)" if totals.errors else ""
    print(f"{output}: {_pictures(totals.pictures)}{failed}.", file=sys.stderr)
