# SPDX-License-Identifier: Apache-2.0
"""Converter of LoDa: a checkpoint of the published program, with two networks, to a Hugging Face directory, and back.

The authors publish no weights, so these are files of one's own training with their program (NeosXu/LoDa).
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoBackbone

from ..common.arguments import positive
from ..common.files import hide_path
from ..hub.model_card import CheckpointCard
from ..models.loda.backbones_loda import load_backbone, load_vit
from ..models.loda.configuration_loda import LodaConfig
from ..models.loda.family import facts
from ..models.loda.image_processing_loda import FILTERS
from ..models.loda.modeling_loda import LodaForImageQualityAssessment
from .checkpoints import holds
from .directories import check_free, check_original_file, load_strictly, write_checkpoint, write_tensors
from .loda_weights import (
    LEARNER,
    STATISTICS,
    Learner,
    check_arrays,
    check_back,
    find_parts,
    from_ours,
    read_checkpoint,
    read_sizes,
    to_ours,
)
from .protocol import Checkpoint, Conversion, Unpublished

ENDING = ".pt"  # of the original's checkpoints; those of its training states is ".state"
NEEDED = (
    "A LoDa checkpoint holds only what lies between two networks, so `--vit` and `--cnn` are needed. Each takes an id "
    "on the Hub, a folder, or a file of weights of timm. The published program has "
    "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k and timm/resnet50.a1_in1k."
)
LEFT_OUT = (
    "the two networks, which this format does not hold, trained or not. To convert the file again, save `loda.vit` "
    "and `loda.cnn` of the model in {directory} with `save_pretrained`, and give these folders as `--vit` and `--cnn`."
)


@dataclass(frozen=True, kw_only=True)
class LodaOptions:
    """Options of LoDa's converter.

    Attributes:
        vit: Vision Transformer: id on the Hub, folder in the format of Transformers or timm, or file of weights of
            timm.
        cnn: Convolutional network, given in one of the same ways.
        num_attention_heads: Heads of a vision Transformer of timm; None = one for 64 of its width.
        cross_attention_heads: Heads of the attention on the local features.
        token_grid_size: Side of the grid to which each stage's map is pooled.
        resample: Filter by which the image processor resizes.
    """

    vit: str | None = None
    cnn: str | None = None
    num_attention_heads: int | None = None
    cross_attention_heads: int = 4
    token_grid_size: int = 7
    resample: str = "bilinear"


def choose_stages(available: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Find which stages of a convolutional network have given their maps, by their numbers of channels.

    Args:
        available: Channels of all stages, in their order.
        wanted: Channels of the maps, in the order of the stages.

    Returns:
        Index of the stage of each map.

    Raises:
        ValueError: If there are no such stages, or several choices of them.
    """

    def search(available: Sequence[int], wanted: Sequence[int]) -> list[int]:
        found: list[int] = []
        for index, channels in enumerate(available):
            if len(found) < len(wanted) and channels == wanted[len(found)]:
                found.append(index)
        return found

    first = search(available, wanted)
    last = [len(available) - 1 - index for index in reversed(search(available[::-1], wanted[::-1]))]
    if len(first) < len(wanted) or first != last:
        reason = "several stages have them" if len(first) == len(wanted) else f"its stages have {[*available]}"
        raise ValueError(
            f"The checkpoint was trained on maps of {[*wanted]} channels, which do not tell the stages of `--cnn`: "
            f"{reason}. Give the network that it was trained with."
        )
    return first


def _load_vit(options: LodaOptions, sizes: Learner) -> Any:
    """Load the vision Transformer, and raise a ValueError if it is not that of the learner."""
    vit = load_vit(options.vit, num_attention_heads=options.num_attention_heads)
    config, heads = vit.config, options.num_attention_heads
    if (config.num_hidden_layers, config.hidden_size) != (sizes.depth, sizes.width):
        raise ValueError(
            f"The checkpoint was trained on a vision Transformer of {sizes.depth} blocks of width {sizes.width}, but "
            f"`--vit {options.vit}` has {config.num_hidden_layers} of width {config.hidden_size}. Give that one."
        )
    if heads not in (None, config.num_attention_heads):
        raise ValueError(
            f"`--num_attention_heads {heads}` contradicts the configuration of {options.vit}, which has "
            f"{config.num_attention_heads}. Leave it out."
        )
    return vit


def load_cnn(source: str | None, channels: Sequence[int]) -> Any:
    """Load the convolutional network with the stages whose maps have some numbers of channels."""
    whole = load_backbone(source)
    config, names = whole.config, whole.out_features
    config.out_features = [names[index] for index in choose_stages(whole.channels, channels)]
    chosen: Any = AutoBackbone.from_config(config)
    weights = whole.state_dict()
    chosen.load_state_dict({name: weights[name] for name in chosen.state_dict()})
    return chosen


def build_model(checkpoint: Checkpoint, options: LodaOptions) -> tuple[LodaForImageQualityAssessment, Learner]:
    """Build a model in float32, in evaluation mode, from a checkpoint and the two networks that it needs.

    Returns:
        The model, and the sizes that the arrays tell.

    Raises:
        ValueError: If a network cannot be loaded, or is not the one that the checkpoint was trained with. Or if an
            array is missing, unknown, or of a wrong shape or type; the message lists them.
    """
    sizes, heads = read_sizes(checkpoint), options.cross_attention_heads
    if options.vit is None or options.cnn is None:
        raise ValueError(NEEDED)
    if sizes.latent_dim % heads:
        raise ValueError(
            f"`--cross_attention_heads` must divide the latent width {sizes.latent_dim}, got {heads}. Change it."
        )
    model = LodaForImageQualityAssessment.from_backbones(
        _load_vit(options, sizes),
        load_cnn(options.cnn, sizes.channels),
        latent_dim=sizes.latent_dim,
        num_cross_attention_heads=heads,
        token_grid_size=options.token_grid_size,
    )
    check_arrays(checkpoint, model.state_dict(), sizes)
    arrays = {name: torch.from_numpy(array) for name, array in checkpoint.arrays.items()}
    ours = to_ours(arrays, num_stages=len(sizes.channels), num_layers=sizes.depth)
    model.load_state_dict(model.state_dict() | ours)
    return model, sizes


def model_card(
    name: str, checkpoint: Checkpoint, config: LodaConfig, options: LodaOptions, difference: float
) -> CheckpointCard:
    """Make the card of a converted checkpoint.

    Args:
        name: Name of the checkpoint.
        checkpoint: Source of the learner's weights.
        config: Configuration of the model.
        options: Options of the conversion, which name the two networks.
        difference: Largest absolute difference of a logit after reloading.
    """
    vit, cnn = (hide_path(str(source)) for source in (options.vit, options.cnn))
    return CheckpointCard(
        name=name,
        config=config,
        source=(
            f"Converted from `{checkpoint.path.name}`, a checkpoint of the authors' program (NeosXu/LoDa), with the "
            f"networks `{vit}` and `{cnn}`. No weight was changed. The "
            "statistics of the convolutional network are those of the checkpoint."
        ),
        source_sha256=checkpoint.sha256,
        training_data="Not known to the converter: see where the file comes from.",
        recipe="Not known to the converter.",
        largest_difference=difference,
        notes=[
            f"Pictures are resized by Pillow's {options.resample} filter. The authors' program has the bicubic one "
            "for FLIVE, KADID-10k and LIVE, and the bilinear one for its other data sets."
        ],
    )


def convert(path: Path, output: Path, *, name: str | None = None, options: LodaOptions | None = None) -> Conversion:
    """Convert a file to a Hugging Face directory, load that again and compare; a failure leaves nothing behind.

    Args:
        path: Checkpoint or training state of the published program.
        output: Directory to write, which must not exist, or be empty.
        name: Name of the checkpoint on its card; None = the file's name.
        options: The two networks, and answers to questions that the arrays leave open.

    Returns:
        The source, the configuration and the directory, with a report.

    Raises:
        ValueError: If the file is no LoDa checkpoint, an array is not accounted for, a network does not fit, or the
            output exists.
    """
    name, options = path.stem if name is None else name, options or LodaOptions()
    check_free(output)
    checkpoint = read_checkpoint(path)
    model, sizes = build_model(checkpoint, options)
    config = model.config
    difference = write_checkpoint(
        model,
        output,
        check_weights=lambda loaded: check_back(loaded, checkpoint, sizes),
        write_card=lambda folder, difference: model_card(name, checkpoint, config, options, difference).save(folder),
        resample=options.resample,
    )
    return Conversion(
        checkpoint=checkpoint,
        config=config,
        inferred=tuple(f"{fact}: {text}" for fact, text in facts(config).items()),
        largest_difference=difference,
        directory=output,
    )


def to_original(directory: Path, output: Path) -> int:
    """Write a checkpoint of the published program from a Hugging Face directory.

    Unit and range of scores are not part of that format, whose scores are cosines. Neither are the two networks.

    Args:
        directory: Directory that holds config.json and weights.
        output: File to write, which must not exist; its name ends in .pt.

    Returns:
        The number of arrays in the file.

    Raises:
        ValueError: If there is no such directory, the weights do not fit, the original cannot express the model, or
            the output exists or ends otherwise.
    """
    check_original_file(output, ENDING)
    config, state = load_strictly(directory, [LodaForImageQualityAssessment.__name__])
    layers, depth = config.injected_layers, config.num_hidden_layers
    if len(layers) != depth:
        raise ValueError(
            f"{directory} adds local features before {len(layers)} of its {depth} blocks, but the original's program "
            "does so before every block. Such a checkpoint cannot be converted to its format."
        )
    num_stages = len(config.cnn_config.out_features)
    arrays = from_ours(state, num_stages=num_stages, num_layers=depth)
    content: dict[str, dict[str, torch.Tensor]] = {LEARNER: {}, STATISTICS: {}}
    for name, value in arrays.items():
        part, _, rest = name.partition("/")
        content[part][rest] = value
    write_tensors(content, output)
    return len(arrays)


class LodaConverter(Unpublished):
    """Converter of LoDa checkpoints, as `Converter` describes it."""

    family = "loda"
    accepts = "a LoDa checkpoint, a .pt or .state of the published program, with --vit and --cnn"
    endings = (ENDING, ".state")
    shared = ("num_attention_heads",)
    left_out = LEFT_OUT

    def recognises(self, path: Path) -> bool:
        """Return True if a file holds a learner, or a training state with one."""
        return holds(path, find_parts)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add options for the two networks, and for what the arrays of a LoDa checkpoint leave open."""
        add, default = parser.add_argument_group("LoDa checkpoints").add_argument, LodaOptions()
        add(
            "--vit",
            help="vision Transformer: id on the Hub, folder of Transformers or timm, or file of timm's weights",
        )
        add("--cnn", help="convolutional network, given in one of the same ways")
        for name, what in {
            "cross_attention_heads": "heads of the attention on local features",
            "token_grid_size": "side of the grid of local features of each stage",
        }.items():
            value = getattr(default, name)
            add(f"--{name}", type=positive, default=value, help=f"{what} (default: {value})")
        add(
            "--resample",
            choices=sorted(FILTERS),
            default=default.resample,
            help=f"filter by which pictures are resized (default: {default.resample}, the original's for most data)",
        )

    def convert(
        self, path: Path, output: Path, *, name: str | None = None, arguments: Mapping[str, Any] | None = None
    ) -> Conversion:
        """Convert a file by `convert` of this module, with its own and the shared options."""
        return convert(path, output, name=name, options=LodaOptions(**(arguments or {})))

    def to_original(self, directory: Path, output: Path) -> int:
        """Write a `.pt` of the published program, by `to_original` of this module."""
        return to_original(directory, output)


LODA_CONVERTER = LodaConverter()
