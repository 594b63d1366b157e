# SPDX-License-Identifier: Apache-2.0
"""Command `musiq serve`: a page and an HTTP route that score pictures."""

import argparse
from typing import Any

from transformers.utils import logging

from ..app.serving import serve
from ..app.settings import ServeSettings
from ..common.arguments import positive
from ..common.terminal import print_line
from ..models.auto import DEFAULT_CHECKPOINT
from .words import read_limit

DESCRIPTION = """\
Serve a page that scores pictures in a browser, and a route for programs.

musiq serve                                          http://127.0.0.1:7860
musiq serve -m musiq-lite-biq2021 -m runs/mine       a menu of checkpoints
musiq serve --host 0.0.0.0 --port 8000               for others too; docs/serving.md tells what that needs

curl -F files=@photo.jpg -F files=@scan.png http://127.0.0.1:7860/v1/score

The page scores one picture, with a map of its regions and what faults would do, compares two, and scores many into a
table. Scores, columns and errors are those of musiq score. /docs describes the route, /healthz tells that it is up.
Uploads are deleted after an hour, and with the server, which Ctrl-C ends.
"""


def add_arguments(parser: Any) -> None:
    """Add the arguments."""
    parser.add_argument(
        "-m", "--model", action="append", help=f"checkpoint ({DEFAULT_CHECKPOINT.name}); several make a menu"
    )
    parser.add_argument("--host", default="127.0.0.1", help="name or address to listen on (127.0.0.1: this machine)")
    parser.add_argument("--port", type=positive, default=7860, metavar="N", help="port to listen on (7860)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    parser.add_argument(
        "--max_megapixels",
        type=read_limit,
        metavar="M",
        help="largest picture, in millions of pixels (default: 25 if every checkpoint shrinks larger pictures, as the "
        "embedded default does, else 12.5)",
    )
    parser.add_argument(
        "--max_megabytes", type=positive, default=20, metavar="M", help="largest file, in millions of bytes (20)"
    )
    parser.add_argument(
        "--queue", type=positive, default=16, metavar="N", help="requests that wait; more are refused (16)"
    )
    parser.add_argument(
        "--mcp", action="store_true", help="offer the score as a tool of the Model Context Protocol (extra mcp)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C, and say where.

    Raises:
        ValueError: If a setting, the address or a checkpoint cannot be used.
        ImportError: If gradio is missing.
    """
    settings = ServeSettings(
        arguments.model or [DEFAULT_CHECKPOINT.name],
        host=arguments.host,
        port=arguments.port,
        device=arguments.device,
        max_megapixels=arguments.max_megapixels,
        max_megabytes=arguments.max_megabytes,
        queue=arguments.queue,
        mcp=arguments.mcp,
    )
    logging.disable_progress_bar()
    serve(settings, on_start=lambda address: print_line(f"musiq serve: {address} (Ctrl-C ends it)"))
    print_line("musiq serve: stopped.")
    return 0
