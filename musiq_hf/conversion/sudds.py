# SPDX-License-Identifier: Apache-2.0
"""Converter of the upscaling detector: a checkpoint of the published program to a Hugging Face directory, and back.

The program is Cuena/4k-vsr-detection at 7ba46675, and the checkpoint that of its ResNet-18 with staircase.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..common.files import hash_file
from ..hub.model_card import CheckpointCard
from ..models.sudds.configuration_sudds import WIDTHS, UpscalingDetectorConfig
from ..models.sudds.family import facts
from ..models.sudds.modeling_sudds import UpscalingDetectorForImageClassification
from .checkpoints import describe_unfit, holds, load_content
from .directories import check_free, check_original_file, check_same, load_strictly, write_checkpoint, write_tensors
from .protocol import Checkpoint, Conversion, Unpublished

ENDING = ".ckpt"
STATE = "state_dict"  # of a checkpoint, beside notes of the training
COMPILED = "_orig_mod."  # part of the names of a model that was compiled
EXTRACTOR, HEAD = "feature_extractor.", "mlp.fc"
FIRST = f"{EXTRACTOR}resnet_model.conv1.weight"
# The program holds its modules also in lists, and so their arrays twice.
COPY = re.compile(r"feature_extractor\.(?:resnet_model\.)?(?:stages|bottlenecks)\.")
UNUSED = f"{EXTRACTOR}resnet_model.fc."
BACKBONE = "resnet18"
LABELS = (
    "native 4K",
    "RVRT",
    "BasicVSR",
    "bicubic",
    "linear",
    "nearest",
    "Real-ESRGAN",
    "RealBasicVSR",
    "SwinIR classical",
    "SwinIR real",
)
# What the published program does with a frame, and no array tells.
PUBLISHED: dict[str, Any] = {"patch_size": 240, "crop_size": 224, "num_patches": 96, "vote": "majority"}
LEFT_OUT = (
    "the copies of arrays under the names of lists, and a layer that nothing reads. Load the file with "
    "`load_state_dict(..., strict=False)`. Sizes and number of patches, the vote and the names of labels stay in "
    "{directory}."
)

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class DetectorOptions:
    """Options of the detector's converter.

    Attributes:
        label_names: Names of the labels, native first; None = those of the published program.
    """

    label_names: Sequence[str] | None = None


def find_state(content: object) -> Mapping[str, Any] | None:
    """Return the arrays in a file's content by their names without those of compilation; None if there are none."""
    state = content.get(STATE, content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        return None
    cleaned = {str(name).replace(COMPILED, ""): value for name, value in state.items()}
    return cleaned if FIRST in cleaned else None


def _drop_copies(path: Path, state: State) -> dict[str, torch.Tensor]:
    """Return the arrays without their copies and without what nothing reads.

    Raises:
        ValueError: If a copy is none, so that it is not known which array the program used.
    """
    kept = {name: value for name, value in state.items() if not COPY.match(name) and not name.startswith(UNUSED)}
    known = {(tuple(value.shape), value.numpy().tobytes()) for value in kept.values()}
    copies = ((name, value) for name, value in state.items() if COPY.match(name))
    other = [name for name, value in copies if (tuple(value.shape), value.numpy().tobytes()) not in known]
    if other:
        raise ValueError(
            f"{path} holds {', '.join(other[:5])}, which should be copies of other arrays and differ from all of "
            "them. Save the checkpoint again."
        )
    return kept


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of the published program.

    Raises:
        ValueError: If the file is damaged, holds pickled objects, or is no such checkpoint.
    """
    state = find_state(load_content(path))
    if state is None:
        raise ValueError(f"{path} is no checkpoint of an upscaling detector: it has no `{FIRST}`.")
    unfit = [f"{name} (no tensor)" for name, value in state.items() if not isinstance(value, torch.Tensor)]
    types = (torch.float32, torch.int64)
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    unfit += [f"{name} ({why})" for name, value in tensors.items() if (why := describe_unfit(value, types))]
    if unfit:
        raise ValueError(
            f"{path} must hold dense tensors of float32, got {', '.join(unfit[:5])}. Save them as float32."
        )
    kept = _drop_copies(path, tensors)
    return Checkpoint(
        path=path,
        sha256=hash_file(path),
        kind=f"checkpoint of the original; {len(state) - len(kept)} copies and unused arrays left out",
        arrays={name: value.detach().numpy() for name, value in kept.items()},
    )


def to_ours(name: str) -> str:
    """Return our name of an array; one that is not of the published layout gives one that is not of our model."""
    if name.startswith(HEAD):
        number, _, kind = name.removeprefix(HEAD).partition(".")
        return f"head.layers.{int(number) - 1}.{kind}" if number.isdecimal() else name
    _, is_backbone, rest = name.removeprefix(EXTRACTOR).rpartition("resnet_model.")
    return f"extractor.{'backbone' if is_backbone else 'staircase'}.{rest}"


def from_ours(name: str) -> str:
    """Return the published name of an array of our model."""
    if name.startswith("head.layers."):
        number, kind = name.removeprefix("head.layers.").split(".")
        return f"{HEAD}{int(number) + 1}.{kind}"
    rest = name.removeprefix("extractor.")
    return EXTRACTOR + rest.replace("backbone.", "resnet_model.", 1).removeprefix("staircase.")


def _read_labels(count: int, options: DetectorOptions) -> Sequence[str]:
    names = LABELS if options.label_names is None else options.label_names
    if len(names) != count:
        raise ValueError(f"The checkpoint has {count} labels. Name them with `--label_names`, native first.")
    return names


def infer_config(checkpoint: Checkpoint, options: DetectorOptions) -> UpscalingDetectorConfig:
    """Infer the configuration of a checkpoint from the shapes of its arrays.

    Raises:
        ValueError: If an array that tells a size is missing or of a wrong shape, or labels have no names.
    """
    shapes = {name: array.shape for name, array in checkpoint.arrays.items()}
    stages = [f"{EXTRACTOR}resnet_model.layer{stage}.0.conv1.weight" for stage in range(1, 5)]
    count = sum(name.startswith(HEAD) and name.endswith(".weight") for name in shapes)
    needed = {**dict.fromkeys(stages, 4), f"{HEAD}1.weight": 2, f"{HEAD}{max(count, 1)}.weight": 2}
    wrong = [name for name, size in needed.items() if len(shapes.get(name, ())) != size]
    if wrong:
        raise ValueError(f"{checkpoint.path} lacks arrays, or they have wrong shapes: {', '.join(wrong)}.")
    widths = [shapes[name][0] for name in stages]
    return UpscalingDetectorConfig(
        backbone=BACKBONE,
        hidden_sizes=None if widths == WIDTHS[BACKBONE] else widths,
        use_staircase=any(re.match(EXTRACTOR + r"f\d\d\.", name) for name in shapes),
        use_spectrum=False,
        num_head_layers=count,
        hidden_size=shapes[f"{HEAD}1.weight"][0],
        id2label=dict(enumerate(_read_labels(shapes[f"{HEAD}{count}.weight"][0], options))),
        **PUBLISHED,
    )


def check_arrays(checkpoint: Checkpoint, state: State) -> None:
    """Raise a ValueError that lists the arrays that are missing, unknown or of a wrong shape, if there are any."""
    found = {to_ours(name): (name, array.shape) for name, array in checkpoint.arrays.items()}
    problems = [f"missing: {from_ours(name)}" for name in state if name not in found]
    problems += [f"unknown: {name}" for ours, (name, _) in found.items() if ours not in state]
    problems += [
        f"wrong shape: {name} {shape}, expected {tuple(state[ours].shape)}"
        for ours, (name, shape) in found.items()
        if ours in state and shape != tuple(state[ours].shape)
    ]
    if problems:
        raise ValueError("\n  ".join((f"{checkpoint.path} does not hold the arrays of one detector:", *problems)))


def build_model(checkpoint: Checkpoint, options: DetectorOptions) -> UpscalingDetectorForImageClassification:
    """Build a model in float32, in evaluation mode, from a checkpoint.

    Raises:
        ValueError: If an array is missing, unknown or of a wrong shape, or labels have no names.
    """
    model = UpscalingDetectorForImageClassification(infer_config(checkpoint, options)).eval()
    check_arrays(checkpoint, model.state_dict())
    model.load_state_dict({to_ours(name): torch.from_numpy(array) for name, array in checkpoint.arrays.items()})
    return model


def check_back(model: Any, checkpoint: Checkpoint) -> None:
    """Raise a ValueError unless the weights of a model, renamed back, are the arrays of a checkpoint bit by bit."""
    check_same({from_ours(name): value.numpy() for name, value in model.state_dict().items()}, checkpoint.arrays)


def model_card(
    name: str, checkpoint: Checkpoint, config: UpscalingDetectorConfig, difference: float
) -> CheckpointCard:
    """Make the card of a converted checkpoint."""
    return CheckpointCard(
        name=name,
        config=config,
        source=(
            f"Converted from `{checkpoint.path.name}`, a checkpoint of the published program "
            "(Cuena/4k-vsr-detection). No weight was changed."
        ),
        source_sha256=checkpoint.sha256,
        training_data="Not known to the converter: see where the file comes from.",
        recipe="Not known to the converter.",
        largest_difference=difference,
        notes=[
            "The published program reads the upper left 3840 x 2160 pixels of a frame. Here it is the whole picture.",
            "The published program has no licence that names its code or weights. Ask its authors before you share "
            "this checkpoint.",
        ],
        license="other",
    )


def convert(
    path: Path, output: Path, *, name: str | None = None, options: DetectorOptions | None = None
) -> Conversion:
    """Convert a file to a Hugging Face directory, load that again and compare; a failure leaves nothing behind.

    Args:
        path: Checkpoint of the published program.
        output: Directory to write, which must not exist, or be empty.
        name: Name of the checkpoint on its card; None = the file's name.
        options: Answers to questions that the arrays leave open.

    Returns:
        The source, the configuration and the directory, with a report.

    Raises:
        ValueError: If the file is no such checkpoint, an array is not accounted for, or the output exists.
    """
    title = path.stem if name is None else name
    check_free(output)
    checkpoint = read_checkpoint(path)
    model = build_model(checkpoint, options or DetectorOptions())
    difference = write_checkpoint(
        model,
        output,
        check_weights=lambda loaded: check_back(loaded, checkpoint),
        write_card=lambda folder, difference: model_card(title, checkpoint, model.config, difference).save(folder),
    )
    return Conversion(
        checkpoint=checkpoint,
        config=model.config,
        inferred=tuple(f"{fact}: {text}" for fact, text in facts(model.config).items()),
        largest_difference=difference,
        directory=output,
    )


def to_original(directory: Path, output: Path) -> int:
    """Write a checkpoint of the published program from a Hugging Face directory.

    Args:
        directory: Directory that holds config.json and weights.
        output: File to write, which must not exist; its name ends in .ckpt.

    Returns:
        The number of arrays in the file.

    Raises:
        ValueError: If there is no such directory, the weights do not fit, the original cannot express the model, or
            the output exists or ends otherwise.
    """
    check_original_file(output, ENDING)
    config, state = load_strictly(directory, [UpscalingDetectorForImageClassification.__name__])
    if config.backbone != BACKBONE or config.use_spectrum:
        raise ValueError(
            f"{directory} has another network than the original, which is {BACKBONE} without a spectrum. Such a "
            "checkpoint cannot be converted to its format."
        )
    write_tensors({STATE: {from_ours(name): value for name, value in state.items()}}, output)
    return len(state)


class DetectorConverter(Unpublished):
    """Converter of checkpoints of the upscaling detector, as `Converter` describes it."""

    family = "sudds"
    accepts = "a checkpoint of an upscaling detector, a .ckpt of the published program with ResNet-18"
    endings = (ENDING,)
    shared: Sequence[str] = ()
    left_out = LEFT_OUT

    def recognises(self, path: Path) -> bool:
        """Return True if a file holds a ResNet-18 under the names of the published program."""
        return holds(path, find_state)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add an option for the names of labels."""
        group = parser.add_argument_group("checkpoints of an upscaling detector")
        group.add_argument(
            "--label_names",
            nargs="+",
            metavar="NAME",
            help="names of the labels, native first (default: the original's)",
        )

    def convert(
        self, path: Path, output: Path, *, name: str | None = None, arguments: Mapping[str, Any] | None = None
    ) -> Conversion:
        """Convert a file by `convert` of this module, with its own options."""
        return convert(path, output, name=name, options=DetectorOptions(**(arguments or {})))

    def to_original(self, directory: Path, output: Path) -> int:
        """Write a `.ckpt` of the published program, by `to_original` of this module."""
        return to_original(directory, output)


SUDDS_CONVERTER = DetectorConverter()
