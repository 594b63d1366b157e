# SPDX-License-Identifier: Apache-2.0
"""Command `musiq verify`: checks that a checkpoint gives the numbers that it should."""

import argparse
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import logging

from ..common.markdown import markdown_table
from ..common.terminal import print_line, print_text
from ..conversion.published import published_name
from ..models.protocol import QualityProcessor
from ..scoring.loading import find_file, load_with_head
from ..scoring.signature import make_signature
from ..scoring.verification import (
    OFFICIAL_PICTURES,
    OFFICIAL_SCORES,
    OFFICIAL_TOLERANCE,
    SELF_TEST,
    TOLERANCE,
    Comparison,
    answer_width,
    compare_with_official,
    run_self_test,
)
from .info import add_arguments as add_checkpoint

DESCRIPTION = f"""\
Run the self-test that is stored with a checkpoint ({SELF_TEST}): scores of three pictures made from a formula must be
the stored ones, up to {TOLERANCE:g} of the range of scores.

With --images, a converted checkpoint ({", ".join(OFFICIAL_SCORES)}) is compared with scores of the authors' program
for five pictures, {", ".join(OFFICIAL_PICTURES)} of ResultsCalibra/dist_dir of github.com/chaofengc/IQA-PyTorch, up to
{OFFICIAL_TOLERANCE:g} of the range. Files become pixels as in that program (JPEG with the fast inverse cosine
transform where simplejpeg is installed); what the official scores were decoded with is not known.

musiq verify
musiq verify musiq-koniq
musiq verify musiq-koniq --images dist_dir

exit code: 0 all within the tolerance, 1 a difference above it, 2 a mistake
"""


def add_arguments(parser: Any) -> None:
    """Add the arguments."""
    add_checkpoint(parser)
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder with the five pictures")
    parser.add_argument(
        "--name", choices=tuple(OFFICIAL_SCORES), help="published name, where that of the checkpoint does not tell it"
    )


def find_official_name(checkpoint: str, name: str | None) -> str:
    """Return the published name of a checkpoint, the given one or that in its own name.

    Raises:
        ValueError: If its name is not a published one with official scores.
    """
    found = name or published_name(Path(checkpoint).name)
    if found not in OFFICIAL_SCORES:
        raise ValueError(
            f"{checkpoint}: no official scores are known under this name, only for {', '.join(OFFICIAL_SCORES)}. "
            "Say with --name which of them it is, or leave out --images."
        )
    return found


def _render_check(title: str, comparisons: list[Comparison], tolerance: float) -> tuple[str, bool]:
    """Render one check as Markdown, and return also whether all numbers are within the tolerance."""
    rows = [
        [
            line.name,
            f"{line.expected:.4f}",
            f"{line.got:.4f}",
            f"{line.got - line.expected:+.1e}",
            "ok" if line.is_within(tolerance) else "WRONG",
        ]
        for line in comparisons
    ]
    heads = ["picture", "expected", "got", "difference", ""]
    passed = all(line.is_within(tolerance) for line in comparisons)
    return f"{title}, tolerance {tolerance:.2g}\n\n{markdown_table(heads, rows)}\n", passed


def verify(
    model: PreTrainedModel, processor: QualityProcessor, *, checkpoint: str, images: Path | None, name: str | None
) -> tuple[str, bool]:
    """Run the checks, and return their tables and whether all passed.

    Without a stored self-test only the official scores are compared.

    Raises:
        ValueError: If there is nothing to check, or pictures are missing.
    """
    width, checks = answer_width(model), []
    stored = find_file(checkpoint, SELF_TEST)
    if stored is not None or images is None:
        folder = checkpoint if stored is None else stored.parent
        checks.append(_render_check("Self-test", run_self_test(model, processor, folder), TOLERANCE * width))
    if images is not None:
        known = find_official_name(checkpoint, name)
        comparisons = compare_with_official(model, processor, name=known, folder=images)
        checks.append(_render_check(f"Official scores of {known}", comparisons, OFFICIAL_TOLERANCE * width))
    return "\n".join(table for table, _ in checks), all(passed for _, passed in checks)


def run(arguments: argparse.Namespace) -> int:
    """Print signature and tables, and return 1 if a number is not the expected one.

    Raises:
        ValueError: If there is no such checkpoint or nothing to check, or pictures are missing.
    """
    logging.disable_progress_bar()
    checkpoint = arguments.checkpoint
    model, processor = load_with_head(checkpoint)
    tables, passed = verify(model, processor, checkpoint=checkpoint, images=arguments.images, name=arguments.name)
    print_line(make_signature(model, processor, checkpoint=checkpoint))
    print_text(f"\n{tables}", end="")
    return 0 if passed else 1
