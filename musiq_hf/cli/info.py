# SPDX-License-Identifier: Apache-2.0
"""Command `musiq info`: prints kind, size and signature of a checkpoint."""

import argparse
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import logging

from ..common.terminal import print_line
from ..models import family_of
from ..models.auto import DEFAULT_CHECKPOINT
from ..scoring.calibration import CALIBRATION
from ..scoring.loading import find_file, is_upscaler, load_with_head
from ..scoring.signature import make_signature
from ..scoring.verification import SELF_TEST

DESCRIPTION = """\
Print what a checkpoint is: kind, size, scales, range and percentiles of its scores, and their signature.

musiq info
musiq info musiq-koniq
"""
CARD = "README.md"


def add_arguments(parser: Any) -> None:
    """Add the arguments: the checkpoint, as other commands about one take it too."""
    parser.add_argument(
        "checkpoint",
        nargs="?",
        default=DEFAULT_CHECKPOINT.name,
        help=f"folder, id on the Hub or name of an embedded one (default: {DEFAULT_CHECKPOINT.name})",
    )


def read_card_title(checkpoint: str) -> str | None:
    """Read the first heading of the card of a checkpoint; return None without a card."""
    path = find_file(checkpoint, CARD)
    lines = [] if path is None else path.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.removeprefix("# ").strip() for line in lines if line.startswith("# ")), None)


def _describe_answers(model: PreTrainedModel) -> tuple[str, str]:
    """Describe what a model predicts, and the range of its scores."""
    config, quality = model.config, family_of(model.config).quality
    if is_upscaler(model):
        return "larger pictures, at any scale; predicts no quality", "none"
    if quality is None or not isinstance(model, quality):
        return f"classifier of {config.num_labels} classes; predicts no quality", "none"
    is_distribution = config.num_labels > 1
    kind = f"distribution over the score values 1 to {config.num_labels}" if is_distribution else "mean opinion score"
    if config.answer_range is None:
        return kind, "not noted"
    low, high = config.answer_range
    return kind, f"{low:g} to {high:g}" + ("" if is_distribution else "; predictions are not clipped")


def describe_checkpoint(checkpoint: str) -> dict[str, str]:
    """Return the lines of the table that is printed, by name.

    Raises:
        ValueError: If there is no such checkpoint, or it cannot be used.
    """
    model, processor = load_with_head(checkpoint)
    kind, score_range = _describe_answers(model)
    facts = family_of(model.config).facts
    has_test, has_calibration = (find_file(checkpoint, name) is not None for name in (SELF_TEST, CALIBRATION))
    return {
        "card": read_card_title(checkpoint) or "none",
        "class": type(model).__name__,
        "predicts": kind,
        "parameters": f"{sum(weight.numel() for weight in model.parameters()):,}",
        **({} if facts is None else facts(model.config)),
        "score range": score_range,
        "self-test": "stored; `musiq verify` runs it" if has_test else "none",
        "percentiles": "stored; `musiq score --percentile` adds them" if has_calibration else "none",
        "signature": make_signature(model, processor, checkpoint=checkpoint),
    }


def run(arguments: argparse.Namespace) -> int:
    """Print the table.

    Raises:
        ValueError: If there is no such checkpoint, or it cannot be used.
    """
    logging.disable_progress_bar()
    lines = describe_checkpoint(arguments.checkpoint)
    width = max(map(len, lines))
    for name, value in lines.items():
        print_line(f"{name:<{width}}  {value}")
    return 0
