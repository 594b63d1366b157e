# SPDX-License-Identifier: Apache-2.0
"""Measurement of how often scores pick the better picture of a group, as `musiq select --bursts` has to.

python examples/analysis/measure_keepers.py photographs --number 100

Groups of four are made of each photograph: one clean picture and three with a made fault each. The four are copies of
the whole photograph, frames that are shifted by up to 24 pixels, or different crops. Each has three quarters of the
sides. The faults are mild or strong. A score is right where the clean picture has the highest one: of two pictures
chance is right in half of the cases, of four in a quarter.

With --hashes it says instead how often perceptual hashes find that two pictures belong to one burst: frames of one
photograph that are shifted by some pixels, and different photographs. It needs the extra bursts.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from musiq_hf.common.arguments import CommandParser, parse_arguments, positive, run_command
from musiq_hf.common.extras import require
from musiq_hf.common.markdown import markdown_table
from musiq_hf.pictures import apply_degradations, find_pictures, open_picture
from musiq_hf.scoring import load_quality, score_pictures

# The package comes first: from there on Ctrl-C is a sentence.
# isort: split
from transformers.utils import logging

GROUPS = ("copies", "shifted frames", "crops")
FAULTS = ("motion_blur", "blur", "noise", "jpeg", "exposure")  # of a burst, or of what programs do with it
STRENGTHS = {"mild": 0.1, "strong": 0.3}
NUM_FAULTY = 3
SHIFT = 24  # largest shift of a frame, in pixels
PART = 0.75  # of the sides
HASH_SHIFTS, HASH_BITS = (4, 12, 24, 48), (10, 14, 18, 22)


def cut_windows(image: Image.Image, kind: str, generator: np.random.Generator) -> list[Image.Image]:
    """Return a picture for the clean place of a group, and for each place with a fault.

    Args:
        image: Photograph.
        kind: Kind of the group, one of `GROUPS`.
        generator: Source of the places.
    """
    size = tuple(round(PART * side) for side in image.size)
    free = [side - part for side, part in zip(image.size, size, strict=True)]
    first = [int(generator.integers(0, length + 1)) for length in free]
    windows = []
    for number in range(1 + NUM_FAULTY):
        corner = first
        if number and kind == "crops":
            corner = [int(generator.integers(0, length + 1)) for length in free]
        elif number and kind == "shifted frames":
            shifts = generator.integers(-SHIFT, SHIFT + 1, 2)
            corner = [min(max(0, int(at + by)), length) for at, by, length in zip(first, shifts, free, strict=True)]
        left, top = corner
        windows.append(image.crop((left, top, left + size[0], top + size[1])))
    return windows


def make_groups(files: Sequence[Path], seed: int) -> Iterator[tuple[str, str, Image.Image]]:
    """Yield kind of a group, strength of its faults, and a picture; the clean one comes first, with "clean".

    Args:
        files: Photographs.
        seed: Seed of places and faults.
    """
    for number, file in enumerate(files):
        image = open_picture(file).convert("RGB")
        for place, kind in enumerate(GROUPS):
            generator = np.random.default_rng((seed, number, place))
            clean, *others = cut_windows(image, kind, generator)
            yield kind, "clean", clean
            faults = generator.choice(FAULTS, NUM_FAULTY, replace=False)
            for name, strength in STRENGTHS.items():
                for window, fault in zip(others, faults, strict=True):
                    yield kind, name, apply_degradations(window, {str(fault): strength}, seed=seed + number)


def measure(files: Sequence[Path], *, model: str | None, seed: int) -> dict[tuple[str, str], list[tuple[float, bool]]]:
    """Score all groups.

    Args:
        files: Photographs.
        model: Checkpoint; None takes the default.
        seed: Seed of places and faults.

    Returns:
        Two values for each photograph, by kind and strength. The first is the share of the faulty pictures that score
        lower than the clean one; the second says whether all of them do.
    """
    quality = load_quality() if model is None else load_quality(model)
    labels, pictures = [], []
    outcomes: dict[tuple[str, str], list[tuple[float, bool]]] = defaultdict(list)
    per_photograph = len(GROUPS) * (1 + NUM_FAULTY * len(STRENGTHS))
    for kind, name, picture in make_groups(files, seed):
        labels.append((kind, name))
        pictures.append(picture)
        if len(pictures) == per_photograph:
            rows = score_pictures(pictures, model=quality[0], processor=quality[1])
            scores = defaultdict(list)
            for label, row in zip(labels, rows, strict=True):
                scores[label].append(float("nan") if row.score is None else row.score)
            for group, strength in [label for label in scores if label[1] != "clean"]:
                lower = np.array(scores[group, strength]) < scores[group, "clean"][0]
                outcomes[group, strength].append((float(lower.mean()), bool(lower.all())))
            labels, pictures = [], []
    return outcomes


def measure_hashes(files: Sequence[Path], *, seed: int) -> str:
    """Return the table of the shares of pairs whose hashes differ by at most some bits, in Markdown.

    Args:
        files: Photographs.
        seed: Seed of the directions of the shifts.
    """
    hashing, generator = require("imagehash", extra="bursts"), np.random.default_rng(seed)
    found: dict[str, list[int]] = {f"shifted by {shift} pixels": [] for shift in HASH_SHIFTS}
    first = []
    for file in files:
        image = open_picture(file).convert("RGB")
        size = [round(PART * side) for side in image.size]
        corner = [(side - part) // 2 for side, part in zip(image.size, size, strict=True)]
        codes = []
        for shift in (0, *HASH_SHIFTS):
            angle = generator.uniform(0, 2 * np.pi)
            left, top = int(corner[0] + shift * np.cos(angle)), int(corner[1] + shift * np.sin(angle))
            codes.append(hashing.phash(image.crop((left, top, left + size[0], top + size[1]))))
        for kind, code in zip(found, codes[1:], strict=True):
            found[kind].append(codes[0] - code)
        first.append(codes[0])
    found["different photographs"] = [one - other for place, one in enumerate(first) for other in first[:place]]
    rows = [
        [kind, *(f"{100 * np.mean(np.array(bits) <= most):.1f} %" for most in HASH_BITS)]
        for kind, bits in found.items()
    ]
    return markdown_table(["pairs", *(f"{most} bits" for most in HASH_BITS)], rows)


def render(outcomes: dict[tuple[str, str], list[tuple[float, bool]]]) -> str:
    """Return the table of the shares, in Markdown."""
    rows = []
    for (kind, strength), found in outcomes.items():
        pairs, keepers = (np.mean([pair[place] for pair in found]) for place in (0, 1))
        rows.append([kind, strength, f"{100 * pairs:.0f} %", f"{100 * keepers:.0f} %"])
    return markdown_table(["group", "faults", "better of two", "best of four"], rows)


def build_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of photographs without faults")
    parser.add_argument("--number", type=positive, default=100, help="photographs that are drawn (100)")
    parser.add_argument("--model", help="checkpoint (the default one)")
    parser.add_argument("--hashes", action="store_true", help="measure the hashes that find bursts")
    parser.add_argument("--seed", type=int, default=0, help="of photographs, places and faults (0)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and return the exit code."""
    arguments = parse_arguments(build_parser(), argv)

    def run() -> int:
        logging.disable_progress_bar()
        found = find_pictures(arguments.folder)
        order = np.random.default_rng(arguments.seed).permutation(len(found))[: arguments.number]
        files = [found[place] for place in order]
        if arguments.hashes:
            table = measure_hashes(files, seed=arguments.seed)
        else:
            table = render(measure(files, model=arguments.model, seed=arguments.seed))
        print(f"{len(files)} photographs\n\n{table}")
        return 0

    return run_command("measure_keepers", run)


if __name__ == "__main__":
    sys.exit(main())
