# SPDX-License-Identifier: Apache-2.0
"""`musiq convert`: the converter of published checkpoints, under the name of the command."""

import argparse
import importlib
import importlib.util
from types import ModuleType
from typing import Any

from ..arguments import run_command
from ..packaged import PACKAGE

SUMMARY = "convert a published checkpoint, and back"
DESCRIPTION = """\
Convert a MUSIQ checkpoint, the original's .npz or pyiqa's .pth, to a Hugging Face directory, and back.

musiq convert koniq_ckpt.npz musiq-koniq
musiq convert koniq musiq-koniq
musiq convert musiq-koniq back.npz --to_original
"""
EXAMPLE = "musiq convert koniq_ckpt.npz musiq-koniq"


def conversion_module(name: str) -> ModuleType:
    """A module of the converter, which a wheel holds inside the package and a clone beside it.

    Raises:
        ImportError: If it is in neither place.
    """
    if importlib.util.find_spec("musiq_hf.conversion") is not None:
        return importlib.import_module(f"musiq_hf.conversion.{name}")
    spec = importlib.util.find_spec("conversion")
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    if str(PACKAGE.parent / "conversion") not in places:  # somebody else's package can have this name
        raise ImportError(
            "The converter is missing. Run the command in the folder of the clone, or install the wheel."
        )
    return importlib.import_module(f"conversion.{name}")


def add_parser(subparsers: Any) -> None:
    """Add the subcommand, with the converter's own arguments."""
    converter = conversion_module("convert_musiq_checkpoint")
    parser = subparsers.add_parser(
        "convert",
        help=SUMMARY,
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[converter.build_parser()],
        add_help=False,  # the parent's serves
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Convert; 0, or 2 for a mistake in the arguments or the file."""
    converter = conversion_module("convert_musiq_checkpoint")
    return run_command("musiq convert", lambda: converter.run(arguments), example=EXAMPLE)
