# SPDX-License-Identifier: Apache-2.0
"""Places in docs/matrix_functions.md that commands fill; what stands outside of them is written by hand and kept."""

from collections.abc import Callable
from pathlib import Path

from musiq_hf.common.files import write_text

DOCUMENT = Path("docs/matrix_functions.md")


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


def update(output: Path, place: str, measure: Callable[[], str]) -> None:
    """Measure, print the tables and write them into a document, which is read before anything is measured.

    Raises:
        ValueError: If there is no such document, or it has no place for the tables.
    """
    if not output.is_file():
        raise ValueError(f"{output} is no file. Name a document with a place for the tables.")
    document = output.read_text(encoding="utf-8")
    put_into(document, place, "")
    measured = measure()
    print(measured)
    write_text(output, put_into(document, place, measured))
