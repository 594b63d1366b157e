# SPDX-License-Identifier: Apache-2.0
"""Names of the files that commands write, checked before hours of work and before anything heavy is imported."""

import os
from pathlib import Path

from .files import check_output_file
from .stores import OTHER, check_url, is_remote

TABLES = (".csv", ".jsonl", ".parquet")
PAGES = (".html", ".htm")
PLAN, SHEETS, SESSIONS = "plan.csv", "sheets", "sessions"  # file and folders of a plan of viewing sessions
PATTERN_SIGNS = "*?[]"  # which fsspec would take for a pattern where it removes objects


def check_table_path(path: str | os.PathLike[str]) -> Path | str:
    """Return the path of a table of scores; the URL of an object of a remote store stays a text.

    Raises:
        ValueError: If its suffix names no format that is written, or it is a URL that cannot be written.
        ImportError: If the store needs a package that is missing.
    """
    if is_remote(path):
        check_url(path)
    if Path(path).suffix.lower() not in TABLES:
        raise ValueError(f"{path}: tables are written as {', '.join(TABLES)} files. Change the end of the name.")
    if str(path).startswith((*OTHER, "hf://")):
        raise ValueError(f"{path}: scores are not written there. Write a file of this machine, and upload it.")
    if not is_remote(path):
        return Path(path)
    if any(sign in path for sign in PATTERN_SIGNS):
        raise ValueError(f"{path}: the name has signs of a pattern ({' '.join(PATTERN_SIGNS)}). Leave them out.")
    return path


def check_local_table(path: str | os.PathLike[str]) -> Path:
    """Return the path of a table on this machine, or raise a ValueError if it cannot be written."""
    if is_remote(path):
        raise ValueError(f"{path}: this table is not written there. Write a file of this machine, and upload it.")
    table = Path(check_table_path(path))
    check_output_file(table)
    return table


def check_page_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a page of HTML, or raise a ValueError if no page can be written there."""
    checked = Path(path)
    if checked.suffix.lower() not in PAGES:
        raise ValueError(f"{checked}: a report is HTML. Give it a name that ends in .html.")
    check_output_file(checked)
    if not checked.parent.is_dir():
        raise ValueError(f"{checked.parent}: no such folder. Make it first, or choose another one.")
    return checked


def check_report_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a report, or raise a ValueError if it does not end in .json or cannot be written.

    Commands call it before they begin hours of work.
    """
    if Path(path).suffix != ".json":
        raise ValueError(
            f"The report is a .json file (a .md file is written beside it), got {path}. Change the end of the name."
        )
    for output in (Path(path), Path(path).with_suffix(".md")):
        check_output_file(output)
    return Path(path)


def check_new_file(path: str | os.PathLike[str], suffixes: tuple[str, ...], *, overwrite: bool) -> Path:
    """Return the path of a file to write.

    Args:
        path: Path that was asked for.
        suffixes: Ends of which the name must have one.
        overwrite: Whether a file that is there is replaced.

    Raises:
        ValueError: If the name ends otherwise, the file cannot be written, or it is there and must stay.
    """
    checked = Path(path)
    if is_remote(path):
        raise ValueError(f"{path}: this file is not written there. Write a file of this machine, and upload it.")
    if checked.suffix.lower() not in suffixes:
        raise ValueError(f"{checked}: a {' or '.join(suffixes)} file is written. Change the end of the name.")
    check_output_file(checked)
    if checked.exists() and not overwrite:
        raise ValueError(f"{checked} exists already. Add --overwrite to replace it, or choose another name.")
    return checked


def check_plan_folder(folder: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Raise a ValueError if no plan can be written in a folder, or one is there, or sheets, that must stay."""
    check_new_file(Path(folder) / PLAN, (".csv",), overwrite=overwrite)
    sheets = Path(folder) / SHEETS
    check_output_file(sheets / PLAN)
    if sheets.is_dir() and any(sheets.iterdir()) and not overwrite:
        raise ValueError(
            f"{sheets} holds sheets, perhaps with votes. Choose another folder, or add --overwrite to replace them."
        )
