# SPDX-License-Identifier: Apache-2.0
"""Command `musiq score`: scores any number of pictures into a table."""

import argparse
import multiprocessing
import os
import sys
from typing import Any

from transformers.utils import logging

from ..common.arguments import positive
from ..models.auto import DEFAULT_CHECKPOINT
from ..pictures import decoding
from ..pictures.opening import MAX_MEGAPIXELS, MAX_SHRUNK_MEGAPIXELS, PRESETS
from ..pictures.sources.tables import Columns
from ..scoring.calibration import CALIBRATION, Calibration
from ..scoring.job import DTYPES, ENGINES, ScoreJob, Share, find_launched_share
from ..scoring.tables.forms import COLUMNS, ENSEMBLE, PLACES
from .progress import show_warnings
from .score_output import print_scores, write_scores
from .words import STDIN, read_limit, read_shard, read_weights

DESCRIPTION = f"""\
Score pictures: one row for each, with its error if it cannot be read or scored, in the order of the inputs.

PATH is one of
  a picture               JPEG, PNG, WebP, TIFF, AVIF, JPEG 2000, GIF (its first frame) and other raster formats,
                          HEIC with the extra heic; docs/usage.md lists them
  a URL                   of a picture, http or https
  a folder                all pictures below it, known by their endings; hidden files are left out, and how many
                          others were is said at the end
  a pattern in quotes     'photos/**/*.jpg', 'shards/*.tar'
  a .tar file             WebDataset shard or not; read in place, never unpacked, and its hidden members left out
  a .parquet file         with a column of pictures, as `datasets` writes it
  a .csv file             with a column of paths, relative to the file
  a data set              a folder that `save_to_disk` has written, or on the Hub and read as a stream:
                          hf://datasets/owner/name, with /configuration, @revision and :split as needed (shards
                          and continued runs read past the rows of others and those that are done)
  a remote path           s3://bucket/photos, gs://bucket and others that fsspec knows: a picture, a folder, a pattern
                          or a .tar, .parquet or .csv file; credentials are those of the environment
  -                       all of these, named on standard input, one a line; with --null each ends in a zero byte;
                          a name that leads to nothing is a row with its error

Columns of OUT: {", ".join(COLUMNS)}; with --weights also {ENSEMBLE};
with --percentile or --calibration also {" and ".join(PLACES)}.
The key is the path, shard.tar::member, file.parquet::row (from 0; data sets alike) or the path as a CSV file has it;
--key takes it from a column of tables and data sets instead; a key that several rows have is warned of.
A row has an error, or a score in MOS points, which is not clipped; score_0_1 is its position in the checkpoint's
range, clipped to 0..1; std, of checkpoints that predict a distribution, is its standard deviation.
percentile, 0 to 100, is the place of a score among those of the checkpoint's validation pictures; stars, 1 to 5, are
the fifth of them that it lies in. They need {CALIBRATION} beside the weights, see musiq evaluate --write_calibration.
With --calibration both tell the place among the scores of pictures of your own, which must be of the same checkpoint.
Several checkpoints give a row each, side by side, and the ensemble of a picture, the mean of the positions of its
scores in their ranges, not clipped, stands in all of its rows; it is missing where one of the scores is.

While it runs, OUT.part holds the rows; in a remote store it gets an object for 1,000 rows, or every 60 seconds.
Interrupted or killed, the same command continues, and the result is that of a run that was never interrupted, bit by
bit on a CPU with the same number of threads (OMP_NUM_THREADS). With another number, or batches (a GPU, or
--max_tokens), the last digits can differ.
If OUT is there with the same pictures and settings, nothing is done; if it has others, the command says which.
"""
EPILOG = """\
examples:
  musiq score photo.jpg
  musiq score photos -o scores.csv
  musiq score 'shards/*.tar' -o scores.parquet -m musiq-koniq
  musiq score photos -o scores.csv -m musiq-koniq -m musiq-spaq --weights 0.6,0.4
  musiq score s3://bucket/photos -o s3://bucket/scores.parquet
  find photos -name '*.jpg' -print0 | musiq score - --null -o scores.csv
  musiq score photos -o scores.parquet --shard 3/8                    one of 8 jobs: scores.3-of-8.parquet
  accelerate launch -m musiq_hf.cli score photos -o scores.parquet    all processes write one file
  RAY_ADDRESS=auto musiq score photos -o scores.parquet --engine ray  all machines of a Ray cluster

The file of a shard is a table of its own, and most readers take several at once ('scores.*-of-8.parquet'); their
signatures must agree. Processes
of a launch must see one file system; the last of them makes OUT, with the rows in the order of the inputs. On CPUs
accelerate starts a single process; `torchrun --nproc_per_node 4 -m musiq_hf.cli score ...` starts several.

exit code: 0 all scored or OUT was finished before, 1 some rows are errors, 2 a mistake in the command,
130 interrupted
"""


def add_arguments(parser: Any) -> None:
    """Add the arguments."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="what to score, see above")
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help=".csv, .jsonl or .parquet file, or the URL of one in a remote store (default: a table on the terminal)",
    )
    parser.add_argument(
        "-m",
        "--model",
        action="append",
        help=f"checkpoint ({DEFAULT_CHECKPOINT.name}); several score what is decoded once",
    )
    parser.add_argument(
        "--weights",
        type=read_weights,
        metavar="W,W",
        help="of several checkpoints, for a column `ensemble`",
    )
    parser.add_argument(
        "--percentile", action="store_true", help=f"add columns {' and '.join(PLACES)}, for checkpoints that have them"
    )
    parser.add_argument(
        "--calibration",
        metavar="FILE",
        help="add these columns by the scores of other pictures: a table of this command, or what `Calibration.save` "
        "of musiq_hf.assessment wrote",
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
    parser.add_argument(
        "--max_megapixels",
        type=read_limit,
        metavar="M",
        help="largest picture that is scored, in millions of pixels, once --shorter_side shrank it (default: "
        f"{MAX_SHRUNK_MEGAPIXELS:g} if every checkpoint shrinks larger pictures, as the embedded default does, else "
        f"{MAX_MEGAPIXELS:g}, which takes a small model two minutes on two cores); inf: no limit",
    )
    parser.add_argument("--column", metavar="NAME", help="column of tables and data sets with the pictures")
    parser.add_argument("--key", metavar="NAME", help="column of tables and data sets with the keys")
    parser.add_argument(
        "--shard", type=read_shard, metavar="i/n", help="score only every n-th input, from the i-th on"
    )
    parser.add_argument("--null", action="store_true", help="names on standard input end in zero bytes, not lines")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT, and what an unfinished run has left")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the model (float32)")
    parser.add_argument("--max_tokens", type=positive, metavar="N", help="patches of a batch, padding counted")
    parser.add_argument(
        "--num_workers",
        type=positive,
        metavar="N",
        help="processes that decode; a file that crashes its decoder costs them its row alone (default: for a GPU up "
        "to 8; for a CPU two threads of this process, which are faster but crash with it)",
    )
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="local",
        help="ray: in workers on the machines of the Ray cluster of RAY_ADDRESS, or of one that is started on this "
        "machine; with the extra ray. The rows are the same, and a run may go on with another engine",
    )
    parser.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="of the engine ray (default: as many as the cluster has GPUs, or CPUs if it has none)",
    )
    parser.add_argument(
        "--cpus_per_worker", type=positive, metavar="N", help="which are its threads, and bound its --num_workers (1)"
    )
    parser.add_argument(
        "--gpus_per_worker",
        type=float,
        metavar="G",
        help="which may be a fraction, as 0.25 (default: 1 if the cluster has GPUs, else 0)",
    )
    parser.add_argument("--progress", action="store_true", help="show progress on stderr even where it is no terminal")


def _check_ends(content: bytes, *, null: bool) -> None:
    """Raise a ValueError if names on standard input end otherwise than was said, or there are none."""
    first, zero, _ = content.partition(b"\0")
    if zero and not null and os.path.lexists(first):
        raise ValueError("The names on standard input end in zero bytes. Add --null.")
    if zero and not null:
        raise ValueError(
            "Names of pictures are expected on standard input, one a line, got other bytes, those of a picture say. "
            "Name the picture in place of -, or add --null if names end in zero bytes."
        )
    if null and not zero and b"\n" in content and not os.path.lexists(content):
        raise ValueError("--null expects names that end in zero bytes, and standard input has none. Drop --null.")


def read_names(*, null: bool) -> list[str]:
    """Read names of pictures from standard input.

    Args:
        null: Whether names end in zero bytes, as `find -print0` writes them; else each line is one.

    Raises:
        ValueError: If there is no name, names end otherwise, or several processes of a launch would share the input.
    """
    if find_launched_share().is_launched:
        raise ValueError("- cannot be used by the processes of one launch, which share no input. Name a CSV file.")
    content = sys.stdin.buffer.read()
    _check_ends(content, null=null)
    parts = content.split(b"\0") if null else content.splitlines()
    names = [os.fsdecode(part) for part in parts if part]
    if not names:
        raise ValueError("- stands for the names on standard input, which holds none. Write a name on each line.")
    return names


def make_job(arguments: argparse.Namespace) -> ScoreJob:
    """Make the job that the parsed command line asks for."""
    paths = list(arguments.paths)
    is_list = STDIN in paths
    if is_list:
        place = paths.index(STDIN)
        paths[place : place + 1] = read_names(null=arguments.null)
    return ScoreJob(
        paths,
        output=arguments.output,
        columns=Columns(picture=arguments.column, key=arguments.key),
        allow_missing=is_list,
        share=find_launched_share() if arguments.shard is None else Share(*arguments.shard),
        overwrite=arguments.overwrite,
        models=arguments.model or [str(DEFAULT_CHECKPOINT)],
        weights=arguments.weights,
        percentile=arguments.percentile,
        calibration=None if arguments.calibration is None else Calibration.load(arguments.calibration),
        preset=arguments.preset,
        shorter_side=arguments.shorter_side,
        max_megapixels=arguments.max_megapixels,
        device=arguments.device,
        dtype=arguments.dtype,
        max_tokens=arguments.max_tokens,
        num_workers=arguments.num_workers,
        engine=arguments.engine,
        workers=arguments.workers,
        cpus_per_worker=arguments.cpus_per_worker,
        gpus_per_worker=arguments.gpus_per_worker,
    )


def run(arguments: argparse.Namespace) -> int:
    """Score the pictures, and return the exit code."""
    logging.disable_progress_bar()
    if sys.platform != "win32":  # imports what decoding needs once, for all processes that decode
        multiprocessing.set_forkserver_preload(["__main__", decoding.__name__])
    job = make_job(arguments)
    score = print_scores if job.output is None else write_scores
    with show_warnings():
        return score(job, show_progress=arguments.progress)
