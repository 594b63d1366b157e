# SPDX-License-Identifier: Apache-2.0
"""Page of HTML about a selection: histogram, the best and the worst pictures, groups, and errors by kind.

The page holds all it shows, and no more than that of tables with any number of rows. Names are escaped.
"""

import html
import os
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

from ..common.files import write_text
from ..common.outputs import check_page_path
from ..common.pages import embed_png, make_page
from ..version import __version__
from .selecting import Selection, name_groups
from .tables import ScoreTable
from .thumbnails import PictureError, open_small
from .transferring import find_file

NUM_SHOWN, MOST_ROWS = 20, 100  # pictures on each side, and rows of a table
SIDE = 200  # pixels of a thumbnail
NUM_BARS, WIDTH, HEIGHT = 40, 800, 220
STYLE = """
.shown{display:grid;grid-template-columns:repeat(auto-fill,minmax(12em,1fr));gap:1em;align-items:end}
figure{margin:0}figcaption{color:var(--faint);font-size:.85em;overflow-wrap:anywhere}
figcaption strong{color:var(--text)}.missing{border:1px dashed var(--line);padding:2em 1em;color:var(--faint)}
svg{max-width:100%;height:auto}svg text{fill:var(--faint);font-size:13px}
.all{fill:var(--line)}.chosen{fill:#1f78b4}.axis{stroke:var(--faint)}
td,th{overflow-wrap:anywhere}
"""


def write_report(
    path: str | os.PathLike[str], selection: Selection, *, per: str | None = None, root: str | None = None
) -> None:
    """Write a page about a selection.

    Args:
        path: File to write (.html).
        selection: Chosen rows of a table.
        per: Column whose values are groups, or "folder", see `Conditions`; None shows none.
        root: Folder of relative keys; None for the current one.

    Raises:
        ValueError: If the file cannot be written, or the column is missing.
    """
    page, table = check_page_path(path), selection.table
    chosen = selection.chosen
    order = chosen[np.argsort(-table.scores[chosen], kind="stable")]
    worst = order[NUM_SHOWN:][::-1][:NUM_SHOWN]
    sections = [
        _summarize(selection),
        _draw_histogram(table.scores, chosen),
        _show("Best", table, order[:NUM_SHOWN], root),
        _show("Worst", table, worst, root),
    ]
    if per is not None:
        sections.append(_render_groups(table, chosen, per))
    if len(selection.unscored):
        heads, counts = ("error", "pictures"), selection.reasons.most_common()
        sections.append(f"<h2>Without a score</h2>\n{_render_rows(heads, counts)}")
    sections.append(f"<p>Made by musiq_hf {__version__}.</p>")
    write_text(page, make_page("Scores of pictures", "\n".join(sections), style=STYLE))


def _escape(value: object) -> str:
    """Return a value as HTML; halves of signs, which no file can hold, are shown with backslashes."""
    return html.escape(str(value).encode("utf-8", "backslashreplace").decode())


def _summarize(selection: Selection) -> str:
    """Return the numbers at the head of the page."""
    table, chosen = selection.table, selection.chosen
    parts = [f"{len(table):,} pictures, {len(chosen):,} of them chosen, {len(selection.unscored):,} without a score."]
    if len(chosen):
        scores = table.scores[chosen]
        parts.append(
            f"Chosen scores ({_escape(table.by)}): mean {scores.mean():.1f}, median {np.median(scores):.1f}, "
            f"{scores.min():.1f} to {scores.max():.1f}."
        )
    if "model" in table.columns and len(table):
        parts.append(f"Made with {_escape(table.texts('model')[0])}.")
    return f"<p>{' '.join(parts)}</p>"


def _draw_histogram(scores: np.ndarray, chosen: np.ndarray) -> str:
    """Return the element of a histogram of all scores, with that of the chosen ones in front."""
    known = scores[np.isfinite(scores)]
    if not len(known):
        return "<p>No picture has a score.</p>"
    counts, edges = np.histogram(known, bins=NUM_BARS)
    front, _ = np.histogram(scores[chosen], bins=edges)
    width, highest = WIDTH / NUM_BARS, max(1, counts.max())
    bars = []
    for kind, part in (("all", counts), ("chosen", front)):
        for number, count in enumerate(part):
            if count:
                height = HEIGHT * count / highest
                place = f'x="{number * width:.1f}" y="{HEIGHT - height:.1f}"'
                words = f"{edges[number]:.1f} to {edges[number + 1]:.1f}: {count:,} {kind}"
                size = f'width="{width - 1:.1f}" height="{height:.1f}"'
                bars.append(f'<rect class="{kind}" {place} {size}><title>{words}</title></rect>')
    ends = (
        f'<text x="0" y="{HEIGHT + 18}">{edges[0]:.1f}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT + 18}" text-anchor="end">{edges[-1]:.1f}</text>'
    )
    return (
        f"<h2>Scores</h2>\n"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + 24}" width="{WIDTH}" role="img" aria-label="histogram of the scores">'
        f'{"".join(bars)}<line class="axis" x1="0" x2="{WIDTH}" y1="{HEIGHT}" y2="{HEIGHT}"/>{ends}</svg>\n'
        "<p>Gray: all pictures with a score. Blue: the chosen ones.</p>"
    )


def _show(title: str, table: ScoreTable, places: Iterable[int], root: str | None) -> str:
    """Return a section of thumbnails; nothing if there are none."""
    figures = [_make_figure(str(table.keys[place]), float(table.scores[place]), root) for place in places]
    if not figures:
        return ""
    return f'<h2>{title}</h2>\n<div class="shown">\n{chr(10).join(figures)}\n</div>'


def _make_figure(key: str, score: float, root: str | None) -> str:
    """Return a thumbnail with its score and name, or the reason why there is none."""
    try:
        picture = _encode(find_file(key, root or ""))
    except PictureError as error:
        picture = f'<div class="missing">{_escape(error)}</div>'
    return f"<figure>{picture}<figcaption><strong>{score:.1f}</strong> {_escape(key)}</figcaption></figure>"


def _encode(path: str) -> str:
    if not Path(path).is_file():
        raise PictureError("no such file on this machine")
    buffer = BytesIO()
    open_small(path, SIDE).quantize(128).save(buffer, "PNG")
    return embed_png(buffer.getvalue(), "")


def _render_groups(table: ScoreTable, chosen: np.ndarray, per: str) -> str:
    """Return the table of the groups of the chosen pictures, the highest mean first."""
    names, groups = name_groups(table, per), dict[str, list[float]]()
    for place in chosen:
        groups.setdefault(names[place], []).append(float(table.scores[place]))
    rows = [
        (name, len(scores), *(f"{number:.1f}" for number in (np.mean(scores), np.median(scores), *_find_ends(scores))))
        for name, scores in sorted(groups.items(), key=lambda item: -float(np.mean(item[1])))
    ]
    heads = (per, "pictures", "mean", "median", "lowest", "highest")
    return f"<h2>Groups</h2>\n{_render_rows(heads, rows)}"


def _find_ends(scores: Sequence[float]) -> tuple[float, float]:
    return min(scores), max(scores)


def _render_rows(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table of the first rows, with a line that says how many there are if some are left out."""
    lines = (_join_cells(row, "td") for row in rows[:MOST_ROWS])
    left_out = f"<p>The first {MOST_ROWS} of {len(rows):,}.</p>" if len(rows) > MOST_ROWS else ""
    head = _join_cells(heads, "th")
    return f"<table><thead>{head}</thead><tbody>\n{chr(10).join(lines)}\n</tbody></table>{left_out}"


def _join_cells(cells: Iterable[object], kind: str) -> str:
    return f"<tr>{''.join(_mark(cells, kind))}</tr>"


def _mark(cells: Iterable[object], kind: str) -> Iterator[str]:
    yield from (f"<{kind}>{_escape(cell)}</{kind}>" for cell in cells)
