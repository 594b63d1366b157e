# SPDX-License-Identifier: Apache-2.0
"""Compare measured ratios with their targets: one line each, exit code 1 if one is missed.

python -m benchmarks.check runs/bench.json
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cpu_sizes import HUGE, PYIQA_LARGEST
from benchmarks.results import find_row, read_all, section_rows
from musiq_hf.common.arguments import CommandParser, parse_arguments

Results = dict[str, Any]
# How many times as fast as pyiqa in float32 with the same weights, by type and size.
SPEED_GOALS = {
    "float32": {(512, 384): 1.6, (1024, 768): 2.4, (2048, 1536): 4.0, (4000, 3000): 6.0},
    "bfloat16": {(512, 384): 4.0, (1024, 768): 8.0, (2048, 1536): 14.0, (4000, 3000): 16.0},
}
SHARE_GOALS = {"float32": 0.9, "bfloat16": 0.4}
SHARE_FROM = 900  # patches; smaller pictures do not give large matrix products, so no share is asked of them
GPU_SHARE_GOALS = {"packed batches": 0.45, "training": 0.4}


@dataclass(frozen=True)
class Target:
    """One line of the table of targets.

    Attributes:
        name: Name of the value that is compared.
        goal: Bound of the value.
        read: Function that takes the value out of the results; it returns None if the value was not measured.
        at_least: Whether the goal is a lower bound.
        style: Format in which the value is printed.
    """

    name: str
    goal: float
    read: Callable[[Results], float | None]
    at_least: bool = True
    style: str = "{:.2f}"

    def verdict(self, results: Results) -> str:
        """Return "met", "missed" or "not measured"."""
        value = self.read(results)
        if value is None:
            return "not measured"
        return "met" if (value >= self.goal if self.at_least else value <= self.goal) else "missed"

    def cells(self, results: Results) -> list[str]:
        """Return name, goal, measured value and verdict, for a table."""
        value = self.read(results)
        sign = ">=" if self.at_least else "<="
        measured = "" if value is None else self.style.format(value)
        return [self.name, f"{sign} {self.style.format(self.goal)}", measured, self.verdict(results)]


def _make_field_reader(section: str, field: str, **wanted: Any) -> Callable[[Results], float | None]:
    """Make a function that reads a number from the row of a section whose fields have the wanted values."""

    def read(results: Results) -> float | None:
        row = find_row(results, section, **wanted)
        return None if row is None or row.get(field) is None else float(row[field])

    return read


def _make_speed_reader(size: tuple[int, int], dtype: str) -> Callable[[Results], float | None]:
    def read(results: Results) -> float | None:
        row = find_row(results, "sizes", width=size[0], height=size[1])
        return row["ratios"][dtype] if row is not None and "ratios" in row else None

    return read


def _make_share_reader(dtype: str) -> Callable[[Results], float | None]:
    def read(results: Results) -> float | None:
        shares = [row["shares"].get(dtype) for row in section_rows(results, "sizes") if row["tokens"] >= SHARE_FROM]
        return min((share for share in shares if share is not None), default=None)

    return read


def _find_largest_deviation(results: Results) -> float | None:
    rows = section_rows(results, "sizes")
    return max((row["deviation_from_plain"] for row in rows if "deviation_from_plain" in row), default=None)


def _make_memory_reader(dtype: str) -> Callable[[Results], float | None]:
    def read(results: Results) -> float | None:
        size = {"width": PYIQA_LARGEST[0], "height": PYIQA_LARGEST[1]}
        ours = find_row(results, "memory", who="ours", dtype=dtype, **size)
        theirs = find_row(results, "memory", who="pyiqa", **size)
        return None if ours is None or theirs is None else float(ours["peak_bytes"] / theirs["peak_bytes"])

    return read


def _find_huge_gigabytes(results: Results) -> float | None:
    rows = [find_row(results, f"huge {dtype}", width=HUGE[0]) for dtype in SHARE_GOALS]
    return max((row["peak_bytes"] / 1e9 for row in rows if row is not None), default=None)


def _find_best_training_share(results: Results) -> float | None:
    rows = [*section_rows(results, "gpu training"), *section_rows(results, "gpu training compiled")]
    return max((row["share"] for row in rows), default=None)


def _list_targets() -> list[Target]:
    targets = []
    for dtype, goals in SPEED_GOALS.items():
        for size, goal in goals.items():
            name = f"{dtype}, {size[0]}x{size[1]}: times as fast as pyiqa in float32"
            targets.append(Target(name, goal, _make_speed_reader(size, dtype)))
    targets.append(
        Target("float32: deviation from the plain path, in points", 1e-4, _find_largest_deviation, False, "{:.1e}")
    )
    for dtype, goal in SHARE_GOALS.items():
        name = f"{dtype}: share of the rate of a large matrix product, smallest from 1024x768 on"
        targets.append(Target(name, goal, _make_share_reader(dtype)))
    targets.append(
        Target(
            "bfloat16: SRCC against float32, photographs",
            0.999,
            _make_field_reader("precision", "srcc"),
            style="{:.4f}",
        )
    )
    for dtype in SHARE_GOALS:
        name = f"{dtype}, 4000x3000: peak memory as a part of pyiqa's"
        targets.append(Target(name, 0.1, _make_memory_reader(dtype), False, "{:.3f}"))
    targets.append(Target("12000x9000: peak memory, GB", 4.0, _find_huge_gigabytes, False))
    for dtype in SHARE_GOALS:
        name = f"{dtype}, batch of mixed sizes: part of the best single size's rate"
        targets.append(Target(name, 0.95, _make_field_reader("mixed", "share_of_best_single", dtype=dtype)))
    name = "float32, batch of mixed sizes: change of a score, part of the range"
    targets.append(
        Target(name, 1e-5, _make_field_reader("mixed", "change_of_range", dtype="float32"), False, "{:.1e}")
    )
    for dtype in SHARE_GOALS:
        name = f"{dtype}, folder of JPEG files: part of the speed of the model alone"
        targets.append(Target(name, 0.9, _make_field_reader("folder", "share_of_model_alone", dtype=dtype)))
        name = f"{dtype}, folder of JPEG files: preprocessing, part of the model's time"
        targets.append(
            Target(name, 0.03, _make_field_reader("folder", "preprocessing_share", dtype=dtype), False, "{:.3f}")
        )
    targets.append(
        Target(
            "GPU, bfloat16, mixed sizes: times as fast as pyiqa",
            20.0,
            _make_field_reader("gpu against pyiqa", "ratio"),
        )
    )
    name = "GPU, bfloat16, packed batches: share of a matrix product's rate"
    targets.append(
        Target(name, GPU_SHARE_GOALS["packed batches"], _make_field_reader("gpu mixed", "share", dtype="bfloat16"))
    )
    name = "GPU, training step: share of a matrix product's rate, best variant"
    return [*targets, Target(name, GPU_SHARE_GOALS["training"], _find_best_training_share)]


TARGETS = _list_targets()


def _judge_targets(results: Results) -> list[list[str]]:
    """Return the cells of every target.

    Raises:
        ValueError: If nothing was measured, or something with --quick only.
    """
    quick = [name for name, part in results["sections"].items() if part.get("settings", {}).get("quick")]
    if quick:
        raise ValueError(f"{', '.join(quick)}: measured with --quick, which is not for conclusions. Measure without.")
    rows = [target.cells(results) for target in TARGETS]
    if not any(measured for _, _, measured, _ in rows):
        raise ValueError("No target was measured. Run `make bench` first.")
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Print the verdicts, and return the exit code: 1 if a target is missed, 2 for a mistake in the arguments."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="JSON files of benchmarks.cpu and benchmarks.gpu")
    arguments = parse_arguments(parser, argv)
    try:
        results = read_all(arguments.results)
        rows = _judge_targets(results)
    except ValueError as error:
        print(f"benchmarks.check: {error}", file=sys.stderr)
        return 2
    for name, goal, measured, verdict in rows:
        print(f"{verdict:>12}  {name}: {measured or '-'} ({goal})")
    return int(any(row[-1] == "missed" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
