# SPDX-License-Identifier: Apache-2.0
"""Remote code, which lets a checkpoint directory load without this package, under `trust_remote_code=True`.

The flat files of the family (`*_musiq.py`, say) are copied beside the weights. The two JSON files say which classes
in them to use. Where `musiq_hf` is imported, its own classes are used instead.
"""

import inspect
import shutil
from pathlib import Path

from ..common.files import read_json, replace_file, write_json
from ..models import FAMILIES
from ..models.auto import STANDARD_TASK, TASK
from ..models.protocol import Family


def _list_classes(family: Family) -> dict[str, tuple[type, tuple[str, ...]]]:
    """Return the model classes of a family by name, each with the Auto classes that load it."""
    heads = [kind for kind in (family.quality, family.classifier) if kind is not None]
    classes = {kind.__name__: (kind, ("AutoModel", "AutoModelForImageClassification")) for kind in heads}
    return classes | {kind.__name__: (kind, ("AutoModel",)) for kind in family.others}


def _name_class(kind: type) -> str:
    """Return the entry of a class in an `auto_map`: its file and its name."""
    return f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}"


def _find_family(architecture: str | None, config_file: Path) -> Family:
    """Return the family that has a model class of this name, or raise a ValueError if none has."""
    known = {name: family for family in FAMILIES.values() for name in _list_classes(family)}
    if architecture not in known:
        raise ValueError(
            f"`architectures` in {config_file} must name one of {sorted(known)}, got {architecture}. "
            "Save the model with `save_pretrained`."
        )
    return known[architecture]


def list_code(family: Family) -> list[Path]:
    """List the files of a family that go to the Hub with its weights, sorted by name."""
    return sorted(Path(inspect.getfile(family.config)).parent.glob(f"*_{family.name}.py"))


def has_pipeline(family: Family) -> bool:
    """Return whether a pipeline is among the files of a family, so that it scores without this package."""
    return any(path.name == f"pipeline_{family.name}.py" for path in list_code(family))


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
    config_file, processor_file = directory / "config.json", directory / "preprocessor_config.json"
    if not config_file.is_file():
        raise ValueError(f"{directory} holds no config.json. Save model and image processor there first.")
    config = read_json(config_file)
    architecture = (config.get("architectures") or [None])[0]
    family = _find_family(architecture, config_file)
    # Code first: a directory that names files which are not there does not load at all.
    sources = list_code(family)
    for source in sources:
        with replace_file(directory / source.name) as temporary:
            shutil.copyfile(source, temporary)
    model, autos = _list_classes(family)[architecture]
    config["auto_map"] = {"AutoConfig": _name_class(family.config)} | dict.fromkeys(autos, _name_class(model))
    if model is family.quality and has_pipeline(family):
        # Transformers looks the class under "pt" up among its own, so it cannot be ours.
        names = {TASK: "ImageQualityAssessmentPipeline", STANDARD_TASK: "QualityClassificationPipeline"}
        common = {"pt": ["AutoModelForImageClassification"], "type": "image"}
        config["custom_pipelines"] = {
            task: {"impl": f"pipeline_{family.name}.{name}", **common} for task, name in names.items()
        }
    write_json(config_file, config)
    if processor_file.is_file():
        processor = read_json(processor_file)
        processor["auto_map"] = {"AutoImageProcessor": _name_class(family.processor)}
        write_json(processor_file, processor)
    return [source.name for source in sources]
