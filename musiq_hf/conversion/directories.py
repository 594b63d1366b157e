# SPDX-License-Identifier: Apache-2.0
"""Directories of converted checkpoints: written whole or not at all, loaded again and compared."""

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import PreTrainedConfig, PreTrainedModel

from ..common.files import read_json, replace_file, write_json
from ..hub.publishing import add_remote_code
from ..models import family_of
from ..scoring.loading import check_checkpoint, find_weight_files, is_upscaler, load_config
from ..scoring.verification import upscale_twice, write_self_test
from .protocol import Array

TOLERANCE = 1e-5  # largest difference of an answer; reloading changes no weight, but other kernels may round otherwise
PICTURE_SIZES = ((120, 160), (64, 64))  # height and width of random pictures; in a batch the smaller one is padded


def check_free(output: Path) -> None:
    """Raise a ValueError if an output exists and is not an empty directory."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} exists and is not an empty directory. Choose another, or remove it first.")


def check_directory(directory: Path) -> None:
    """Raise a ValueError if a path is not a Hugging Face directory."""
    if not (directory / "config.json").is_file():
        raise ValueError(f"{directory} is not a Hugging Face directory: it holds no config.json.")


def check_new_file(output: Path) -> None:
    """Raise a ValueError if a file that is to be written exists."""
    if output.exists():
        raise ValueError(f"{output} exists. Choose another name, or remove it first.")


def check_original_file(output: Path, ending: str) -> None:
    """Raise a ValueError if a file of the original program exists, or its name has another ending."""
    if output.suffix.lower() != ending:
        raise ValueError(f"The original's file ends in {ending}, got {output}. Change the end of the name.")
    check_new_file(output)


def write_tensors(content: Mapping[str, Any], output: Path) -> None:
    """Write a file of PyTorch, under a temporary name first; its folder is made."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(output) as temporary, temporary.open("xb") as file:
        torch.save(content, file)


def check_same(back: Mapping[str, Array], wanted: Mapping[str, Array]) -> None:
    """Raise a ValueError unless weights that were renamed back are the arrays of their source, bit by bit."""
    changed = back.keys() ^ wanted.keys()
    for name in back.keys() & wanted.keys():
        if back[name].shape != wanted[name].shape or back[name].tobytes() != wanted[name].tobytes():
            changed.add(name)
    if changed:
        raise ValueError(f"The written weights do not give back these arrays of the source: {sorted(changed)[:5]}.")


def load_strictly(directory: Path, architectures: Collection[str]) -> tuple[Any, dict[str, torch.Tensor]]:
    """Load configuration and weights of a directory, which must hold exactly the weights of its model.

    Args:
        directory: Hugging Face directory.
        architectures: Names of the classes of models, one of which the directory must hold.

    Returns:
        The configuration, and the weights by name; floating-point ones are float32.

    Raises:
        ValueError: If it is no such directory, or its weights do not fit.
    """
    check_directory(directory)
    name = str(directory)
    config = load_config(name)
    architecture = (config.architectures or [None])[0]
    if architecture not in architectures:
        raise ValueError(f"`architectures` in {name} must name one of {sorted(architectures)}, got {architecture}.")
    check_checkpoint(name)
    state: dict[str, torch.Tensor] = {}
    for file in find_weight_files(name):
        state |= load_file(file)
    return config, {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


@contextmanager
def _make_directory(output: Path) -> Iterator[Path]:
    """Make a temporary directory beside `output`; at the end it becomes `output`, or is removed if anything fails."""
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


def write_configs(config: PreTrainedConfig, directory: Path, **settings: Any) -> None:
    """Write config.json and preprocessor_config.json, as `configuration/checkpoints` has them.

    Args:
        config: Configuration of the model.
        directory: Directory that exists.
        **settings: Settings of the image processor that the configuration does not tell.
    """
    config.to_json_file(directory / "config.json")
    processor: Any = family_of(config).processor
    processor.from_config(config, **settings).to_json_file(directory / "preprocessor_config.json")
    content = read_json(directory / "config.json") | {"dtype": "float32"}
    if content.get("id2label", {}).get("0") == "LABEL_0":
        # Names such as LABEL_0 say nothing and fill a thousand lines; Transformers makes them from the number.
        del content["id2label"], content["label2id"]
        content["num_labels"] = config.num_labels
    write_json(directory / "config.json", content)


@torch.inference_mode()
def measure_difference(first: Any, second: Any, processor: Any) -> float:
    """Measure how far two models of one configuration differ on a batch of seeded random pictures.

    Args:
        first: Model in evaluation mode.
        second: Model in evaluation mode.
        processor: Image processor of both.

    Returns:
        The largest absolute difference of a logit, or of RGB for models that upscale; NaN if one is not finite.
    """
    generator = torch.Generator().manual_seed(0)
    pictures = [torch.rand((height, width, 3), generator=generator) for height, width in PICTURE_SIZES]
    features = [processor.cut(picture) for picture in pictures]
    if is_upscaler(first):
        batches = [processor.pad([feature]) for feature in features]
        answers = [
            torch.cat([upscale_twice(model, batch).flatten() for batch in batches]) for model in (first, second)
        ]
    else:
        batch = processor.pad(features, padding="longest")
        answers = [model(**batch).logits for model in (first, second)]
    return float((answers[0] - answers[1]).abs().max())


def write_checkpoint(
    model: PreTrainedModel,
    output: Path,
    *,
    check_weights: Callable[[PreTrainedModel], None],
    write_card: Callable[[Path, float], object],
    **settings: Any,
) -> float:
    """Write a model and all that belongs to it, load it again and compare; a failure leaves nothing behind.

    Args:
        model: Model in float32, in evaluation mode.
        output: Directory to write, which must not exist, or be empty.
        check_weights: Function that raises a ValueError unless a loaded model gives back the source's arrays.
        write_card: Function that writes the card; it gets the directory and the largest difference of an answer.
        **settings: Settings of the image processor that the configuration does not tell.

    Returns:
        The largest difference of an answer between the model and the loaded one.

    Raises:
        ValueError: If the answers of the two models differ, the weights do, or the processor does not fit.
    """
    with _make_directory(output) as temporary:
        model.save_pretrained(temporary)
        write_configs(model.config, temporary, **settings)
        add_remote_code(temporary)
        reloaded = type(model).from_pretrained(temporary).eval()
        processor: Any = family_of(model.config).processor.from_pretrained(temporary)
        difference = measure_difference(model, reloaded, processor)
        if not difference <= TOLERANCE:  # also for NaN
            raise ValueError(
                f"The written files give other answers than the arrays: largest difference {difference}. Are all of "
                "the source's numbers finite?"
            )
        check_weights(reloaded)
        processor.check_config(reloaded.config)
        write_self_test(reloaded, processor, temporary)
        write_card(temporary, difference)
    return difference
