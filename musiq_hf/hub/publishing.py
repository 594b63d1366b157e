# SPDX-License-Identifier: Apache-2.0
"""Remote code, which lets a checkpoint directory load without this package, under `trust_remote_code=True`.

Saving a model or an image processor adds it. Here it is added to directories that hold none, or that of an earlier
version. Where `musiq_hf` is imported, its own classes are used instead.
"""

from pathlib import Path
from typing import Any

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


def has_pipeline(family: Family) -> bool:
    """Return whether a pipeline is among the files of a family, so that it scores without this package."""
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
