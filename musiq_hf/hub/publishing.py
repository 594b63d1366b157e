# SPDX-License-Identifier: Apache-2.0
"""Make a checkpoint directory load without this package, under `trust_remote_code=True`.

The flat `*_musiq.py` files go beside the weights, and the two JSON files say which classes in them to use. Where
`musiq_hf` is imported its own classes are used and neither matters.
"""

import os
import shutil
from pathlib import Path

from ..common.files import PACKAGE, read_json, write_json
from ..models.auto import TASK

_MODELING = "modeling_musiq"
# Which Auto classes load which model class.
_AUTO_MODELS = {
    "MusiqForImageQualityAssessment": ("AutoModel", "AutoModelForImageClassification"),
    "MusiqForImageClassification": ("AutoModel", "AutoModelForImageClassification"),
    "MusiqModel": ("AutoModel",),
}


def _auto_map(architecture: str) -> dict[str, str]:
    models = {auto: f"{_MODELING}.{architecture}" for auto in _AUTO_MODELS[architecture]}
    return {"AutoConfig": "configuration_musiq.MusiqConfig"} | models


def add_remote_code(directory: str | Path) -> list[str]:
    """Add code files, `auto_map` and `custom_pipelines` to a saved checkpoint; doing it again renews them.

    Args:
        directory: Holds config.json and, as a rule, preprocessor_config.json.

    Returns:
        Names of the code files.

    Raises:
        ValueError: If there is no config.json, or it does not name one of MUSIQ's model classes.
    """
    directory = Path(directory)
    config_file, processor_file = directory / "config.json", directory / "preprocessor_config.json"
    if not config_file.is_file():
        raise ValueError(f"{directory} holds no config.json. Save model and image processor there first.")
    config = read_json(config_file)
    architecture = (config.get("architectures") or [None])[0]
    if architecture not in _AUTO_MODELS:
        raise ValueError(
            f"`architectures` in {config_file} must name one of {sorted(_AUTO_MODELS)}, got {architecture}. "
            "Save the model with `save_pretrained`."
        )
    # Code first: a directory that names files which are not there does not load at all.
    sources = sorted((PACKAGE / "models" / "musiq").glob("*_musiq.py"))
    for source in sources:
        temporary = directory / f".{source.name}.tmp"
        shutil.copyfile(source, temporary)
        os.replace(temporary, directory / source.name)
    config["auto_map"] = _auto_map(architecture)
    if architecture == "MusiqForImageQualityAssessment":
        # Transformers looks the class under "pt" up among its own, so it cannot be ours.
        impl = "pipeline_musiq.ImageQualityAssessmentPipeline"
        config["custom_pipelines"] = {TASK: {"impl": impl, "pt": ["AutoModelForImageClassification"], "type": "image"}}
    write_json(config_file, config)
    if processor_file.is_file():
        processor = read_json(processor_file)
        processor["auto_map"] = {"AutoImageProcessor": "image_processing_musiq.MusiqImageProcessor"}
        write_json(processor_file, processor)
    return [source.name for source in sources]
