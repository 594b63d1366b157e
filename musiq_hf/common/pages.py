# SPDX-License-Identifier: Apache-2.0
"""Pages of HTML that need no other file: their frame and style, pictures in them, and Markdown of ours."""

import base64
import html
import re
from collections.abc import Iterator, Sequence

# Colours follow the reader's system. What is wide, a table or a figure, moves within its own frame.
STYLE = """
:root{color-scheme:light dark;--back:#fff;--text:#1c1e21;--faint:#5f6670;--line:#d9dde3}
@media(prefers-color-scheme:dark){:root{--back:#17191c;--text:#e4e6ea;--faint:#9aa2ad;--line:#363b42}}
body{font-family:sans-serif;line-height:1.45;max-width:75em;margin:2em auto;padding:0 1em;
background:var(--back);color:var(--text)}
h1{line-height:1.2}h2{margin-top:2em}p{max-width:50em}img{max-width:100%}code{overflow-wrap:anywhere}
.wide{overflow:auto;max-height:37em;margin:1em 0}table{border-collapse:collapse}
td,th{text-align:left;padding:.15em 1.5em .15em 0;vertical-align:top}
.wide td,.wide th{border-bottom:1px solid var(--line)}.wide td{white-space:nowrap}
.wide thead th{position:sticky;top:0;background:var(--back)}
@media print{.wide{max-height:none;overflow:visible}}
@media(max-width:40em){body{margin:1em auto}td,th{padding-right:.8em}h1{font-size:1.5em}.wide table{font-size:.85em}}
"""


def make_page(title: str, body: str, *, style: str = "") -> str:
    """Return a page.

    Args:
        title: Title, as text.
        body: Content below the title, as HTML.
        style: Further rules of CSS.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n"
        f"<body>\n<h1>{html.escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def embed_png(content: bytes, text: str) -> str:
    """Return the element of a picture that the page holds itself.

    Args:
        content: PNG file.
        text: Words for those who do not see it.
    """
    data = base64.b64encode(content).decode("ascii")
    return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{data}">'


def render_markdown(text: str) -> str:
    """Return the HTML of Markdown as our reports have it: headings, paragraphs, tables, bold text and code."""
    return "\n".join(map(_render_block, re.split(r"\n{2,}", text.strip())))


def _render_block(block: str) -> str:
    heading = re.fullmatch(r"(#{1,6}) (.*)", block)
    if heading:
        level = len(heading[1])
        return f"<h{level}>{_render_line(heading[2])}</h{level}>"
    if block.startswith("| "):
        return _render_table([_split_cells(line) for line in block.splitlines()])
    return f"<p>{_render_line(' '.join(block.splitlines()))}</p>"


def _render_table(lines: Sequence[Sequence[str]]) -> str:
    """Return the table of lines of cells, of which the second parts the heads from the rest."""
    heads, rows = "".join(_render_cells(lines[0], "th")), ("".join(_render_cells(line, "td")) for line in lines[2:])
    body = "\n".join(f"<tr>{cells}</tr>" for cells in rows)
    return f'<div class="wide"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _render_cells(cells: Sequence[str], kind: str) -> Iterator[str]:
    yield from (f"<{kind}>{_render_line(cell)}</{kind}>" for cell in cells)


def _split_cells(line: str) -> list[str]:
    """Return the cells of a line of `markdown_table`, which escapes the bars within them."""
    return [cell.replace("\\|", "|") for cell in f" {line} ".split(" | ")[1:-1]]


def _render_line(text: str) -> str:
    """Return a line with its bold parts and code."""
    shown = html.escape(text)
    shown = re.sub(r"`([^`]+)`", r"<code>\1</code>", shown)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", shown)
