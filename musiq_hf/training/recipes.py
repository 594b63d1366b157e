# SPDX-License-Identifier: Apache-2.0
"""From a recipe, `--set` overrides and command-line arguments to the settings of a run.

The view of a training step has its own fields, another set for each family. Recipes, overrides and arguments name them
beside the settings, and they are gathered in `RunSettings.view`.
"""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields, make_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from transformers import HfArgumentParser

from ..common.arguments import parse_arguments, run_command
from ..common.files import data_directory
from ..models import FAMILIES
from .settings import RunSettings
from .starting import architecture_fields

RECIPES = data_directory("recipes")
Settings = TypeVar("Settings", bound=RunSettings)
# Settings that gather fields of a family. Command lines and `--set` name the fields instead.
GATHERED = ("architecture", "view")
METAVARS = {int: "INT", float: "FLOAT", str: "TEXT", bool: "BOOL"}


def read_recipe(recipe: str) -> dict[str, Any]:
    """Read the settings in a YAML file.

    Args:
        recipe: Path of a file, or the name of one of the package's recipes, "koniq" say.

    Raises:
        ValueError: If there is no such recipe, or it is no mapping of names to values.
    """
    path = Path(recipe) if Path(recipe).suffix in (".yaml", ".yml") else RECIPES / f"{recipe}.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml")))
        raise ValueError(f"{path}: no such recipe ({error.strerror}). Give a YAML file or one of {known}.") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a recipe is a mapping of settings to values, got {type(values).__name__}.")
    return values


def _family_fields() -> dict[str, dict[str, Any]]:
    """Return the types of the fields that each setting of `GATHERED` may name, of all families together."""
    found: dict[str, dict[str, Any]] = {name: {} for name in GATHERED}
    for family in FAMILIES.values():
        kinds = {"architecture": architecture_fields(family), "view": get_type_hints(family.view)}
        for setting, types_by_name in kinds.items():
            for name, kind in types_by_name.items():
                found[setting][name] = found[setting].get(name, kind) | kind
    return found


def _merge(*sources: Mapping[str, Any]) -> dict[str, Any]:
    """Join values by name, those of later sources in place of earlier ones; fields of a view move into `view`."""
    merged: dict[str, Any] = {}
    gathered: dict[str, dict[str, Any]] = {name: {} for name in GATHERED}
    of_views = _family_fields()["view"]
    for source in sources:
        for name in GATHERED:
            value = source.get(name)
            gathered[name] |= {} if value is None else _convert(name, value, Mapping)
        gathered["view"] |= {name: value for name, value in source.items() if name in of_views}
        merged |= {name: value for name, value in source.items() if name not in of_views}
    return merged | gathered


def _parse_overrides(kind: type[RunSettings], overrides: Sequence[str]) -> dict[str, Any]:
    """Read texts `name=value`, values as in YAML; fields of the architecture are gathered in `architecture`."""
    known = _family_fields()
    settings = {item.name for item in fields(kind)} | known["view"].keys()
    values: dict[str, Any] = {}
    architecture: dict[str, Any] = {}
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"`--set` takes name=value, got {text!r}.")
        if name not in settings | known["architecture"].keys():
            raise ValueError(f"`--set {name}=...`: neither a setting of the run nor a field of the configuration.")
        try:
            (values if name in settings else architecture)[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"`--set {text}`: the value is not valid YAML, close its brackets and quotes.") from error
    return _merge(values, {"architecture": architecture})


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """Return the types of a union, or the only type."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _is_of(value: Any, kind: Any) -> bool:
    """Return whether a value has a type, or can be widened to it: integers to float, lists to tuples."""
    origin, arguments = get_origin(kind) or kind, get_args(kind)
    if origin is Literal:
        return value in arguments
    if origin is tuple and isinstance(value, list | tuple):
        wanted = arguments[:1] * len(value) if ... in arguments else arguments
        return len(value) == len(wanted) and all(map(_is_of, value, wanted))
    if origin is Mapping:
        return isinstance(value, Mapping)
    return type(value) is origin or (origin is float and type(value) is int)


def _convert(name: str, value: Any, annotation: Any) -> Any:
    """Return a value, integers widened to float and lists to tuples where those are asked for.

    Raises:
        ValueError: If it is of another type.
    """
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+e[-+]?\d+", value):
        value = float(value)  # YAML reads 1e-4 as text
    allowed = _alternatives(annotation)
    for kind in allowed:
        if _is_of(value, kind):
            origin = get_origin(kind) or kind
            return origin(value) if origin in (float, tuple) else value
    options = [str(option) for kind in allowed for option in get_args(kind) if isinstance(option, str)]
    wanted = " or ".join(options) or (annotation.__name__ if isinstance(annotation, type) else str(annotation))
    raise ValueError(f"`{name}` must be {wanted}, got {value!r}.")


def _convert_gathered(setting: str, values: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields in a setting of `GATHERED`, of their types.

    Raises:
        ValueError: If no family has a field of such a name, or a value is of another type.
    """
    for name in values:
        if name not in known:
            raise ValueError(
                f"`{setting}` names {name}, which is no field of it. Known are {', '.join(sorted(known))}."
            )
    return {name: _convert(name, value, known[name]) for name, value in values.items()}


def load_settings(
    kind: type[Settings],
    *,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    arguments: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Settings:
    """Make settings from, in rising precedence: the class's defaults, `defaults`, a recipe, overrides, arguments.

    All of these may name fields of a family's view beside the settings.

    Args:
        kind: `FinetuneSettings`, `PretrainSettings`, ...
        defaults: Values by name that stand in for the class's.
        recipe: YAML file or name, see `read_recipe`.
        overrides: `name=value`, of settings or of the configuration's fields ("spatial_embedding=none").
        arguments: Values by name.

    Raises:
        ValueError: If a name is unknown, a value is of the wrong type, or a needed one is missing.
    """
    from_recipe = read_recipe(recipe) if recipe else {}
    values = _merge(defaults or {}, from_recipe, _parse_overrides(kind, overrides), arguments or {})
    hints, of_families = get_type_hints(kind), _family_fields()
    unknown = sorted(values.keys() - hints.keys())
    if unknown:
        known = sorted(hints.keys() | of_families["view"].keys())
        raise ValueError(f"Unknown settings {', '.join(unknown)}. Known are {', '.join(known)}.")
    for name in GATHERED:
        values[name] = _convert_gathered(name, values[name], of_families[name])
    for item in fields(kind):
        if item.name not in values and item.default is item.default_factory is MISSING:
            raise ValueError(f"--{item.name} is needed: {item.metadata['help']}")
    return kind(**{name: _convert(name, value, hints[name]) for name, value in values.items()})


def _argument(item: Field[Any], annotation: Any) -> tuple[str, Any, Any]:
    """Return name, type and field of a setting for `HfArgumentParser`; one that is not given is absent."""
    kind, options = _alternatives(annotation)[0], dict(item.metadata)
    default = "" if item.default is MISSING or item.default is None else f" (default: {item.default})"
    options["help"] = (options["help"] + default).replace("%", "%%")
    if "choices" in options:  # the settings refuse others, with a sentence, wherever they come from
        options["metavar"] = f"{{{','.join(options.pop('choices'))}}}"
    if get_origin(kind) is tuple:
        options["nargs"], kind = len(get_args(kind)), get_args(kind)[0]
    if kind in METAVARS:
        options.setdefault("metavar", METAVARS[kind])
    return item.name, kind, field(default=argparse.SUPPRESS, metadata=options)


def settings_parser(kind: type[RunSettings], **options: Any) -> argparse.ArgumentParser:
    """Make a parser with `--recipe`, `--set` and one argument for each setting and each field of a family's view.

    Those that are not given are absent from the result, so that recipes and defaults can fill their places.

    Args:
        kind: Class of the settings.
        **options: Further arguments of the parser, `description` say.
    """
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--recipe", help="YAML file with settings, or the name of one in configuration/recipes")
    first.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="override a setting or the configuration"
    )
    hints, view_hints = get_type_hints(kind), _family_fields()["view"]
    of_views = {item.name: item for family in FAMILIES.values() for item in fields(family.view)}
    settings = [_argument(item, hints[item.name]) for item in fields(kind) if item.name not in GATHERED]
    views = [_argument(item, view_hints[name]) for name, item in of_views.items()]
    group = {"_argument_group_name": "what a training step sees, by the family of the model"}
    return HfArgumentParser(
        [make_dataclass("Arguments", settings), make_dataclass("ViewArguments", views, namespace=group)],
        parents=[first],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **options,
    )


def settings_from_arguments(arguments: Mapping[str, Any], kind: type[Settings], **defaults: Any) -> Settings:
    """Make settings from what a parser of `settings_parser` parsed.

    Args:
        arguments: Arguments by name; those of other purposes are passed over.
        kind: Class of the settings.
        **defaults: Values of the script's own, in place of the class's.

    Raises:
        ValueError: As `load_settings`.
    """
    names = {item.name for item in fields(kind)} | _family_fields()["view"].keys()
    given = {name: value for name, value in arguments.items() if name in names}
    recipe, overrides = arguments["recipe"], arguments["set"]
    return load_settings(kind, recipe=recipe, overrides=overrides, arguments=given, defaults=defaults)


def run_with_settings(
    name: str,
    run: Callable[[Settings], Any],
    kind: type[Settings],
    *,
    description: str | None,
    example: str,
    **defaults: Any,
) -> int:
    """Run a script whose arguments are the settings of a run.

    Args:
        name: Name of the script.
        run: Takes the settings and returns the report.
        kind: Class of the settings.
        description: Description of the script, above the arguments in its help.
        example: Command line that would work.
        **defaults: Values of the script's own, in place of the class's.

    Returns:
        Exit code, see `run_command`.
    """
    arguments = vars(parse_arguments(settings_parser(kind, description=description)))
    return run_command(name, lambda: run(settings_from_arguments(arguments, kind, **defaults)), example=example)
