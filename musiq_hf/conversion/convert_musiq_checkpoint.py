# SPDX-License-Identifier: Apache-2.0
"""Convert a MUSIQ checkpoint, the original's `.npz` or pyiqa's `.pth`, to a Hugging Face directory, and back.

python -m conversion.convert_musiq_checkpoint koniq_ckpt.npz musiq-koniq
python -m conversion.convert_musiq_checkpoint koniq musiq-koniq
python -m conversion.convert_musiq_checkpoint musiq-koniq back.npz --to_original
"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import HfApi
from huggingface_hub.utils import httpx
from safetensors.torch import load_file
from transformers.utils import logging

from ..common.arguments import parse_arguments
from ..common.files import read_json, write_json
from ..hub.model_card import CheckpointCard
from ..hub.publishing import add_remote_code
from ..models.musiq.configuration_musiq import MusiqConfig
from ..models.musiq.image_processing_musiq import MusiqImageProcessor
from ..models.musiq.modeling_musiq import MusiqForImageClassification, MusiqForImageQualityAssessment
from ..scoring.verification import write_self_test
from .checkpoints import Checkpoint, read_checkpoint
from .infer_config import Flags, infer_config
from .key_mapping import ORIGINAL, Array, account, from_ours, ours_to_original, to_ours
from .published import DATASETS, PUBLISHED, dataset_of, download, published_name

MODELS = {model.__name__: model for model in (MusiqForImageQualityAssessment, MusiqForImageClassification)}
TOLERANCE = 1e-5  # of the logits; reloading changes nothing, so this allows for other kernels only
ORIGINAL_GROUPS, ORIGINAL_EPSILON = 32, 1e-6  # fixed in the original's code

Model = MusiqForImageQualityAssessment | MusiqForImageClassification


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What a conversion found and wrote.

    Attributes:
        checkpoint: The source.
        config: Inferred.
        largest_difference: Of a logit, between the model built from the arrays and the one loaded from the directory.
        directory: What was written.
    """

    checkpoint: Checkpoint
    config: MusiqConfig
    largest_difference: float
    directory: Path

    def report(self) -> str:
        """A few lines for the terminal."""
        source, config = self.checkpoint, self.config
        kind = "npz of the original" if source.source == ORIGINAL else "pth of pyiqa"
        skipped = f"; {source.num_optimizer_arrays} of the optimizer's state left out"
        encoder = config.patch_encoder + (f"-{config.patch_encoder_depth}" if config.patch_encoder == "resnet" else "")
        scales = [*map(str, config.longer_side_lengths), *(["native"] if config.use_native_resolution else [])]
        lines = (
            f"source    {source.path} ({kind})",
            f"sha256    {source.sha256}",
            f"arrays    {len(source.arrays)} with {source.num_parameters:,} parameters"
            + (skipped if source.num_optimizer_arrays else ""),
            f"inferred  {config.architectures[0]}, labels {config.num_labels}, width {config.hidden_size}, layers "
            f"{config.num_hidden_layers}, heads {config.num_attention_heads}, MLP {config.intermediate_size}, "
            f"pre-logits {config.pre_logits_size}",
            f"          patch {config.patch_size}, patch encoder {encoder}, positions {config.spatial_embedding}, "
            f"grid {config.hash_grid_size}, scales {' '.join(scales)}, scale embedding {config.use_scale_embedding}",
            f"check     largest difference of a logit after reloading {self.largest_difference:.1e}; arrays back bit "
            "by bit",
            f"written   {self.directory}",
        )
        return "\n".join(lines)


def build_model(config: MusiqConfig, arrays: Mapping[str, Array]) -> Model:
    """A model in float32 straight from arrays by our names; every one must be there, and no other."""
    with torch.device("meta"):
        model = MODELS[config.architectures[0]](config)
    state = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()


def parameter_shapes(config: MusiqConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters of a model, by our names, without making them."""
    with torch.device("meta"):
        model = MODELS[config.architectures[0]](config)
    return {name: tuple(parameter.shape) for name, parameter in model.state_dict().items()}


def infer_checked(checkpoint: Checkpoint, flags: Flags, *, score_range: Sequence[float] | None = None) -> MusiqConfig:
    """The configuration of a checkpoint all of whose arrays are accounted for.

    Raises:
        ValueError: If one is missing, unknown or of a wrong shape, with a list; or a flag is needed or contradicted.
    """
    ours, _ = to_ours(checkpoint.arrays, source=checkpoint.source)
    query = checkpoint.arrays.get("Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel")
    heads = query.shape[1] if checkpoint.source == ORIGINAL and query is not None and query.ndim == 3 else None
    shapes = {name: array.shape for name, array in ours.items()}
    config = infer_config(shapes, flags, num_attention_heads=heads, score_range=score_range)
    problems = [f"unknown: {name}" for name in checkpoint.unknown]
    problems += account(
        checkpoint.arrays,
        source=checkpoint.source,
        expected=parameter_shapes(config),
        num_attention_heads=config.num_attention_heads,
    )
    if problems:
        raise ValueError("\n  ".join((f"{checkpoint.path} does not hold the arrays of one MUSIQ model:", *problems)))
    return config


@torch.inference_mode()
def largest_difference(first: Model, second: Model) -> float:
    """Largest absolute difference of the logits of two models of one configuration on a seeded random input."""
    config, length = first.config, 24
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand((2, length, config.patch_size**2 * 3), generator=generator) * 2 - 1
    mask = torch.ones((2, length), dtype=torch.int64)
    mask[1, length // 2 :] = 0  # one sequence is padded
    positions = torch.randint(config.num_spatial_positions, (2, length), generator=generator)
    scales = torch.randint(config.num_scales, (2, length), generator=generator)
    logits = [model(pixels, mask, positions, scales).logits for model in (first, second)]
    return float((logits[0] - logits[1]).abs().max())


def _check_back(model: Model, checkpoint: Checkpoint) -> None:
    """Raise unless the model's weights, renamed back, equal the source's arrays bit by bit."""
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    heads = model.config.num_attention_heads
    if checkpoint.source == ORIGINAL:
        back, _ = from_ours(state, target=ORIGINAL, num_attention_heads=heads)
        wanted: Mapping[str, Array] = checkpoint.arrays
    else:
        back, (wanted, _) = state, to_ours(checkpoint.arrays, source=checkpoint.source)
    wrong = [name for name in wanted if back[name].tobytes() != wanted[name].tobytes()]
    if wrong or len(back) != len(wanted):
        raise ValueError(f"The written weights do not give back these arrays of the source: {wrong}.")


def model_card(name: str, checkpoint: Checkpoint, config: MusiqConfig, difference: float) -> CheckpointCard:
    """The card of a converted checkpoint, with what is known of a published one of that name."""
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


@contextmanager
def _new_directory(output: Path) -> Iterator[Path]:
    """A sibling that becomes `output` at the end, or vanishes if anything fails."""
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    temporary.mkdir()
    try:
        yield temporary
        if output.exists():
            output.rmdir()
        os.replace(temporary, output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_configs(config: MusiqConfig, directory: Path) -> None:
    """Write config.json and preprocessor_config.json, as `configuration/checkpoints` has them."""
    config.save_pretrained(directory)
    MusiqImageProcessor.from_config(config).save_pretrained(directory)
    content = read_json(directory / "config.json") | {"dtype": "float32"}
    if content.get("id2label", {}).get("0") == "LABEL_0":
        # A thousand lines of names that say nothing; Transformers makes them from the number.
        del content["id2label"], content["label2id"]
        content["num_labels"] = config.num_labels
    write_json(directory / "config.json", content)


def convert(path: Path, output: Path, *, name: str | None = None, flags: Flags | None = None) -> Conversion:
    """Convert a file to a Hugging Face directory, reload that and compare; nothing is written if anything is wrong.

    Args:
        path: Original `.npz` or pyiqa's `.pth`.
        output: Must not exist, or be empty.
        name: Of the checkpoint, for its card; a published one adds what is known. None = the file's name.
        flags: What the arrays do not tell.

    Returns:
        What was found and written.

    Raises:
        ValueError: If the file is no MUSIQ checkpoint, an array is not accounted for, a flag is missing or contradicts
            the arrays, or the output exists.
    """
    name = path.stem if name is None else name
    dataset = dataset_of(name)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} exists and is not an empty directory. Choose another, or remove it first.")
    checkpoint = read_checkpoint(path)
    config = infer_checked(checkpoint, flags or Flags(), score_range=dataset.score_range if dataset else None)
    ours, _ = to_ours(checkpoint.arrays, source=checkpoint.source)
    model = build_model(config, ours)
    with _new_directory(output) as temporary:
        model.save_pretrained(temporary)
        write_configs(config, temporary)
        add_remote_code(temporary)
        reloaded = MODELS[config.architectures[0]].from_pretrained(temporary).eval()
        difference = largest_difference(model, reloaded)
        if not difference <= TOLERANCE:  # also for NaN
            raise ValueError(
                f"The written files give other logits than the arrays: largest difference {difference}. Are all of "
                "the source's numbers finite?"
            )
        _check_back(reloaded, checkpoint)
        processor = MusiqImageProcessor.from_pretrained(temporary)
        processor.check_config(reloaded.config)
        write_self_test(reloaded, processor, temporary)
        model_card(name, checkpoint, config, difference).save(temporary)
    return Conversion(checkpoint=checkpoint, config=config, largest_difference=difference, directory=output)


def _load_strictly(directory: Path) -> tuple[MusiqConfig, dict[str, Array]]:
    """Configuration and float32 weights of a directory; every weight that the model has, and no other."""
    if not (directory / "config.json").is_file():
        raise ValueError(f"{directory} is not a Hugging Face directory: it holds no config.json.")
    config = MusiqConfig.from_pretrained(directory)
    architecture = (config.architectures or [None])[0]
    if architecture not in MODELS:
        raise ValueError(f"`architectures` in {directory} must name one of {sorted(MODELS)}, got {architecture}.")
    state: dict[str, Array] = {}
    for file in sorted(directory.glob("*.safetensors")):
        state |= {name: tensor.float().numpy() for name, tensor in load_file(file).items()}
    found, expected = {name: array.shape for name, array in state.items()}, parameter_shapes(config)
    wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if wrong:
        raise ValueError(
            f"The weights in {directory} do not fit its config.json: missing, extra or misshapen {wrong}."
        )
    return config, state


def _check_expressible(config: MusiqConfig) -> None:
    """Raise for what the original's program cannot compute."""
    fixed = {"patch_encoder_groups": ORIGINAL_GROUPS, "layer_norm_eps": ORIGINAL_EPSILON}
    wrong = {name: getattr(config, name) for name, value in fixed.items() if getattr(config, name) != value}
    if config.patch_encoder == "linear":
        wrong.pop("patch_encoder_groups", None)
    if config.spatial_embedding not in ("hash", "sinusoid"):
        wrong["spatial_embedding"] = config.spatial_embedding
    if wrong:
        raise ValueError(
            f"The original's program has no {wrong}: it needs {fixed} and hashed or sinusoid positions. "
            "Such a checkpoint cannot be converted to its format."
        )


def to_original(directory: Path, output: Path) -> int:
    """Write the original's `.npz` from a Hugging Face directory.

    `score_offset` and `score_scale`, which the original does not know, are worked into the head.

    Args:
        directory: Holds config.json and weights.
        output: The file; must not exist.

    Returns:
        The number of arrays.

    Raises:
        ValueError: If there is no such directory, the weights do not fit, the original cannot express the model, or
            the output exists.
    """
    if output.exists():
        raise ValueError(f"{output} exists. Choose another name, or remove it first.")
    config, state = _load_strictly(directory)
    _check_expressible(config)
    if (config.score_offset, config.score_scale) != (0, 1):
        weight, bias = (state[f"head.classifier.{name}"].astype(np.float64) for name in ("weight", "bias"))
        state["head.classifier.weight"] = (weight * config.score_scale).astype(np.float32)
        state["head.classifier.bias"] = (bias * config.score_scale + config.score_offset).astype(np.float32)
    arrays, _ = ours_to_original(state, num_attention_heads=config.num_attention_heads)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)
    return len(arrays)


def push(directory: Path, repo_id: str) -> str:
    """Upload a converted directory to the Hub; returns the address of the repository.

    Raises:
        ConnectionError: If that fails, for whatever reason.
    """
    api = HfApi()
    try:
        url = api.create_repo(repo_id, exist_ok=True)
        api.upload_folder(repo_id=url.repo_id, folder_path=directory)
    except (OSError, ValueError, RuntimeError, httpx.HTTPError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ConnectionError(
            f"{repo_id} could not be pushed ({reason}). {directory} is complete: push it later."
        ) from error
    return str(url)


def resolve(checkpoint: str) -> tuple[Path, str | None]:
    """A file and, for a published name that is downloaded, the name of the checkpoint.

    Raises:
        FileNotFoundError: If it is neither a file nor a published name.
        ConnectionError: If the download fails.
    """
    path, short = Path(checkpoint), published_name(checkpoint)
    if path.is_file():
        return path, None
    if short is not None and "/" not in checkpoint:
        return download(short), f"musiq-{short}"
    if path.is_dir():
        raise FileNotFoundError(f"{path} is a directory. Give the .npz or .pth file, or add --to_original.")
    raise FileNotFoundError(f"{path}: no such file, and not one of the published names {', '.join(PUBLISHED)}.")


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the converter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    names = ", ".join(DATASETS)
    add("checkpoint", help=f"file, or a published name to download: {names}, each also with -single")
    add("output", help="new directory; with --to_original the new .npz")
    add(
        "--name",
        help="in the card; a published one adds what is known (default: musiq-<published name>, or the file's)",
    )
    add(
        "--longer_side_lengths", type=int, nargs="*", metavar="PIXELS", help="of the resized copies (default: 224 384)"
    )
    add("--no_native_resolution", action="store_true", help="the picture itself is not a scale")
    add("--hash_grid_size", type=int, help="side of the spatial grid, where no table tells it (default: 10)")
    add("--num_attention_heads", type=int, help="for a .pth whose hidden size is not 384")
    add("--push_to_hub", metavar="REPO_ID", help="upload the directory")
    add("--to_original", action="store_true", help="the other way: a Hugging Face directory to the original's .npz")
    return parser


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Without the bars for reading weights, which last a moment; those of up- and downloads stay."""
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


def run(arguments: argparse.Namespace) -> None:
    """Do what the arguments say and print the report."""
    if arguments.to_original:
        forward = ("name", "longer_side_lengths", "hash_grid_size", "num_attention_heads", "push_to_hub")
        given = [name for name in (*forward, "no_native_resolution") if getattr(arguments, name) not in (None, False)]
        if given:
            raise ValueError(f"`--to_original` takes no other argument, got --{', --'.join(given)}. Leave them out.")
        count = to_original(Path(arguments.checkpoint), Path(arguments.output))
        print(f"written   {arguments.output}, {count} arrays")
        return
    path, name = resolve(arguments.checkpoint)
    flags = Flags(
        longer_side_lengths=arguments.longer_side_lengths,
        use_native_resolution=not arguments.no_native_resolution,
        hash_grid_size=arguments.hash_grid_size,
        num_attention_heads=arguments.num_attention_heads,
    )
    with _no_progress_bars():
        conversion = convert(path, Path(arguments.output), name=arguments.name or name, flags=flags)
    print(conversion.report())
    if arguments.push_to_hub:
        print(f"pushed    {push(Path(arguments.output), arguments.push_to_hub)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and convert; 2 and one sentence for a mistake in the arguments or the file."""
    arguments = parse_arguments(build_parser(), argv)
    try:
        run(arguments)
    except (ValueError, OSError) as error:
        print(f"convert: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
