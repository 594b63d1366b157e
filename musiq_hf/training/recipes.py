# SPDX-License-Identifier: Apache-2.0
"""Readers of the settings of a run: from recipes, `--set` overrides and command-line arguments.

The view of a training step has fields of its own, which differ between families. So do the networks that a model
starts from. Recipes, overrides and arguments name them beside the settings. They are gathered in `RunSettings.view`
and `RunSettings.backbones`.
"""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from ..common.arguments import CommandParser, parse_arguments, print_report, read_flag, run_command
from ..common.files import data_directory
from ..models import FAMILIES
from .settings import RunSettings
from .starting import architecture_fields

RECIPES = data_directory("recipes")
Settings = TypeVar("Settings", bound=RunSettings)
# Settings that gather fields of a family. Command lines and `--set` name the fields instead.
GATHERED = ("architecture", "view", "backbones")
NAMED = ("view", "backbones")  # of these, what has a place beside the settings
# Settings that hold fields of a family, and which fields these are.
HELD = {"architecture": "architecture", "view": "view", "teacher_view": "view", "backbones": "backbones"}
METAVARS = {int: "INT", float: "FLOAT", str: "TEXT", bool: "BOOL"}


def read_recipe(recipe: str) -> dict[str, Any]:
    """Read the settings in a YAML file.

    Args:
        recipe: Path of a file, or the name of one of the package's recipes, "koniq" say.

    Raises:
        ValueError: If there is no such recipe, or its content is no mapping of names to values.
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


def _collect_family_fields() -> dict[str, dict[str, Any]]:
    """Collect name and type of the fields of families that score, by the setting of `GATHERED` that may hold them."""
    found: dict[str, dict[str, Any]] = {name: {} for name in GATHERED}
    for family in (family for family in FAMILIES.values() if family.quality is not None):
        kinds = {"architecture": architecture_fields(family), "view": get_type_hints(family.view)}
        kinds["backbones"] = dict.fromkeys(family.backbones, str | None)
        for setting, types_by_name in kinds.items():
            for name, kind in types_by_name.items():
                found[setting][name] = found[setting].get(name, kind) | kind
    return found


def _find_owners() -> dict[str, str]:
    """Find the setting that gathers each field which recipes and arguments name beside the settings."""
    known = _collect_family_fields()
    return {name: owner for owner in NAMED for name in known[owner]}


def _merge(*sources: Mapping[str, Any]) -> dict[str, Any]:
    """Join values by name; later sources win over earlier ones, and fields of `NAMED` move where they belong."""
    merged: dict[str, Any] = {}
    gathered: dict[str, dict[str, Any]] = {name: {} for name in GATHERED}
    owners = _find_owners()
    for source in sources:
        for name in GATHERED:
            value = source.get(name)
            gathered[name] |= {} if value is None else _convert(name, value, Mapping)
        for name, value in source.items():
            (gathered[owners[name]] if name in owners else merged)[name] = value
    return merged | gathered


def _parse_overrides(kind: type[RunSettings], overrides: Sequence[str]) -> dict[str, Any]:
    """Read texts `name=value` with values in YAML; fields of the architecture are gathered in `architecture`."""
    known = _collect_family_fields()
    settings = {item.name for item in fields(kind)} | _find_owners().keys()
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


def _split_union(annotation: Any) -> tuple[Any, ...]:
    """Split a union into its types; any other type is returned alone."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _is_of_type(value: Any, kind: Any) -> bool:
    """Return whether a value has a type, or can be widened to it: integers to float, lists to tuples."""
    origin, arguments = get_origin(kind) or kind, get_args(kind)
    if origin is Literal:
        return value in arguments
    if origin is tuple and isinstance(value, list | tuple):
        wanted = arguments[:1] * len(value) if ... in arguments else arguments
        return len(value) == len(wanted) and all(map(_is_of_type, value, wanted))
    if origin is Mapping:
        return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    return type(value) is origin or (origin is float and type(value) is int)


def _convert(name: str, value: Any, annotation: Any) -> Any:
    """Return a value of the annotated type; integers are widened to float and lists become tuples.

    Raises:
        ValueError: If the value is of another type.
    """
    if isinstance(value, Mapping) and get_args(annotation)[1:] == (float,):
        value = {key: _convert(f"{name}: {key}", item, float) for key, item in value.items()}
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+e[-+]?\d+", value):
        value = float(value)  # YAML reads 1e-4 as text
    allowed = _split_union(annotation)
    for kind in allowed:
        if _is_of_type(value, kind):
            origin = get_origin(kind) or kind
            return origin(value) if origin in (float, tuple) else value
    options = [str(option) for kind in allowed for option in get_args(kind) if isinstance(option, str)]
    wanted = " or ".join(options) or (annotation.__name__ if isinstance(annotation, type) else str(annotation))
    raise ValueError(f"`{name}` must be {wanted}, got {value!r}.")


def _convert_held(setting: str, values: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the fields in a setting of `HELD` to their types.

    Raises:
        ValueError: If no family has a field of such a name, or a value is of another type.
    """
    for name in _convert(setting, values, Mapping):
        if name not in known:
            raise ValueError(
                f"`{setting}` names {name}, which is no field of any family. Known are {', '.join(sorted(known))}."
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
        kind: Class of the settings: `FinetuneSettings`, `PretrainSettings`, ...
        recipe: YAML file or name of a recipe, see `read_recipe`.
        overrides: Texts `name=value` that name settings or fields of the configuration ("spatial_embedding=none").
        arguments: Values by name.
        defaults: Values by name that stand in for the defaults of the class.

    Raises:
        ValueError: If a name is unknown, a value is of the wrong type, or a needed one is missing.
    """
    from_recipe = read_recipe(recipe) if recipe else {}
    values = _merge(defaults or {}, from_recipe, _parse_overrides(kind, overrides), arguments or {})
    hints, of_families = get_type_hints(kind), _collect_family_fields()
    unknown = sorted(values.keys() - hints.keys())
    if unknown:
        known = sorted(hints.keys() | _find_owners().keys())
        raise ValueError(f"Unknown settings {', '.join(unknown)}. Known are {', '.join(known)}.")
    for name in HELD.keys() & values.keys():
        values[name] = _convert_held(name, values[name], of_families[HELD[name]])
    if "backbones" in values:  # null takes away what a recipe names
        values["backbones"] = {name: value for name, value in values["backbones"].items() if value is not None}
    for item in fields(kind):
        if item.name not in values and item.default is item.default_factory is MISSING:
            raise ValueError(f"--{item.name} is needed: {item.metadata['help']}")
    return kind(**{name: _convert(name, value, hints[name]) for name, value in values.items()})


def _add_argument(parser: Any, item: Field[Any], annotation: Any) -> None:
    """Add the argument of a setting; one that is not given is absent from the result."""
    kind, options = _split_union(annotation)[0], dict(item.metadata)
    default = "" if item.default is MISSING or item.default is None else f" (default: {item.default})"
    options["help"] = (options["help"] + default).replace("%", "%%")
    if "choices" in options:  # only shown: the settings refuse others in one sentence, wherever they come from
        options["metavar"] = f"{{{','.join(options.pop('choices'))}}}"
    if get_origin(kind) is tuple:
        options["nargs"], kind = len(get_args(kind)), get_args(kind)[0]
    options.setdefault("metavar", METAVARS[kind])
    if kind is bool:
        options |= {"type": read_flag, "nargs": "?", "const": True}
    else:
        options["type"] = kind
    parser.add_argument(f"--{item.name}", default=argparse.SUPPRESS, **options)


def _collect_view_fields() -> dict[str, Field[Any]]:
    """Collect the fields of all views by name; the help of one that several families have says whose text is whose."""
    found: dict[str, dict[str, Field[Any]]] = {}
    for family in FAMILIES.values():
        for item in fields(family.view):
            found.setdefault(item.name, {})[family.name] = item
    collected = {}
    for name, owners in found.items():
        first = next(iter(owners.values()))
        text = " ".join(f"{family}: {item.metadata['help']}" for family, item in owners.items())
        collected[name] = first if len(owners) == 1 else field(metadata={**first.metadata, "help": text})
        collected[name].name = name
    return collected


def add_settings(parser: Any, kind: type[RunSettings]) -> None:
    """Add `--recipe`, `--set` and one argument for each setting and each field of a family's view.

    Settings that are mappings have no argument of their own, but `--set` takes them.

    Arguments that are not given are absent from the result, so that recipes and defaults can fill their places.

    Args:
        parser: Parser that gets the arguments.
        kind: Class of the settings.
    """
    parser.add_argument("--recipe", help="YAML file with settings, or the name of one in configuration/recipes")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="override a setting or the configuration"
    )
    hints, view_hints = get_type_hints(kind), _collect_family_fields()["view"]
    for item in fields(kind):
        if get_origin(hints[item.name]) is not Mapping:
            _add_argument(parser, item, hints[item.name])
    group = parser.add_argument_group("what a training step sees, by the family of the model")
    for name, item in _collect_view_fields().items():
        _add_argument(group, item, view_hints[name])
    group = parser.add_argument_group("networks that others have trained and that a new model starts from")
    for family in FAMILIES.values():
        for name, text in family.backbones.items():
            group.add_argument(f"--{name}", default=argparse.SUPPRESS, metavar="MODEL", help=text)


def settings_parser(kind: type[RunSettings], *, description: str | None = None) -> argparse.ArgumentParser:
    """Make a parser with the arguments of `add_settings`.

    Args:
        kind: Class of the settings.
        description: Text above the arguments in its help.
    """
    parser = CommandParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_settings(parser, kind)
    return parser


def settings_from_arguments(arguments: Mapping[str, Any], kind: type[Settings], **defaults: Any) -> Settings:
    """Make settings from the arguments that a parser of `settings_parser` read.

    Args:
        arguments: Arguments by name; those that are no settings are passed over.
        kind: Class of the settings.
        **defaults: Defaults of the script, in place of those of the class.

    Raises:
        ValueError: If `load_settings` refuses a name or a value, or a setting is missing.
    """
    names = {item.name for item in fields(kind)} | _find_owners().keys()
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
        run: Function that takes the settings and returns the report.
        kind: Class of the settings.
        description: Description of the script, above the arguments in its help.
        example: Command line that would work.
        **defaults: Defaults of the script, in place of those of the class.

    Returns:
        Exit code, see `run_command`.
    """
    arguments = vars(parse_arguments(settings_parser(kind, description=description)))

    def command() -> None:
        print_report(run(settings_from_arguments(arguments, kind, **defaults)))

    return run_command(name, command, example=example)
