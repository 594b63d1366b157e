# SPDX-License-Identifier: Apache-2.0
"""Time and memory of `musiq select` on a table of many rows, in each format, as a process of its own.

python examples/analysis/measure_selecting.py --rows 100000
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow  # type: ignore[import-untyped]

from musiq_hf.common.arguments import CommandParser, parse_arguments, positive
from musiq_hf.common.markdown import markdown_table
from musiq_hf.common.outputs import TABLES
from musiq_hf.decisions import ScoreTable, write_scores

SIGNATURE = "musiq-lite-biq2021|weights:1a2b3c4d|preset:default|preprocessing:5e6f7a8b|decoder:Pillow-13.0.0"
# A process inherits the largest memory of the one that starts it, so a small one does.
LAUNCHER = """
import os, sys
process = os.posix_spawn(sys.executable, sys.argv[1:], os.environ)
_, status, usage = os.wait4(process, 0)
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""
CONDITIONS = ("--min", "50", "--top", "10%", "--per", "folder")


def make_table(number: int) -> ScoreTable:
    """Make a table of random scores with the columns of `musiq score`; one row of a thousand has an error."""
    scores = np.random.default_rng(0).normal(60, 15, number)
    known = [None if place % 1000 == 0 else float(score) for place, score in enumerate(scores)]
    keys = [f"photos/album {place % 97}/IMG_{place:06d}.jpg" for place in range(number)]
    columns = {
        "key": keys,
        "width": pyarrow.array([4000] * number, pyarrow.int32()),
        "height": pyarrow.array([3000] * number, pyarrow.int32()),
        "score": known,
        "score_0_1": [None if score is None else score / 100 for score in known],
        "model": ["musiq-lite-biq2021"] * number,
        "signature": [SIGNATURE] * number,
        "error": [f"{key}: no such file." if score is None else None for key, score in zip(keys, known, strict=True)],
    }
    return ScoreTable(pyarrow.table(columns))


def measure(number: int) -> Iterator[tuple[str, str, str]]:
    """Yield format, CPU time in seconds and largest memory in MB of the command, the start of Python included."""
    table = make_table(number)
    with tempfile.TemporaryDirectory() as folder:
        for suffix in TABLES:
            path = Path(folder) / f"scores{suffix}"
            write_scores(path, table)
            words = [
                sys.executable,
                "-m",
                "musiq_hf.cli",
                "select",
                str(path),
                *CONDITIONS,
                "-o",
                f"{path}.out{suffix}",
            ]
            done = subprocess.run([sys.executable, "-c", LAUNCHER, *words], check=True, capture_output=True, text=True)
            seconds, memory = done.stdout.split()
            yield suffix, f"{float(seconds):.1f}", f"{int(memory) / 1024:.0f}"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=positive, default=100_000, help="of the table (100000)")
    arguments = parse_arguments(parser, argv)
    rows = [list(row) for row in measure(arguments.rows)]
    print(markdown_table(["format", "CPU seconds", "MB"], rows))


if __name__ == "__main__":
    main()
