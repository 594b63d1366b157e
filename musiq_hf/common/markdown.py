# SPDX-License-Identifier: Apache-2.0
"""Tables in Markdown."""

from collections.abc import Sequence


def escape_cell(text: str) -> str:
    """Return a text, which may hold names that someone else has chosen, as one cell of a table."""
    return " ".join(text.splitlines()).replace("|", "\\|")


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, without a newline at its end; line breaks and bars in cells are escaped."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(escape_cell, cells))} |" for cells in lines)
