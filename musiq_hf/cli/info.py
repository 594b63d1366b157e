# SPDX-License-Identifier: Apache-2.0
"""`musiq info`: what a checkpoint is."""

import argparse
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import cached_file, logging

from ..models.musiq.configuration_musiq import MusiqConfig
from ..scoring.loading import is_classifier, load_with_head
from ..scoring.signature import make_signature
from ..scoring.verification import SELF_TEST

SUMMARY = "what a checkpoint is, and its signature"
DESCRIPTION = """\
Print what a checkpoint is: kind, size, scales, range of its scores, and the signature of scores made with it.

musiq info musiq-koniq
"""
CARD = "README.md"


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "info", help=SUMMARY, description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="folder, or id on the Hub")
    parser.set_defaults(run=run)


def find_file(checkpoint: str, name: str) -> Path | None:
    """A file that a checkpoint holds, from the Hub if it is there; None if it holds none."""
    path = cached_file(
        checkpoint,
        name,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if path is None else Path(path)


def card_title(checkpoint: str) -> str | None:
    """The first heading of the card of a checkpoint; None without a card."""
    path = find_file(checkpoint, CARD)
    lines = [] if path is None else path.read_text(encoding="utf-8").splitlines()
    return next((line.removeprefix("# ").strip() for line in lines if line.startswith("# ")), None)


def _kind(model: PreTrainedModel) -> str:
    config = model.config
    if is_classifier(model):
        return f"classifier of {config.num_labels} classes; predicts no quality"
    if config.num_labels == 1:
        return "mean opinion score"
    return f"distribution over the score values 1 to {config.num_labels}"


def _scales(config: MusiqConfig) -> str:
    lengths = [f"longer side {length}" for length in config.longer_side_lengths]
    return ", ".join([*lengths, *(["native"] if config.use_native_resolution else [])])


def _score_range(model: PreTrainedModel) -> str:
    if is_classifier(model):
        return "none"
    if model.config.answer_range is None:
        return "not noted"
    low, high = model.config.answer_range
    return f"{low:g} to {high:g}" + ("" if model.config.num_labels > 1 else "; predictions are not clipped")


def describe_checkpoint(checkpoint: str) -> dict[str, str]:
    """What is printed, by name.

    Raises:
        ValueError: If there is no such checkpoint, or it cannot be used.
    """
    model, processor = load_with_head(checkpoint)
    has_test = find_file(checkpoint, SELF_TEST) is not None
    return {
        "card": card_title(checkpoint) or "none",
        "class": type(model).__name__,
        "predicts": _kind(model),
        "parameters": f"{sum(weight.numel() for weight in model.parameters()):,}",
        "scales": _scales(model.config),
        "score range": _score_range(model),
        "self-test": "stored; `musiq verify` runs it" if has_test else "none",
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
    print("\n".join(f"{name:<{width}}  {value}" for name, value in lines.items()))
    return 0
