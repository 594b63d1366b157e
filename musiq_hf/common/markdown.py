# SPDX-License-Identifier: Apache-2.0
"""Tables in Markdown, and places in documents that commands fill; what stands outside of them is kept."""

from collections.abc import Callable, Sequence
from pathlib import Path

from .files import write_text


def escape_cell(text: str) -> str:
    """Return a text, which may hold names that someone else has chosen, as one cell of a table."""
    return " ".join(text.splitlines()).replace("|", "\\|")


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, without a newline at its end; line breaks and bars in cells are escaped."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(escape_cell, cells))} |" for cells in lines)


def put_into(document: str, place: str, measured: str) -> str:
    """Put tables between the two comments of a place of a document.

    Raises:
        ValueError: If the document lacks them.
    """
    begin, end = f"<!-- {place}: begin -->", f"<!-- {place}: end -->"
    before, begun, rest = document.partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise ValueError(f"The document has no place for the tables. Write {begin} and {end} where they belong.")
    return f"{before}{begin}\n{measured}\n{end}{after}"


def update_document(path: Path, place: str, measure: Callable[[], str]) -> None:
    """Measure, print the tables and write them into a document, whose place is looked for before anything is measured.

    Args:
        path: File of the document.
        place: Name of the place.
        measure: Function that returns the tables in Markdown.

    Raises:
        ValueError: If there is no such document, or it has no place for the tables.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file. Name a document with a place for the tables.")
    put_into(path.read_text(encoding="utf-8"), place, "")
    measured = measure()
    print(measured)
    # Read again: another command may have filled its own place in the meantime.
    write_text(path, put_into(path.read_text(encoding="utf-8"), place, measured))
