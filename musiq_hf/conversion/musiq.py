# SPDX-License-Identifier: Apache-2.0
"""Converter of MUSIQ: the original's `.npz` or pyiqa's `.pth` to a Hugging Face directory, and back."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..hub.model_card import CheckpointCard
from ..models.musiq.configuration_musiq import MusiqConfig
from .checkpoints import MusiqCheckpoint, read_checkpoint, read_names
from .directories import check_free, write_checkpoint
from .infer_config import Flags
from .key_mapping import ORIGINAL, ORIGINAL_PREFIX, to_ours
from .original import to_original
from .protocol import Conversion
from .published import PREFIX, PUBLISHED, check_name, dataset_of, download, published_name
from .weights import build_model, check_back, infer_checked

PYIQA_PREFIX = "transformer_encoder."  # most names in pyiqa's state dict begin so


def model_card(name: str, checkpoint: MusiqCheckpoint, config: MusiqConfig, difference: float) -> CheckpointCard:
    """Make the card of a converted checkpoint, with what is known if the name is that of a published one.

    Args:
        name: Name of the checkpoint.
        checkpoint: Source of the weights.
        config: Configuration of the model.
        difference: Largest absolute difference of a logit after reloading.
    """
    dataset, pyiqa = dataset_of(name), checkpoint.source != ORIGINAL
    kind = "the PyTorch re-implementation pyiqa" if pyiqa else "the authors' JAX program (google-research/musiq)"
    notes = list(dataset.notes) if dataset else []
    if pyiqa:
        notes.append(
            "pyiqa itself resizes, activates and standardises differently from the published code. This checkpoint "
            "follows the published code, so its scores differ from pyiqa's."
        )
    return CheckpointCard(
        name=name,
        config=config,
        source=f"Converted from `{checkpoint.path.name}`, a checkpoint of {kind}; no weight was changed.",
        source_sha256=checkpoint.sha256,
        training_data=dataset.training_data
        if dataset
        else "Not known to the converter: see where the file comes from.",
        recipe=dataset.recipe if dataset else "Not known to the converter.",
        largest_difference=difference,
        notes=notes,
    )


def describe_config(config: MusiqConfig) -> tuple[str, str]:
    """Write two lines about a configuration, for the report."""
    encoder = config.patch_encoder + (f"-{config.patch_encoder_depth}" if config.patch_encoder == "resnet" else "")
    scales = [*map(str, config.longer_side_lengths), *(["native"] if config.use_native_resolution else [])]
    return (
        f"{config.architectures[0]}, labels {config.num_labels}, width {config.hidden_size}, layers "
        f"{config.num_hidden_layers}, heads {config.num_attention_heads}, MLP {config.intermediate_size}, "
        f"pre-logits {config.pre_logits_size}",
        f"patch {config.patch_size}, patch encoder {encoder}, positions {config.spatial_embedding}, "
        f"grid {config.hash_grid_size}, scales {' '.join(scales)}, scale embedding {config.use_scale_embedding}",
    )


def convert(path: Path, output: Path, *, name: str | None = None, flags: Flags | None = None) -> Conversion:
    """Convert a file to a Hugging Face directory, load that again and compare; a failure leaves nothing behind.

    Args:
        path: Original `.npz` or pyiqa's `.pth`.
        output: Directory to write, which must not exist, or be empty.
        name: Name of the checkpoint on its card; the name of a published one adds facts. None = the file's name.
        flags: Answers to questions that the arrays leave open.

    Returns:
        The source, the configuration and the directory, with a report.

    Raises:
        ValueError: If the file is no MUSIQ checkpoint, an array is not accounted for, a flag is missing or contradicts
            the arrays, or the output exists.
    """
    name = path.stem if name is None else name
    dataset = dataset_of(name)
    check_free(output)
    checkpoint = read_checkpoint(path)
    config = infer_checked(checkpoint, flags or Flags(), score_range=dataset.score_range if dataset else None)
    check_name(name, num_labels=config.num_labels, num_scales=config.num_scales)
    ours, _ = to_ours(checkpoint.arrays, source=checkpoint.source)
    difference = write_checkpoint(
        build_model(config, ours),
        output,
        check_weights=lambda model: check_back(model, checkpoint),
        write_card=lambda directory, difference: model_card(name, checkpoint, config, difference).save(directory),
    )
    return Conversion(
        checkpoint=checkpoint,
        config=config,
        inferred=describe_config(config),
        largest_difference=difference,
        directory=output,
    )


class MusiqConverter:
    """Converter of MUSIQ checkpoints, as `Converter` describes it."""

    family = "musiq"
    accepts = "a MUSIQ checkpoint, the original's .npz or pyiqa's .pth"
    endings = (".npz", ".pth")
    published = PUBLISHED
    shared = ("num_attention_heads",)
    left_out = ""

    def fetch(self, name: str) -> tuple[Path, str] | None:
        """Download a published checkpoint by a name such as `koniq` or `musiq-koniq`; None for any other name."""
        short = published_name(name)
        if short is None or "/" in name:
            return None
        return download(short), f"{PREFIX}{short}"

    def recognises(self, path: Path) -> bool:
        """Return True if the names of a file's arrays are those of the original or of pyiqa."""
        return any(name.startswith((ORIGINAL_PREFIX, PYIQA_PREFIX)) for name in read_names(path))

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add options for what the arrays of a MUSIQ checkpoint may leave open."""
        add = parser.add_argument_group("MUSIQ checkpoints").add_argument
        add(
            "--longer_side_lengths",
            type=int,
            nargs="*",
            metavar="PIXELS",
            help="longer sides of the resized copies (default: 224 384)",
        )
        add("--no_native_resolution", action="store_true", help="the picture itself is not a scale")
        add("--hash_grid_size", type=int, help="side of the spatial grid, where no table tells it (default: 10)")

    def convert(
        self, path: Path, output: Path, *, name: str | None = None, arguments: Mapping[str, Any] | None = None
    ) -> Conversion:
        """Convert a file by `convert` of this module, with its own and the shared options."""
        values = dict(arguments or {})
        native = not values.pop("no_native_resolution", False)
        return convert(path, output, name=name, flags=Flags(use_native_resolution=native, **values))

    def to_original(self, directory: Path, output: Path) -> int:
        """Write the original's `.npz` or pyiqa's `.pth`, by `to_original` of the module `original`."""
        return to_original(directory, output)


MUSIQ_CONVERTER = MusiqConverter()
