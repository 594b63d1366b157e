# SPDX-License-Identifier: Apache-2.0
"""From a recipe, `--set` overrides and command-line arguments to the settings of a run."""

import argparse
import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ..common.arguments import parse_arguments, print_report, run_command
from ..common.files import data_directory
from .settings import RunSettings
from .starting import architecture_fields

RECIPES = data_directory("recipes")
Settings = TypeVar("Settings", bound=RunSettings)


def _describe(kind: type[RunSettings]) -> dict[str, str]:
    """Help texts, from the "Attributes" of the class and its bases, so that they stand in one place."""
    texts: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        attributes = inspect.cleandoc(owner.__doc__ or "").partition("Attributes:\n")[2]
        for name, text in re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", attributes, flags=re.MULTILINE):
            texts[name] = " ".join(text.split())
    return texts


def read_recipe(recipe: str) -> dict[str, Any]:
    """The settings in a YAML file.

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


def _parse_overrides(kind: type[RunSettings], overrides: Sequence[str]) -> dict[str, Any]:
    """`name=value` texts, values as in YAML; fields of the configuration go to `architecture`."""
    settings = {item.name for item in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"`--set` takes name=value, got {text!r}.")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"`--set {text}`: the value is not valid YAML, close its brackets and quotes.") from error
        if name in settings:
            values[name] = parsed
        elif name in architecture_fields():
            values.setdefault("architecture", {})[name] = parsed
        else:
            raise ValueError(f"`--set {name}=...`: neither a setting of the run nor a field of the configuration.")
    return values


def _check_type(name: str, value: Any, annotation: Any) -> Any:
    """The value, integers widened to float and lists to tuples where those are asked for."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+e[-+]?\d+", value):
        value = float(value)  # YAML reads 1e-4 as text
    allowed = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    for choice in allowed:
        origin = typing.get_origin(choice) or choice
        if origin is typing.Literal and value in typing.get_args(choice):
            return value
        if origin is list and isinstance(value, list):
            return value
        if origin is tuple and isinstance(value, list | tuple) and len(value) == len(typing.get_args(choice)):
            return tuple(value)
        if origin is Mapping and isinstance(value, dict):
            return value
        if origin is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if origin in (int, str, bool, type(None)) and type(value) is origin:
            return value
    options = [str(value) for choice in allowed for value in typing.get_args(choice) if isinstance(value, str)]
    wanted = " or ".join(options) or (annotation.__name__ if isinstance(annotation, type) else str(annotation))
    raise ValueError(f"`{name}` must be {wanted}, got {value!r}.")


def load_settings(
    kind: type[Settings],
    *,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    arguments: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings from, in rising precedence: the class's defaults, `defaults`, a recipe, overrides, arguments.

    Args:
        kind: `FinetuneSettings`, `PretrainSettings`, ...
        defaults: Values by name that stand in for the class's.
        recipe: YAML file or name, see `read_recipe`.
        overrides: `name=value`, of settings or of the configuration's fields ("spatial_embedding=none").
        arguments: Values by name.

    Raises:
        ValueError: If a name is unknown, a value is of the wrong type, or a needed one is missing.
    """
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    from_recipe = read_recipe(recipe) if recipe else {}
    for source in (defaults or {}, from_recipe, _parse_overrides(kind, overrides), arguments or {}):
        architecture = values.get("architecture", {}) | (source.get("architecture") or {})
        values |= source
        values["architecture"] = architecture
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(f"Unknown settings {', '.join(unknown)}. Known are {', '.join(sorted(hints))}.")
    fields = architecture_fields()
    for name, value in values.get("architecture", {}).items():
        if name in fields:  # others are refused by the settings themselves
            _check_type(name, value, fields[name])
    needed = [item.name for item in dataclasses.fields(kind) if item.default is item.default_factory is not None]
    missing = [name for name in needed if name not in values]
    if missing:
        raise ValueError(f"--{missing[0]} is needed: {_describe(kind)[missing[0]]}")
    return kind(**{name: _check_type(name, value, hints[name]) for name, value in values.items()})


def add_settings(parser: argparse.ArgumentParser, kind: type[RunSettings]) -> None:
    """Give a parser `--recipe`, `--set` and one argument per setting; those not given are absent from the result."""
    parser.add_argument("--recipe", help="YAML file with settings, or the name of one in configuration/recipes")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="override a setting or the configuration"
    )
    texts, hints = _describe(kind), typing.get_type_hints(kind)
    for item in dataclasses.fields(kind):
        if item.name == "architecture":  # --set names its fields
            continue
        annotation = hints[item.name]
        choices = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
        default = "" if item.default is dataclasses.MISSING or item.default is None else f" (default: {item.default})"
        options: dict[str, Any] = {
            "default": argparse.SUPPRESS,
            "help": (texts[item.name] + default).replace("%", "%%"),
        }
        if bool in choices:
            options["action"] = argparse.BooleanOptionalAction if item.default else "store_true"
        elif typing.get_origin(choices[0]) is tuple:
            options |= {"type": float, "nargs": len(typing.get_args(choices[0]))}
        else:
            options["type"] = choices[0]
        parser.add_argument(f"--{item.name}", **options)


def run_with_settings(
    name: str,
    run: Callable[[Settings], Any],
    kind: type[Settings],
    *,
    description: str | None,
    example: str,
    **defaults: Any,
) -> int:
    """The body of a script whose arguments are the settings of a run.

    Args:
        name: Of the script.
        run: Takes the settings and returns the report.
        kind: Of the settings.
        description: Of the script, above the arguments in its help.
        example: Command line that would work.
        **defaults: Of the script, in place of the class's.

    Returns:
        Exit code, see `run_command`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_settings(parser, kind)
    arguments = parse_arguments(parser)

    def command() -> None:
        print_report(run(settings_from_arguments(arguments, kind, **defaults)))

    return run_command(name, command, example=example)


def settings_from_arguments(arguments: argparse.Namespace, kind: type[Settings], **defaults: Any) -> Settings:
    """Settings from what a parser with `add_settings` parsed, and a script's own defaults."""
    names = {item.name for item in dataclasses.fields(kind)}
    given = {name: value for name, value in vars(arguments).items() if name in names}
    return load_settings(kind, recipe=arguments.recipe, overrides=arguments.set, arguments=given, defaults=defaults)
