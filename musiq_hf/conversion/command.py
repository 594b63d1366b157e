# SPDX-License-Identifier: Apache-2.0
"""Conversion as a command: the arguments of `musiq convert` and of the scripts in `conversion`, and what they do.

The converter is the one that recognises the file; for the way back it is that of the family of the directory.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.utils import httpx
from transformers.utils import logging

from ..common.arguments import CommandParser, parse_arguments, positive, run_command
from ..common.files import write_text
from ..common.terminal import print_line, print_text
from ..hub.model_card import name_repository
from ..scoring.loading import load_config, resolve_model
from . import CONVERTERS, converter_of_config, converter_of_file
from .directories import check_directory
from .protocol import SHARED_OPTIONS, Converter

DOOR = "convert_musiq_checkpoint"  # script in `conversion`
EXAMPLES = """\
{command} koniq_ckpt.npz musiq-koniq
{command} koniq musiq-koniq
{command} musiq-koniq back.npz --to_original
{command} loda_koniq.pt loda-koniq --vit timm/vit_base_patch16_224.augreg2_in21k_ft_in1k --cnn timm/resnet50.a1_in1k
{command} detector.ckpt detector
"""


@dataclass(frozen=True, kw_only=True)
class ConversionJob:
    """Conversion that the user asks for.

    Attributes:
        checkpoint: File or published name; for the way back, a Hugging Face directory.
        output: Directory to write; for the way back, a file.
        name: Name of the checkpoint on its card; None = the published name, or the file's.
        push_to_hub: Id of the Hub repository to upload to; None uploads nothing.
        to_original: Whether to convert back.
        arguments: Options of the converters that the user gave, by name.
    """

    checkpoint: str
    output: Path
    name: str | None = None
    push_to_hub: str | None = None
    to_original: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)


def describe(command: str) -> str:
    """Write the description of a command: the files that can be converted, and examples."""
    accepted = "; or ".join(converter.accepts for converter in CONVERTERS.values())
    return f"Convert {accepted}, to a Hugging Face directory, and back.\n\n{EXAMPLES.format(command=command)}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every conversion, and the options of all converters."""
    add = parser.add_argument
    names = ", ".join(name for converter in CONVERTERS.values() for name in converter.published)
    add("checkpoint", help=f"file, or a published name to download: {names}")
    add("output", help="new directory; with --to_original the new file")
    add("--name", help="in the card; a published one adds what is known (default: the published name, or the file's)")
    add("--push_to_hub", metavar="REPO_ID", help="upload the directory")
    add(
        "--to_original", action="store_true", help="the other way: a Hugging Face directory to a file as its name ends"
    )
    for name, text in SHARED_OPTIONS.items():
        add(f"--{name}", type=positive, help=text)
    for converter in CONVERTERS.values():
        converter.add_arguments(parser)


def default_options(converter: Converter) -> dict[str, Any]:
    """Return the options of a converter, those that it shares among them, and their defaults, by name."""
    parser = argparse.ArgumentParser(add_help=False)
    converter.add_arguments(parser)
    return dict.fromkeys(converter.shared) | vars(parser.parse_args([]))


def read_job(words: Mapping[str, Any]) -> ConversionJob:
    """Make a job from parsed arguments.

    Args:
        words: Values of the arguments of `add_arguments` by name; other names are ignored.
    """
    options = {name: value for one in CONVERTERS.values() for name, value in default_options(one).items()}
    return ConversionJob(
        checkpoint=words["checkpoint"],
        output=Path(words["output"]),
        name=words["name"],
        push_to_hub=words["push_to_hub"],
        to_original=words["to_original"],
        arguments={name: words[name] for name, default in options.items() if words[name] != default},
    )


def resolve(checkpoint: str) -> tuple[Path, str | None]:
    """Find the file to convert, and download it if its name is a published one.

    Args:
        checkpoint: Path of a file, or a published name; if both fit, the file is taken.

    Returns:
        The file, and the name of the checkpoint if it was downloaded, else None.

    Raises:
        FileNotFoundError: If there is no such file and no such published name.
        ConnectionError: If the download fails.
    """
    path, converters = Path(checkpoint), CONVERTERS.values()
    if path.is_file():
        return path, None
    for converter in converters:
        fetched = converter.fetch(checkpoint)
        if fetched is not None:
            return fetched
    if path.is_dir():
        endings = dict.fromkeys(ending for converter in converters for ending in converter.endings)
        raise FileNotFoundError(f"{path} is a directory. Give the {' or '.join(endings)} file, or add --to_original.")
    names = ", ".join(name for converter in converters for name in converter.published)
    raise FileNotFoundError(f"{path}: no such file, and not one of the published names {names}.")


def check_arguments(job: ConversionJob, path: Path, converter: Converter) -> None:
    """Raise a ValueError if an option was given that the converter of the file does not have."""
    foreign = [f"`--{name}`" for name in job.arguments if name not in default_options(converter)]
    if foreign:
        raise ValueError(
            f"{path} is a {converter.family} checkpoint, whose converter has no {', '.join(foreign)}. Leave that out."
        )


def push(directory: Path, repo_id: str) -> str:
    """Upload a converted directory to the Hub; the snippet of its card then names the repository.

    Args:
        directory: Directory to upload.
        repo_id: Id of the repository, which is made if it is missing.

    Returns:
        The address of the repository.

    Raises:
        ConnectionError: If the upload fails, for whatever reason.
    """
    api = HfApi()
    try:
        url = api.create_repo(repo_id, exist_ok=True)
        card = directory / "README.md"
        write_text(card, name_repository(card.read_text(encoding="utf-8"), url.repo_id))
        api.upload_folder(repo_id=url.repo_id, folder_path=directory)
    except (OSError, ValueError, RuntimeError, httpx.HTTPError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ConnectionError(
            f"{repo_id} could not be pushed ({reason}). {directory} is complete: push it later."
        ) from error
    return str(url)


@contextmanager
def _hide_progress_bars() -> Iterator[None]:
    """Hide progress bars of reading weights, which takes a moment; those of uploads and downloads stay."""
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


def _run_back(job: ConversionJob) -> None:
    generic = ("name", "push_to_hub")
    given = [*(name for name in generic if getattr(job, name) is not None), *job.arguments]
    if given:
        raise ValueError(f"`--to_original` takes no other argument, got --{', --'.join(given)}. Leave them out.")
    directory = Path(resolve_model(str(job.checkpoint)))
    check_directory(directory)
    converter = converter_of_config(load_config(str(directory)))
    count = converter.to_original(directory, job.output)
    print_line(f"written   {job.output}, {count} arrays")
    if converter.left_out:
        print_line(f"left out  {converter.left_out.format(directory=job.checkpoint)}")


def run_job(job: ConversionJob) -> None:
    """Convert, and print the report.

    Raises:
        ValueError: If no converter takes the file, or its converter refuses the file or an argument.
        OSError: If there is no such file, or a download or upload fails.
    """
    if job.to_original:
        _run_back(job)
        return
    path, name = resolve(job.checkpoint)
    converter = converter_of_file(path)
    check_arguments(job, path, converter)
    with _hide_progress_bars():
        conversion = converter.convert(path, job.output, name=job.name or name, arguments=job.arguments)
    print_text(conversion.report())
    if job.push_to_hub:
        print_line(f"pushed    {push(job.output, job.push_to_hub)}")


def build_parser(door: str = DOOR) -> argparse.ArgumentParser:
    """Make the parser of a script in `conversion`, by its name."""
    description = describe(f"python -m conversion.{door}")
    parser = CommandParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None, *, door: str = DOOR) -> int:
    """Parse a command line and convert, for the scripts in `conversion`.

    Args:
        argv: Words of the command line; None reads those of this process.
        door: Name of the script, for its help.

    Returns:
        Exit code: 0, or 2 after one sentence about a mistake in the arguments or the file.
    """
    job = read_job(vars(parse_arguments(build_parser(door), argv)))
    return run_command("convert", lambda: run_job(job))
