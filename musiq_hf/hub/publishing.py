# SPDX-License-Identifier: Apache-2.0
"""Remote code, which lets a checkpoint directory load without this package, under `trust_remote_code=True`.

Saving a model or an image processor adds it. Here it is added to directories that hold none, or that of an earlier
version. Where `musiq_hf` is imported, its own classes are used instead.
"""

import re
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.utils import httpx, validate_repo_id

from ..common.files import read_json
from ..models import FAMILIES
from ..models.protocol import Family


def _find_family(architecture: str | None, config_file: Path) -> Family:
    """Return the family that has a model class of this name, or raise a ValueError if none has."""
    known = {kind.__name__: family for family in FAMILIES.values() for kind in family.models}
    if architecture not in known:
        raise ValueError(
            f"`architectures` in {config_file} must name one of {sorted(known)}, got {architecture}. "
            "Save the model with `save_pretrained`."
        )
    return known[architecture]


def find_hub_id(source: str) -> str | None:
    """Return a source of weights or data that is an id on the Hub; None for a file, a folder or anything else."""
    return source if re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not Path(source).exists() else None


def check_upload(repository: str) -> None:
    """Raise a ValueError if nothing can be uploaded to a repository: its name is none, or nobody is logged in.

    Commands call it before they begin hours of work.
    """
    try:
        validate_repo_id(repository)
        if "/" not in repository:
            raise ValueError("it names no owner")
    except ValueError as error:
        raise ValueError(f"`push_to_hub` must be OWNER/NAME, got {repository!r} ({error}).") from error
    try:
        HfApi().whoami()
    except (OSError, httpx.HTTPError) as error:  # those of the Hub, and those of the network
        raise ValueError(f"`push_to_hub`: the Hub does not know you ({error}). Run `hf auth login` first.") from error


def upload(model: Any, repository: str, directory: str | Path) -> None:
    """Upload a model with all that goes with it.

    Args:
        model: Model as loaded from `directory`.
        repository: OWNER/NAME on the Hub; it is made if there is none.
        directory: Folder of the checkpoint, for the error message.

    Raises:
        ValueError: If the Hub cannot be reached, or refuses it.
    """
    try:
        model.push_to_hub(repository)
    except (OSError, httpx.HTTPError) as error:
        raise ValueError(
            f"The checkpoint is saved in {directory}, but was not uploaded ({error}). Upload it with: "
            f'hf upload {repository} {directory} . --exclude "checkpoint-*" --exclude "runs/*"'
        ) from error


def has_pipeline(family: Family) -> bool:
    """Return whether a pipeline is among the files of a family, so that its checkpoints score without this package."""
    config: Any = family.config
    return any(path.name == f"pipeline_{family.name}.py" for path in config.list_code())


def add_remote_code(directory: str | Path) -> list[str]:
    """Add code files, `auto_map` and `custom_pipelines` to a saved checkpoint, or renew them.

    Args:
        directory: Folder with config.json and, as a rule, preprocessor_config.json.

    Returns:
        Names of the code files.

    Raises:
        ValueError: If there is no config.json, or it does not name a model class of one of the families.
    """
    directory = Path(directory)
    config_file = directory / "config.json"
    if not config_file.is_file():
        raise ValueError(f"{directory} holds no config.json. Save model and image processor there first.")
    family: Any = _find_family((read_json(config_file).get("architectures") or [None])[0], config_file)
    family.config.publish(directory)
    if (directory / "preprocessor_config.json").is_file():
        family.processor.publish(directory)
    return [path.name for path in family.config.list_code()]
