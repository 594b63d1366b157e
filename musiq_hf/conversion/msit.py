# SPDX-License-Identifier: Apache-2.0
"""Converter of MSIT: a checkpoint of the published program to a Hugging Face directory, and back.

The program is Jinchen2028/MSIT at fea20260, whose authors publish no weights: these are files of one's own training.
"""

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..common.files import hash_file
from ..hub.model_card import CheckpointCard
from ..models.msit.configuration_msit import MsitConfig
from ..models.msit.family import facts
from ..models.msit.modeling_msit import MsitForImageSuperResolution
from ..models.msit.modulation_msit import NEIGHBOURS
from ..models.musiq.checks_musiq import shorten
from .checkpoints import describe_unfit, holds, load_content
from .directories import check_free, check_original_file, check_same, load_strictly, write_checkpoint, write_tensors
from .protocol import Array, Checkpoint, Conversion, Unpublished

ENDING = ".pth"
MODEL, NAME, ARGUMENTS, STATE = "model", "name", "args", "sd"  # parts of a checkpoint
FIRST = "imnets.0.layers.0.weight"
ARCHITECTURE = "amsit"
# Arguments of the published network by our fields, and their values where a checkpoint names none.
SHARED: dict[str, tuple[str, Any]] = {
    "hidden_size": ("base_dim", 192),
    "num_attention_heads": ("head", 8),
    "window_radius": ("r", 3),
    "num_kernels": ("MsC_heads", 16),
    "num_attention_kernels": ("MsSA_q", 4),
    "use_shift": ("use_lem", True),
    "use_local_attention": ("local_attn", True),
    "use_cell": ("is_cell", True),
}
SPECS = ("encoder_spec", "pb_spec", "imnet_spec")
# Arguments that change the network in a way that ours has not, and the values with which they do not.
FIXED: dict[str, Mapping[str, Any]] = {
    "args": {"imnet_num": 1, "conv_num": 1},
    "encoder_spec": {"no_upsampling": True, "res_scale": 1},
    "pb_spec": {"posenc_type": "sinusoid", "gamma": 1, "complex_transform": False},
    "imnet_spec": {"out_dim": 3, "act": "gelu"},
}
NEEDED = ("no_upsampling", "act")  # of these the published program has another default
RDN_SIZES = {"A": (20, 6, 32), "B": (16, 8, 64)}  # blocks, layers of each, growth
MEANS = (0.4488, 0.4371, 0.4040)  # that the encoder once subtracted; nothing reads them any more
# Our names as the published ones, the first that fits; numbers of layers come after them.
NAMES = (
    (r"encoder\.blocks\.(\d+)\.layers\.(\d+)", r"encoder.RDBs.\1.convs.\2.conv.0"),
    (r"encoder\.blocks\.(\d+)\.fusion", r"encoder.RDBs.\1.LFF"),
    (r"encoder\.blocks\.(\d+)\.conv1", r"encoder.body.\1.body.0"),
    (r"encoder\.blocks\.(\d+)\.conv2", r"encoder.body.\1.body.2"),
    (r"encoder\.fusion", r"encoder.GFF.0"),
    (r"reduction", r"conv_ch"),
    (r"modulation\.projection", r"amsno.proj"),
    (r"modulation\.value", r"amsno.v"),
    (r"modulation\.context", r"amsno.s"),
    (r"modulation\.scales\.expansion", r"amsno.sim0"),
    (r"modulation\.scales\.projection", r"amsno.sim1"),
    (r"modulation\.scales\.norm", r"amsno.bn"),
    (r"query\.reduction", r"multi_conv_qs.0.proj0"),
    (r"query\.scales\.expansion", r"multi_conv_qs.0.proj1"),
    (r"query\.scales\.projection", r"multi_conv_qs.0.proj2"),
    (r"query\.scales\.norm", r"multi_conv_qs.0.bn"),
    (r"value", r"conv_vs.0"),
    (r"position_bias\.projection", r"pb_encoder.proj"),
    (r"decoder\.first", r"imnets.0.layers.0"),
)
ENCODERS = {"edsr": {"first": "head.0"}, "rdn": {"first": "SFENet1", "second": "SFENet2", "last": "GFF.1"}}
NUMBERED = {
    "modulation.scales.convolutions": ("amsno.Ms_conv_", 1, 1),
    "query.scales.convolutions": ("multi_conv_qs.0.local_conv_", 1, 1),
    "decoder.others": ("imnets.0.layers.", 2, 2),
}
MAPS = {"spatial_map": "convmap.weight", "pointwise_map": "linear.weight"}
FOLDED = 2e-5  # largest change of RGB by folding; rounding alone makes it
LEFT_OUT = "the state of the optimiser and of the training, which {directory} does not hold either."


def find_parts(content: object) -> Mapping[str, Any] | None:
    """Return name, arguments and arrays of the network in a file's content; None if it is no such checkpoint."""
    parts = content.get(MODEL) if isinstance(content, Mapping) else None
    if not isinstance(parts, Mapping) or not isinstance(parts.get(STATE), Mapping):
        return None
    return parts if FIRST in parts[STATE] else None


def _read_spec(path: Path, arguments: Mapping[str, Any], name: str) -> tuple[str, Mapping[str, Any]]:
    """Read the name and the arguments of a part of the network."""
    spec = arguments.get(name)
    given = spec.get("args", {}) if isinstance(spec, Mapping) else None
    if not isinstance(spec, Mapping) or not isinstance(given, Mapping):
        raise ValueError(f"{path} must describe the network with a `{name}`, got {shorten(spec)}.")
    return str(spec.get(NAME)), given


def _check_fixed(path: Path, name: str, given: Mapping[str, Any]) -> None:
    """Raise a ValueError if an argument has a value that makes another network than ours."""
    for argument, value in FIXED[name].items():
        found = given.get(argument, None if argument in NEEDED else value)
        if found != value:
            raise ValueError(
                f"{path} has `{argument}: {shorten(found)}` in its `{name}`, but only networks with {value!r} can be "
                "converted."
            )


def _read_encoder(path: Path, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the encoder."""
    name, given = _read_spec(path, arguments, "encoder_spec")
    _check_fixed(path, "encoder_spec", given)
    if name == "rdn":
        size = str(given.get("RDNconfig", "B"))
        if size in RDN_SIZES:
            blocks, layers, growth = RDN_SIZES[size]
            fields = {"encoder_num_blocks": blocks, "encoder_num_layers": layers, "encoder_growth": growth}
            return {"encoder_type": "rdn", "encoder_hidden_size": given.get("G0", 64), **fields}
        name = f"rdn {size}"
    if name not in ("edsr-baseline", "edsr") or (name == "edsr" and not given.keys() >= {"n_resblocks", "n_feats"}):
        raise ValueError(
            f"{path} has the encoder {shorten(name)}, but only edsr-baseline, edsr with `n_resblocks` and `n_feats`, "
            "and rdn of size A or B can be converted."
        )
    if name == "edsr" and "res_scale" not in given:
        raise ValueError(f"{path} has the encoder edsr, which scales its blocks; that cannot be converted.")
    blocks, channels = given.get("n_resblocks", 16), given.get("n_feats", 64)
    return {"encoder_type": "edsr", "encoder_num_blocks": blocks, "encoder_hidden_size": channels}


def read_config(path: Path, parts: Mapping[str, Any]) -> MsitConfig:
    """Read the configuration of a network from what its checkpoint says of it.

    Raises:
        ValueError: If an argument is missing or wrong, or makes another network than ours.
    """
    arguments = parts.get(ARGUMENTS)
    if parts.get(NAME) != ARCHITECTURE or not isinstance(arguments, Mapping):
        raise ValueError(
            f"{path} must hold a network {ARCHITECTURE!r} and its `{ARGUMENTS}`, got {shorten(parts.get(NAME))}."
        )
    _check_fixed(path, "args", arguments)
    fields = {field: arguments.get(name, default) for field, (name, default) in SHARED.items()}
    fields |= _read_encoder(path, arguments)
    fields["position_encoding_scale"] = None
    if arguments.get("pb_spec"):
        _, positions = _read_spec(path, arguments, "pb_spec")
        _check_fixed(path, "pb_spec", positions)
        fields["position_encoding_scale"] = positions.get("posenc_scale", 10)
        fields["position_encoding_size"] = positions.get("enc_dims", 64)
    _, decoder = _read_spec(path, arguments, "imnet_spec")
    _check_fixed(path, "imnet_spec", decoder)
    fields["decoder_hidden_sizes"] = decoder.get("hidden_list")
    return MsitConfig.from_dict({**fields, "use_rim": True, "shift_padding": "circular"})


def write_arguments(config: MsitConfig) -> dict[str, Any]:
    """Write the arguments of the published network that has a configuration, as its checkpoints hold them."""
    arguments = {name: getattr(config, field) for field, (name, _) in SHARED.items()}
    if config.encoder_type == "rdn":
        sizes = (config.encoder_num_blocks, config.encoder_num_layers, config.encoder_growth)
        known = {size: name for name, size in RDN_SIZES.items()}
        if sizes not in known:
            raise ValueError(
                f"The published program has RDN only with blocks, layers and growth of {[*known]}, got {sizes}."
            )
        given = {"G0": config.encoder_hidden_size, "RDNconfig": known[sizes]}
    else:
        given = {"n_resblocks": config.encoder_num_blocks, "n_feats": config.encoder_hidden_size}
    name = "rdn" if config.encoder_type == "rdn" else "edsr-baseline"
    encoder = {NAME: name, "args": {"no_upsampling": True, **given}}
    positions = None
    if config.position_encoding_scale is not None:
        size, scale = config.position_encoding_size, config.position_encoding_scale
        fixed = {"posenc_type": "sinusoid", "gamma": 1, "hidden_dims": 64}
        positions = {NAME: "posenc", "args": {"posenc_scale": scale, "enc_dims": size, **fixed}}
    widths = list(config.decoder_hidden_sizes)
    decoder = {NAME: "mlp", "args": {"out_dim": 3, "act": "gelu", "hidden_list": widths}}
    specs = dict(zip(SPECS, (encoder, positions, decoder), strict=True))
    return {**arguments, "imnet_num": 1, "conv_num": 1, **specs}


def _rename_part(name: str, config: MsitConfig) -> str:
    """Return the published name of an array, before the names of maps."""
    for ours, (theirs, first, step) in NUMBERED.items():
        if match := re.match(re.escape(ours) + r"\.(\d+)\.", name):
            return f"{theirs}{first + step * int(match[1])}.{name[match.end() :]}"
    part, _, rest = name.removeprefix("encoder.").partition(".")
    if name == f"encoder.{part}.{rest}":
        encoder = {"last": f"body.{config.encoder_num_blocks}"} | ENCODERS[config.encoder_type]
        if part in encoder:
            return f"encoder.{encoder[part]}.{rest}"
    for pattern, replacement in NAMES:
        if match := re.match(pattern + r"(?=\.)", name):
            return match.expand(replacement) + name[match.end() :]
    return name


def from_ours(name: str, config: MsitConfig) -> str:
    """Return the published name of an array of our model."""
    part, _, kind = _rename_part(name, config).rpartition(".")
    return f"{part}.{MAPS.get(kind, kind)}"


def make_fixed(config: MsitConfig) -> Iterator[tuple[str, Array]]:
    """Yield arrays of the published layout that no training changes, by name: those of the shift and of mean colours.

    Those of the shift are there without a shift too. Those of mean colours are only in checkpoints with EDSR.
    """
    mask = np.zeros((config.hidden_size, 1, 3, 3), np.float32)
    for channel, places in enumerate(NEIGHBOURS):
        for row, column in places:
            mask[channel :: len(NEIGHBOURS), 0, 1 + row, 1 + column] = 1
    yield "amsno.lem.mask", mask
    yield "amsno.lem.mix_margin", np.ones((), np.float32)
    if config.encoder_type == "edsr":
        for name, sign in (("sub_mean", -1), ("add_mean", 1)):
            yield f"encoder.{name}.weight", np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
            yield f"encoder.{name}.bias", sign * np.array(MEANS, np.float32)


def drop_fixed(path: Path, arrays: Mapping[str, Array], config: MsitConfig) -> dict[str, Array]:
    """Return arrays without those that no training changes.

    Raises:
        ValueError: If one of these has another value or shape, so that the network is another one.
    """
    kept = dict(arrays)
    for name, value in make_fixed(config):
        found = kept.pop(name, value)
        if found.shape != value.shape or not np.allclose(found, value, rtol=0, atol=1e-6):
            raise ValueError(
                f"{path} holds another `{name}` than the published program sets and no training changes. Such a "
                "network cannot be converted."
            )
    return kept


@dataclass(frozen=True, kw_only=True)
class MsitCheckpoint(Checkpoint):
    """Checkpoint of MSIT.

    Attributes:
        config: Configuration of the network.
    """

    config: MsitConfig


def read_checkpoint(path: Path) -> MsitCheckpoint:
    """Read a checkpoint of the published program, without what no training changes.

    Raises:
        ValueError: If the file is damaged, holds pickled objects, or is no such checkpoint.
    """
    parts = find_parts(load_content(path))
    if parts is None:
        raise ValueError(f"{path} is no checkpoint of MSIT: it has no `{MODEL}` with `{STATE}` and `{FIRST}`.")
    state, types = parts[STATE], (torch.float32, torch.int64)
    unfit = [
        f"{name} ({why})"
        for name, value in state.items()
        if (why := describe_unfit(value, types) if isinstance(value, torch.Tensor) else "no tensor")
    ]
    if unfit:
        raise ValueError(
            f"{path} must hold dense tensors of float32, got {', '.join(unfit[:5])}. Save them as float32."
        )
    config = read_config(path, parts)
    arrays = {str(name): value.detach().numpy() for name, value in state.items()}
    kept = drop_fixed(path, arrays, config)
    return MsitCheckpoint(
        path=path,
        sha256=hash_file(path),
        kind=f"checkpoint of the original; {len(arrays) - len(kept)} fixed arrays left out",
        arrays=kept,
        config=config,
    )


def build_model(checkpoint: MsitCheckpoint) -> MsitForImageSuperResolution:
    """Build a model in float32, in evaluation mode, from a checkpoint.

    Raises:
        ValueError: If an array is missing, unknown or of a wrong shape; the message lists them.
    """
    model = MsitForImageSuperResolution(checkpoint.config).eval()
    arrays, state = checkpoint.arrays, model.state_dict()
    names = {from_ours(name, checkpoint.config): name for name in state}
    problems = [f"missing: {name}" for name in names if name not in arrays]
    problems += [f"unknown: {name}" for name in arrays if name not in names]
    shapes = {name: _widen_shape(name, tuple(state[ours].shape)) for name, ours in names.items()}
    problems += [
        f"wrong shape: {name} {arrays[name].shape}, expected {shape}"
        for name, shape in shapes.items()
        if name in arrays and arrays[name].shape != shape
    ]
    if problems:
        raise ValueError("\n  ".join((f"{checkpoint.path} does not hold the arrays of its network:", *problems)))
    model.load_state_dict({ours: torch.tensor(arrays[name]).view_as(state[ours]) for name, ours in names.items()})
    return model


def _widen_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of an array in the published layout, whose maps are kernels of convolutions."""
    if name.endswith(MAPS["spatial_map"]):
        return (shape[0], 1, *shape[1:])
    return (shape[0], 1, 1, 1) if name.endswith(MAPS["pointwise_map"]) else shape


def to_arrays(state: Mapping[str, torch.Tensor], config: MsitConfig) -> dict[str, Array]:
    """Return the arrays of a model under their published names and in their shapes, without the fixed ones."""
    named = {from_ours(name, config): value.numpy() for name, value in state.items()}
    return {name: value.reshape(_widen_shape(name, value.shape)) for name, value in named.items()}


def check_back(model: Any, checkpoint: MsitCheckpoint) -> None:
    """Raise a ValueError unless the weights of a model, renamed back, are the arrays of a checkpoint bit by bit."""
    check_same(to_arrays(model.state_dict(), model.config), checkpoint.arrays)


@torch.inference_mode()
def fold(model: MsitForImageSuperResolution) -> float:
    """Fold the re-interaction of a model into plain kernels.

    Returns:
        The largest change of RGB, in [-1, 1], on a seeded random picture.

    Raises:
        ValueError: If it is more than rounding.
    """
    picture = 2 * torch.rand((1, 3, 24, 32), generator=torch.Generator().manual_seed(0)) - 1
    before = model(picture, scale=2.5).reconstruction
    model.fold_rim()
    after = model(picture, scale=2.5).reconstruction
    change = float((after - before).abs().max())
    if not change <= FOLDED * (1 + float(before.std())):
        raise ValueError(f"Folding changes RGB by {change}, more than rounding. Are all numbers finite?")
    return change


def model_card(
    name: str, checkpoint: MsitCheckpoint, config: MsitConfig, difference: float, change: float | None
) -> CheckpointCard:
    """Make the card of a converted checkpoint.

    Args:
        name: Name of the checkpoint.
        checkpoint: Source of the weights.
        config: Configuration of the model.
        difference: Largest absolute difference of RGB after reloading.
        change: Largest change of RGB by folding; None if nothing was folded.
    """
    folded = "" if change is None else f" Its kernels were folded, which changed RGB by at most {change:.1e}."
    return CheckpointCard(
        name=name,
        config=config,
        source=(
            f"Converted from `{checkpoint.path.name}`, a checkpoint of the published program (Jinchen2028/MSIT)."
            f"{folded or ' No weight was changed.'}"
        ),
        source_sha256=checkpoint.sha256,
        training_data="Not known to the converter: see where the file comes from.",
        recipe="Not known to the converter.",
        check=(
            "Renamed back, the weights equal the source's arrays bit by bit. After the conversion the files were "
            f"loaded again: the largest difference of RGB, in [-1, 1], on seeded random pictures is {difference:.1e}."
        ),
        notes=[
            "The published demo feeds colours in [0, 1] to a network that was trained on [-1, 1]. Here it is [-1, 1]."
        ],
        license="other",
    )


def convert(path: Path, output: Path, *, name: str | None = None, merge: bool = False) -> Conversion:
    """Convert a file to a Hugging Face directory, load that again and compare; a failure leaves nothing behind.

    Args:
        path: Checkpoint of the published program.
        output: Directory to write, which must not exist, or be empty.
        name: Name of the checkpoint on its card; None = the file's name.
        merge: Whether the re-interaction is folded into plain kernels.

    Returns:
        The source, the configuration and the directory, with a report.

    Raises:
        ValueError: If the file is no such checkpoint, an array is not accounted for, or the output exists.
    """
    title = path.stem if name is None else name
    check_free(output)
    checkpoint = read_checkpoint(path)
    model = build_model(checkpoint)
    check_back(model, checkpoint)
    change = fold(model) if merge else None

    def check(loaded: Any) -> None:
        own = model.state_dict()
        if not all(torch.equal(value, own[name]) for name, value in loaded.state_dict().items()):
            raise ValueError("The written weights are not those of the model.")

    difference = write_checkpoint(
        model,
        output,
        check_weights=check,
        write_card=lambda folder, found: model_card(title, checkpoint, model.config, found, change).save(folder),
    )
    lines = [f"{fact}: {text}" for fact, text in facts(model.config).items()]
    lines += [] if change is None else [f"folded: RGB changes by at most {change:.1e}"]
    return Conversion(
        checkpoint=checkpoint,
        config=model.config,
        inferred=tuple(lines),
        largest_difference=difference,
        answer="RGB",
        directory=output,
    )


def to_original(directory: Path, output: Path) -> int:
    """Write a checkpoint of the published program from a Hugging Face directory.

    Args:
        directory: Directory that holds config.json and weights.
        output: File to write, which must not exist; its name ends in .pth.

    Returns:
        The number of arrays in the file.

    Raises:
        ValueError: If there is no such directory, the weights do not fit, the original cannot express the model, or
            the output exists or ends otherwise.
    """
    check_original_file(output, ENDING)
    config, state = load_strictly(directory, [MsitForImageSuperResolution.__name__])
    if not config.use_rim or (config.use_shift and config.shift_padding != "circular"):
        raise ValueError(
            f"{directory} has plain kernels or a shift that repeats the border, but the original has kernels with "
            "re-interaction and a circular shift. Call `model.add_rim()` for kernels; a shift cannot be converted."
        )
    arguments = write_arguments(config)
    arrays = to_arrays(state, config) | dict(make_fixed(config))
    content = {NAME: ARCHITECTURE, ARGUMENTS: arguments, STATE: {key: torch.tensor(arrays[key]) for key in arrays}}
    write_tensors({MODEL: content}, output)
    return len(arrays)


class MsitConverter(Unpublished):
    """Converter of MSIT checkpoints, as `Converter` describes it."""

    family = "msit"
    accepts = "a checkpoint of MSIT, a .pth of the published program"
    endings = (ENDING,)
    shared: Sequence[str] = ()
    left_out = LEFT_OUT

    def recognises(self, path: Path) -> bool:
        """Return True if a file holds a network with the decoder of the published program."""
        return holds(path, find_parts)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add an option for the kernels."""
        group = parser.add_argument_group("MSIT checkpoints")
        group.add_argument("--merge", action="store_true", help="fold re-interaction into plain kernels")

    def convert(
        self, path: Path, output: Path, *, name: str | None = None, arguments: Mapping[str, Any] | None = None
    ) -> Conversion:
        """Convert a file by `convert` of this module, with its own option."""
        return convert(path, output, name=name, **(arguments or {}))

    def to_original(self, directory: Path, output: Path) -> int:
        """Write a `.pth` of the published program, by `to_original` of this module."""
        return to_original(directory, output)


MSIT_CONVERTER = MsitConverter()
