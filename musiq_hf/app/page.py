# SPDX-License-Identifier: Apache-2.0
"""Page of `musiq serve`: one picture with an explanation, two side by side, and many in a table."""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

import gradio as gr

from ..common.tables import write_table
from ..pictures.lazy import LazyPicture
from ..pictures.opening import read_header
from ..scoring.tables.forms import find_kinds
from .access import SCORE
from .drawing import (
    draw_error,
    draw_faults,
    draw_hint,
    draw_map,
    draw_picture,
    draw_score,
    draw_signature,
    draw_table,
    draw_verdict,
)
from .service import Checkpoint, Service
from .settings import CLEANING_SECONDS, MAX_FILES, OLD_SECONDS
from .uploads import Files, Menu, Picture, Upload, make_refusal

TITLE = "musiq_hf: the quality of pictures"
CSV = "scores.csv"
FORMULA = ("=", "+", "-", "@")  # beginnings of a cell that spreadsheets compute
SEEN = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "GIF", "BMP")  # formats that browsers show
ONE_AT_A_TIME = "score"  # name of the one queue of all events
THEME = gr.themes.Default(
    primary_hue="blue",
    font=["system-ui", "-apple-system", "Segoe UI", "sans-serif"],  # the default fonts come from Google
    font_mono=["ui-monospace", "Consolas", "monospace"],
)
STYLE = (Path(__file__).with_name("page.css")).read_text(encoding="utf-8")
# gradio calls every input of a file the same; a screen reader is told which one it is. Tabs come and go.
NAMED = {"picture": "Picture to score", "left": "Left picture", "right": "Right picture", "files": "Pictures to score"}
NAMING = f"""() => {{
  const names = {json.dumps(NAMED)};
  const name = () => {{
    for (const [id, label] of Object.entries(names)) {{
      const input = document.getElementById(id);
      if (input && !input.hasAttribute("aria-label")) {{
        input.setAttribute("role", "group");
        input.setAttribute("aria-label", label);
      }}
    }}
  }};
  new MutationObserver(name).observe(document.body, {{ childList: true, subtree: true }});
  name();
}}"""
HEAD = f"""<header class="mq-head"><h1>{TITLE}</h1><p>Scores photographs without a reference. Programs post them to
<code>{SCORE}</code>, see <a href="docs">its documents</a>.</p></header>"""
WAITS = draw_hint("Choose, drop or paste a picture. Its score appears here.")


class _Shared(NamedTuple):
    """Common ground of all tabs.

    Attributes:
        service: Checkpoints that score.
        menu: Menu of the checkpoints.
        listen: Options of an event, which puts it into the one queue.
    """

    service: Service
    menu: Menu
    listen: dict[str, Any]

    def open(self, upload: Upload) -> LazyPicture:
        """Return the picture of an upload."""
        return self.service.make_picture(upload.name, lambda: upload.path)

    def find(self, name: str) -> Checkpoint:
        """Return the checkpoint of a name, or refuse the name."""
        try:
            return self.service.find(name)
        except ValueError as error:
            raise make_refusal(str(error)) from error

    def score(self, uploads: list[Upload], name: str) -> tuple[Iterator[dict[str, Any]], Checkpoint]:
        """Return the rows of uploads, as they come, and the checkpoint of a name."""
        checkpoint = self.find(name)
        return self.service.score(map(self.open, uploads), checkpoint), checkpoint


def make_page(service: Service, *, max_download: int | None = None) -> gr.Blocks:
    """Make the page.

    Args:
        service: Checkpoints that score.
        max_download: Largest picture that a client of the API may name by a public address, in bytes; None refuses
            addresses.
    """
    names = list(service.checkpoints)
    with gr.Blocks(title=TITLE, delete_cache=(CLEANING_SECONDS, OLD_SECONDS)) as page:
        gr.HTML(HEAD)
        menu = Menu(names, value=names[0], label="Checkpoint", elem_id="model", visible=len(names) > 1)
        listen = {"concurrency_id": ONE_AT_A_TIME, "api_visibility": "private", "show_progress": "minimal"}
        shared = _Shared(service, menu, listen)
        with gr.Tabs():
            with gr.Tab("Score"):
                _add_score(shared)
            with gr.Tab("Compare"):
                _add_comparison(shared)
            with gr.Tab("Many"):
                _add_table(shared)
        _add_endpoint(shared, max_download)
    return page


def _add_score(shared: _Shared) -> None:
    """Add the tab of one picture: its score first, then which regions count, then what faults would do."""
    with gr.Row(equal_height=False):
        with gr.Column(min_width=300):
            picture = Picture(label="Picture", elem_id="picture", sources=["upload", "clipboard"], height=340)
        with gr.Column(min_width=300):
            score = gr.HTML(WAITS, elem_id="score")
            signature = gr.HTML(elem_id="signature")
    with gr.Row(equal_height=False):
        with gr.Column(min_width=300):
            regions = gr.HTML(elem_id="map")
        with gr.Column(min_width=300):
            faults = gr.HTML(elem_id="faults")

    def show_score(upload: Upload | None, name: str) -> tuple[str, str, str, str]:
        if upload is None:
            return WAITS, "", "", ""
        rows, checkpoint = shared.score([upload], name)
        row = next(rows)
        copy = "" if row["error"] else _draw_unseen(shared.open(upload), upload)
        return copy + draw_score(row, checkpoint), draw_signature(checkpoint), "", ""

    def show_map(upload: Upload | None, name: str) -> str:
        return "" if upload is None else _explain_regions(shared, upload, name)

    def show_faults(upload: Upload | None, name: str) -> Iterator[str]:
        yield from () if upload is None else _explain_faults(shared, upload, name)

    inputs = [picture, shared.menu]
    scored = gr.on(
        [picture.change, shared.menu.change], show_score, inputs, [score, signature, regions, faults], **shared.listen
    )
    scored.then(show_map, inputs, regions, **shared.listen).then(show_faults, inputs, faults, **shared.listen)


def _draw_unseen(picture: LazyPicture, upload: Upload) -> str:
    """Return a copy of a picture that browsers do not show; nothing for any other one."""
    if read_header(upload.path, picture.name).format in SEEN:
        return ""
    return f'<img class="mq-copy" alt="The picture that was uploaded" src="{draw_picture(picture.open())}">'


def _explain_regions(shared: _Shared, upload: Upload, name: str) -> str:
    """Return the quality map of a picture; nothing if it has no score, and a sentence if there is no map."""
    try:
        image = shared.service.shrink(shared.open(upload))
    except ValueError:  # the card of the score says why
        return ""
    checkpoint = shared.find(name)
    try:
        found = shared.service.map_quality(image, checkpoint)
    except ValueError as error:
        return draw_hint(str(error))
    return "" if found is None else draw_map(found, image, checkpoint.num_digits)


def _explain_faults(shared: _Shared, upload: Upload, name: str) -> Iterator[str]:
    """Yield what faults would do to a picture, once more after each fault; nothing if it has no score."""
    try:
        image = shared.service.shrink(shared.open(upload))
        done, checkpoint = [], shared.find(name)
        for fault in shared.service.score_faults(image, checkpoint):
            done.append(fault)
            yield draw_faults(done, image.size, checkpoint.num_digits)
    except ValueError:
        yield ""


def _add_comparison(shared: _Shared) -> None:
    """Add the tab of two pictures and the difference of their scores."""
    with gr.Row(equal_height=False):
        sides = [
            Picture(label=label, elem_id=label.lower(), sources=["upload", "clipboard"], height=280, min_width=300)
            for label in ("Left", "Right")
        ]
    button = gr.Button("Compare", variant="primary", elem_id="compare")
    verdict = gr.HTML(draw_hint("Choose two pictures."), elem_id="verdict")

    def compare(left: Upload | None, right: Upload | None, name: str) -> str:
        if left is None or right is None:
            return draw_error("Two pictures are needed. Choose a left one and a right one.")
        rows, checkpoint = shared.score([left, right], name)
        return draw_verdict(next(rows), next(rows), checkpoint)

    button.click(compare, [*sides, shared.menu], verdict, **shared.listen)


def _add_table(shared: _Shared) -> None:
    """Add the tab of many pictures, with a table that can be saved."""
    files = Files(label="Pictures", elem_id="files", file_count="multiple", height=240)
    button = gr.Button("Score all", variant="primary", elem_id="run")
    table = gr.HTML(draw_hint(f"Choose up to {MAX_FILES} pictures."), elem_id="table")
    saved = gr.DownloadButton("Save as CSV", elem_id="csv", visible=False)

    def run(uploads: list[Upload], name: str) -> Iterator[tuple[str, Any]]:
        hidden = gr.DownloadButton(visible=False)
        if not uploads or len(uploads) > MAX_FILES:
            yield draw_error(f"Choose 1 to {MAX_FILES} pictures, got {len(uploads)}."), hidden
            return
        stream, checkpoint = shared.score(uploads, name)
        done: list[dict[str, Any]] = []
        for row in stream:
            done.append(row)
            yield draw_table(done, len(uploads), checkpoint), hidden
        path = Path(mkdtemp(dir=saved.GRADIO_CACHE)) / CSV
        rows = (tuple(map(_make_cell, row.values())) for row in done)
        write_table(path, find_kinds(checkpoint.columns), rows)
        yield draw_table(done, len(uploads), checkpoint), gr.DownloadButton(value=str(path), visible=True)

    button.click(run, [files, shared.menu], [table, saved], **shared.listen)


def _make_cell(value: Any) -> Any:
    """Return a value as a cell that no spreadsheet takes for a formula: `./` before a name changes no path."""
    return f"./{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _add_endpoint(shared: _Shared, max_download: int | None) -> None:
    """Add the one endpoint of the page's API, which is also the tool: a picture, and its row."""

    class Input(Picture):
        """Input of the API, which may name a public address if these are wanted."""

    Input.max_download = max_download
    with gr.Row(visible=False):
        picture, row, trigger = Input(label="picture"), gr.JSON(label="row"), gr.Button()

    def score(picture: Upload | None, model: str) -> dict[str, Any]:
        """Score the quality of a photograph, without a reference.

        Args:
            picture: Photograph.
            model: Checkpoint that scores.

        Returns:
            Score, its place and its signature, or the error in its place.
        """
        if picture is None:
            raise make_refusal("A picture is needed. Upload one.")
        return next(shared.score([picture], model)[0])

    listen = {**shared.listen, "api_visibility": "public", "api_name": "score"}
    trigger.click(score, [picture, shared.menu], row, **listen)
