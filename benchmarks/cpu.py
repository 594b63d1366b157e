# SPDX-License-Identifier: Apache-2.0
"""Measure speed and memory on a CPU, section by section, into one JSON file that a later run continues.

python -m benchmarks.cpu --output runs/bench.json --pictures photos
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.cpu_batches import measure_folder, measure_mixed, measure_precision
from benchmarks.cpu_profile import measure_profile
from benchmarks.cpu_sizes import Settings, measure_growth, measure_huge, measure_memory, measure_sizes
from benchmarks.measure import DTYPES, describe_machine
from benchmarks.point import point
from benchmarks.results import add_section
from benchmarks.training_step import VARIANTS, TrainingSpec
from musiq_hf.common.arguments import CommandParser, one_sentence, parse_arguments, run_command

EXAMPLE = "python -m benchmarks.cpu --output runs/bench.json --pictures photos"
QUICK_VARIANTS = 2
TRAINING_SIZE = (768, 512)  # 515 patches, as many as training on 512 native patches reads


def measure_training_steps(settings: Settings) -> dict[str, Any]:
    """Measure the fine-tuning step of the large model, in a fresh process per variant."""
    rows = []
    for variant in list(VARIANTS)[: QUICK_VARIANTS if settings.quick else None]:
        width, height = settings.sizes[0] if settings.sizes else TRAINING_SIZE
        batch_size, repeats = (2, 2) if settings.quick else (4, 5)
        spec = TrainingSpec(variant, width, height, batch_size, repeats, settings.threads, config=settings.config)
        rows.append({"variant": variant, **point(spec)})
        keys = ("variant", "tokens_per_second", "peak_bytes", "error")
        print({key: rows[-1].get(key) for key in keys}, flush=True)
    return {"rows": rows}


SECTIONS: dict[str, Callable[[Settings], dict[str, Any]]] = {
    "sizes": measure_sizes,
    "memory": measure_memory,
    "mixed": measure_mixed,
    "folder": measure_folder,
    "precision": measure_precision,
    "training": measure_training_steps,
    "growth": measure_growth,
    "profile": measure_profile,
}
HUGE_SECTIONS = {f"huge {dtype}": partial(measure_huge, dtype=dtype) for dtype in DTYPES}


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="JSON file; sections measured before stay in it")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--quick", action="store_true", help="the small sizes alone: a check that everything runs")
    parser.add_argument("--huge", nargs="+", choices=DTYPES, metavar="TYPE", help="only 12000x9000, in these types")
    parser.add_argument("--pictures", type=Path, help="folder of photographs for `precision`")
    parser.add_argument("--max_pictures", type=int, default=300, help="at most so many of them")
    parser.add_argument("--work", type=Path, default=Path("runs/bench"), help="folder for files that are made once")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    parser.add_argument("--repeats", type=int, help="rounds of interleaved measurements (7; 3 with --quick)")
    return parser


def run_sections(
    sections: dict[str, Callable[[Settings], dict[str, Any]]], settings: Settings, *, output: Path
) -> list[str]:
    """Measure sections and write each as soon as it is done.

    Args:
        sections: Functions that measure a section, by its name.
        settings: Settings of all sections.
        output: JSON file to write.

    Returns:
        One line for each section that could not be measured. Nothing is written for it, so that an older result stays.
    """
    failed = []
    for name, measure in sections.items():
        print(f"== {name}", flush=True)
        try:
            section = measure(settings)
        except (ValueError, ImportError, OSError, RuntimeError) as error:
            failed.append(f"{name}: {one_sentence(error)}")
            print(failed[-1], flush=True)
            continue
        told = {"threads": settings.threads, "repeats": settings.repeats, "quick": settings.quick}
        add_section(output, name, {"machine": describe_machine(), "settings": told, **section})
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the sections, and return the exit code: 2 if a section failed."""
    arguments = parse_arguments(make_parser(), argv)

    def measure() -> None:
        torch.set_num_threads(arguments.threads)
        settings = Settings(
            threads=arguments.threads,
            repeats=arguments.repeats or (3 if arguments.quick else 7),
            quick=arguments.quick,
            work=arguments.work,
            pictures=arguments.pictures,
            max_pictures=arguments.max_pictures,
        )
        sections = {name: SECTIONS[name] for name in arguments.only or SECTIONS}
        if arguments.huge:
            sections = {f"huge {dtype}": HUGE_SECTIONS[f"huge {dtype}"] for dtype in arguments.huge}
        elif not arguments.only and arguments.pictures is None:
            print("Without --pictures the section `precision` is left out.")
            del sections["precision"]
        failed = run_sections(sections, settings, output=arguments.output)
        if failed:
            raise ValueError(f"{len(failed)} of {len(sections)} sections failed: {' '.join(failed)}")

    return run_command("benchmarks.cpu", measure, example=EXAMPLE)


if __name__ == "__main__":
    sys.exit(main())
